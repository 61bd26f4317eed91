//! Everything works for an ordinary user.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use caveau_tests::{Caveau, Outcome, eventually, free_port, guest_folder, http_get, images_folder, program};

/// Number of the user and group `nobody` on Debian.
const NOBODY: u32 = 65534;

const NONCE: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-r", "--dereference"]).arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} was not copied", from.display());
}

/// An ordinary user with a home of its own, and all that it needs in there. Where the tests do not run as root, it is who
/// runs them.
struct User {
    home: tempfile::TempDir,
    is_root: bool,
}

impl User {
    fn new() -> Self {
        // Short, since a Unix socket's path has at most 107 bytes.
        let home = tempfile::Builder::new().prefix("cv").tempdir_in("/tmp").expect("a folder");
        let is_root = Command::new("id").arg("-u").output().expect("id runs").stdout == b"0\n";
        let user = Self { home, is_root };
        fs::set_permissions(user.home.path(), fs::Permissions::from_mode(0o700)).expect("its mode");
        copy(&program(), &user.path("caveau"));
        copy(&guest_folder(), &user.path("guest"));
        for image in ["busybox", "nginx"] {
            copy(&images_folder().join(image), &user.path(image));
        }
        fs::create_dir(user.path("run")).expect("a folder");
        if is_root {
            let owner = format!("{NOBODY}:{NOBODY}");
            let owned = Command::new("chown").args(["-R", &owner]).arg(user.home.path()).status().expect("chown runs");
            assert!(owned.success());
        }
        user
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn image(&self, name: &str) -> String {
        format!("oci:{}", self.path(name).display())
    }

    /// Runs `caveau` as this user, with nothing but its home.
    fn caveau(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(self.path("caveau"));
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", self.home.path());
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("CAVEAU_GUEST", self.path("guest")).current_dir("/");
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().expect("caveau runs").into()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Where the test has failed; otherwise there is none.
        let _ = self.caveau(&["rm", "--force", "web"]);
    }
}

#[test]
fn an_ordinary_user_runs_an_image() {
    if Caveau::new().is_none() {
        return;
    }
    let user = User::new();
    user.caveau(&["doctor"]).success();
    let busybox = user.image("busybox");
    let script = "id -u; echo x > /written; cat /written; exit 5";
    let ran = user.caveau(&["run", "--rm", &busybox, "--", "sh", "-c", script]).expect_code(5);
    assert_eq!(ran.stdout, "0\nx\n");
    if fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").is_ok_and(|port| port.trim() == "1024") {
        let low = user.caveau(&["run", "-p", "81:80", &busybox]).expect_code(125);
        assert!(low.stderr.contains("from 1024 up"), "{}", low.stderr);
    }
    assert!(user.path(".cache/caveau").is_dir() && user.path(".local/share/caveau").is_dir());
    serve_and_prove(&user);
    assert_eq!(user.caveau(&["ps", "--all", "--json"]).success().json(), serde_json::json!([]));
}

/// A server's whole life.
fn serve_and_prove(user: &User) {
    let port = free_port();
    let nginx = user.image("nginx");
    let options = ["--allow-exec", "cat /proc/version", &nginx];
    let policy = user.caveau(&[&["policy", "generate"][..], &options].concat()).success().stdout;
    let publish = format!("{port}:80");
    user.caveau(&[&["run", "-d", "--name", "web", "-p", &publish][..], &options].concat()).success();
    assert!(http_get(port, "/").expect("nginx answers").contains("Hello from nginx"));
    eventually(|| {
        let logs = user.caveau(&["logs", "web"]);
        anyhow::ensure!(logs.stdout.contains("GET /"), "{}", logs.stdout);
        Ok(())
    })
    .expect("the access log is in the group's log");
    let version = user.caveau(&["exec", "web", "cat", "/proc/version"]).success();
    assert!(version.stdout.starts_with("Linux version"), "{}", version.stdout);

    let file = |name: &str| user.path(name).display().to_string();
    let (evidence, policy_file, reference) = (file("evidence.json"), file("policy.rego"), file("guest/guest.json"));
    fs::write(&policy_file, policy).expect("the policy is written");
    fs::set_permissions(&policy_file, fs::Permissions::from_mode(0o644)).expect("its mode");
    user.caveau(&["attest", "web", "--nonce", NONCE, "-o", &evidence]).success();
    let root = user.caveau(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let given = ["verify", &evidence, "--nonce", NONCE, "--policy", &policy_file, "--reference", &reference];
    user.caveau(&[&given[..], &["--cpus", "1", "--allow-emulated", &root]].concat()).success();

    user.caveau(&["stop", "web"]).success();
    user.caveau(&["rm", "web"]).success();
}
