//! From `caveau run` to the first HTTP answer of nginx, against a bare boot of the same kernel that serves the same page.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Bed,
    bare::{Bare, Server, unpack, wait_for_answer},
    free_port,
    measure::{Pairs, Sample, median, memory, timed},
    report::{Report, line},
};
use crate::process::output;
use crate::{guest, images, images_folder};

/// How many times as long as the bare boot it should take at most.
const AIM: f64 = 1.3;

/// Most resident memory that the agent should have.
const AGENT_AIM: u64 = 16 << 20;

/// The group.
const NAME: &str = "bench";

struct Product<'a> {
    bed: &'a Bed<'a>,
    guest: &'a Path,
    image: String,
}

/// What one start left to be read.
struct Started {
    /// Until the first answer: wall time, and the processor time and memory of `caveau run` and QEMU.
    sample: Sample,
    answered: Duration,
    returned: Duration,
    record: Value,
    agent_bytes: Option<u64>,
    qemu_bytes: u64,
    page: String,
}

impl Product<'_> {
    fn caveau(&self, arguments: &[&str]) -> Command {
        self.bed.caveau(self.guest, arguments)
    }

    /// Starts, waits for the first answer, looks, and ends. `look` sees the running group's QEMU.
    fn start(&self, look: &mut dyn FnMut(u64, &str) -> Result<()>) -> Result<Started> {
        // Another one each time: connections of the last start may still hold theirs.
        let port = free_port()?;
        let publish = format!("{port}:80");
        let start = Instant::now();
        let (client, _) = timed(&mut self.caveau(&["run", "-d", "--name", NAME, "-p", &publish, &self.image]))?;
        let returned = start.elapsed();
        let result = self.look(port, start, (client, returned), look);
        output(&mut self.caveau(&["rm", "--force", NAME]))?;
        result
    }

    fn look(
        &self,
        port: u16,
        start: Instant,
        (client, returned): (Sample, Duration),
        look: &mut dyn FnMut(u64, &str) -> Result<()>,
    ) -> Result<Started> {
        let (answered, page) = wait_for_answer(port, start, None)?;
        let inspected: Value = serde_json::from_str(&output(&mut self.caveau(&["inspect", NAME]))?)?;
        let record = inspected["record"].clone();
        let qemu = record["qemu_pid"].as_u64().context("the record has no qemu_pid")?;
        let machine = Sample::so_far(qemu)?;
        let sample = Sample {
            wall: answered.as_secs_f64(),
            user: client.user + machine.user,
            system: client.system + machine.system,
            peak: client.peak.max(machine.peak),
        };
        look(qemu, &page)?;
        // The default policy need not allow statistics; that is told, not guessed.
        let stats = output(&mut self.caveau(&["--json", "stats", NAME])).ok();
        let stats = stats.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let agent_bytes = stats.and_then(|stats| stats["agent_memory_bytes"].as_u64());
        let qemu_bytes = memory(qemu, "VmRSS:")?;
        Ok(Started { sample, answered, returned, record, agent_bytes, qemu_bytes, page })
    }
}

/// The bench.
///
/// # Errors
/// Where the product or the bare machine does not start.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let guest = guest::build_once(bed.root, bed.setup)?;
    let layout =
        |name| images::build_one(&images_folder(bed.root), name, &bed.setup.apt_config, &|step| eprintln!("   {step}"));
    let image = layout("nginx")?;
    unpack(&layout("busybox")?, &bed.work.join("busybox"))?;
    let busybox = bed.work.join("busybox/bin/busybox");
    let product = Product { bed, guest: &guest, image: format!("oci:{}", image.display()) };
    output(&mut product.caveau(&["image", "pull", &product.image]))?;
    let mut machines = None;
    // The first start fills caches, and shows the bare machines QEMU's flags.
    let first = product.start(&mut |qemu, page| {
        let like = |server| Bare::like(qemu, &guest, &bed.setup.kernel, &busybox, server, &bed.work);
        machines = Some((like(Server::Busybox { page })?, like(Server::Image { layout: &image })?));
        Ok(())
    })?;
    let (bare, with_image) = machines.context("the first start showed nothing")?;
    let page = first.page.clone();
    let mut last = first;
    // The second bare machine has its turn behind the first one's.
    let mut same_server = Vec::new();
    let pairs = Pairs::take(
        bed.pairs,
        || {
            let started = product.start(&mut |_, _| Ok(()))?;
            let sample = started.sample;
            ensure!(started.page == page, "the page changed");
            last = started;
            Ok(sample)
        },
        || {
            let sample = bare.first_answer(free_port()?, &page)?;
            same_server.push(with_image.first_answer(free_port()?, &page)?);
            Ok(sample)
        },
    )?;
    // The first of each does not count.
    same_server.remove(0);
    Ok(report(pairs, same_server, &last))
}

fn report(pairs: Pairs, same_server: Vec<Sample>, last: &Started) -> Report {
    let mut report = Report::new("start", "caveau run to nginx's first answer", "bare boot to the same page");
    let times = median(&times_as_long(&pairs));
    let same_server = Pairs { ours: pairs.ours.clone(), anchor: same_server };
    report.pairs(pairs);
    report.aim(format!("at most {AIM} times as long"), format!("{times:.2}"), times <= AIM);
    match last.agent_bytes {
        Some(bytes) => report.aim("agent's resident memory below 16 MiB", mib(bytes), bytes < AGENT_AIM),
        None => report.aim("agent's resident memory below 16 MiB", "no answer of `caveau stats`", false),
    }
    report.fact("QEMU's resident memory", mib(last.qemu_bytes));
    report.fact("processor time and peak memory", "QEMU's until the first answer; ours with that of `caveau run`");
    let longer = times_as_long(&same_server);
    let (least, most) = (longer.first().copied().unwrap_or(f64::NAN), longer.last().copied().unwrap_or(f64::NAN));
    let times = format!("{:.2} times as long with caveau ({least:.2} to {most:.2})", median(&longer));
    report.fact("bare boot that runs the image's own nginx", format!("{}; {times}", line(&same_server.anchor)));
    stages(&mut report, last);
    report
}

/// How many times as long as the anchor ours took, each pair, ascending.
fn times_as_long(pairs: &Pairs) -> Vec<f64> {
    pairs.ratios().iter().rev().map(|ratio| 1.0 / ratio).collect()
}

/// The table of where the time of the last start went, all by the host's clock.
fn stages(report: &mut Report, last: &Started) {
    let mut before = 0;
    for stage in last.record["stages"].as_array().into_iter().flatten() {
        let (name, done) = (stage["name"].as_str().unwrap_or_default(), stage["done_us"].as_u64().unwrap_or(before));
        if name == "reach the agent in the guest" {
            guest_steps(report, &last.record["guest"], before, done);
        } else {
            report.row(name, milliseconds(done.saturating_sub(before)));
        }
        before = done;
    }
    let supervised = Duration::from_micros(before);
    report.row("caveau run around that", milliseconds_of(last.returned.saturating_sub(supervised)));
    report.row("from its return to the first answer", milliseconds_of(last.answered.saturating_sub(last.returned)));
    report.row("all", milliseconds_of(last.answered));
}

/// What the guest did between the host's `before` and `done`. Its clock starts with the kernel, and its last step ends when it
/// answers: from that follows when its clock started.
fn guest_steps(report: &mut Report, guest: &Value, before: u64, done: u64) {
    let steps: Vec<(&str, u64)> = guest["steps"].as_array().into_iter().flatten().map(step).collect();
    let last = steps.last().map_or(0, |(_, at)| *at);
    let kernel = guest["boot_ns"].as_u64().unwrap_or_default() / 1000;
    report.row("firmware, to the kernel's start", milliseconds(done.saturating_sub(before).saturating_sub(last)));
    report.row("kernel, to the agent", milliseconds(kernel));
    let mut at = kernel;
    for (name, end) in steps {
        report.row(format!("agent: {name}"), milliseconds(end.saturating_sub(at)));
        at = end;
    }
}

/// Name and end in microseconds.
fn step(value: &Value) -> (&str, u64) {
    (value["name"].as_str().unwrap_or_default(), value["done_ns"].as_u64().unwrap_or_default() / 1000)
}

fn milliseconds_of(duration: Duration) -> String {
    milliseconds(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.0} ms", microseconds as f64 / 1e3)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
