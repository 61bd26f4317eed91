//! Commands that need no VM.

use caveau_tests::{Caveau, guest_folder, image};

#[test]
fn a_policy_is_the_same_each_time_and_its_digest_is_sha256() {
    let Some(caveau) = Caveau::new() else { return };
    let generate = |extra: &[&str]| {
        caveau.run(&[&["policy", "generate"][..], extra, &[&image("busybox")]].concat()).success().stdout
    };
    let (first, second, other) = (generate(&[]), generate(&[]), generate(&["-e", "A=b"]));
    assert_eq!(first, second);
    assert_ne!(first, other);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.rego");
    std::fs::write(&file, &first).expect("written");
    let digest = caveau.run(&["policy", "digest", &file.display().to_string()]).success().stdout;
    let expected = std::process::Command::new("sha256sum").arg(&file).output().expect("sha256sum runs");
    assert_eq!(digest.trim(), String::from_utf8_lossy(&expected.stdout).split(' ').next().expect("a digest"));
    let piped = caveau.run_with_input(&["policy", "digest", "-"], first.as_bytes()).success().stdout;
    assert_eq!(piped, digest);
}

#[test]
fn the_launch_digest_is_the_one_in_guest_json() {
    let Some(caveau) = Caveau::new() else { return };
    let text = std::fs::read_to_string(guest_folder().join("guest.json")).expect("guest.json");
    let guest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for cpus in [1, 2] {
        let measured = caveau.run(&["measure", "--cpus", &cpus.to_string(), "--cpu-type", "EPYC-v4"]).success().stdout;
        let mut listed = guest["tees"]["emulated-snp"]["launch_digests"].as_array().expect("digests").iter();
        let expected = listed.find(|row| row["vcpus"] == cpus && row["vcpu_type"] == "EPYC-v4").expect("a row");
        assert_eq!(measured.trim(), expected["digest"].as_str().expect("a digest"));
    }
}

#[test]
fn images_are_listed_and_damaged_layers_are_made_again() {
    let Some(caveau) = Caveau::new() else { return };
    let cache = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let output = caveau.command(arguments).env("XDG_CACHE_HOME", cache.path()).output().expect("caveau runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let policy = run(&["policy", "generate", &image("busybox")]);
    assert!(run(&["image", "ls"]).contains("busybox"));
    let layers = cache.path().join("caveau/layers");
    let file = std::fs::read_dir(&layers).expect("layers").filter_map(Result::ok).map(|entry| entry.path());
    let file = file.max_by_key(|path| path.metadata().map_or(0, |data| data.len())).expect("a layer");
    let mut bytes = std::fs::read(&file).expect("the layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("the layer is damaged");
    assert_eq!(run(&["policy", "generate", &image("busybox")]), policy);
    bytes[middle] ^= 1;
    assert!(std::fs::read(&file).expect("the layer") == bytes, "the damaged layer was made again, byte for byte");
    run(&["image", "prune", "--all"]);
    assert!(!run(&["image", "ls"]).contains("busybox"));
}

#[test]
fn wrong_usage_is_told_with_its_way_out() {
    let Some(caveau) = Caveau::new() else { return };
    for (arguments, code, says) in [
        (&["frobnicate"][..], 2, "frobnicate"),
        (&["logs", "nobody"], 2, "nobody"),
        (&["stop", "nobody"], 2, "nobody"),
        (&["attest", "nobody", "--nonce", "00"], 2, "nonce"),
        (&["verify", "/no/such/file"], 2, "/no/such/file"),
        (&["policy", "digest", "/no/such/file"], 2, "/no/such/file"),
        (&["layer", "hash", "/no/such/file"], 2, "/no/such/file"),
        (&["run", "--memory", "lots", "oci:x"], 125, "lots"),
        (&["run", "-v", "/etc:/etc", "oci:x"], 125, "tmpfs"),
    ] {
        let outcome = caveau.run(arguments).expect_code(code);
        assert!(outcome.stderr.contains(says), "{arguments:?}: {}", outcome.stderr);
    }
}
