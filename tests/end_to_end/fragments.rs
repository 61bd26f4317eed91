//! A policy that takes in what somebody else signed, and a record of what was asked of it.

use std::path::Path;

use caveau_tests::{Caveau, Outcome, image};

/// A policy without containers of its own, the signed fragment that has them, and the keys of its signer.
struct Signed {
    policy: String,
    fragment: String,
    keys: String,
}

/// What the owner does: a policy of the options becomes a fragment, and a policy that takes that fragment.
fn signed(caveau: &Caveau, folder: &Path, options: &[&str]) -> Signed {
    let path = |name: &str| folder.join(name).display().to_string();
    let [whole, text, keys, policy] = ["whole.rego", "web.rego", "keys", "policy.rego"].map(path);
    let generated = caveau.run(&[&["policy", "generate"][..], options].concat()).success().stdout;
    std::fs::write(&whole, &generated).expect("the policy is written");
    let made = caveau.run(&["fragment", "generate", "--policy", &whole, "--namespace", "web", "--svn", "2"]).success();
    std::fs::write(&text, made.stdout).expect("the fragment is written");
    caveau.run(&["fragment", "chain", &keys]).success();
    let statement = sign(caveau, &text, &keys).success().stdout;
    let (before, rest) = generated.split_once("containers := [\n").expect("the policy has containers");
    let (_, after) = rest.split_once("\n]\n").expect("the list ends");
    let taking = format!("{before}containers := []\nfragments := [{}]\n{after}", statement.trim());
    std::fs::write(&policy, taking).expect("the policy is written");
    Signed { policy, fragment: format!("{text}.cose"), keys }
}

fn sign(caveau: &Caveau, text: &str, keys: &str) -> Outcome {
    sign_as(caveau, text, keys, &[])
}

fn sign_as(caveau: &Caveau, text: &str, keys: &str, options: &[&str]) -> Outcome {
    let (key, chain) = (format!("{keys}/signer.key"), format!("{keys}/chain.pem"));
    let sign = ["fragment", "sign", text, "--key", &key, "--chain", &chain, "--feed", "example.org/web"];
    caveau.run(&[&sign[..], options].concat())
}

#[test]
fn containers_of_a_signed_fragment_run_and_no_others() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let busybox = image("busybox");
    let options = [busybox.as_str(), "--", "echo", "signed"];
    let Signed { policy, fragment, keys } = signed(&caveau, folder.path(), &options);
    let run = |more: &[&str]| caveau.run(&[&["run", "--rm", "--policy", &policy][..], more, &options].concat());

    let ran = run(&["--fragment", &fragment]).success();
    assert_eq!(ran.stdout, "signed\n");
    // Evidence says which fragment was loaded: whose, and what about.
    let long = [busybox.as_str(), "--", "sleep", "600"];
    let other = folder.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    let of_long = signed(&caveau, &other, &long);
    let start = ["run", "-d", "--name", "taken", "--policy", &of_long.policy, "--fragment", &of_long.fragment];
    caveau.run(&[&start[..], &long].concat()).success();
    let evidence = folder.path().join("evidence.json").display().to_string();
    let nonce = "00112233445566778899aabbccddeeff";
    caveau.run(&["attest", "taken", "--nonce", nonce, "--events", "-o", &evidence]).success();
    let root = caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let verified = caveau.run(&["verify", &evidence, "--nonce", nonce, "--allow-emulated", &root]);
    let line = verified.stdout.lines().find(|line| line.trim_start().starts_with("fragment ")).unwrap_or_default();
    assert!(line.contains("example.org/web, by did:x509:0:sha256:"), "{verified:?}");
    caveau.run(&["rm", "--force", "taken"]).success();

    // The policy alone has no container: not even its layer may be mounted.
    let without = run(&[]).expect_code(125);
    assert!(without.stderr.contains("mount_device denied by policy"), "{}", without.stderr);

    // One byte of the envelope: the signature does not hold.
    let mut bytes = std::fs::read(&fragment).expect("the fragment");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let edited = folder.path().join("edited.cose").display().to_string();
    std::fs::write(&edited, bytes).expect("written");
    let refused = run(&["--fragment", &edited]).expect_code(125);
    assert!(refused.stderr.contains("the envelope is refused"), "{}", refused.stderr);

    // The same text, signed well by somebody whom the policy does not name.
    let others = format!("{keys}-of-others");
    caveau.run(&["fragment", "chain", &others]).success();
    let copy = folder.path().join("copy.rego").display().to_string();
    std::fs::copy(fragment.trim_end_matches(".cose"), &copy).expect("the text is copied");
    sign(&caveau, &copy, &others).success();
    let denied = run(&["--fragment", &format!("{copy}.cose")]).expect_code(125);
    assert!(denied.stderr.contains("load_fragment denied by policy"), "{}", denied.stderr);

    // Signed as something else, it is not looked at before the guest does.
    let text = std::fs::read_to_string(fragment.trim_end_matches(".cose")).expect("the text");
    let taking = folder.path().join("unseen.rego").display().to_string();
    std::fs::write(&taking, text.replacen("package web", "package Framework", 1)).expect("written");
    sign_as(&caveau, &taking, &keys, &["--content-type", "application/octet-stream"]).success();
    let denied = run(&["--fragment", &format!("{taking}.cose")]).expect_code(125);
    assert!(denied.stderr.contains("load_fragment denied by policy: namespace"), "{}", denied.stderr);

    // Names of the framework's are no fragment's, however they are spelled.
    for name in ["framework", "Framework", "api", "policy", "metadata"] {
        let text = std::fs::read_to_string(fragment.trim_end_matches(".cose")).expect("the text");
        let taking = folder.path().join(format!("{name}.rego")).display().to_string();
        std::fs::write(&taking, text.replacen("package web", &format!("package {name}"), 1)).expect("written");
        let signed = sign(&caveau, &taking, &keys);
        if signed.code == 0 {
            let denied = run(&["--fragment", &format!("{taking}.cose")]).expect_code(125);
            assert!(denied.stderr.contains("load_fragment denied by policy: namespace"), "{name}: {}", denied.stderr);
        } else {
            assert!(signed.stderr.contains(name), "{}", signed.stderr);
        }
    }
}

#[test]
fn a_denial_is_kept_and_mended_offline() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (policy, mended) = (path("policy.rego"), path("mended.rego"));
    let busybox = image("busybox");
    let generated = caveau.run(&["policy", "generate", &busybox, "--", "echo", "one"]).success().stdout;
    std::fs::write(&policy, generated).expect("the policy is written");
    let asked = ["--policy", &policy, &busybox, "--", "echo", "two"];
    caveau.run(&[&["run", "--record", "--name", "kept"][..], &asked].concat()).expect_code(125);
    let kept = caveau.state().join("kept/requests.jsonl").display().to_string();
    let replayed = caveau.run(&["policy", "replay", &policy, &kept]).expect_code(1);
    assert!(replayed.stdout.contains("create_container"), "{}", replayed.stdout);
    caveau.run(&["policy", "replay", &policy, &kept, "--amend", &mended]).success();
    caveau.run(&["policy", "diff", &policy, &mended]).expect_code(1);
    let ran = caveau.run(&["run", "--rm", "--policy", &mended, &busybox, "--", "echo", "two"]).success();
    assert_eq!(ran.stdout, "two\n");
}
