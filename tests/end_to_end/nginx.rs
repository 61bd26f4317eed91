//! A real server, from start to proof: HTTP, exec, logs, statistics, attestation, stop.

use caveau_tests::{Caveau, eventually, free_port, guest_folder, http_get, image};

const NONCE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn nginx_serves_and_proves_what_it_is() {
    let Some(caveau) = Caveau::new() else { return };
    let port = free_port();
    let publish = format!("{port}:80");
    let nginx = image("nginx");
    let options = ["--allow-exec", "cat /proc/version", &nginx];
    let policy = caveau.run(&[&["policy", "generate"][..], &options].concat()).success();
    assert!(policy.stdout.starts_with("package policy"), "{}", policy.stdout);
    assert!(
        policy.stderr.contains("the host reads its output"),
        "what the policy leaves open is said: {}",
        policy.stderr
    );

    let started = caveau.run(&[&["run", "-d", "--name", "web", "-p", &publish][..], &options].concat()).success();
    assert_eq!(started.stdout.trim(), "web");
    let page = http_get(port, "/").expect("nginx answers");
    assert!(page.contains("<html") || page.contains("nginx"), "{page}");

    // Many requests over several connections at once are all answered.
    let address = format!("http://127.0.0.1:{port}/");
    let load = std::process::Command::new("wrk")
        .args(["-t", "1", "-c", "4", "-d", "2s", &address])
        .output()
        .expect("wrk runs");
    let text = String::from_utf8_lossy(&load.stdout).into_owned();
    assert!(load.status.success() && text.contains("requests in") && !text.contains("Non-2xx"), "{text}");

    // The same name and the same port are refused while they are taken.
    let again = caveau.run(&["run", "-d", "--name", "web", &nginx]).expect_code(125);
    assert!(again.stderr.contains("web"), "{}", again.stderr);
    let taken = caveau.run(&["run", "-d", "-p", &publish, &nginx]).expect_code(125);
    assert!(taken.stderr.contains(&port.to_string()), "{}", taken.stderr);

    // exec: what the policy names, and nothing else.
    let version = caveau.run(&["exec", "web", "cat", "/proc/version"]).success();
    assert!(version.stdout.starts_with("Linux version"), "{}", version.stdout);
    let denied = caveau.run(&["exec", "web", "cat", "/etc/passwd"]).expect_code(125);
    assert!(denied.stderr.contains("denied") && denied.stderr.contains("/etc/passwd"), "{}", denied.stderr);

    let stats = caveau.run(&["stats", "web", "--json"]).success().json();
    assert!(stats["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert!(stats["agent_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    let listed = caveau.run(&["ps", "--json"]).success().json();
    assert_eq!(listed[0]["name"], "web", "{listed}");
    assert_eq!(listed[0]["tee"], "emulated-snp", "{listed}");

    // The access log line of our request arrives in the log.
    eventually(|| {
        let logs = caveau.run(&["logs", "web"]);
        anyhow::ensure!(logs.stdout.contains("GET /"), "{}", logs.stdout);
        Ok(())
    })
    .expect("the access log is in the group's log");

    prove(&caveau, &policy.stdout);

    caveau.run(&["stop", "web"]).success();
    assert_eq!(caveau.run(&["ps", "--json"]).success().json().as_array().map(Vec::len), Some(0));
    let ended = caveau.run(&["ps", "-a", "--json"]).success().json();
    assert_eq!(ended[0]["name"], "web", "{ended}");
    caveau.run(&["rm", "web"]).success();
    assert!(caveau.groups().is_empty());
}

/// Attests the running group and holds the evidence against right and wrong expectations.
fn prove(caveau: &Caveau, policy: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (evidence, policy_file, other_policy) = (file("evidence.json"), file("policy.rego"), file("other.rego"));
    std::fs::write(&policy_file, policy).expect("the policy is written");
    std::fs::write(&other_policy, format!("{policy}\n")).expect("the other policy is written");
    let reference = guest_folder().join("guest.json").display().to_string();
    let root = caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");

    caveau.run(&["attest", "web", "--nonce", NONCE, "-o", &evidence]).success();
    let text = std::fs::read_to_string(&evidence).expect("the evidence is there");
    let held: serde_json::Value = serde_json::from_str(&text).expect("the evidence is JSON");
    for part in ["report", "policy", "certificates"] {
        assert!(!held[part].is_null(), "{part}: {held}");
    }
    for certificate in ["vek", "intermediate", "root", "crl"] {
        assert!(held["certificates"][certificate].is_string(), "{certificate}: {held}");
    }
    let known = std::fs::read_to_string(&reference).expect("the reference values are there");
    assert_eq!(held["reference_values"], serde_json::from_str::<serde_json::Value>(&known).expect("JSON"));
    let complete = [
        "--nonce",
        NONCE,
        "--policy",
        &policy_file,
        "--reference",
        &reference,
        "--cpus",
        "1",
        "--allow-emulated",
        &root,
    ];
    let verify = |arguments: &[&str]| caveau.run(&[&["verify", &evidence][..], arguments].concat());
    let good = verify(&complete).success();
    assert!(good.stdout.to_lowercase().contains("emulated"), "{}", good.stdout);
    let good = verify(&[&complete[..], &["--json"]].concat()).success().json();
    assert!(good["checks"].as_array().is_some_and(|checks| checks.len() > 10), "{good}");

    // Without the word for it, an emulated processor is nothing; without expectations there is no pass.
    verify(&complete[..8]).expect_code(1);
    let unappraised = verify(&["--allow-emulated", &root]).expect_code(1);
    assert!(unappraised.stdout.contains("authentic, not appraised"), "{}", unappraised.stdout);

    // Each wrong expectation is found.
    let wrong = |at: usize, value: &str| {
        let mut arguments = complete;
        arguments[at] = value;
        verify(&arguments).expect_code(1);
    };
    wrong(1, &NONCE.replace('0', "1"));
    wrong(3, &other_policy);
    wrong(7, "2");
}
