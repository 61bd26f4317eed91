//! A pull from a registry on this machine, against `skopeo copy` to a layout.
//!
//! Ours also converts the layer and makes its hash tree, which `skopeo` does not.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{
    Bed,
    anchors::Debian13,
    hash::remove,
    layer_input::realistic,
    measure::{Pairs, timed},
    report::Report,
};
use crate::process::run;

/// How long the registry may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// A registry with its storage in the work folder; ends with this value.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(bed: &Bed<'_>) -> Result<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string();
        let configuration = bed.work.join("registry.yml");
        let storage = bed.work.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: '{}' }}\nhttp: {{ addr: '{address}' }}\n",
            storage.display()
        );
        fs::write(&configuration, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("install docker-registry")?;
        let registry = Self { process, address };
        let start = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            ensure!(start.elapsed() < PATIENCE, "the registry does not listen on {}", registry.address);
            sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // A process that has ended already needs neither.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The bench.
///
/// # Errors
/// Where image or registry cannot be made, or a pull fails.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let debian = Debian13::prepare(bed.root)?;
    let layout = bed.work.join("layout");
    let layer = realistic(debian.path(), &bed.work.join("layer.tar"))?;
    let image = format!("{}:latest", layout.display());
    run(Command::new("umoci").args(["init", "--layout"]).arg(&layout)).context("install umoci")?;
    run(Command::new("umoci").args(["new", "--image", &image]))?;
    run(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(&layer.tar))?;
    remove(&layer.tar)?;
    let registry = Registry::start(bed)?;
    let reference = format!("{}/bench/layer:latest", registry.address);
    let source = format!("docker://{reference}");
    let mut push = Command::new("skopeo");
    push.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &format!("oci:{image}"), &source]);
    run(&mut push).context("install skopeo")?;
    let (store, copy) = (bed.work.join("store"), bed.work.join("copy"));
    let pairs = Pairs::take(
        bed.pairs,
        || {
            empty(&store)?;
            let mut command = Command::new(&bed.caveau);
            command.args(["--quiet", "image", "pull", "--insecure-registry", &registry.address, &reference]);
            Ok(timed(command.env("XDG_CACHE_HOME", &store))?.0)
        },
        || {
            empty(&copy)?;
            let mut command = Command::new("skopeo");
            command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &source]);
            Ok(timed(command.arg(format!("oci:{}:latest", copy.display())))?.0)
        },
    )?;
    let ours = "caveau image pull (with conversion and hash tree)";
    let mut report = Report::new("pull", ours, "skopeo copy to an OCI layout");
    report.pairs(pairs);
    report.fact("layer", format!("{:.1} MB, {} entries", layer.tar_bytes as f64 / 1e6, layer.entries));
    Ok(report)
}

/// Every pull starts from nothing.
fn empty(folder: &std::path::Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::create_dir_all(folder)?)
}
