//! Images at the edges: many layers, a large one, and one whose changes a standard tool wrote.

use std::{fs, io::Read as _, path::Path, process::Command};

use caveau_tests::{Caveau, images_folder, layout::Layout};
use rustix::fs::{XattrFlags, setxattr};

#[test]
fn twenty_layers_are_one_file_system() {
    let Some(caveau) = Caveau::new() else { return };
    let mut layout = Layout::on_busybox();
    for number in 1..20u32 {
        let text = format!("layer {number}\n");
        layout.add(&format!("layers/{number}"), text.len() as u64, text.as_bytes());
    }
    layout.add("layers/7", 6, &b"above\n"[..]);
    let image = layout.finish();
    let outcome =
        caveau.run(&["run", "--rm", &image, "--", "sh", "-c", "cat /layers/19 /layers/7; ls /layers | wc -l"]);
    assert_eq!(outcome.success().stdout, "layer 19\nabove\n19\n");
}

#[test]
fn a_layer_of_one_gibibyte_is_read_at_its_end() {
    let Some(caveau) = Caveau::with_an_empty_cache() else { return };
    let mut layout = Layout::on_busybox();
    let end = b"the very end\n";
    let bytes = 1u64 << 30;
    let contents = std::io::repeat(0xa5).take(bytes - end.len() as u64).chain(&end[..]);
    layout.add("large", bytes, contents);
    let image = layout.finish();
    let script =
        "stat -c %s /large; tail -c 13 /large; dd if=/large bs=1M skip=500 count=1 2>/dev/null | od -An -tx1 | head -1";
    let ran = caveau.run(&["run", "--rm", &image, "--", "sh", "-c", script]).success();
    assert!(ran.stdout.starts_with("1073741824\nthe very end\n a5 a5"), "{}", ran.stdout);
}

/// `security.capability`, version 2 (kernel: include/uapi/linux/capability.h): CAP_CHOWN, permitted and effective.
const MAY_CHOWN: [u8; 20] = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Changes an image's files as somebody would who has them before him.
fn change(root: &Path) {
    let at = |path: &str| root.join(path);
    fs::remove_file(at("etc/group")).expect("removed");
    fs::remove_dir(at("var/spool/mail")).expect("removed");
    fs::write(at("var/spool/mail.moved"), "a file where a folder was\n").expect("written");
    fs::write(at("etc/first"), "twice there\n").expect("written");
    fs::hard_link(at("etc/first"), at("etc/second")).expect("linked");
    fs::write(at("etc/n\u{e4}me"), "of other letters\n").expect("written");
    std::os::unix::fs::symlink("../etc/first", at("home/link")).expect("linked");
    fs::create_dir(at("able")).expect("a folder");
    fs::copy(at("bin/busybox"), at("able/chown")).expect("copied");
    setxattr(at("able/chown"), c"security.capability", &MAY_CHOWN, XattrFlags::CREATE).expect("set");
}

#[test]
fn what_umoci_wrote_is_what_the_container_sees() {
    let Some(caveau) = Caveau::new() else { return };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can unpack an image with all that is in it");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (layout, bundle) = (folder.path().join("layout"), folder.path().join("bundle"));
    let run = |command: &mut Command| {
        let output = command.output().expect("the set-up installs umoci");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("cp").arg("-r").arg(images_folder().join("busybox")).arg(&layout));
    let image = |tag: &str| format!("{}:{tag}", layout.display());
    run(Command::new("umoci").args(["unpack", "--image", &image("latest")]).arg(&bundle));
    change(&bundle.join("rootfs"));
    run(Command::new("umoci").args(["repack", "--image", &image("changed")]).arg(&bundle));
    let script = "cat /var/spool/* /home/link /etc/n*me
        ls /etc /var/spool
        [ -e /etc/näme ] && echo of its name
        stat -c '%h links' /etc/first
        [ /etc/first -ef /etc/second ] && echo same
        touch /tmp/one /tmp/two
        chown 7 /tmp/one 2> /dev/null || echo may not
        /able/chown 7 /tmp/two && stat -c 'of %u' /tmp/two";
    let image = format!("oci:{}", image("changed"));
    let ran = caveau.run(&["run", "--rm", "--user", "12:34", &image, "--", "sh", "-c", script]).success();
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[..3], ["a file where a folder was", "twice there", "of other letters"], "{}", ran.stdout);
    for name in ["first", "second", "of its name", "passwd"] {
        assert!(lines.contains(&name), "{name}: {}", ran.stdout);
    }
    assert!(!lines.contains(&"group") && !lines.contains(&"mail"), "both were removed: {}", ran.stdout);
    assert_eq!(lines[lines.len() - 4..], ["2 links", "same", "may not", "of 7"], "{}", ran.stdout);
}
