//! Everything works for an ordinary user.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Output},
};

use caveau_tests::{Caveau, guest_folder, images_folder, program};

/// Number of the user and group `nobody` on Debian.
const NOBODY: u32 = 65534;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-r", "--dereference"]).arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} was not copied", from.display());
}

#[test]
fn an_ordinary_user_runs_an_image() {
    if Caveau::new().is_none() {
        return;
    }
    if Command::new("id").arg("-u").output().expect("id runs").stdout != b"0\n" {
        println!("every test of this run is by an ordinary user: nothing to change to");
        return;
    }
    // Short, since a Unix socket's path has at most 107 bytes.
    let home = tempfile::Builder::new().prefix("cv").tempdir_in("/tmp").expect("a folder");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).expect("its mode");
    let path = |name: &str| home.path().join(name);
    copy(&program(), &path("caveau"));
    copy(&guest_folder(), &path("guest"));
    copy(&images_folder().join("busybox"), &path("busybox"));
    let owned = Command::new("chown").args(["-R", &NOBODY.to_string()]).arg(home.path()).status().expect("chown runs");
    assert!(owned.success());
    chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("the folder is the user's");
    fs::create_dir(path("run")).expect("a folder");
    chown(path("run"), Some(NOBODY), Some(NOBODY)).expect("the folder is the user's");

    let caveau = |arguments: &[&str]| -> Output {
        let mut command = Command::new(path("caveau"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", home.path());
        command.env("XDG_RUNTIME_DIR", path("run")).env("CAVEAU_GUEST", path("guest")).current_dir("/");
        command.uid(NOBODY).gid(NOBODY).output().expect("caveau runs")
    };
    let text = |output: &Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let doctor = caveau(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
    let image = format!("oci:{}", path("busybox").display());
    let ran = caveau(&["run", "--rm", &image, "--", "sh", "-c", "id -u; echo x > /written; cat /written; exit 5"]);
    assert_eq!(ran.status.code(), Some(5), "{}", text(&ran));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "0\nx\n");
    let low = caveau(&["run", "-p", "81:80", &image]);
    if fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").is_ok_and(|port| port.trim() == "1024") {
        assert_eq!(low.status.code(), Some(125), "{}", text(&low));
        assert!(text(&low).contains("from 1024 up"), "{}", text(&low));
    }
    assert!(home.path().join(".cache/caveau").is_dir() && home.path().join(".local/share/caveau").is_dir());
}
