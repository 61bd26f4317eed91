//! The host launches something else than it shows: found in the launch digest or HOST_DATA.

use caveau_launch::{Group, LaunchPlan};
use caveau_tests::{guest_folder, hostile::Hostile};

const NONCE: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

/// Attests a group and verifies it against what an honest host would have launched; asserts that the named check fails.
#[track_caller]
fn is_found_out(host: &Hostile, group: &Group, check: &str) {
    let path = |name: &str| host.folder.path().join(name).display().to_string();
    let (evidence, policy) = (path("evidence.json"), path("policy.rego"));
    std::fs::write(&policy, &host.plan.policy).expect("the policy is written");
    let name = group.folder().name().to_string();
    host.caveau.run(&["attest", &name, "--nonce", NONCE, "-o", &evidence]).success();
    let root =
        host.caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let reference = guest_folder().join("guest.json").display().to_string();
    let verified = host.caveau.run(&[
        "verify",
        &evidence,
        "--nonce",
        NONCE,
        "--policy",
        &policy,
        "--reference",
        &reference,
        "--cpus",
        "1",
        "--allow-emulated",
        &root,
        "--json",
    ]);
    let judged = verified.expect_code(1).json();
    let failed: Vec<_> =
        judged["checks"].as_array().expect("checks").iter().filter(|row| row["verdict"] == "failed").collect();
    assert!(failed.iter().any(|row| row["name"] == check), "{check} did not fail: {failed:?}");
}

#[track_caller]
fn lie(check: &str, change: impl FnOnce(&Hostile, &mut LaunchPlan)) {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|plan| change(&host, plan)).expect("it starts: the lie is for the verifier to find");
    is_found_out(&host, &group, check);
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

#[test]
fn another_number_of_processors() {
    lie("measurement", |_, plan| plan.vcpus = 2);
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
    // Whether that group runs is its own policy's business; for the honest policy's owner it is another group.
    match started {
        Ok(group) => is_found_out(&host, &group, "policy"),
        Err(error) => assert!(error.to_string().contains("denied") || error.to_string().contains("policy"), "{error}"),
    }
}
