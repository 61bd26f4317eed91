//! `cargo xtask demo`: the main job, shown: an image runs, proves what it is, and three lies of its host fail.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use caveau_launch::{Group, LaunchPlan, StartError, StateRoot, start_with};
use serde_json::Value;

use crate::{
    guest, images, images_folder,
    process::{command, headline, output, run},
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
    let guest = guest::build_once(root, &setup)?;
    run(&mut command(root, "cargo", ["build", "--locked", "-p", "caveau"]))?;
    let image = images::build_one(&images_folder(root), "nginx", &setup.apt_config, &|step| eprintln!("   {step}"))?;
    let begun = Instant::now();
    let demo = Demo::new(root, &guest, &image)?;
    let shown = demo.show();
    let cleaned = demo.clean_up();
    shown?;
    cleaned?;
    headline(&format!("all of it was shown, in {:.0} s after the build", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The demo's own state, files and names.
struct Demo {
    caveau: PathBuf,
    guest: PathBuf,
    image: String,
    port: u16,
    state: tempfile::TempDir,
}

impl Demo {
    fn new(root: &Path, guest: &Path, image: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        Ok(Self {
            caveau: root.join("target/debug/caveau"),
            guest: guest.to_path_buf(),
            image: format!("oci:{}", image.display()),
            port,
            state: tempfile::Builder::new().prefix("caveau-demo-").tempdir()?,
        })
    }

    fn show(&self) -> Result<()> {
        let policy = self.state.path().join("web.rego");
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
        self.prove("web", &policy, true)?;
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
        let damaged = self.state.path().join("damaged.img");
        let mut bytes = fs::read(&plan.layers[index].path)?;
        bytes[block * 4096 + 100] ^= 1;
        fs::write(&damaged, &bytes)?;
        plan.layers[index].path = damaged;
        match self.start(&plan) {
            Err(error) => println!("   refused: {error}"),
            Ok(group) => {
                group.wait_down(PATIENCE)?;
                let (status, record) = group.status()?;
                let failed = !record.events.is_empty() || !status.to_string().contains("(0)");
                ensure!(failed, "the flipped bit was not noticed: {status}");
                println!("   refused: the container is {status}");
                for event in &record.events {
                    println!("   the guest reports: {}", serde_json::to_string(&event.event)?);
                }
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
        let other = self.state.path().join("initrd.img");
        let mut bytes = fs::read(&plan.guest.initrd)?;
        // Zeros after the archive are padding: the guest behaves as before, and is another one.
        bytes.extend_from_slice(&[0; 4096]);
        fs::write(&other, bytes)?;
        plan.guest.initrd = other;
        let group = self.start(&plan).map_err(anyhow::Error::from)?;
        let refused = self.prove("lie-initrd", policy, false);
        group.stop(Duration::from_secs(5))?;
        refused
    }

    /// Attests a group and verifies the evidence, which must or must not pass.
    fn prove(&self, name: &str, policy: &Path, pass: bool) -> Result<()> {
        let file = self.state.path().join(format!("{name}.json")).display().to_string();
        let nonce = nonce()?;
        self.say(&["attest", name, "--nonce", &nonce, "--output", &file])?;
        let reference = self.guest.join("guest.json").display().to_string();
        let doctor: Value = serde_json::from_slice(&self.caveau(&["doctor", "--json"]).output()?.stdout)?;
        let authority = doctor["emulated_root"].as_str().context("there is no emulated root")?;
        let policy = policy.display().to_string();
        let arguments = [
            "verify",
            &file,
            "--nonce",
            &nonce,
            "--policy",
            &policy,
            "--reference",
            &reference,
            "--cpus",
            "1",
            "--allow-emulated",
            authority,
        ];
        self.echo(&arguments);
        let verified = self.caveau(&arguments).output()?;
        let text = String::from_utf8_lossy(&verified.stdout);
        let lines: Vec<_> = text.lines().collect();
        let failed = |line: &&&str| line.contains("FAILED") || line.starts_with("refused");
        match (pass, verified.status.success()) {
            (true, true) => lines.iter().for_each(|line| println!("   {line}")),
            (false, false) => lines.iter().filter(failed).for_each(|line| println!("   {line}")),
            (true, false) => bail!("the proof does not hold:\n{text}"),
            (false, true) => bail!("a false guest passed for the real one:\n{text}"),
        }
        Ok(())
    }

    /// Starts a group as a lying host would: with `caveau`'s own supervisor, from a plan of one's own.
    fn start(&self, plan: &LaunchPlan) -> Result<Group, StartError> {
        let root = StateRoot::at(&self.state.path().join("caveau"))?;
        let mut supervisor = self.caveau(&["__supervise"]);
        start_with(&mut supervisor, &root, plan, false, &mut |_| {}).map(|started| started.group)
    }

    /// What a group was launched from.
    fn plan(&self, name: &str) -> Result<LaunchPlan> {
        let root = StateRoot::at(&self.state.path().join("caveau"))?;
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

    /// `caveau` with the demo's state.
    fn caveau(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.caveau);
        command.args(arguments).env("XDG_RUNTIME_DIR", self.state.path()).env("CAVEAU_GUEST", &self.guest);
        command
    }

    /// Shows a command, runs it, and gives its standard output; its standard error goes to ours.
    fn say(&self, arguments: &[&str]) -> Result<String> {
        self.echo(arguments);
        let Output { status, stdout, stderr } = self.caveau(arguments).output()?;
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

    /// Ends and removes every group of the demo.
    fn clean_up(&self) -> Result<()> {
        let listed = self.caveau(&["ps", "--all", "--json"]).output()?;
        let groups: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        for name in groups.as_array().into_iter().flatten().filter_map(|group| group["name"].as_str()) {
            output(&mut self.caveau(&["rm", "--force", name]))?;
        }
        Ok(())
    }
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
