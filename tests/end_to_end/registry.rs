//! An image straight from a registry.

use caveau_tests::{Caveau, registry::Registry};

#[test]
fn an_image_is_pulled_and_run_in_one_command() {
    let Some(caveau) = Caveau::with_an_empty_cache() else { return };
    let registry = Registry::start();
    let reference = registry.push("busybox");
    let options = ["run", "--rm", "--insecure-registry", &registry.address, &reference];
    let ran = caveau.run(&[&options[..], &["--", "sh", "-c", "echo pulled; exit 9"]].concat()).expect_code(9);
    assert_eq!(ran.stdout, "pulled\n");
    let listed = caveau.run(&["image", "ls"]).success().stdout;
    assert!(listed.contains(&reference), "{listed}");
}
