//! A host, or what it starts, that stops answering: waits end, and what is shown stays true.

use std::process::Command;

use caveau_tests::{eventually, hostile::Hostile};

fn signal(name: &str, pid: u64) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
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
    eventually(|| {
        // What is dead and waits for its new parent to take note is gone as well.
        let stat = std::fs::read_to_string(format!("/proc/{qemu}/stat")).unwrap_or_default();
        anyhow::ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        Ok(())
    })
    .expect("QEMU is gone");
    assert!(host.caveau.groups().is_empty());
}
