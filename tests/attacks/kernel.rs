//! A container that may administer the system tries to open what the guest closed before there was any container: in the
//! guest's own kernel, and in the distribution's.

use std::path::Path;

use caveau_tests::{Caveau, image};

/// Says what is open; ends with `done` where it could ask it all.
const SCRIPT: &str = "
    if [ -e /proc/modules ]; then echo modules $(cat /proc/sys/kernel/modules_disabled); else echo modules none; fi
    for setting in dmesg_restrict kptr_restrict; do
        echo $setting $(cat /proc/sys/kernel/$setting)
    done
    for advice in ipv4/conf/*/accept_redirects ipv6/conf/*/accept_redirects ipv6/conf/*/accept_ra; do
        for file in /proc/sys/net/$advice; do echo $file $(cat $file); done
    done
    echo 0 2>/dev/null >/proc/sys/kernel/modules_disabled && echo OPENED modules
    mkdir -p /tmp/security && mount -t securityfs none /tmp/security && echo lockdown $(cat /tmp/security/lockdown)
    echo none 2>/dev/null >/tmp/security/lockdown && echo OPENED lockdown
    mknod /tmp/memory c 1 1 && dd if=/tmp/memory of=/dev/null bs=1 count=1 2>/dev/null && echo OPENED memory
    mkdir -p /tmp/debug && mount -t debugfs none /tmp/debug 2>/dev/null && [ -n \"$(ls /tmp/debug)\" ] && cat /tmp/debug/* && echo OPENED debugfs
    [ -e /sys/bus/acpi ] && ls /sys/bus/acpi/devices | sed 's/^/STARTED acpi device /'
    echo kernel $(uname -r)
    echo done";

/// What a guest said, held against what each kernel must say.
fn is_closed(said: &str) {
    assert!(!said.contains("OPENED") && !said.contains("STARTED") && said.ends_with("done\n"), "{said}");
    for line in ["dmesg_restrict 1", "kptr_restrict 2"] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    let advice: Vec<_> = said.lines().filter(|line| line.starts_with("/proc/sys/net/")).collect();
    assert!(advice.iter().filter(|line| line.contains("/eth0/")).count() == 3, "{said}");
    assert!(advice.iter().all(|line| line.ends_with(" 0")), "the network is not to be asked for advice: {said}");
    assert!(said.contains("lockdown none [integrity]"), "{said}");
}

#[test]
fn the_kernel_stays_closed() {
    let Some(caveau) = Caveau::new() else { return };
    let outcome = caveau.run(&["run", "--rm", "--cap-add", "SYS_ADMIN", &image("busybox"), "--", "sh", "-c", SCRIPT]);
    let said = outcome.success().stdout;
    is_closed(&said);
    assert!(said.contains("modules none\n"), "{said}");
    assert!(said.contains("-caveau\n"), "the guest's own kernel: {said}");
}

#[test]
fn the_distributions_kernel_stays_closed_too() {
    let Some(caveau) = Caveau::new() else { return };
    let (Some(kernel), Some(agent)) =
        (std::env::var_os("CAVEAU_DISTRIBUTION_KERNEL"), std::env::var_os("CAVEAU_AGENT"))
    else {
        println!("skipped: no distribution kernel; run the tests with `cargo xtask test`");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let guest = folder.path().join("guest").display().to_string();
    let text = |path: &std::ffi::OsStr| Path::new(path).display().to_string();
    let (kernel, agent) = (text(&kernel), text(&agent));
    let built = caveau.run(&["--json", "guest", "build", "--kernel", &kernel, "--agent", &agent, "-o", &guest]);
    let built = built.success().json();
    assert!(built["modules"].as_array().is_some_and(|modules| modules.len() > 10), "{built}");
    assert!(
        built["kernel"]["package"]["name"].as_str().is_some_and(|name| name.starts_with("linux-image-")),
        "{built}"
    );
    let busybox = image("busybox");
    let run = ["run", "--rm", "--guest", &guest, "--cap-add", "SYS_ADMIN", &busybox, "--", "sh", "-c", SCRIPT];
    let said = caveau.run(&run).success().stdout;
    is_closed(&said);
    assert!(said.contains("modules 1\n"), "{said}");
}
