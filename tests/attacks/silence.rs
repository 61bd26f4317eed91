//! A host, or what it starts, that stops answering: waits end, and what is shown stays true.

use std::process::Command;

use anyhow::Context as _;
use caveau_launch::{Group, StateRoot};
use caveau_tests::{eventually, hostile::Hostile};

fn signal(name: &str, pid: u64) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

#[test]
fn a_frozen_secure_processor_gives_no_proof_and_harms_nothing_else() {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|_| ()).expect("the honest plan starts");
    let name = group.folder().name().to_string();
    let processor = host.caveau.run(&["inspect", &name]).success().json()["record"]["processor_pid"].as_u64();
    signal("-STOP", processor.expect("the processor's pid"));
    let nonce = "ab".repeat(32);
    let refused = host.caveau.run(&["attest", &name, "--nonce", &nonce]).expect_code(2);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("processor"), "{}", refused.stderr);
    // The group goes on, and its state is true.
    host.caveau.run(&["exec", &name, "cat", "/etc/hostname"]).success();
    assert!(host.caveau.run(&["ps"]).success().stdout.contains("running"));
    host.caveau.run(&["rm", "--force", &name]).success();
}

#[test]
fn a_secure_processor_that_freezes_during_the_start_fails_it_in_time() {
    let Some(host) = Hostile::new() else { return };
    let name = "freezes";
    let processor = std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            host.start(|plan| {
                plan.name = name.parse().expect("a name");
                plan.start_timeout_s = 20;
            })
        });
        // As soon as it runs, long before the guest asks it anything.
        let root = StateRoot::at(&host.caveau.state()).expect("a state folder");
        let processor = eventually(|| {
            let group = Group::open(&root, &name.parse()?)?;
            group.status()?.1.processor_pid.context("there is none yet")
        });
        let processor = u64::from(processor.expect("the processor runs"));
        signal("-STOP", processor);
        let listed = host.caveau.run(&["ps", "--json"]).success().json();
        assert_eq!(listed[0]["status"], "starting", "{listed}");
        let failed = starting.join().expect("the start ends").expect_err("no proof, no start").to_string();
        assert!(failed.contains("within 20 s"), "{failed}");
        processor
    });
    let listed = host.caveau.run(&["ps", "--all"]).success().stdout;
    assert!(listed.contains("failed: ") && listed.contains("within 20 s"), "{listed}");
    is_gone(processor);
    host.caveau.run(&["rm", name]).success();
    assert!(host.caveau.groups().is_empty());
}

#[test]
fn a_frozen_supervisor_is_called_unresponsive_and_can_be_removed() {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|_| ()).expect("the honest plan starts");
    let name = group.folder().name().to_string();
    let inspected = host.caveau.run(&["inspect", &name]).success().json();
    let (supervisor, qemu) = (inspected["record"]["supervisor_pid"].as_u64(), inspected["record"]["qemu_pid"].as_u64());
    signal("-STOP", supervisor.expect("the supervisor's pid"));
    let listed = host.caveau.run(&["ps"]).success().stdout;
    assert!(listed.contains("unresponsive") && listed.contains("supervisor"), "{listed}");
    host.caveau.run(&["rm", "--force", &name]).success();
    is_gone(qemu.expect("QEMU's pid"));
    assert!(host.caveau.groups().is_empty());
}

/// Waits until a process is gone. What is dead and waits for its new parent to take note is gone as well.
fn is_gone(pid: u64) {
    eventually(|| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        anyhow::ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        Ok(())
    })
    .expect("the process is gone");
}

#[test]
fn a_frozen_vm_is_called_unresponsive_and_can_be_removed() {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|plan| plan.answer_timeout_s = 3).expect("the honest plan starts");
    let name = group.folder().name().to_string();
    let inspected = host.caveau.run(&["inspect", &name]).success().json();
    let qemu = inspected["record"]["qemu_pid"].as_u64().expect("QEMU's pid");
    signal("-STOP", qemu);
    eventually(|| {
        let listed = host.caveau.run(&["ps"]).stdout;
        anyhow::ensure!(listed.contains("unresponsive"), "{listed}");
        Ok(())
    })
    .expect("a frozen VM is called unresponsive");
    host.caveau.run(&["rm", "--force", &name]).success();
    is_gone(qemu);
    assert!(host.caveau.groups().is_empty());
}
