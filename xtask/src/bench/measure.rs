//! Running programs in turns and taking their time and memory.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Ticks a second in which the kernel tells of times: the same on every x86 machine.
const TICKS: f64 = 100.0;

/// How long a side does something short before it is the other's turn.
pub(super) const TURN: Duration = Duration::from_millis(300);

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Seconds from start to end.
    pub(super) wall: f64,
    /// Seconds of processor time in programs.
    pub(super) user: f64,
    /// Seconds of processor time in the kernel.
    pub(super) system: f64,
    /// Largest resident memory of any one process of the run, in bytes; 0 where nothing was measured.
    pub(super) peak: u64,
}

impl Sample {
    /// What a process that runs took since its start, apart from wall time (proc_pid_stat(5), proc_pid_status(5)).
    ///
    /// # Errors
    /// Where there is no such process.
    pub(super) fn so_far(pid: u64) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        // The name before may hold anything; fields are counted from behind it.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut seconds = || -> Result<f64> {
            let ticks: f64 = fields.next().context("the process has no times")?.parse()?;
            Ok(ticks / TICKS)
        };
        let (user, system) = (seconds()?, seconds()?);
        Ok(Self { wall: 0.0, user, system, peak: memory(pid, "VmHWM:")? })
    }

    /// What several runs took that followed each other.
    pub(super) fn one_after_the_other(samples: &[Self]) -> Self {
        samples.iter().fold(Self::default(), |all, one| Self {
            wall: all.wall + one.wall,
            user: all.user + one.user,
            system: all.system + one.system,
            peak: all.peak.max(one.peak),
        })
    }

    /// A run of which only the wall time is known.
    pub(super) fn of_wall(wall: Duration) -> Self {
        Self { wall: wall.as_secs_f64(), ..Self::default() }
    }
}

/// Runs in turns, ours first.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    pub(super) ours: Vec<Sample>,
    pub(super) anchor: Vec<Sample>,
}

impl Pairs {
    /// Runs both so many times in turns, after one run of each that does not count.
    ///
    /// # Errors
    /// The first of either's.
    pub(super) fn take(
        pairs: u16,
        mut ours: impl FnMut() -> Result<Sample>,
        mut anchor: impl FnMut() -> Result<Sample>,
    ) -> Result<Self> {
        ours()?;
        anchor()?;
        let mut all = Self::default();
        for _ in 0..pairs {
            all.ours.push(ours()?);
            all.anchor.push(anchor()?);
        }
        Ok(all)
    }

    /// How many times as long as ours the anchor took, each pair, ascending.
    pub(super) fn ratios(&self) -> Vec<f64> {
        let mut ratios: Vec<_> =
            self.anchor.iter().zip(&self.ours).map(|(anchor, ours)| anchor.wall / ours.wall).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    /// The median of [`Self::ratios`].
    pub(super) fn ratio(&self) -> f64 {
        median(&self.ratios())
    }
}

/// The middle one of ascending numbers.
pub(super) fn median(ascending: &[f64]) -> f64 {
    ascending.get(ascending.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of wall times.
pub(super) fn median_wall(samples: &[Sample]) -> f64 {
    let mut walls: Vec<_> = samples.iter().map(|sample| sample.wall).collect();
    walls.sort_by(f64::total_cmp);
    median(&walls)
}

/// Does something short again and again for [`TURN`]; gives the time of one.
///
/// # Errors
/// Its own.
pub(super) fn repeated(mut once: impl FnMut() -> Result<()>) -> Result<Sample> {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < TURN {
        once()?;
        count += 1;
    }
    Ok(Sample::of_wall(start.elapsed() / count))
}

/// Runs a program to its end; gives what it took and what it printed.
///
/// # Errors
/// Where it cannot be started, or does not end with success: with what it said.
pub(super) fn timed(command: &mut Command) -> Result<(Sample, String)> {
    let name = format!("{command:?}");
    let mut complaints = tempfile::tempfile()?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(complaints.try_clone()?)
        .spawn()
        .with_context(|| format!("failed to start {name}"))?;
    let mut output = String::new();
    child.stdout.take().context("the output was asked for")?.read_to_string(&mut output)?;
    let (status, mut sample) = reap(child)?;
    sample.wall = start.elapsed().as_secs_f64();
    if !status.success() {
        let mut said = String::new();
        complaints.rewind()?;
        complaints.read_to_string(&mut said)?;
        bail!("{name} ended with {status}: {}", said.trim());
    }
    Ok((sample, output))
}

/// Runs a program that measures itself, and prints the seconds that one of what it does took.
///
/// # Errors
/// Those of [`timed`], and where it prints something else.
pub(super) fn self_timed(command: &mut Command) -> Result<Sample> {
    let (_, said) = timed(command)?;
    let wall = said.trim().parse().with_context(|| format!("{command:?} printed {said:?}, no number of seconds"))?;
    Ok(Sample { wall, ..Sample::default() })
}

/// Waits for a child and gives what the kernel counted for it and the children that it waited for.
#[expect(unsafe_code, reason = "the standard library does not tell what a child used")]
fn reap(child: Child) -> Result<(ExitStatus, Sample)> {
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: the structure is plain integers, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the right types; the child is ours and nobody else waits for it.
        let done = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if done == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        ensure!(error.kind() == std::io::ErrorKind::Interrupted, "failed to wait for a child: {error}");
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let peak = u64::try_from(usage.ru_maxrss)? << 10;
    let sample = Sample { wall: 0.0, user: seconds(usage.ru_utime), system: seconds(usage.ru_stime), peak };
    Ok((ExitStatus::from_raw(status), sample))
}

/// A kind of memory of a process in bytes, as its status names it.
///
/// # Errors
/// Where there is no such process, or it has none.
pub(super) fn memory(pid: u64, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? << 10)
}

/// How idle the machine was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle(f64);

impl Idle {
    /// Watches all processors for a second.
    ///
    /// # Errors
    /// Where the kernel's counters cannot be read.
    pub(super) fn over_a_second() -> Result<Self> {
        let (idle, all) = Self::counters()?;
        sleep(Duration::from_secs(1));
        let (idle_after, all_after) = Self::counters()?;
        Ok(Self((idle_after - idle) / (all_after - all).max(1.0)))
    }

    /// Between 0 and 1.
    pub(super) fn share(self) -> f64 {
        self.0
    }

    /// Idle and all ticks of all processors (proc_stat(5); the last two fields are counted in others already).
    fn counters() -> Result<(f64, f64)> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).map_while(|field| field.parse().ok()).collect();
        let idle = ticks.get(3).context("/proc/stat has no idle time")?;
        Ok((*idle, ticks.iter().sum()))
    }
}
