//! The host launches something else than it shows: found in the launch digest or HOST_DATA.

use caveau_launch::LaunchPlan;
use caveau_tests::{
    Outcome, guest_folder,
    hostile::{COMMAND, HONEST, Hostile},
    image,
};

const NONCE: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// What the honest owner says of a group's evidence, with everything expected that there is to expect, and `cpus` processors.
fn judged(host: &Hostile, group: &str, cpus: &str) -> Outcome {
    let path = |name: &str| host.folder.path().join(name).display().to_string();
    let (evidence, policy) = (path("evidence.json"), path("policy.rego"));
    std::fs::write(&policy, &host.plan.policy).expect("the policy is written");
    host.caveau.run(&["attest", group, "--nonce", NONCE, "-o", &evidence]).success();
    let root =
        host.caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let reference = guest_folder().join("guest.json").display().to_string();
    let given = ["verify", &evidence, "--nonce", NONCE, "--policy", &policy, "--reference", &reference];
    host.caveau.run(&[&given[..], &["--cpus", cpus, "--allow-emulated", &root, "--json"]].concat())
}

/// Asserts that the named check fails, and no other.
#[track_caller]
fn is_found_out(verified: Outcome, check: &str) {
    let judged = verified.expect_code(1).json();
    let failed: Vec<_> =
        judged["checks"].as_array().expect("checks").iter().filter(|row| row["verdict"] == "failed").collect();
    assert!(failed.len() == 1 && failed[0]["name"] == check, "not {check} alone: {failed:?}");
}

#[track_caller]
fn lie(check: &str, change: impl FnOnce(&Hostile, &mut LaunchPlan)) {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|plan| change(&host, plan)).expect("it starts: the lie is for the verifier to find");
    is_found_out(judged(&host, group.folder().name().as_str(), "1"), check);
}

#[test]
fn another_initrd() {
    lie("measurement", |host, plan| {
        let mut bytes = std::fs::read(&plan.guest.initrd).expect("the initrd");
        bytes.extend_from_slice(&[0; 512]);
        plan.guest.initrd = host.forged("initrd.img", &bytes);
    });
}

#[test]
fn another_kernel() {
    lie("measurement", |host, plan| {
        let mut bytes = std::fs::read(&plan.guest.kernel).expect("the kernel");
        // Bytes after the last section are loaded by nobody; they are measured all the same.
        bytes.extend_from_slice(b"hostile");
        plan.guest.kernel = host.forged("vmlinux", &bytes);
    });
}

#[test]
fn another_command_line() {
    lie("measurement", |host, plan| {
        let text = std::fs::read_to_string(&plan.guest.cmdline).expect("the command line");
        plan.guest.cmdline = host.forged("cmdline", format!("{text} init=/init").as_bytes());
    });
}

/// Two processors are what they are: good evidence for who expects two, and for nobody else.
#[test]
fn another_number_of_processors() {
    let Some(host) = Hostile::new() else { return };
    let busybox = image("busybox");
    let options = ["run", "-d", "--name", "two", "--cpus", "2"];
    host.caveau.run(&[&options[..], &HONEST, &[&busybox, "--"], &COMMAND].concat()).success();
    judged(&host, "two", "2").success();
    is_found_out(judged(&host, "two", "1"), "measurement");
}

#[test]
fn an_edited_policy() {
    lie("policy", |_, plan| plan.policy.push_str("\n# and whatever the host likes\n"));
}

#[test]
fn a_policy_that_allows_everything() {
    let Some(host) = Hostile::new() else { return };
    let started = host.start(|plan| {
        let points = [
            "mount_device",
            "mount_overlay",
            "rw_mount_device",
            "scratch_mount",
            "create_container",
            "signal_container_process",
        ];
        let rules: String = points.iter().map(|point| format!("{point} := {{\"allowed\": true}}\n")).collect();
        plan.policy = format!("package policy\napi_version := \"0.10.0\"\nframework_version := \"0.2.3\"\n{rules}");
    });
    // It runs, by its own policy; for the honest policy's owner it is another group.
    let group = started.expect("it starts: the lie is for the verifier to find");
    is_found_out(judged(&host, group.folder().name().as_str(), "1"), "policy");
}
