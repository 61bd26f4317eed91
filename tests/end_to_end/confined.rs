//! What a container sees and may do: Docker's defaults, and what tightens them.

use std::collections::BTreeMap;

use caveau_tests::{Caveau, image};

/// What a script printed as `name=value` lines.
fn values(printed: &str) -> BTreeMap<&str, &str> {
    printed.lines().filter_map(|line| line.split_once('=')).collect()
}

/// Shell words that print what the tests below look at, of the process itself.
const STATUS: &str = "grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status | tr -d ' \\t' | tr ':' '='";

#[test]
fn a_container_has_what_docker_gives_it_and_no_more() {
    let Some(caveau) = Caveau::new() else { return };
    let script = format!(
        "{STATUS}
        try() {{ name=$1; shift; if \"$@\" >/dev/null 2>&1; then echo $name=yes; else echo $name=no; fi; }}
        try mount mount -t tmpfs none /mnt
        try disk mknod /tmp/disk b 8 0
        try sysctl sh -c 'echo x > /proc/sys/kernel/hostname'
        try sysrq sh -c 'echo h > /proc/sysrq-trigger'
        try cgroup mkdir /sys/fs/cgroup/mine
        try user_namespace unshare -U true
        date -s @946684800 > /dev/null 2>&1; echo year=$(date +%Y | grep -c 2000)
        try chown chown 7:7 /tmp
        echo kcore=$([ -e /proc/kcore ] || echo none)
        echo firmware=$(ls /sys/firmware | wc -l)
        echo modules=$([ -e /proc/modules ] || echo none)
        echo dev=$(ls /dev | sort | tr '\\n' ' ')
        echo devices=$(grep -vE '(nodev| /dev | /dev/pts | /proc/(acpi|kcore|keys|interrupts|timer_list|scsi) | /sys/firmware )' /proc/mounts | wc -l)
        echo pid=$$
        echo umask=$(umask)
        echo hostname=$(hostname)
        echo file=$(cat /etc/hostname)
        echo hosts=$(grep -c '^127.0.0.1.localhost' /etc/hosts) $(grep -c \"$(hostname)\" /etc/hosts)
        echo dns=$(grep -c '^nameserver 10.0.2.3' /etc/resolv.conf)
        echo context=$(ls $UVM_SECURITY_CONTEXT_DIR)
        echo policy=$(base64 -d $UVM_SECURITY_CONTEXT_DIR/security-policy-base64 | head -c 14)
        echo home=$HOME
        echo files=$(ulimit -n)"
    );
    let outcome = caveau.run(&["run", "--rm", "--name", "plain", &image("busybox"), "--", "sh", "-c", &script]);
    let outcome = outcome.success();
    let found = values(&outcome.stdout);
    let expected = [
        ("CapEff", "00000000a80425fb"),
        ("CapPrm", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("mount", "no"),
        ("disk", "no"),
        ("sysctl", "no"),
        ("sysrq", "no"),
        ("cgroup", "no"),
        ("user_namespace", "no"),
        ("year", "0"),
        ("chown", "yes"),
        ("kcore", "none"),
        ("firmware", "0"),
        ("modules", "none"),
        ("dev", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"),
        ("devices", "0"),
        ("pid", "1"),
        ("umask", "0022"),
        ("hostname", "plain"),
        ("file", "plain"),
        ("hosts", "1 1"),
        ("dns", "1"),
        ("context", "host-amd-cert-base64 security-policy-base64"),
        ("policy", "package policy"),
        ("home", "/root"),
        ("files", "1024"),
    ];
    for (name, value) in expected {
        assert_eq!(found.get(name).map(|found| found.trim_end()), Some(value), "{name}: {}", outcome.stdout);
    }
}

#[test]
fn what_is_tightened_is_tight() {
    let Some(caveau) = Caveau::new() else { return };
    let script = format!(
        "{STATUS}
        echo root=$(touch /x 2>&1)
        touch /data/x && echo data=written
        echo size=$(df -k /data | tail -1 | awk '{{print $2}}')
        echo exec=$(cp /bin/busybox /data/ && /data/busybox true 2>&1 | grep -c 'Permission denied')
        echo most=$(cat /sys/fs/cgroup/pids.max)
        echo variable=$FROM_HERE
        echo arguments=$#"
    );
    let busybox = image("busybox");
    let arguments = [
        &["run", "--rm", "--read-only", "--no-new-privileges", "--cap-drop", "ALL", "--cap-add", "CHOWN"][..],
        &["--pids-limit", "40", "--tmpfs", "/data:size=4m", "--memory-scratch", "--entrypoint", "sh"],
        &["-e", "FROM_HERE", &busybox, "--", "-c", &script, "sh", "one", "two"],
    ]
    .concat();
    let output = caveau.command(&arguments).env("FROM_HERE", "brought along").output().expect("caveau runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let found = values(&stdout);
    for (name, value) in [
        ("CapEff", "0000000000000001"),
        ("CapPrm", "0000000000000001"),
        ("CapBnd", "0000000000000001"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("root", "touch: /x: Read-only file system"),
        ("data", "written"),
        ("size", "4096"),
        ("exec", "1"),
        ("most", "40"),
        ("variable", "brought along"),
        ("arguments", "2"),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {stdout}");
    }
    assert!(stderr.contains("-e stand in the policy, which the host can read"), "{stderr}");
}

#[test]
fn without_stdio_the_host_sees_nothing() {
    let Some(caveau) = Caveau::new() else { return };
    // A sum, since the command itself stands in the plan.
    // It can be written all the same: a program that fails to is not run unmodified.
    let script = "echo out-$((12340000 + 5678)) && echo err-$((12340000 + 5678)) >&2 && exit 4";
    let outcome = caveau
        .run(&["run", "--no-stdio", "--name", "mute", &image("busybox"), "--", "sh", "-c", script])
        .expect_code(4);
    assert_eq!(outcome.stdout, "");
    assert!(!outcome.stderr.contains("12345678"), "{}", outcome.stderr);
    assert_eq!(caveau.run(&["logs", "mute"]).success().stdout, "");
    let grep =
        std::process::Command::new("grep").args(["-r", "12345678"]).arg(caveau.state()).output().expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "nothing of it is in the group's folder");
    caveau.run(&["rm", "mute"]).success();
}
