//! `cargo xtask demo`: the main job, shown: an image runs, proves what it is, and three lies of its host fail.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use caveau_launch::{Group, LaunchPlan, StartError, StateRoot, Status, start_with};
use serde_json::Value;

use crate::{
    images, images_folder,
    process::{headline, output},
    product::Product,
    setup,
};

/// How long anything may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sets up, then shows.
///
/// # Errors
/// Where the machine lacks something, or the product does not do what the demo says it does.
pub(crate) fn demo(root: &Path) -> Result<()> {
    headline("set-up: packages, guest kernel, guest, image");
    let setup = setup::setup(root)?;
    let product = Product::build(root, &setup, "demo")?;
    let image = images::build_one(&images_folder(root), "nginx", &setup.apt_config, &|step| eprintln!("   {step}"))?;
    let begun = Instant::now();
    let demo = Demo::new(product, &image)?;
    let shown = demo.show();
    let cleaned = demo.product.remove_groups();
    shown?;
    cleaned?;
    headline(&format!("all of it was shown, in {:.0} s after the build", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The demo's own names.
struct Demo {
    product: Product,
    image: String,
    port: u16,
}

impl Demo {
    fn new(product: Product, image: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Ok(Self { product, image: format!("oci:{}", image.display()), port })
    }

    fn show(&self) -> Result<()> {
        let policy = self.product.passing().join("web.rego");
        headline("1. the policy: what may run, and nothing else");
        fs::write(&policy, self.say(&["policy", "generate", &self.image])?)?;
        let digest = self.say(&["policy", "digest", &policy.display().to_string()])?;
        println!("   its digest {}", digest.trim());

        headline("2. the image runs, in a VM of its own, under that policy");
        let publish = format!("{}:80", self.port);
        self.say(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            &publish,
            "--policy",
            &policy.display().to_string(),
            &self.image,
        ])?;
        let page = self.fetch()?;
        println!("   GET http://127.0.0.1:{}/ → {} bytes: {}", self.port, page.len(), title(&page));

        headline("3. proof: evidence over a fresh nonce, held against the owner's own expectations");
        self.prove("web", &policy, &[])?;
        let honest = self.plan("web")?;
        self.say(&["stop", "web"])?;

        headline("4. three lies of the host");
        self.flipped_byte(&honest)?;
        self.changed_command(&honest)?;
        self.other_initrd(&honest, &policy)
    }

    /// The first lie: one bit of the program in a layer.
    fn flipped_byte(&self, honest: &LaunchPlan) -> Result<()> {
        println!("\n   lie 1: one bit of /usr/sbin/nginx in its layer is flipped");
        let mut plan = renamed(honest, "lie-flipped")?;
        let (index, block) = locate(&plan, "/usr/sbin/nginx")?;
        let damaged = self.product.passing().join("damaged.img");
        let mut bytes = fs::read(&plan.layers[index].path)?;
        bytes[block * 4096 + 100] ^= 1;
        fs::write(&damaged, &bytes)?;
        plan.layers[index].path = damaged;
        // Which of the two it is depends on who reads the block first: who starts the program, or the program itself.
        match self.start(&plan) {
            Err(StartError::Failed(failure)) if is_read_error(&failure.reason) => {
                println!("   refused: {}", failure.reason);
            }
            Err(error) => bail!("refused for another reason than the flipped bit: {error}"),
            Ok(group) => {
                group.wait_down(PATIENCE)?;
                let (status, record) = group.status()?;
                let events: Vec<_> =
                    record.events.iter().map(|event| serde_json::to_value(&event.event)).collect::<Result<_, _>>()?;
                // The guest counts layers from one, in the order in which they are mounted: the plan's.
                let noticed = |event: &Value| event["kind"] == "layer_corrupted" && event["layer"] == index + 1;
                let log = output(&mut self.product.caveau(&["logs", "lie-flipped"]))?;
                let complaint = log.lines().find(|line| is_read_error(line));
                let seen = events.iter().any(noticed) || complaint.is_some();
                ensure!(
                    seen,
                    "the flipped bit was not noticed: the container is {status}, the guest reports {events:?}, and:\n{log}"
                );
                ensure!(!matches!(status, Status::Exited { code: Some(0) }), "the container ended well: {status}");
                println!("   refused: the container is {status}");
                complaint.iter().for_each(|line| println!("   the container says: {line}"));
                events.iter().for_each(|event| println!("   the guest reports: {event}"));
            }
        }
        Ok(())
    }

    /// The second lie: another command than the policy's.
    fn changed_command(&self, honest: &LaunchPlan) -> Result<()> {
        println!("\n   lie 2: the host asks for another command");
        let mut plan = renamed(honest, "lie-command")?;
        plan.containers[0].create.process.args = vec!["/bin/sh".into(), "-c".into(), "cat /etc/shadow".into()];
        match self.start(&plan) {
            Err(StartError::Failed(failure)) if failure.denial.is_some() => println!("   refused: {}", failure.reason),
            Err(error) => bail!("refused for another reason than the policy's: {error}"),
            Ok(_) => bail!("another command was started"),
        }
        Ok(())
    }

    /// The third lie: another initial RAM disk. It boots; what it is cannot be hidden.
    fn other_initrd(&self, honest: &LaunchPlan, policy: &Path) -> Result<()> {
        println!("\n   lie 3: the VM is started from another initrd, which runs the same container");
        let mut plan = renamed(honest, "lie-initrd")?;
        let other = self.product.passing().join("initrd.img");
        let mut bytes = fs::read(&plan.guest.initrd)?;
        // Zeros after the archive are padding: the guest behaves as before, and is another one.
        bytes.extend_from_slice(&[0; 4096]);
        fs::write(&other, bytes)?;
        plan.guest.initrd = other;
        let group = self.start(&plan).map_err(anyhow::Error::from)?;
        let refused = self.prove("lie-initrd", policy, &["measurement"]);
        group.stop(Duration::from_secs(5))?;
        refused
    }

    /// Attests a group and verifies the evidence: the checks of these names must fail, and no others.
    fn prove(&self, name: &str, policy: &Path, failing: &[&str]) -> Result<()> {
        let file = self.product.passing().join(format!("{name}.json")).display().to_string();
        let nonce = nonce()?;
        self.say(&["attest", name, "--nonce", &nonce, "--output", &file])?;
        let reference = self.product.guest().join("guest.json").display().to_string();
        let doctor: Value = serde_json::from_slice(&self.product.caveau(&["doctor", "--json"]).output()?.stdout)?;
        let authority = doctor["emulated_root"].as_str().context("there is no emulated root")?;
        let policy = policy.display().to_string();
        let owner = ["--policy", &policy, "--reference", &reference, "--cpus", "1", "--allow-emulated", authority];
        let arguments = [&["verify", &file, "--nonce", &nonce][..], &owner].concat();
        self.echo(&arguments);
        let verified = self.product.caveau(&arguments).output()?;
        let text = String::from_utf8_lossy(&verified.stdout);
        let judged = self.product.caveau(&[&arguments[..], &["--json"]].concat()).output()?;
        let expected = Some(if failing.is_empty() { 0 } else { 1 });
        let answered = verified.status.code() == expected && judged.status.code() == expected;
        let said = String::from_utf8_lossy(&verified.stderr);
        ensure!(answered, "verify ended with {}, expected {expected:?}:\n{text}{said}", verified.status);
        let judged: Value = serde_json::from_slice(&judged.stdout)?;
        let checks = judged["checks"].as_array().context("verify --json names no checks")?;
        let failed: Vec<_> = checks.iter().filter(|check| check["verdict"] == "failed").collect();
        let names: Vec<_> = failed.iter().filter_map(|check| check["name"].as_str()).collect();
        ensure!(names == failing, "the checks that failed are {names:?}, expected {failing:?}:\n{text}");
        let matters = |line: &&str| failing.is_empty() || line.contains("FAILED") || line.starts_with("refused");
        text.lines().filter(matters).for_each(|line| println!("   {line}"));
        Ok(())
    }

    /// Starts a group as a lying host would: with `caveau`'s own supervisor, from a plan of one's own.
    fn start(&self, plan: &LaunchPlan) -> Result<Group, StartError> {
        let root = StateRoot::at(&self.product.state())?;
        let mut supervisor = self.product.caveau(&["__supervise"]);
        start_with(&mut supervisor, &root, plan, false, &mut |_| {}).map(|started| started.group)
    }

    /// What a group was launched from.
    fn plan(&self, name: &str) -> Result<LaunchPlan> {
        let root = StateRoot::at(&self.product.state())?;
        Ok(Group::open(&root, &name.parse()?)?.plan()?)
    }

    /// The page, as soon as the server answers.
    fn fetch(&self) -> Result<String> {
        let start = Instant::now();
        loop {
            match get(self.port) {
                Ok(page) => return Ok(page),
                Err(error) if start.elapsed() > PATIENCE => return Err(error.context("nginx does not answer")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Shows a command, runs it, and gives its standard output; its standard error goes to ours.
    fn say(&self, arguments: &[&str]) -> Result<String> {
        self.echo(arguments);
        let Output { status, stdout, stderr } = self.product.caveau(arguments).output()?;
        for line in String::from_utf8_lossy(&stderr).lines() {
            println!("   {line}");
        }
        ensure!(status.success(), "caveau {} ended with {status}", arguments.join(" "));
        Ok(String::from_utf8(stdout)?)
    }

    fn echo(&self, arguments: &[&str]) {
        let shown = arguments.iter().map(|word| if word.len() > 70 { "…" } else { word });
        println!("   $ caveau {}", shown.collect::<Vec<_>>().join(" "));
    }
}

/// Whether a text is about a block that could not be read: the error's words, as the C library and the kernel have them.
fn is_read_error(text: &str) -> bool {
    text.contains("nput/output error") || text.contains("I/O error")
}

/// The plan under another name, with a container of its own, and no port.
fn renamed(plan: &LaunchPlan, name: &str) -> Result<LaunchPlan> {
    let mut plan = plan.clone();
    plan.name = name.parse()?;
    plan.ports.clear();
    Ok(plan)
}

/// The layer and the block in it that hold the beginning of a file.
fn locate(plan: &LaunchPlan, path: &str) -> Result<(usize, usize)> {
    for (index, layer) in plan.layers.iter().enumerate().rev() {
        let mut debugfs = Command::new("debugfs");
        debugfs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").arg("-R").arg(format!("bmap {path} 0")).arg(&layer.path);
        if let Ok(block) = output(&mut debugfs)?.trim().parse() {
            return Ok((index, block));
        }
    }
    bail!("no layer holds {path}")
}

/// 32 fresh bytes as hexadecimal digits.
fn nonce() -> Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// The server's page.
fn get(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no complete answer")?;
    ensure!(head.contains(" 200 "), "{}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

/// The title of a page.
fn title(page: &str) -> &str {
    page.split_once("<title>")
        .and_then(|(_, rest)| rest.split_once("</title>"))
        .map_or("(no title)", |(title, _)| title)
}
