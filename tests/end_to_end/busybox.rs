//! Exit codes, streams, arguments and environment, with the smallest image.

use std::{io::Write as _, path::PathBuf, process::Stdio};

use caveau_tests::{Caveau, Outcome, image};

#[test]
fn a_container_gets_what_was_asked_for_and_its_exit_code_comes_back() {
    let Some(caveau) = Caveau::new() else { return };
    let script = "echo out; echo err >&2; echo $GREETING; pwd; id -u; id -g; hostname | grep -q . && \
                  grep -q '^nameserver 10.0.2.3' /etc/resolv.conf && touch /tmp/x && exit 7";
    let outcome = caveau.run(&[
        "run",
        "--rm",
        "-e",
        "GREETING=salve",
        "--workdir",
        "/tmp",
        "--user",
        "12:34",
        "-v",
        "tmpfs:/tmp:mode=1777",
        &image("busybox"),
        "--",
        "sh",
        "-c",
        script,
    ]);
    let outcome = outcome.expect_code(7);
    assert_eq!(outcome.stdout, "out\nsalve\n/tmp\n12\n34\n");
    assert!(outcome.stderr.contains("err\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("emulated"), "an emulated TEE is named as such: {}", outcome.stderr);
    assert!(
        outcome.stderr.contains("-e") && outcome.stderr.contains("policy"),
        "values of -e are in the policy: {}",
        outcome.stderr
    );
    assert!(caveau.groups().is_empty(), "--rm leaves nothing");
}

#[test]
fn input_reaches_the_container_and_large_output_comes_back_whole() {
    let Some(caveau) = Caveau::new() else { return };
    let input: Vec<u8> = (0..3_000_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    let outcome = caveau.run_with_input(&["run", "--rm", "-i", &image("busybox"), "--", "cat"], &input);
    let outcome = outcome.success();
    assert_eq!(outcome.stdout.len(), input.len());
    assert_eq!(outcome.stdout.as_bytes(), input);
}

#[test]
fn failures_have_dockers_codes() {
    let Some(caveau) = Caveau::new() else { return };
    // With a guest that is named relative to the folder where one is.
    let guest = PathBuf::from(std::env::var_os("CAVEAU_GUEST").expect("the guest is named"));
    let name = guest.file_name().expect("the guest's folder has a name").to_string_lossy();
    let arguments = ["run", "--rm", "--guest", &name, &image("busybox"), "--", "/no/such/program"];
    let mut command = caveau.command(&arguments);
    command.env_remove("CAVEAU_GUEST").current_dir(guest.parent().expect("the guest's folder is in another"));
    let outcome = Outcome::from(command.output().expect("caveau starts")).expect_code(127);
    assert!(outcome.stderr.contains("/no/such/program"), "{}", outcome.stderr);
    caveau.run(&["run", "--rm", &image("busybox"), "--", "/etc"]).expect_code(126);
    let outcome = caveau.run(&["run", "oci:/no/such/folder"]).expect_code(125);
    assert!(outcome.stderr.contains("/no/such/folder"), "{}", outcome.stderr);
    let outcome = caveau.run(&["run", "-p", "99999:80", &image("busybox")]).expect_code(125);
    assert!(outcome.stderr.contains("99999"), "{}", outcome.stderr);
}

#[test]
fn signals_reach_the_container_and_its_code_comes_back() {
    let Some(caveau) = Caveau::new() else { return };
    let script = "trap 'echo interrupted; exit 6' INT; echo up; while :; do sleep 0.1; done";
    let mut command = caveau.command(&["run", "--rm", &image("busybox"), "--", "sh", "-c", script]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("caveau starts");
    let mut stdout = std::io::BufReader::new(client.stdout.take().expect("stdout was asked for"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    assert_eq!(line, "up\n");
    let sent = std::process::Command::new("kill").args(["-INT", &client.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    assert_eq!(line, "up\ninterrupted\n");
    assert_eq!(client.wait().expect("the client ends").code(), Some(6));
}

#[test]
fn too_much_memory_is_told_and_is_137() {
    let Some(caveau) = Caveau::new() else { return };
    let greedy = ["run", "--rm", "--memory", "160M", &image("busybox"), "--", "tail", "/dev/zero"];
    let outcome = caveau.run(&greedy).expect_code(137);
    assert!(outcome.stderr.contains("want of memory") && outcome.stderr.contains("--memory"), "{}", outcome.stderr);
}

#[test]
fn a_killed_client_leaves_the_group_and_a_killed_supervisor_leaves_nothing() {
    let Some(caveau) = Caveau::new() else { return };
    let name = "victim";
    let [supervisor, qemu] = ticking(&caveau, name);

    // A client that goes away while it follows the log disturbs nobody.
    let mut follower = caveau.command(&["logs", "-f", name]).stdout(Stdio::piped()).spawn().expect("caveau starts");
    let mut byte = [0u8; 1];
    std::io::Read::read_exact(follower.stdout.as_mut().expect("stdout"), &mut byte).expect("a line");
    follower.kill().expect("the follower can be killed");
    follower.wait().expect("the follower ends");
    assert!(caveau.run(&["ps"]).success().stdout.contains(name));

    // A supervisor that is killed takes everything along, and `ps` says what happened.
    kill(supervisor);
    ends(qemu);
    let listed = caveau.run(&["ps", "--json"]).success().json();
    assert_eq!(listed[0]["name"], name, "{listed}");
    assert_eq!(listed[0]["status"], "lost: the supervisor was killed while the group ran", "{listed}");
    caveau.run(&["rm", name]).success();
    std::io::stdout().flush().expect("stdout");
}

#[test]
fn a_killed_vm_is_told_until_it_is_removed() {
    let Some(caveau) = Caveau::new() else { return };
    let name = "powerless";
    let [supervisor, qemu] = ticking(&caveau, name);
    kill(qemu);
    ends(supervisor);
    let listed = caveau.run(&["ps"]).success().stdout;
    assert!(listed.contains(name) && listed.contains("lost: QEMU ended (killed by signal 9)"), "{listed}");
    caveau.run(&["rm", name]).success();
    assert!(!caveau.run(&["ps"]).success().stdout.contains(name));
}

/// Starts a group that ticks; the numbers of its supervisor and its QEMU.
fn ticking(caveau: &Caveau, name: &str) -> [i64; 2] {
    let script = "while :; do echo tick; sleep 1; done";
    caveau.run(&["run", "-d", "--name", name, &image("busybox"), "--", "sh", "-c", script]).success();
    let record = caveau.run(&["inspect", name]).success().json()["record"].take();
    ["supervisor_pid", "qemu_pid"].map(|pid| record[pid].as_i64().expect("its number"))
}

fn kill(pid: i64) {
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
}

/// Waits until a process is gone.
fn ends(pid: i64) {
    caveau_tests::eventually(|| {
        anyhow::ensure!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} still runs");
        Ok(())
    })
    .expect("it ends");
}
