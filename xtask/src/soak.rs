//! `cargo xtask soak`: many starts and stops, many questions to one group, and many groups at once, with nothing left over.
//!
//! A group's processes end with it, and their descriptors with them; so descriptors are counted in a group that lives on while
//! it is asked again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    images, images_folder,
    process::{headline, output},
    product::Product,
    setup,
};

/// Memory that one group of [`Soak::start`] takes: its VM's, and that of QEMU and the supervisor around it.
const GROUP_BYTES: u64 = 512 << 20;

/// How long what was done for a caller may linger after the answer.
const SETTLING: Duration = Duration::from_secs(10);

/// Runs it: `cycles` starts and stops, as many questions to one group, then `groups` at once.
///
/// # Errors
/// Where a group does not do what it should, or something is left over.
pub(crate) fn soak(root: &Path, cycles: u32, groups: u32) -> Result<()> {
    let setup = setup::setup(root)?;
    let product = Product::build(root, &setup, "soak")?;
    let image = images::build_one(&images_folder(root), "busybox", &setup.apt_config, &|step| eprintln!("   {step}"))?;
    let soak = Soak { product, image: format!("oci:{}", image.display()) };
    let soaked = soak.all(cycles, groups);
    let cleaned = soak.product.remove_groups();
    soaked?;
    cleaned?;
    headline("nothing is left over: no process, no file, no mount, no descriptor");
    Ok(())
}

/// The soak's product and image.
struct Soak {
    product: Product,
    image: String,
}

/// What a process has open: how many of each kind.
type Descriptors = BTreeMap<String, usize>;

impl Soak {
    fn all(&self, cycles: u32, groups: u32) -> Result<()> {
        headline(&format!("{cycles} starts and stops"));
        // The first ones fill caches, which stay. Both kinds of cycle leave what they leave.
        self.cycle(0)?;
        self.cycle(1)?;
        let before = self.left_over()?;
        for number in 1..=cycles {
            self.cycle(number)?;
            if number.is_multiple_of(10) {
                eprintln!("   {number}");
            }
        }
        self.nothing_since(&before, &format!("{cycles} cycles"))?;
        headline(&format!("{cycles} commands in one group, its log read after each"));
        self.descriptors(cycles)?;
        self.nothing_since(&before, "many commands in one group")?;
        let fitting = u32::try_from(memory_available()? / GROUP_BYTES).unwrap_or(u32::MAX);
        ensure!(fitting > 0, "too little memory is free for a group: it takes {} MiB", GROUP_BYTES >> 20);
        if fitting < groups {
            eprintln!("   the free memory is enough for {fitting} groups, not for {groups}");
        }
        let groups = groups.min(fitting);
        headline(&format!("{groups} groups at once"));
        self.at_once(groups)?;
        self.nothing_since(&before, &format!("{groups} groups"))
    }

    /// One start, one exit or stop, in turns, and one removal.
    fn cycle(&self, number: u32) -> Result<()> {
        if number.is_multiple_of(2) {
            let said = self.caveau(&["run", "--rm", "--memory", "256M", &self.image, "--", "echo", "well"])?;
            ensure!(said == "well\n", "cycle {number} printed {said:?}");
            return Ok(());
        }
        let name = format!("soak-{number}");
        self.start(&name)?;
        self.caveau(&["stop", "--time", "2", &name])?;
        self.caveau(&["rm", &name]).map(drop)
    }

    /// One group that is asked many times: its processes must not keep anything open for those who asked.
    fn descriptors(&self, times: u32) -> Result<()> {
        let name = "asked";
        self.start(name)?;
        // What is opened once and kept is not counted.
        self.ask(name)?;
        let before = self.open()?;
        ensure!(!before.is_empty(), "group {name} has no processes");
        for _ in 0..times {
            self.ask(name)?;
        }
        let start = Instant::now();
        while self.open()? != before {
            let after = self.open()?;
            if start.elapsed() > SETTLING {
                bail!("after {times} commands other descriptors are open: {}", changes(&before, &after));
            }
            sleep(Duration::from_millis(100));
        }
        self.caveau(&["rm", "--force", name]).map(drop)
    }

    fn ask(&self, name: &str) -> Result<()> {
        let said = self.caveau(&["exec", name, "echo", "here"])?;
        ensure!(said == "here\n", "{name} printed {said:?}");
        self.caveau(&["logs", name]).map(drop)
    }

    /// Many groups beside each other, each asked once.
    fn at_once(&self, groups: u32) -> Result<()> {
        let names: Vec<_> = (0..groups).map(|number| format!("beside-{number}")).collect();
        names.iter().try_for_each(|name| self.start(name))?;
        names.iter().try_for_each(|name| self.ask(name))?;
        names.iter().try_for_each(|name| self.caveau(&["rm", "--force", name]).map(drop))
    }

    fn start(&self, name: &str) -> Result<()> {
        let image = &self.image;
        let script = "trap 'exit 0' TERM; while :; do sleep 1; done";
        let options = ["run", "-d", "--name", name, "--memory", "256M", "--allow-exec", "echo here", image];
        self.caveau(&[&options[..], &["--", "sh", "-c", script]].concat()).map(drop)
    }

    fn caveau(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.product.caveau(arguments))
    }

    /// Processes with our state in their environment.
    fn processes(&self) -> Result<Vec<String>> {
        let mine = self.product.passing().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            // Those that have ended meanwhile, or are another user's, have none to read.
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environ).contains(&mine) {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }

    /// What each of our processes has open.
    fn open(&self) -> Result<BTreeMap<String, Descriptors>> {
        let mut open = BTreeMap::new();
        for process in self.processes()? {
            let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
            let mut descriptors = Descriptors::new();
            for target in entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
                let target = target.to_string_lossy().into_owned();
                // Sockets and pipes are numbered: `socket:[123]`.
                let kind = target.split(":[").next().unwrap_or_default().to_owned();
                *descriptors.entry(kind).or_default() += 1;
            }
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            open.insert(format!("{} {process}", name.trim()), descriptors);
        }
        Ok(open)
    }

    /// Fails where there is something now that was not there `before`.
    fn nothing_since(&self, before: &BTreeSet<String>, what: &str) -> Result<()> {
        let after = self.left_over()?;
        let more: Vec<_> = after.difference(before).collect();
        ensure!(more.is_empty(), "left over after {what}: {more:?}");
        Ok(())
    }

    /// Everything of ours that is there: processes, files of state, cache, scratch, data and temporary ones, mounts.
    fn left_over(&self) -> Result<BTreeSet<String>> {
        let mut found: BTreeSet<_> =
            self.processes()?.into_iter().map(|process| format!("process {process}")).collect();
        for folder in [self.product.passing(), self.product.kept()] {
            files(folder, &mut found)?;
        }
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        found.extend(mounts.lines().filter(|line| line.contains("caveau")).map(|line| format!("mount {line}")));
        Ok(found)
    }
}

/// Every file and folder below a folder.
fn files(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let entry = entry?;
        found.insert(format!("file {}", entry.path().display()));
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// What differs, process by process.
fn changes(before: &BTreeMap<String, Descriptors>, after: &BTreeMap<String, Descriptors>) -> String {
    let mut text = Vec::new();
    for process in before.keys().chain(after.keys().filter(|process| !before.contains_key(*process))) {
        let (Some(old), Some(new)) = (before.get(process), after.get(process)) else {
            text.push(format!("{process} came or went"));
            continue;
        };
        for kind in old.keys().chain(new.keys().filter(|kind| !old.contains_key(*kind))) {
            let count = |of: &Descriptors| of.get(kind).copied().unwrap_or_default();
            if count(old) != count(new) {
                text.push(format!("{process}: {kind}: {}, then {}", count(old), count(new)));
            }
        }
    }
    text.join("; ")
}

/// Memory that can be had without swapping, in bytes (proc_meminfo(5)).
fn memory_available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaked_descriptor_is_named() {
        let process =
            |sockets| BTreeMap::from([("caveau 7".to_owned(), Descriptors::from([("socket".to_owned(), sockets)]))]);
        assert_eq!(changes(&process(3), &process(5)), "caveau 7: socket: 3, then 5");
        assert_eq!(changes(&process(3), &BTreeMap::new()), "caveau 7 came or went");
    }
}
