//! The host asks for another process than the policy allows.

use caveau_launch::LaunchPlan;
use caveau_protocol::{ContainerId, CreateContainer, TmpfsMount};
use caveau_tests::hostile::Hostile;

fn create(plan: &mut LaunchPlan) -> &mut CreateContainer {
    &mut plan.containers[0].create
}

#[test]
fn another_command() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "command", &["/bin/cat", "main"], |plan| {
        create(plan).process.args = vec!["/bin/cat".into(), "/etc/shadow".into()];
    });
}

#[test]
fn a_longer_command() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "command", &["--more"], |plan| create(plan).process.args.push("--more".into()));
}

#[test]
fn another_value_of_a_variable() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "env", &["KIND"], |plan| {
        let env = &mut create(plan).process.env;
        let kind = env.iter_mut().find(|variable| variable.starts_with("KIND=")).expect("KIND");
        *kind = "KIND=hostile".into();
    });
}

#[test]
fn one_variable_more_that_loads_a_library() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "env", &["LD_PRELOAD"], |plan| {
        create(plan).process.env.push("LD_PRELOAD=/data/evil.so".into());
    });
}

#[test]
fn a_required_variable_left_out() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "env", &["KIND"], |plan| {
        create(plan).process.env.retain(|variable| !variable.starts_with("KIND="));
    });
}

#[test]
fn another_user() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "user", &["1000"], |plan| create(plan).process.user = "1000".into());
}

#[test]
fn another_working_directory() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "working_dir", &["/tmp"], |plan| create(plan).process.cwd = "/tmp".into());
}

#[test]
fn a_mount_over_the_programs() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "mounts", &["/bin"], |plan| {
        create(plan).tmpfs.push(TmpfsMount { destination: "/bin".into(), options: Vec::new() });
    });
}

#[test]
fn a_mount_with_other_options() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "mounts", &["/data", "size=1g"], |plan| {
        create(plan).tmpfs[0].options = vec!["exec".into(), "size=1g".into()];
    });
}

#[test]
fn one_capability_more() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "capabilities", &["CAP_SYS_ADMIN"], |plan| {
        let sets = &mut create(plan).process.capabilities;
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push("CAP_SYS_ADMIN".into());
        }
    });
}

#[test]
fn a_privileged_container() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "privileged", &[], |plan| create(plan).privileged = true);
}

#[test]
fn no_system_call_filter() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "seccomp", &[], |plan| create(plan).seccomp = None);
}

#[test]
fn a_wider_system_call_filter() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "seccomp", &[], |plan| {
        create(plan).seccomp =
            Some(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"]}"#.into());
    });
}

#[test]
fn a_host_name_with_a_line_for_the_hosts_file() {
    let Some(host) = Hostile::new() else { return };
    host.fails(&["host name"], |plan| create(plan).hostname = "web\n6.6.6.6 bank.example".into());
}

#[test]
fn a_second_container() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("create_container", "starts", &["at most 1"], |plan| {
        let mut second = plan.containers[0].clone();
        second.name = "second".into();
        second.create.container = ContainerId::from_bytes([9; 32]);
        plan.containers.push(second);
    });
}

#[test]
fn exec_and_signals_that_the_policy_does_not_name() {
    let Some(host) = Hostile::new() else { return };
    let group = host.start(|_| ()).expect("the honest plan starts");
    let name = group.folder().name().to_string();
    let allowed = host.caveau.run(&["exec", &name, "cat", "/etc/hostname"]).success();
    assert!(!allowed.stdout.is_empty());
    for command in [&["cat", "/etc/shadow"][..], &["cat"], &["cat", "/etc/hostname", "/etc/shadow"], &["sh"]] {
        let denied = host.caveau.run(&[&["exec", &name][..], command].concat()).expect_code(125);
        assert!(denied.stderr.contains("exec_in_container denied by policy"), "{command:?}: {}", denied.stderr);
        assert!(denied.stderr.contains("command: expected"), "{command:?}: {}", denied.stderr);
    }
    let error = group.signal(None, 19).expect_err("SIGSTOP is not in the policy");
    let error = error.to_string();
    assert!(error.contains("signal_container_process denied by policy"), "{error}");
    assert!(error.contains("signal: expected"), "{error}");
    // The container is as alive as before, and ends by the signal that is allowed.
    let stopped = host.caveau.run(&["stop", &name]).success();
    assert!(stopped.stdout.contains(&name));
}
