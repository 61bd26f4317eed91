//! Disks and network of a running group, with the guest's own kernel and with the distribution's.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Bed, free_port,
    kernels::{Guests, Product},
    measure::median,
    report::Report,
};
use crate::process::output;

/// What the container runs.
const PROGRAM: &str = include_str!("io.py");

/// Bytes that go each way over the network: as many as the program sends and expects.
const BYTES: usize = 32 << 20;

/// How long the container may take for its disks.
const PATIENCE: Duration = Duration::from_secs(300);

/// The group.
const NAME: &str = "bench-io";

/// Results by name: megabytes or operations a second.
type Rates = BTreeMap<String, f64>;

impl Product<'_> {
    /// One group's rates.
    fn rates(&self) -> Result<Rates> {
        let port = free_port()?;
        let publish = format!("{port}:8000");
        let options = ["run", "-d", "--name", NAME, "--memory", "512M", "--user", "0", "-p", &publish, self.image];
        output(&mut self.caveau(&[&options[..], &["--", "-c", PROGRAM]].concat()))?;
        let rates = self.disks().and_then(|rates| Ok(rates.into_iter().chain(network(port)?).collect()));
        output(&mut self.caveau(&["rm", "--force", NAME]))?;
        rates
    }

    /// What the container printed of its disks.
    fn disks(&self) -> Result<Rates> {
        let start = Instant::now();
        loop {
            let printed = output(&mut self.caveau(&["logs", NAME]))?;
            if let Some(line) = printed.lines().find(|line| line.starts_with('{')) {
                return serde_json::from_str(line).with_context(|| format!("{line:?} is no result"));
            }
            let ended = output(&mut self.caveau(&["inspect", NAME]))?;
            let inspected: Value = serde_json::from_str(&ended)?;
            ensure!(inspected["status"] == "running", "the container ended without a result: {printed}");
            ensure!(start.elapsed() < PATIENCE, "no result within {} s: {printed}", PATIENCE.as_secs());
            sleep(Duration::from_millis(500));
        }
    }
}

/// Bytes from the container, then to it, through the published port.
fn network(port: u16) -> Result<Rates> {
    let mut stream = connect(port)?;
    let mut buffer = vec![0; 1 << 20];
    let start = Instant::now();
    stream.read_exact(&mut buffer[..1])?;
    let mut left = BYTES - 1;
    while left > 0 {
        let most = left.min(buffer.len());
        let read = stream.read(&mut buffer[..most])?;
        ensure!(read > 0, "the container's connection ended {left} bytes early");
        left -= read;
    }
    let from = rate(start);
    let start = Instant::now();
    for _ in 0..BYTES / buffer.len() {
        stream.write_all(&buffer)?;
    }
    stream.read_exact(&mut buffer[..1])?;
    let to = rate(start);
    Ok([("network, from the group, MB/s".to_owned(), from), ("network, to the group, MB/s".to_owned(), to)].into())
}

/// A connection that the container has accepted: QEMU accepts before there is somebody to accept it in the guest.
fn connect(port: u16) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        // One whose server was not there yet ends at once.
        match stream.peek(&mut [0]) {
            Ok(1) => return Ok(stream),
            _ => ensure!(start.elapsed() < Duration::from_secs(60), "nothing answers in the group on port {port}"),
        }
        sleep(Duration::from_millis(100));
    }
}

/// Megabytes a second since then.
fn rate(start: Instant) -> f64 {
    BYTES as f64 / 1e6 / start.elapsed().as_secs_f64()
}

/// The bench.
///
/// # Errors
/// Where a guest cannot be built, or a group does not do what it should.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let guests = Guests::prepare(bed, "python3")?;
    let [ours, theirs] = guests.products();
    let (mut with_ours, mut with_theirs) = (Vec::new(), Vec::new());
    for _ in 0..bed.pairs {
        with_ours.push(ours.rates()?);
        with_theirs.push(theirs.rates()?);
    }
    let mut report = Report::new("io", "disks and network, own kernel", "distribution's kernel");
    for name in with_ours.first().into_iter().flat_map(BTreeMap::keys) {
        let [ours, theirs] = [&with_ours, &with_theirs].map(|all| middle(all, name));
        report.fact(name, format!("{ours:.1}, and {theirs:.1} with the distribution's: {:.2}", ours / theirs));
    }
    Ok(report)
}

/// The median of one result.
fn middle(all: &[Rates], name: &str) -> f64 {
    let mut found: Vec<f64> = all.iter().filter_map(|rates| rates.get(name).copied()).collect();
    found.sort_by(f64::total_cmp);
    median(&found)
}
