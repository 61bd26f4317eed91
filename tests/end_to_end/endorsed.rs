//! A guest whose launch digest somebody signed for: its containers have the signature, and verifiers go by it.

use caveau_tests::{Caveau, eventually, guest_folder, image};
use sha2::{Digest as _, Sha256};

const NONCE: &str = "00112233445566778899aabbccddeeff";
const FEED: &str = "example.org/guest";

#[test]
fn a_signed_guest_is_verified_by_its_signer() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [guest, keys, policy, evidence] = ["guest", "keys", "policy.rego", "ev.json"].map(path);
    std::fs::create_dir(&guest).expect("a folder");
    for entry in std::fs::read_dir(guest_folder()).expect("the guest is there") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), folder.path().join("guest").join(entry.file_name())).expect("a part is copied");
    }
    caveau.run(&["fragment", "chain", &keys]).success();
    let (manifest, key, chain) =
        (format!("{guest}/guest.json"), format!("{keys}/signer.key"), format!("{keys}/chain.pem"));
    let sign = ["guest", "sign", &manifest, "--tee", "emulated-snp", "--key", &key, "--chain", &chain, "--feed", FEED];
    let issuer = caveau.run(&sign).success().stdout.trim().to_owned();
    let signed = format!("{guest}/reference-info.emulated-snp.cose");

    let busybox = image("busybox");
    let script = "base64 -d $UVM_SECURITY_CONTEXT_DIR/reference-info-base64 | sha256sum; sleep 600";
    let options = [busybox.as_str(), "--", "sh", "-c", script];
    let text = caveau.run(&[&["policy", "generate"][..], &options].concat()).success().stdout;
    std::fs::write(&policy, text).expect("the policy is written");
    let run = ["run", "--detach", "--name", "signed", "--guest", &guest, "--policy", &policy];
    caveau.run(&[&run[..], &options].concat()).success();
    let seen = eventually(|| {
        let logs = caveau.run(&["logs", "signed"]).stdout;
        let digest = logs.split_whitespace().next().map(str::to_owned);
        digest.ok_or_else(|| anyhow::anyhow!("nothing was printed"))
    });
    let expected = Sha256::digest(std::fs::read(&signed).expect("they were signed"));
    let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(seen.expect("the container prints"), expected);

    caveau.run(&["attest", "signed", "--nonce", NONCE, "-o", &evidence]).success();
    let root = caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let verify = |svn: &str, more: &[&str]| {
        let always = ["verify", &evidence, "--nonce", NONCE, "--policy", &policy, "--allow-emulated", &root];
        let signer = ["--endorsement-issuer", &issuer, "--endorsement-feed", FEED, "--endorsement-least-svn", svn];
        caveau.run(&[&always[..], &signer, more].concat())
    };
    // They came along in the evidence.
    let passed = verify("1", &[]).success();
    assert!(passed.stdout.contains("Signed reference values"), "{}", passed.stdout);
    let old = verify("4000000000", &[]).expect_code(1);
    assert!(old.stdout.contains("refused: measurement, reference-info-svn;"), "{}", old.stdout);
    // Where a host leaves them out, the owner's own do.
    let text = std::fs::read(&evidence).expect("the evidence is there");
    let mut bare: serde_json::Value = serde_json::from_slice(&text).expect("evidence is JSON");
    bare.as_object_mut().expect("an object").remove("endorsements").expect("they came along");
    std::fs::write(&evidence, bare.to_string()).expect("the evidence is written");
    let missing = verify("1", &[]).expect_code(1);
    assert!(missing.stdout.contains("refused: measurement, reference-info;"), "{}", missing.stdout);
    verify("1", &["--endorsement", &signed]).success();
    caveau.run(&["rm", "--force", "signed"]).success();
}
