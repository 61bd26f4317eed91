//! What a policy asks for in its `caveau` objects: bounds, mounts, a network that is restricted.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    thread,
};

use caveau_tests::{Caveau, eventually, free_port, http_get, image};

/// A server on a loopback port that greets whoever connects, for as long as the test runs.
fn greeter() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"greeting\n");
            // Until the other side has read it.
            let _ = stream.read(&mut [0]);
        }
    });
    port
}

#[test]
fn a_group_is_kept_within_what_its_policy_says() {
    let Some(caveau) = Caveau::new() else { return };
    let (allowed, other, published) = (greeter(), greeter(), free_port());
    // 10.0.2.2 is this machine, as the guest sees it.
    let script = format!(
        "echo memory=$(cat /sys/fs/cgroup/memory.max)
        echo cpu=$(cat /sys/fs/cgroup/cpu.max | tr ' ' ,)
        echo pids=$(cat /sys/fs/cgroup/pids.max)
        dd if=/dev/zero of=/dev/null bs=80M count=1 2>/dev/null; echo above=$?
        dd if=/dev/zero of=/dev/null bs=8M count=1 2>/dev/null; echo below=$?
        echo raw=$(grep -c CapBnd:.*00000000a80405fb /proc/self/status)
        httpd -p 127.0.0.1:8082 -h /etc
        echo loopback=$(wget -q -O - http://127.0.0.1:8082/hostname)
        echo allowed=$(nc -w 20 10.0.2.2 {allowed} < /dev/null)
        echo other=$(nc -w 3 10.0.2.2 {other} < /dev/null)
        echo data=$(grep -c ' /data tmpfs' /proc/mounts)
        echo done=yes
        exec httpd -f -p 8080 -h /etc"
    );
    let publish = format!("{published}:8080");
    let connect = format!("10.0.2.2:{allowed}");
    let busybox = image("busybox");
    let options = [
        &["--publish", &publish, "--restrict-network", "--allow-connect", &connect, "--container-memory", "48M"][..],
        &["--container-cpus", "0.5", "--container-pids", "20", "--must-run", "--require-mounts"],
        &["--tmpfs", "/data:size=1m", &busybox, "--", "sh", "-c", &script],
    ]
    .concat();
    let policy = caveau.run(&[&["policy", "generate"][..], &options].concat()).success();
    assert!(policy.stderr.contains("others can connect to tcp port 8080"), "{}", policy.stderr);
    assert!(!policy.stderr.contains("leave out its mounts"), "{}", policy.stderr);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.rego").display().to_string();
    std::fs::write(&file, &policy.stdout).expect("the policy is written");
    let start = ["run", "-d", "--name", "kept", "--memory", "256M", "--policy", &file];
    caveau.run(&[&start[..], &options].concat()).success();
    let logs = eventually(|| {
        let logs = caveau.run(&["logs", "kept"]).stdout;
        anyhow::ensure!(logs.contains("done=yes"), "{logs}");
        Ok(logs)
    })
    .expect("it says all");
    let found: BTreeMap<_, _> = logs.lines().filter_map(|line| line.split_once('=')).collect();
    for (name, value) in [
        ("memory", "50331648"),
        ("cpu", "50000,100000"),
        ("pids", "20"),
        ("above", "137"),
        ("below", "0"),
        ("raw", "1"),
        ("loopback", "kept"),
        ("allowed", "greeting"),
        ("other", ""),
        ("data", "1"),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {logs}");
    }
    assert_eq!(http_get(published, "/hostname").expect("the published port is let through").trim(), "kept");
    caveau.run(&["attest", "kept", "--nonce", &"07".repeat(32)]).success();
    // A generated policy is the one of `run` with the same options, ports included.
    let record = caveau.run(&["inspect", "kept"]).success().json();
    let digest = caveau.run(&["policy", "digest", &file]).success().stdout;
    assert!(record.to_string().contains(digest.trim()), "{record}");
    caveau.run(&["rm", "--force", "kept"]).success();

    // The same image and policy, but a host that leaves out the mount, or asks for more memory.
    let lies: [fn(&mut Vec<&str>); 2] = [
        |options| options.retain(|option| !matches!(*option, "--tmpfs" | "/data:size=1m" | "--require-mounts")),
        |options| options.iter_mut().filter(|option| **option == "48M").for_each(|option| *option = "64M"),
    ];
    for (lie, word) in lies.into_iter().zip(["/data", "50331648 bytes"]) {
        let mut options = options.clone();
        lie(&mut options);
        let denied = caveau.run(&[&["run", "--rm", "--policy", &file][..], &options].concat()).expect_code(125);
        assert!(denied.stderr.contains("denied by policy") && denied.stderr.contains(word), "{}", denied.stderr);
    }
}
