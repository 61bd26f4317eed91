//! A container makes device nodes to reach other layers or the scratch disk below it.

use caveau_tests::{Caveau, image};

#[test]
fn device_nodes_lead_nowhere() {
    let Some(caveau) = Caveau::new() else { return };
    // CAP_MKNOD is among Docker's defaults: the node can be made, and neither it nor one of the guest's can be opened.
    let script = "
        for major in 8 252 253 254; do for minor in 0 1 2 16; do
            mknod /tmp/node$major$minor b $major $minor 2>/dev/null && dd if=/tmp/node$major$minor of=/dev/null bs=512 count=1 2>/dev/null && echo READ $major:$minor
        done; done
        mknod /tmp/mem c 1 1 && dd if=/tmp/mem of=/dev/null bs=1 count=1 2>/dev/null && echo READ memory
        mknod /tmp/port c 10 200 && dd if=/tmp/port of=/dev/null bs=1 count=1 2>/dev/null && echo READ tun
        for file in /dev/zero /dev/urandom; do dd if=$file of=/dev/null bs=1 count=1 2>/dev/null || echo LOST $file; done
        echo done";
    let outcome = caveau.run(&["run", "--rm", &image("busybox"), "--", "sh", "-c", script]);
    let outcome = outcome.success();
    assert!(!outcome.stdout.contains("READ"), "{}", outcome.stdout);
    assert!(
        !outcome.stdout.contains("LOST /dev/zero") && !outcome.stdout.contains("LOST /dev/urandom"),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.ends_with("done\n"), "{}", outcome.stdout);
}
