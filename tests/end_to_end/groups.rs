//! Several groups at once, many starts, and nothing left over.

use caveau_tests::{Caveau, image};

#[test]
fn groups_run_beside_each_other_and_leave_nothing() {
    let Some(caveau) = Caveau::new() else { return };
    let names = ["one", "two", "three"];
    let busybox = image("busybox");
    for name in names {
        let script = format!("echo I am {name}; trap 'exit 0' TERM; while :; do sleep 1; done");
        caveau.run(&["run", "-d", "--name", name, "--memory", "256M", &busybox, "--", "sh", "-c", &script]).success();
    }
    assert_eq!(caveau.run(&["ps", "--json"]).success().json().as_array().map(Vec::len), Some(3));
    for name in names {
        caveau_tests::eventually(|| {
            let logs = caveau.run(&["logs", name]).stdout;
            anyhow::ensure!(logs == format!("I am {name}\n"), "{logs:?}");
            Ok(())
        })
        .expect("each group has its own log");
    }
    caveau.run(&[&["stop"][..], &names].concat()).success();
    caveau.run(&[&["rm"][..], &names].concat()).success();
    assert!(caveau.groups().is_empty());
    assert_eq!(caveau.left_over(), Vec::<String>::new());
}

#[test]
fn starting_and_stopping_again_and_again_leaks_nothing() {
    let Some(caveau) = Caveau::new() else { return };
    for _ in 0..3 {
        caveau.run(&["run", "--rm", "--memory", "256M", &image("busybox"), "--", "true"]).success();
    }
    assert_eq!(caveau.left_over(), Vec::<String>::new());
    let mine = caveau.state().display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok).filter(|entry| {
        std::fs::read(entry.path().join("environ"))
            .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(mine.trim_end_matches("/caveau")))
    });
    assert_eq!(processes.count(), 0, "no process of ours is left");
}
