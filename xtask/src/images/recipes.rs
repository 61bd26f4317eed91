//! What is in each image.

use anyhow::{Context, Result};

use super::tree::Tree;

/// The search path that every image sets, as Debian's own images do.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Dependencies that only maintainer scripts and services of a whole system need.
pub(super) const LEFT_OUT: [&str; 44] = [
    "adduser",
    "debconf",
    "dpkg",
    "init-system-helpers",
    "iproute2",
    "libaudit-common",
    "libaudit1",
    "libbpf1",
    "libbsd0",
    "libcap-ng0",
    "libcap2-bin",
    "libcom-err2",
    "libdb5.3",
    "libelf1",
    "libfile-find-rule-perl",
    "libgdbm-compat4",
    "libgdbm6",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libmnl0",
    "libnsl2",
    "libnumber-compare-perl",
    "libpam-modules",
    "libpam-modules-bin",
    "libpam0g",
    "libperl5.36",
    "libsemanage-common",
    "libsemanage2",
    "libsepol2",
    "libtext-glob-perl",
    "libtirpc-common",
    "libtirpc3",
    "libxtables12",
    "lsb-base",
    "passwd",
    "perl",
    "perl-base",
    "perl-modules-5.36",
    "sysvinit-utils",
    "tar",
    "usrmerge",
];

/// One image.
pub(super) struct Recipe {
    /// The image's name.
    pub(super) name: &'static str,
    /// Its layers, base first.
    pub(super) layers: Vec<Layer>,
    /// Options of `umoci config`, without `--config.`, and their values.
    pub(super) config: Vec<(&'static str, &'static str)>,
}

/// One layer of an image.
pub(super) struct Layer {
    /// What the image's history says about the layer.
    pub(super) comment: &'static str,
    /// The packages whose files are in the layer, with what they depend on.
    pub(super) packages: &'static [&'static str],
    /// Adds to the packages' files what no package brings.
    pub(super) finish: fn(&mut Tree) -> Result<()>,
}

/// Every image.
pub(super) fn all() -> Vec<Recipe> {
    vec![busybox(), nginx(), redis(), python3()]
}

/// The layer under nginx, redis and python3: the same bytes in each.
fn base() -> Layer {
    Layer {
        comment: "minimal Debian: shell and core utilities",
        packages: &[
            "base-files",
            "base-passwd",
            "bash",
            "coreutils",
            "dash",
            "findutils",
            "grep",
            "hostname",
            "libc-bin",
            "netbase",
            "procps",
            "sed",
        ],
        finish: |tree| {
            for name in ["group", "passwd"] {
                let master = tree.read(&format!("usr/share/base-passwd/{name}.master"))?.to_vec();
                tree.file(&format!("etc/{name}"), 0o644, master);
            }
            for (link, target) in
                [("bin/sh", "dash"), ("usr/bin/awk", "mawk"), ("etc/os-release", "../usr/lib/os-release")]
            {
                if !tree.contains(link) {
                    tree.symlink(link, target);
                }
            }
            tree.file("etc/debian_chroot_note", 0o644, "This file is deleted by the layer above.\n");
            Ok(())
        },
    }
}

/// One layer; every applet is a hard link to the one binary.
fn busybox() -> Recipe {
    let layer = Layer {
        comment: "busybox with its applets as hard links",
        packages: &["busybox-static"],
        finish: |tree| {
            let binary = tree.read("bin/busybox")?.to_vec();
            for applet in applets(&binary)? {
                if applet != "bin/busybox" {
                    tree.hardlink(&applet, "bin/busybox")?;
                }
            }
            tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
            tree.file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
            tree.directory("root", 0o700);
            tree.directory("tmp", 0o1777);
            for path in ["dev", "home", "proc", "sys", "var/spool/mail"] {
                tree.directory(path, 0o755);
            }
            Ok(())
        },
    };
    Recipe { name: "busybox", layers: vec![layer], config: vec![("env", PATH), ("cmd", "sh")] }
}

/// The paths of busybox's applets, told by the binary itself, which is static and runs anywhere.
fn applets(binary: &[u8]) -> Result<Vec<String>> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("busybox");
    std::fs::write(&path, binary)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    let list = super::run(std::process::Command::new(&path).arg("--list-full")).context("busybox told no applets")?;
    Ok(String::from_utf8(list)?.lines().map(str::to_owned).collect())
}

/// Listens on port 80; the main process is root and its workers are www-data; logs go to the container's streams.
fn nginx() -> Recipe {
    let packages = Layer {
        comment: "nginx from its Debian package",
        packages: &["nginx"],
        finish: |tree| {
            tree.symlink("etc/nginx/sites-enabled/default", "/etc/nginx/sites-available/default");
            Ok(())
        },
    };
    let site = Layer {
        comment: "the site",
        packages: &[],
        finish: |tree| {
            tree.file("docker-entrypoint.sh", 0o755, "#!/bin/sh\n# Tells where it is and becomes the command.\nset -e\necho \"caveau demo: starting $*\"\nexec \"$@\"\n");
            tree.file("etc/nginx/conf.d/site.conf", 0o644, SITE);
            tree.file("srv/www/index.html", 0o644, PAGE);
            tree.hardlink("srv/www/home.html", "srv/www/index.html")?;
            tree.symlink("var/log/nginx/access.log", "/dev/stdout");
            tree.symlink("var/log/nginx/error.log", "/dev/stderr");
            tree.whiteout("etc/nginx/sites-enabled/default");
            tree.whiteout("etc/debian_chroot_note");
            tree.opaque("usr/share/nginx/html");
            Ok(())
        },
    };
    Recipe {
        name: "nginx",
        layers: vec![base(), packages, site],
        config: vec![
            ("env", PATH),
            ("env", "SITE_ROOT=/srv/www"),
            ("entrypoint", "/docker-entrypoint.sh"),
            ("cmd", "nginx"),
            ("cmd", "-g"),
            ("cmd", "daemon off;"),
            ("exposedports", "80/tcp"),
            ("stopsignal", "SIGQUIT"),
            ("label", "org.opencontainers.image.title=nginx"),
        ],
    }
}

const SITE: &str =
    "server {\n    listen 80 default_server;\n    root /srv/www;\n    location / { try_files $uri $uri/ =404; }\n}\n";

const PAGE: &str =
    "<!doctype html>\n<title>Caveau</title>\n<h1>Hello from nginx in a trusted execution environment</h1>\n";

/// Listens on port 6379 for everybody, as its own user, in a volume.
fn redis() -> Recipe {
    let packages = Layer { comment: "redis from its Debian packages", packages: &["redis-server"], finish: |_| Ok(()) };
    let data = Layer {
        comment: "user, data folder and entry point",
        packages: &[],
        finish: |tree| {
            tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\nredis:x:999:999:redis:/data:/bin/false\n");
            tree.file("etc/group", 0o644, "root:x:0:\ntty:x:5:\nredis:x:999:\nextra:x:1005:redis\n");
            tree.directory("data", 0o750);
            tree.owner("data", 999, 999)?;
            tree.file("usr/local/bin/redis-entrypoint", 0o755, "#!/bin/sh\nset -e\numask 0077\nexec \"$@\"\n");
            tree.whiteout("etc/debian_chroot_note");
            tree.whiteout("etc/redis");
            Ok(())
        },
    };
    Recipe {
        name: "redis",
        layers: vec![base(), packages, data],
        config: vec![
            ("env", PATH),
            ("user", "redis"),
            ("workingdir", "/data"),
            ("volume", "/data"),
            ("entrypoint", "redis-entrypoint"),
            ("cmd", "redis-server"),
            ("cmd", "--protected-mode"),
            ("cmd", "no"),
            ("cmd", "--appendonly"),
            ("cmd", "no"),
            ("exposedports", "6379/tcp"),
        ],
    }
}

/// Runs scripts as user 1000 in `/app`; five layers with deletions, links, attributes and a file capability.
fn python3() -> Recipe {
    let packages = Layer { comment: "Python from its Debian packages", packages: &["python3"], finish: |_| Ok(()) };
    let ping = Layer {
        comment: "ping with its file capability",
        packages: &["iputils-ping"],
        finish: |tree| {
            // cap_net_raw=ep as linux/capability.h writes it: VFS_CAP_REVISION_2 with the effective bit, then two pairs
            // of permitted and inheritable words.
            let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            tree.attribute("bin/ping", "security.capability", &capability)
        },
    };
    let first = Layer {
        comment: "the application as first released",
        packages: &[],
        finish: |tree| {
            tree.file("app/hello.py", 0o755, HELLO);
            tree.file("app/old.py", 0o644, "raise SystemExit('deleted by the next layer')\n");
            tree.file("app/cache/a", 0o644, "a");
            tree.file("app/cache/b", 0o644, "b");
            tree.file("app/data.bin", 0o640, (0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
            tree.hardlink("app/data-again.bin", "app/data.bin")?;
            for path in ["app", "app/hello.py", "app/cache", "app/data.bin", "app/data-again.bin"] {
                tree.owner(path, 1000, 1000)?;
            }
            tree.attribute("app/hello.py", "user.release", b"1.0")
        },
    };
    let second = Layer {
        comment: "the application's next release",
        packages: &[],
        finish: |tree| {
            tree.file("app/serve.py", 0o755, SERVE);
            tree.hardlink("app/server.py", "app/serve.py")?;
            tree.file("app/cache/c", 0o644, "c");
            tree.opaque("app/cache");
            tree.whiteout("app/old.py");
            tree.whiteout("etc/debian_chroot_note");
            tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\napp:x:1000:1000::/app:/bin/sh\n");
            tree.file("etc/group", 0o644, "root:x:0:\ntty:x:5:\napp:x:1000:\n");
            tree.symlink("usr/local/bin/hello", "/app/hello.py");
            for path in ["app", "app/serve.py", "app/server.py", "app/cache", "app/cache/c"] {
                tree.owner(path, 1000, 1000)?;
            }
            tree.attribute("app/serve.py", "user.note", "grüß Gott".as_bytes())
        },
    };
    Recipe {
        name: "python3",
        layers: vec![base(), packages, ping, first, second],
        config: vec![
            ("env", PATH),
            ("env", "PYTHONUNBUFFERED=1"),
            ("env", "LANG=C.UTF-8"),
            ("user", "1000:1000"),
            ("workingdir", "/app"),
            ("entrypoint", "python3"),
            ("cmd", "/app/hello.py"),
            ("exposedports", "8000/tcp"),
        ],
    }
}

const HELLO: &str = r#"#!/usr/bin/python3
"""Says who and where it is."""
import os
import sys

print("hello from", sys.version.split()[0], "uid", os.getuid(), "gid", os.getgid(), "in", os.getcwd())
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"#;

const SERVE: &str = r#"#!/usr/bin/python3
"""Serves its folder on port 8000."""
import http.server

http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
"#;
