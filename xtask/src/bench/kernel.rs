//! The guest's own kernel against the distribution's: time to the agent, a whole run, QEMU's memory.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use caveau_guest_image::{GuestFolder, Tee};
use serde_json::Value;

use super::{
    Bed,
    bare::same_flags,
    kernels::{Guests, Product},
    measure::{self, Pairs, Sample, median},
    report::Report,
};
use crate::process::output;

/// Most of the distribution kernel's time, under OVMF and under SeaBIOS, that ours may take to the agent.
const OF_OVMF: f64 = 0.25;
const OF_SEABIOS: f64 = 0.33;

/// Most of its time that a whole run may take, and most of its memory.
const OF_RUN: f64 = 0.5;
const OF_MEMORY: f64 = 0.5;

/// What the agent says first.
const FIRST_WORDS: &str = "caveau-agent ";

/// Firmware that starts a kernel as it is shipped.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// The group.
const NAME: &str = "bench-kernel";

impl Product<'_> {
    /// Runs the image to its end.
    fn run(&self) -> Result<Sample> {
        let start = Instant::now();
        output(&mut self.caveau(&["run", "--rm", "--memory", "256M", self.image, "--", "true"]))?;
        Ok(Sample::of_wall(start.elapsed()))
    }

    /// Starts a group that stays, lets `look` see its QEMU's process, and ends it.
    fn look<T>(&self, look: impl FnOnce(u64) -> Result<T>) -> Result<T> {
        let sleep = ["run", "-d", "--name", NAME, "--memory", "256M", self.image, "--", "sleep", "600"];
        output(&mut self.caveau(&sleep))?;
        let looked = self.qemu().and_then(look);
        output(&mut self.caveau(&["rm", "--force", NAME]))?;
        looked
    }

    fn qemu(&self) -> Result<u64> {
        let inspected: Value = serde_json::from_str(&output(&mut self.caveau(&["inspect", NAME]))?)?;
        inspected["record"]["qemu_pid"].as_u64().context("the record has no qemu_pid")
    }
}

/// A machine that starts a guest's parts, without anything that answers it.
struct Machine<'a> {
    program: &'a Path,
    arguments: Vec<String>,
}

impl Machine<'_> {
    /// From the start of QEMU to the agent's first words, by this process's clock.
    fn to_the_agent(&self) -> Result<Sample> {
        let start = Instant::now();
        let mut child = Command::new(self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}", self.program.display()))?;
        let heard = hear(&mut child);
        let elapsed = start.elapsed();
        // A process that has ended already needs neither.
        let _ = child.kill();
        let _ = child.wait();
        heard?;
        Ok(Sample::of_wall(elapsed))
    }
}

/// Reads the console until the agent speaks.
fn hear(child: &mut Child) -> Result<()> {
    let mut console = child.stdout.take().context("the console was asked for")?;
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&heard).contains(FIRST_WORDS) {
        let read = console.read(&mut buffer)?;
        if read == 0 {
            bail!("the machine ended before the agent: {}", String::from_utf8_lossy(&heard).trim());
        }
        heard.extend(&buffer[..read]);
    }
    Ok(())
}

/// How a machine comes to its kernel.
enum Entry {
    /// By PVH, under SeaBIOS.
    Pvh,
    /// The image as shipped, under this firmware.
    Image(PathBuf),
}

/// QEMU's arguments for a guest's parts: the flags of a running group, and this entry.
fn arguments(same: &[String], guest: &Path, entry: &Entry) -> Result<Vec<String>> {
    let folder = GuestFolder::open(guest)?;
    let files = folder.tee(Tee::EmulatedSnp)?;
    let (kernel, firmware) = match entry {
        Entry::Pvh => (guest.join("vmlinux"), guest.join("bios-256k.bin")),
        Entry::Image(firmware) => (guest.join("vmlinuz"), firmware.clone()),
    };
    let command_line = fs::read_to_string(&files.cmdline)?;
    let mut all: Vec<String> = Vec::new();
    let mut words = same.iter();
    while let Some(word) = words.next() {
        all.push(word.clone());
        if word == "-append" {
            words.next();
            all.push(command_line.clone());
        }
    }
    let path = |path: &Path| path.display().to_string();
    all.extend(["-L".to_owned(), path(guest), "-bios".to_owned(), path(&firmware)]);
    all.extend(["-kernel".to_owned(), path(&kernel), "-initrd".to_owned(), path(&files.initrd)]);
    all.extend(["-serial", "stdio", "-netdev", "user,id=net0,ipv6=off"].map(str::to_owned));
    Ok(all)
}

/// The bench.
///
/// # Errors
/// Where a guest cannot be built or does not start.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let guests = Guests::prepare(bed, "busybox")?;
    let [ours, theirs] = guests.products();
    let (own, distribution) = (&guests.own, &guests.distribution);
    ensure!(Path::new(OVMF).is_file(), "{OVMF} is missing: install the package ovmf");
    let (program, same) = ours.look(|qemu| Ok((fs::read_link(format!("/proc/{qemu}/exe"))?, same_flags(qemu)?)))?;
    let machine = |guest: &Path, entry: &Entry| -> Result<Machine<'_>> {
        Ok(Machine { program: &program, arguments: arguments(&same, guest, entry)? })
    };
    let seabios = Entry::Image(own.join("bios-256k.bin"));
    let our_machine = machine(own, &Entry::Pvh)?;
    let ovmf = machine(distribution, &Entry::Image(OVMF.into()))?;
    let bios = machine(distribution, &seabios)?;
    let pvh = machine(distribution, &Entry::Pvh)?;

    let mut report = Report::new("kernel", "QEMU's start to the agent, own kernel", "distribution's kernel under OVMF");
    let pairs = bed.pairs;
    let take = |other: &Machine<'_>| Pairs::take(pairs, || our_machine.to_the_agent(), || other.to_the_agent());
    let (of_ovmf, of_bios, of_pvh) = (take(&ovmf)?, take(&bios)?, take(&pvh)?);
    share(&mut report, "time to the agent, of the distribution kernel's under OVMF", &of_ovmf, Some(OF_OVMF));
    share(
        &mut report,
        "time to the agent, of the distribution kernel's image under SeaBIOS",
        &of_bios,
        Some(OF_SEABIOS),
    );
    share(&mut report, "time to the agent, of the distribution kernel's by PVH", &of_pvh, None);
    report.pairs(of_ovmf);
    let runs = Pairs::take(pairs, || ours.run(), || theirs.run())?;
    share(&mut report, "`caveau run` of busybox to its exit", &runs, Some(OF_RUN));
    memory(&mut report, [&ours, &theirs], pairs)?;
    Ok(report)
}

/// The part of the anchor's time that ours takes, against the most it may.
fn share(report: &mut Report, what: &str, pairs: &Pairs, most: Option<f64>) {
    let share = 1.0 / pairs.ratio();
    let seconds = |samples: &[Sample]| {
        let mut walls: Vec<f64> = samples.iter().map(|sample| sample.wall).collect();
        walls.sort_by(f64::total_cmp);
        median(&walls)
    };
    let found = format!("{share:.3} ({:.3} s of {:.3} s)", seconds(&pairs.ours), seconds(&pairs.anchor));
    match most {
        Some(most) => report.bar(format!("{what}: at most {most}"), found, share <= most),
        None => report.fact(what, found),
    }
}

/// QEMU's largest resident memory for a group of 256 MiB.
fn memory(report: &mut Report, [ours, theirs]: [&Product<'_>; 2], pairs: u16) -> Result<()> {
    let (mut own, mut distribution) = (Vec::new(), Vec::new());
    for _ in 0..pairs.min(3) {
        own.push(ours.look(peak_mib)?);
        distribution.push(theirs.look(peak_mib)?);
    }
    own.sort_by(f64::total_cmp);
    distribution.sort_by(f64::total_cmp);
    let share = median(&own) / median(&distribution);
    let found = format!("{share:.3} ({:.1} MiB of {:.1} MiB)", median(&own), median(&distribution));
    report.bar(format!("QEMU's peak memory with a group of 256 MiB: at most {OF_MEMORY}"), found, share <= OF_MEMORY);
    Ok(())
}

/// A process's largest resident memory so far, in MiB.
fn peak_mib(process: u64) -> Result<f64> {
    Ok(measure::memory(process, "VmHWM:")? as f64 / f64::from(1 << 20))
}
