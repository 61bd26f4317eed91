//! Commands that need no VM.

use std::os::unix::fs::PermissionsExt as _;

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
fn a_group_is_predicted_from_its_policy_and_the_guest() {
    let Some(caveau) = Caveau::new() else { return };
    let policy = caveau.run(&["policy", "generate", &image("busybox")]).success().stdout;
    let predicted = caveau.run_with_input(&["measure", "--group", "-"], policy.as_bytes()).success().stdout;
    let mut predicted: serde_json::Value = serde_json::from_str(&predicted).expect("JSON");
    let group = predicted.as_object_mut().and_then(|values| values.remove("group")).expect("a group");
    let digest = caveau.run_with_input(&["policy", "digest", "-"], policy.as_bytes()).success().stdout;
    assert_eq!(group["policy_sha256"], digest.trim());
    let text = std::fs::read_to_string(guest_folder().join("guest.json")).expect("guest.json");
    assert_eq!(predicted, serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), "all else is the guest's");
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
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its owner may write to it");
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
        (&["run", "--memory", "100M", "oci:x"], 125, "from 128"),
        (&["run", "--scratch", "19M", "oci:x"], 125, "20 MiB"),
        (&["run", "--memory-scratch", "--scratch", "1G", "oci:x"], 125, "--scratch"),
        (&["run", "--cpus", "65", "oci:x"], 125, "from 1 to 64"),
        (&["run", "--user", "a:b:c", "oci:x"], 125, "a:b:c"),
        (&["run", "--workdir", "tmp", "oci:x"], 125, "tmp"),
        (&["run", "--name", "a/b", "oci:x"], 125, "a/b"),
        (&["run", "-e", "CAVEAU_NOT_SET_ANYWHERE", "oci:x"], 125, "CAVEAU_NOT_SET_ANYWHERE"),
        (&["run", "-e", "=x", "oci:x"], 125, "NAME=value"),
        (&["run", "--tmpfs", "/proc/x", "oci:x"], 125, "/proc/x"),
        (&["run", "-v", "tmpfs:x", "oci:x"], 125, "absolute path"),
        (&["run", "-p", "80", "oci:x"], 125, "HOST:GUEST"),
        (&["run", "--cap-add", "EVERYTHING", "oci:x"], 125, "EVERYTHING"),
        (&["run", "--policy", "/no/such/file", "oci:x"], 125, "/no/such/file"),
        (&["run", "--guest", "/no/such/folder", "oci:x"], 125, "caveau guest build"),
        (&["run", "--tee", "snp", "oci:x"], 125, "--firmware"),
        (&["run", "--no-such-option", "oci:x"], 125, "--no-such-option"),
        (&["run"], 125, "IMAGE"),
        (&["exec", "--no-such-option"], 125, "--no-such-option"),
        (&["exec", "nobody", "true"], 125, "nobody"),
        (&["run", "-v", "/etc:/etc", "oci:x"], 125, "tmpfs"),
    ] {
        let outcome = caveau.run(arguments).expect_code(code);
        assert!(outcome.stderr.contains(says), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn an_image_with_more_layers_than_a_vm_has_disks_is_refused_before_they_are_read() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = folder.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let layer = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:00","size":1}"#;
    let layer = layer.replace("00", &"0".repeat(64));
    let layers = vec![layer.clone(); 241].join(",");
    let config = layer.replace("layer.v1.tar", "config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{layers}]}}"#);
    let file = folder.path().join("manifest");
    std::fs::write(&file, &manifest).expect("written");
    let output = std::process::Command::new("sha256sum").arg(&file).output().expect("sha256sum runs");
    let digest = String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a digest").to_owned();
    std::fs::rename(&file, blobs.join(&digest)).expect("renamed");
    let size = manifest.len();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{size}}}]}}"#
    );
    std::fs::write(folder.path().join("index.json"), index).expect("written");
    std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let refused = caveau.run(&["run", &format!("oci:{}", folder.path().display())]).expect_code(125);
    assert!(refused.stderr.contains("layers is 241, more than the limit of 240"), "{}", refused.stderr);
}

#[test]
fn everything_that_prints_a_table_prints_json() {
    let Some(caveau) = Caveau::new() else { return };
    let cache = tempfile::tempdir().expect("a folder");
    let json = |arguments: &[&str]| -> serde_json::Value {
        let arguments = [arguments, &["--json"]].concat();
        let output = caveau.command(&arguments).env("XDG_CACHE_HOME", cache.path()).output().expect("caveau runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    };
    let busybox = image("busybox");
    let pulled = json(&["image", "pull", &busybox]);
    assert!(pulled["reference"] == busybox.as_str() && pulled["layers"].as_array().is_some_and(|all| all.len() == 1));
    assert_eq!(json(&["image", "ls"])[0]["platform"], "linux/amd64");
    let policy = json(&["policy", "generate", &busybox]);
    assert!(policy["policy"].as_str().is_some_and(|text| text.starts_with("package policy")));
    assert!(policy["leaves_open"].as_array().is_some_and(|open| !open.is_empty()), "{policy}");
    let file = cache.path().join("policy.rego");
    std::fs::write(&file, policy["policy"].as_str().expect("a text")).expect("written");
    assert_eq!(json(&["policy", "digest", &file.display().to_string()])["digest"], policy["digest"]);

    // The layer of the image, converted by hand, has the root that the image store found.
    let blobs = caveau_tests::images_folder().join("busybox/blobs/sha256");
    let blobs = std::fs::read_dir(blobs).expect("blobs").filter_map(Result::ok).map(|entry| entry.path());
    let tar = blobs.max_by_key(|path| path.metadata().map_or(0, |data| data.len())).expect("a layer");
    let (tar, built) = (tar.display().to_string(), cache.path().join("layer.img").display().to_string());
    assert_eq!(json(&["layer", "hash", &tar])["root"], pulled["layers"][0]["root"]);
    assert_eq!(json(&["layer", "build", &tar, "-o", &built])["root"], pulled["layers"][0]["root"]);
    assert_eq!(json(&["measure"])["tee"], "emulated-snp");
    let guest = json(&["guest", "inspect"]);
    assert!(guest["parts"]["initrd.img"]["sha256"].is_string(), "{guest}");
    assert!(json(&["doctor"])["findings"].as_array().is_some_and(|all| all.iter().all(|row| row["name"].is_string())));
    assert_eq!(json(&["ps", "--all"]), serde_json::json!([]));
    assert_eq!(json(&["image", "rm", &busybox])["images"], 1);
    assert_eq!(json(&["image", "prune"])["layers"], 0);
    assert_eq!(json(&["image", "ls"]), serde_json::json!([]));
}
