//! The bare machine that starts are held against: the same kernel and QEMU flags, and an init that serves one page.
//!
//! What serves it is busybox, or what is in the image: then the difference is what Caveau adds, and not nginx.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::measure::Sample;
use crate::process::{output, run};

/// Kernel modules of the network card, in the order in which they depend on each other.
const MODULES: [&str; 3] = ["net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko"];

/// Folder of the RAM disk with busybox and the modules: no image has one of this name.
const FOLDER: &str = "bare";

/// Flags of the measured machine that are the bare one's too, with their values.
const SAME: [&str; 9] = ["-append", "-cpu", "-display", "-global", "-m", "-machine", "-object", "-sandbox", "-smp"];

/// Flags without a value.
const FLAGS: [&str; 3] = ["-no-user-config", "-nodefaults", "-no-reboot"];

/// Time between two requests of one who waits for the first answer, and how long each may take.
const INTERVAL: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a start may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(180);

/// What serves the page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Server<'a> {
    /// busybox, from a RAM disk with nothing else.
    Busybox {
        /// The page.
        page: &'a str,
    },
    /// The image's own entry point, from a RAM disk with all of the image.
    Image {
        /// OCI layout.
        layout: &'a Path,
    },
}

/// Parts of the bare machine.
pub(super) struct Bare {
    initrd: PathBuf,
    guest: PathBuf,
    /// QEMU's arguments that are the same.
    same: Vec<String>,
    program: PathBuf,
    log: PathBuf,
}

/// A running bare machine; ends with this value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // A process that has ended already needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bare {
    /// After the example of a running group's QEMU; `kernel` is the extracted kernel package, `busybox` a static program.
    ///
    /// # Errors
    /// Where the RAM disk cannot be made or the example has no command line.
    pub(super) fn like(
        qemu: u64,
        guest: &Path,
        kernel: &Path,
        busybox: &Path,
        server: Server<'_>,
        work: &Path,
    ) -> Result<Self> {
        let same = same_flags(qemu)?;
        Ok(Self {
            initrd: initrd(kernel, busybox, server, work)?,
            guest: guest.to_path_buf(),
            same,
            program: fs::read_link(format!("/proc/{qemu}/exe"))?,
            log: work.join("bare.log"),
        })
    }

    /// Boots and waits for the first answer; gives what that took.
    ///
    /// # Errors
    /// Where QEMU cannot be run or nothing answers.
    pub(super) fn first_answer(&self, port: u16, page: &str) -> Result<Sample> {
        let mut command = Command::new(&self.program);
        command.args(&self.same).arg("-L").arg(&self.guest).arg("-bios").arg(self.guest.join("bios-256k.bin"));
        command.arg("-kernel").arg(self.guest.join("vmlinux")).arg("-initrd").arg(&self.initrd);
        command.args(["-serial", &format!("file:{}", self.log.display())]);
        command.args(["-netdev", &format!("user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:80")]);
        let start = Instant::now();
        let mut machine = Machine(command.stdin(Stdio::null()).spawn()?);
        let (answered, _) = wait_for_answer(port, start, Some(page)).map_err(|error| match machine.0.try_wait() {
            Ok(Some(status)) => error.context(format!("QEMU ended with {status}")),
            _ => error.context(format!("the bare machine said: {}", fs::read_to_string(&self.log).unwrap_or_default())),
        })?;
        Ok(Sample { wall: answered.as_secs_f64(), ..Sample::so_far(u64::from(machine.0.id()))? })
    }
}

/// What of a running group's QEMU is the same for a machine without a group: its arguments.
///
/// # Errors
/// Where the process has no such command line.
pub(super) fn same_flags(qemu: u64) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{qemu}/cmdline"))?;
    let example: Vec<&str> = text.split_terminator('\0').collect();
    let mut same: Vec<String> = Vec::new();
    for pair in example.windows(2) {
        let (flag, value) = (pair[0], pair[1]);
        let device = flag == "-device" && !value.starts_with("virtserialport") && !value.starts_with("scsi-hd");
        if SAME.contains(&flag) || device {
            same.extend([flag.to_owned(), value.to_owned()]);
        } else if FLAGS.contains(&flag) {
            same.push(flag.to_owned());
        }
    }
    ensure!(same.iter().any(|word| word == "-machine"), "process {qemu} does not look like QEMU: {example:?}");
    Ok(same)
}

/// A RAM disk whose init loads the network card's modules, sets the address and serves the page.
fn initrd(kernel: &Path, busybox: &Path, server: Server<'_>, work: &Path) -> Result<PathBuf> {
    let name = if matches!(server, Server::Image { .. }) { "bare-image" } else { "bare" };
    let tree = work.join(name);
    for folder in [FOLDER, "www", "dev", "proc"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    let serve = match server {
        Server::Busybox { page } => {
            fs::write(tree.join("www/index.html"), page)?;
            "exec /bare/busybox httpd -f -p 80 -h /www"
        }
        Server::Image { layout } => {
            unpack(layout, &tree)?;
            "/bare/busybox mount -t proc proc /proc; /bare/busybox mount -t devtmpfs dev /dev;\
             /bare/busybox ln -s /proc/self/fd/1 /dev/stdout; /bare/busybox ln -s /proc/self/fd/2 /dev/stderr;\
             export PATH=/usr/sbin:/usr/bin SITE_ROOT=/srv/www; exec /docker-entrypoint.sh nginx -g 'daemon off;'"
        }
    };
    let own = tree.join(FOLDER);
    fs::copy(busybox, own.join("busybox"))?;
    let mut init = String::from("#!/bare/busybox sh\n");
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap_or(module);
        let Some(bytes) = unpacked_module(kernel, module)? else { continue };
        fs::write(own.join(name), bytes)?;
        init += &format!("/bare/busybox insmod /bare/{name};");
    }
    init += "/bare/busybox ip link set eth0 up; /bare/busybox ip addr add 10.0.2.15/24 dev eth0;\
             /bare/busybox ip link set lo up;";
    fs::write(tree.join("init"), init + serve + "\n")?;
    run(Command::new("chmod").arg("755").arg(tree.join("init")))?;
    let made = work.join(name).with_extension("initrd");
    let pack = "find . | \"$1\" cpio -o -H newc > \"$0\" 2>/dev/null";
    run(Command::new("sh").args(["-c", pack]).args([&made, busybox]).current_dir(&tree))?;
    Ok(made)
}

/// Unpacks the layers of an OCI layout's only image; what a layer removes by name goes.
///
/// # Errors
/// Where the layout is none, or `tar` fails.
pub(super) fn unpack(layout: &Path, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree)?;
    let read = |path: PathBuf| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |digest: &Value| -> Result<PathBuf> {
        let digest = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).context("no SHA-256 digest")?;
        Ok(layout.join("blobs/sha256").join(digest))
    };
    let index = read(layout.join("index.json"))?;
    let manifest = read(blob(&index["manifests"][0]["digest"])?)?;
    for layer in manifest["layers"].as_array().context("the manifest has no layers")? {
        let tar = blob(&layer["digest"])?;
        for name in output(Command::new("tar").arg("-tf").arg(&tar))?.lines() {
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
            let Some(removed) = file.strip_prefix(".wh.") else { continue };
            let path = tree.join(folder.trim_start_matches('/')).join(removed);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path)?,
                Ok(_) => fs::remove_file(&path)?,
                Err(_) => {}
            }
        }
        let unpack = ["--no-same-owner", "--exclude=.wh.*", "-xf"];
        run(Command::new("tar").args(unpack).arg(&tar).arg("-C").arg(tree))?;
    }
    Ok(())
}

/// A module of the kernel package, which may have it packed; `None` where the kernel has it built in.
fn unpacked_module(kernel: &Path, module: &str) -> Result<Option<Vec<u8>>> {
    let found = output(Command::new("find").arg(kernel).args(["-path", &format!("*/kernel/{module}*")]))?;
    let Some(path) = found.lines().next() else {
        let list = output(Command::new("find").arg(kernel).args(["-name", "modules.builtin"]))?;
        let built_in = fs::read_to_string(list.trim())?;
        ensure!(built_in.contains(module), "{} has no {module}", kernel.display());
        return Ok(None);
    };
    if path.ends_with(".xz") {
        let unpacked = Command::new("xz").args(["--decompress", "--stdout", path]).output()?;
        ensure!(unpacked.status.success(), "xz failed on {path}");
        return Ok(Some(unpacked.stdout));
    }
    Ok(Some(fs::read(path)?))
}

/// Asks for the page again and again, from `start` on, until there is an answer (with this page, where one is given);
/// gives the time from `start` until it came, and the page.
///
/// QEMU takes connections before the guest listens, and what it could not hand on comes late. So each request is made
/// over a connection of its own while those before it still wait, and the first answer counts.
///
/// # Errors
/// Where none comes in time.
pub(super) fn wait_for_answer(port: u16, start: Instant, page: Option<&str>) -> Result<(Duration, String)> {
    let (answers, first) = channel();
    while start.elapsed() < PATIENCE {
        let answers = answers.clone();
        spawn(move || {
            if let Ok(body) = get(port) {
                // Only the first is waited for.
                let _ = answers.send((start.elapsed(), body));
            }
        });
        if let Ok((time, body)) = first.recv_timeout(INTERVAL) {
            ensure!(page.is_none_or(|page| page == body), "another page than expected: {body:?}");
            // Those that still wait give up before the next machine is started on the port.
            sleep(Duration::from_millis(200));
            return Ok((time, body));
        }
    }
    bail!("no answer on port {port} within {} s", PATIENCE.as_secs())
}

/// The page.
fn get(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no complete answer")?;
    ensure!(head.contains(" 200 "), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
