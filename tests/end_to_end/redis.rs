//! A server with a volume, driven by its own benchmark from the host.

use std::process::Command;

use caveau_tests::{Caveau, eventually, free_port, image};

#[test]
fn redis_keeps_data_and_survives_its_benchmark() {
    let Some(caveau) = Caveau::new() else { return };
    let port = free_port().to_string();
    caveau.run(&["run", "-d", "--name", "db", "-p", &format!("{port}:6379"), &image("redis")]).success();
    let cli = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("redis-cli").args(["-p", &port]).args(arguments).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    eventually(|| {
        let answer = cli(&["ping"])?;
        anyhow::ensure!(answer == "PONG", "{answer}");
        Ok(())
    })
    .expect("redis answers");
    assert_eq!(cli(&["set", "key", "value"]).expect("set"), "OK");
    let benchmark = Command::new("redis-benchmark")
        .args(["-p", &port, "-n", "500", "-c", "5", "-t", "set,get", "--csv"])
        .output()
        .expect("redis-benchmark runs");
    let text = String::from_utf8_lossy(&benchmark.stdout).into_owned();
    assert!(benchmark.status.success() && text.contains("\"SET\"") && text.contains("\"GET\""), "{text}");
    assert_eq!(cli(&["get", "key"]).expect("get"), "value");
    // What is written goes to the encrypted scratch disk and comes back.
    assert_eq!(cli(&["save"]).expect("save"), "OK");
    caveau.run(&["stop", "db"]).success();
    let inspected = caveau.run(&["inspect", "db"]).success().json();
    assert_eq!(inspected["record"]["containers"][0]["exit"]["code"], 0, "{inspected}");
}
