//! A container that never stops printing: its log is bounded, and nobody else waits for it.

use std::{io::Read as _, process::Stdio};

use caveau_tests::{Caveau, eventually, image};

/// Bytes that a group's log may take: four files of 8 MiB, and the entry that fills the last.
const LOG_BOUND: u64 = 33 << 20;

#[test]
fn a_container_that_prints_without_end() {
    let Some(caveau) = Caveau::new() else { return };
    let script = "trap '' TERM; seq 1 600000 & wait; while :; do echo tick; sleep 0.1; done";
    let busybox = image("busybox");
    let allowed = ["--allow-exec", "cat", "--allow-exec", "/no/such/program", "--allow-exec", "/etc/passwd"];
    let started = [&["run", "-d", "--name", "loud"][..], &allowed, &[&busybox, "--", "sh", "-c", script]].concat();
    caveau.run(&started).success();

    // Whoever follows gets every line, across the log's files.
    let mut follower = caveau.command(&["logs", "-f", "loud"]).stdout(Stdio::piped()).spawn().expect("caveau starts");
    let mut stdout = follower.stdout.take().expect("stdout was asked for");
    let reader = std::thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while !text.ends_with(b"tick\n") {
            let count = stdout.read(&mut buffer).expect("the log");
            assert!(count > 0, "the follower ended early");
            text.extend_from_slice(&buffer[..count]);
        }
        text
    });

    // Meanwhile the guest answers others, with Docker's codes where it says no.
    let cat = caveau.run_with_input(&["exec", "-i", "loud", "cat"], b"through\n").success();
    assert_eq!(cat.stdout, "through\n");
    assert!(caveau.run(&["stats", "loud", "--json"]).success().json()["pids"].as_u64().is_some_and(|pids| pids > 1));
    caveau.run(&["exec", "loud", "/no/such/program"]).expect_code(127);
    caveau.run(&["exec", "loud", "/etc/passwd"]).expect_code(126);
    let unknown = caveau.run(&["exec", "nobody", "cat"]).expect_code(125);
    assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);

    let text = reader.join().expect("the reader does not panic");
    follower.kill().expect("the follower can be killed");
    follower.wait().expect("the follower ends");
    let text = String::from_utf8(text).expect("text");
    let mut lines = text.lines();
    for number in 1..=600_000u32 {
        assert_eq!(lines.next(), Some(number.to_string().as_str()));
    }

    // The log's folder is bounded; what is gone from it is said.
    let folder = caveau.state().join("loud/log");
    let sizes = || -> u64 {
        let entries = std::fs::read_dir(&folder).expect("the log").filter_map(Result::ok);
        entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
    };
    assert!(sizes() < LOG_BOUND, "{}", sizes());
    let late = caveau.run(&["logs", "loud"]).success();
    assert!(late.stderr.contains("it is bounded") && late.stdout.contains("\n600000\n"), "{}", late.stderr);
    let tail = caveau.run(&["logs", "--tail", "2", "-t", "loud"]).success().stdout;
    assert!(tail.lines().count() == 2 && tail.lines().all(|line| line.ends_with(" tick")), "{tail}");
    for line in caveau.run(&["logs", "--tail", "3", "--json", "loud"]).success().stdout.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(entry["time_ns"].is_u64() && entry["stream"] == "stdout" && entry["text"] == "tick\n", "{entry}");
    }

    // It ignores SIGTERM, so that stopping takes its time and then SIGKILL.
    caveau.run(&["stop", "--time", "1", "loud"]).success();
    let inspected = caveau.run(&["inspect", "loud"]).success().json();
    assert_eq!(inspected["record"]["containers"][0]["exit"]["code"], 137, "{inspected}");
    assert_eq!(inspected["status"], "exited (137)", "{inspected}");
    let stopped = caveau.run(&["stop", "loud"]).success();
    assert_eq!(stopped.stdout, "loud\n", "stopping what has ended is no error");
    caveau.run(&["rm", "loud"]).success();
    eventually(|| {
        anyhow::ensure!(caveau.left_over().is_empty(), "{:?}", caveau.left_over());
        Ok(())
    })
    .expect("nothing is left");
}
