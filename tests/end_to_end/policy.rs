//! `run --policy FILE`: the owner's text decides, not the host's options.

use caveau_tests::{Caveau, image};

#[test]
fn a_policy_admits_what_it_was_made_for_and_nothing_else() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.rego").display().to_string();
    let busybox = image("busybox");
    let options = ["-e", "KIND=owners", "--workdir", "/tmp", &busybox, "--", "sh", "-c", "echo $KIND in $PWD; exit 3"];
    let policy = caveau.run(&[&["policy", "generate"][..], &options].concat()).success().stdout;
    std::fs::write(&file, &policy).expect("the policy is written");

    let ran = caveau.run(&[&["run", "--rm", "--policy", &file][..], &options].concat()).expect_code(3);
    assert_eq!(ran.stdout, "owners in /tmp\n");

    let mut other = options;
    other[1] = "KIND=hosts";
    let denied = caveau.run(&[&["run", "--name", "denied", "--policy", &file][..], &other].concat()).expect_code(125);
    assert!(denied.stderr.contains("denied by policy") && denied.stderr.contains("KIND"), "{}", denied.stderr);
    assert!(!denied.stderr.contains("owners"), "values are not told: {}", denied.stderr);

    // What happened stays to be looked at, until it is removed.
    let listed = caveau.run(&["ps", "--all"]).success().stdout;
    assert!(listed.contains("denied") && listed.contains("failed: "), "{listed}");
    let inspected = caveau.run(&["inspect", "denied"]).success().json();
    assert_eq!(inspected["state"]["status"], "failed", "{inspected}");
    assert!(inspected["record"]["phase"]["cause"]["denial"].is_object(), "{inspected}");
    caveau.run(&["rm", "denied"]).success();

    // A text that is no policy is refused before a VM is started.
    std::fs::write(&file, "allow everything\n").expect("written");
    let refused = caveau.run(&[&["run", "--name", "none", "--policy", &file][..], &options].concat()).expect_code(125);
    assert!(refused.stderr.contains(&file), "{}", refused.stderr);
    assert!(caveau.groups().is_empty());
}
