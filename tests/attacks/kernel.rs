//! A container that may administer the system tries to open what the guest closed before there was any container.

use caveau_tests::{Caveau, image};

#[test]
fn the_kernel_stays_closed() {
    let Some(caveau) = Caveau::new() else { return };
    let script = "
        for setting in modules_disabled dmesg_restrict kptr_restrict; do
            echo $setting $(cat /proc/sys/kernel/$setting)
        done
        echo redirects $(cat /proc/sys/net/ipv4/conf/all/accept_redirects)
        echo 0 2>/dev/null >/proc/sys/kernel/modules_disabled && echo OPENED modules
        mkdir -p /tmp/security && mount -t securityfs none /tmp/security && echo lockdown $(cat /tmp/security/lockdown)
        echo none 2>/dev/null >/tmp/security/lockdown && echo OPENED lockdown
        mknod /tmp/memory c 1 1 && dd if=/tmp/memory of=/dev/null bs=1 count=1 2>/dev/null && echo OPENED memory
        echo done";
    let outcome = caveau.run(&["run", "--rm", "--cap-add", "SYS_ADMIN", &image("busybox"), "--", "sh", "-c", script]);
    let said = outcome.success().stdout.clone();
    assert!(!said.contains("OPENED") && said.ends_with("done\n"), "{said}");
    for line in ["modules_disabled 1", "dmesg_restrict 1", "kptr_restrict 2", "redirects 0"] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    assert!(said.contains("lockdown none [integrity]"), "{said}");
}
