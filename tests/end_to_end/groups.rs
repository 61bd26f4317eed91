//! Several groups at once, many starts, and nothing left over.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use caveau_tests::{Caveau, eventually, image};

/// What confines the first process, then what confines the one that asks.
const CONFINEMENT: &str = r#"for process in 1 self; do
    grep -E "^(Cap...|NoNewPrivs|Seccomp):" /proc/$process/status; done"#;

/// Leaves a process behind whose parent, and whose parent's parent, end before it does.
const ORPHAN: &str = "(sleep 0.3 &) > /dev/null 2>&1 < /dev/null";

/// How many processes have ended and were not reaped.
const ZOMBIES: &str = "cat /proc/[0-9]*/status 2> /dev/null | grep -c ^State:.Z";

/// Most groups that are run at once.
const MOST: u64 = 10;

/// Memory of each of them, and what their QEMU may take besides, in MiB.
const GROUP_MIB: u64 = 192;
const QEMU_MIB: u64 = 192;

/// How many groups the memory that is available has room for: from two to [`MOST`].
fn as_many_as_fit() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("MemAvailable");
    let kib: u64 = available.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    (kib / 1024 / (GROUP_MIB + QEMU_MIB)).clamp(2, MOST)
}

#[test]
fn groups_run_beside_each_other_and_leave_nothing() {
    let Some(caveau) = Caveau::new() else { return };
    let names: Vec<String> = (1..=as_many_as_fit()).map(|number| format!("group-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let busybox = image("busybox");
    let memory = format!("{GROUP_MIB}M");
    // As many starts at a time as there are processors; no group ends before all have started.
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let script = format!("echo I am {name}; trap 'exit 0' TERM; while :; do sleep 1; done");
                    let options =
                        ["run", "-d", "--name", name, "--memory", &memory, &busybox, "--", "sh", "-c", &script];
                    caveau.run(&options).success();
                }
            });
        }
    });
    let listed = caveau.run(&["ps", "--json"]).success().json();
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.iter().filter(|group| group["status"] == "running").count(), names.len(), "{listed:?}");
    println!("{} groups at once", names.len());
    for &name in &names {
        eventually(|| {
            let logs = caveau.run(&["logs", name]).stdout;
            anyhow::ensure!(logs == format!("I am {name}\n"), "{logs:?}");
            Ok(())
        })
        .expect("each group has its own log");
    }
    caveau.run(&[&["stop"][..], &names].concat()).success();
    caveau.run(&[&["rm"][..], &names].concat()).success();
    assert!(caveau.groups().is_empty());
    assert_eq!(caveau.left_over(), Vec::<String>::new());
}

#[test]
fn starting_and_stopping_again_and_again_leaks_nothing() {
    let Some(caveau) = Caveau::with_an_empty_cache() else { return };
    let busybox = image("busybox");
    let once = || {
        let ran = caveau.run(&["run", "--rm", "--memory", "256M", &busybox, "--", "echo", "well"]).success();
        assert_eq!(ran.stdout, "well\n");
    };
    // The first fills the cache.
    once();
    let before = there(&caveau);
    for number in 0..2 {
        once();
        let name = format!("cycle-{number}");
        start(&caveau, &name);
        assert_eq!(caveau.run(&["exec", &name, "echo", "here"]).success().stdout, "here\n");
        caveau.run(&["stop", &name]).success();
        assert_eq!(caveau.run(&["logs", &name]).success().stdout, "up\n");
        caveau.run(&["rm", &name]).success();
        assert_eq!(there(&caveau), before);
    }
}

#[test]
fn a_group_that_is_asked_again_and_again_keeps_no_descriptor_and_no_zombie() {
    let Some(caveau) = Caveau::new() else { return };
    start(&caveau, "asked");
    let record = caveau.run(&["inspect", "asked"]).success().json()["record"].take();
    let pids = ["supervisor_pid", "qemu_pid", "processor_pid"].map(|name| record[name].as_u64().expect("a pid"));
    let ask = || {
        assert_eq!(caveau.run(&["exec", "asked", "echo", "here"]).success().stdout, "here\n");
        assert_eq!(caveau.run(&["logs", "asked"]).success().stdout, "up\n");
        caveau.run(&["stats", "asked", "--json"]).success();
        caveau.run(&["exec", "asked", "echo", "there"]).expect_code(125);
    };
    ask();
    let before = rustix::process::geteuid().is_root().then(|| pids.map(descriptors));
    for _ in 0..10 {
        ask();
    }
    match before {
        // The last client's connection may be noticed as closed a moment later.
        Some(before) => eventually(|| {
            let now = pids.map(descriptors);
            anyhow::ensure!(now == before, "{before:?} became {now:?}");
            Ok(())
        })
        .expect("the descriptors are those of before"),
        None => println!("skipped: what a process that hides itself has open is root's alone to see"),
    }

    // Whatever was executed has been reaped, and so is what it leaves behind: by the agent, and by the first process.
    let shell = |script: &str| caveau.run(&["exec", "asked", "sh", "-c", script]);
    for _ in 0..5 {
        shell(ORPHAN).success();
    }
    eventually(|| {
        let count = shell(ZOMBIES).stdout;
        anyhow::ensure!(count == "0\n", "{count} zombies");
        Ok(())
    })
    .expect("no zombie is left");

    // What is executed may do no more than the first process.
    let told = shell(CONFINEMENT).success().stdout;
    let lines: Vec<_> = told.lines().collect();
    let (first, executed) = lines.split_at(lines.len() / 2);
    assert_eq!(first, executed, "{told}");
    for line in ["CapBnd:\t00000000a80425fb", "CapEff:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2"] {
        assert!(executed.contains(&line), "{line}: {told}");
    }
    caveau.run(&["rm", "--force", "asked"]).success();
}

/// Starts a group that says `up` and waits, and in which `echo here` and the scripts above may be executed.
fn start(caveau: &Caveau, name: &str) {
    let script = "echo up; trap 'exit 0' TERM; while :; do sleep 1; done";
    let shell = [CONFINEMENT, ORPHAN, ZOMBIES].map(|script| format!("sh -c '{script}'"));
    let options = ["run", "-d", "--name", name, "--memory", "256M", "--allow-exec", "echo here"];
    let scripts: Vec<_> = shell.iter().flat_map(|command| ["--allow-exec", command]).collect();
    caveau.run(&[&options[..], &scripts, &[&image("busybox"), "--", "sh", "-c", script]].concat()).success();
}

/// Everything of this Caveau that is there: processes with its state folder in their environment, files of state and
/// cache, mounts.
fn there(caveau: &Caveau) -> BTreeSet<String> {
    let (state, cache) = (caveau.state(), caveau.cache());
    let runtime = state.parent().expect("a parent").display().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("/proc").filter_map(Result::ok) {
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environ).contains(&runtime) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.insert(format!("process {} {}", entry.file_name().display(), name.trim_end()));
        }
    }
    files(&state, &mut found);
    files(&cache, &mut found);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mine = |line: &&str| ["caveau", &runtime, &cache.display().to_string()].iter().any(|word| line.contains(word));
    found.extend(mounts.lines().filter(mine).map(|line| format!("mount {line}")));
    found
}

/// The files in a folder and the folders in it.
fn files(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.insert(format!("file {}", entry.path().display()));
        }
    }
}

/// What a process has open, sorted, without the numbers that tell sockets and pipes apart.
fn descriptors(pid: u64) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").filter_map(Result::ok);
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let kinds = targets.map(|target| target.display().to_string().replace(|c: char| c.is_ascii_digit(), ""));
    let mut kinds: Vec<String> = kinds.collect();
    kinds.sort();
    kinds
}
