//! An image straight from a registry.

use caveau_tests::{Caveau, registry::Registry};

#[test]
fn an_image_is_pulled_and_run_in_one_command() {
    let Some(caveau) = Caveau::with_an_empty_cache() else { return };
    let registry = Registry::start();
    let reference = registry.push("busybox");
    let run = |options: &[&str], command: &[&str]| {
        caveau.run(&[&["run", "--rm"][..], options, &[&reference, "--"], command].concat())
    };
    // Plain HTTP is only spoken to whom that was said of.
    let refused = run(&[], &["true"]).expect_code(125);
    assert!(refused.stderr.contains(&registry.address), "{}", refused.stderr);
    let ran = run(&["--insecure-registry", &registry.address], &["sh", "-c", "echo pulled; exit 9"]).expect_code(9);
    assert_eq!(ran.stdout, "pulled\n");
    let listed = caveau.run(&["image", "ls"]).success().stdout;
    assert!(listed.contains(&reference), "{listed}");
}
