//! A harness that reads like prose: a Caveau of the test's own, its groups, and what they print.
//!
//! Each [`Caveau`] has its own state folder; images, layers and the emulated root are shared between tests, as they are
//! between a user's groups. What a test starts, it ends: dropping a [`Caveau`] stops its groups, by name.

pub mod hostile;
pub mod layout;
pub mod raw;
pub mod registry;
pub mod terminal;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

/// Longest wait for anything in a test; a limit against hanging, not a claim about speed.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Where Caveau remembers whether KVM works, in its state folder.
const KVM_PROBE: &str = ".kvm-probe.json";

/// What a finished command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; 128 plus the signal's number where one ended it.
    pub code: i32,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

impl Outcome {
    /// Panics unless the command ended with `code`, showing what it printed.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Panics unless it ended with success.
    #[track_caller]
    pub fn success(self) -> Self {
        self.expect_code(0)
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it is not JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout))
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Self {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A Caveau with a state folder of its own.
#[derive(Debug)]
pub struct Caveau {
    runtime: TempDir,
    cache: Option<TempDir>,
}

impl Caveau {
    /// A fresh one, or `None` with a visible word where the machine was not set up for VMs (`cargo xtask test` does).
    ///
    /// # Panics
    /// Where no folder can be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        if std::env::var_os("CAVEAU_GUEST").is_none() || std::env::var_os("CAVEAU_TEST_IMAGES").is_none() {
            println!("skipped: no guest and no images; run the tests with `cargo xtask test`");
            return None;
        }
        // Short, since a Unix socket's path has at most 107 bytes.
        let runtime = tempfile::Builder::new().prefix("cv").tempdir_in("/tmp").expect("a folder for state");
        let caveau = Self { runtime, cache: None };
        caveau.remember_the_machine();
        Some(caveau)
    }

    /// Whether KVM works need be tried only once for all tests.
    fn remember_the_machine(&self) {
        let known = shared_folder().join(KVM_PROBE);
        if known.is_file() {
            std::fs::DirBuilder::new().mode(0o700).create(self.state()).expect("a folder for state");
            std::fs::copy(known, self.state().join(KVM_PROBE)).expect("what was found is copied");
        }
    }

    /// Leaves what was found of the machine to the other tests.
    fn leave_what_was_found(&self) {
        let known = shared_folder().join(KVM_PROBE);
        let fresh = known.with_extension(self.runtime.path().file_name().unwrap_or_default());
        // Tests that never started a VM have found nothing.
        if std::fs::copy(self.state().join(KVM_PROBE), &fresh).is_ok() {
            let _ = std::fs::rename(&fresh, &known);
        }
    }

    /// As [`Self::new`], with an empty cache of its own.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_an_empty_cache() -> Option<Self> {
        let cache = tempfile::tempdir().expect("a folder for a cache");
        let mut caveau = Self::new()?;
        caveau.cache = Some(cache);
        Some(caveau)
    }

    /// `caveau` with these arguments, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let shared = shared_folder();
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .env("XDG_CACHE_HOME", self.cache())
            .env("XDG_DATA_HOME", shared.join("data"))
            .env_remove("DOCKER_CONFIG")
            .stdin(Stdio::null());
        command
    }

    /// Runs `caveau` to its end.
    ///
    /// # Panics
    /// Where it cannot be started, or is still running after [`PATIENCE`].
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        finish(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("caveau starts"))
    }

    /// Runs `caveau` to its end with `input` on its standard input.
    ///
    /// # Panics
    /// As [`Self::run`].
    #[track_caller]
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("caveau starts");
        let mut stdin = child.stdin.take().expect("stdin was asked for");
        let input = input.to_vec();
        // Written aside: the child may print before it has read everything.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let outcome = finish(child);
        // A child that ends without reading its input is the test's business, not the harness's.
        let _ = writer.join();
        outcome
    }

    /// Folder of the state of this Caveau's groups.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.runtime.path().join("caveau")
    }

    /// Folder of its cache, as `XDG_CACHE_HOME` names it.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.cache.as_ref().map_or_else(|| shared_folder().join("cache"), |folder| folder.path().to_owned())
    }

    /// What is left in the state folder but for what is remembered of the machine.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state()).into_iter().flatten().filter_map(Result::ok);
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != KVM_PROBE).collect()
    }

    /// Names of the groups that it knows, ended ones too.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let listed = self.run(&["ps", "--all", "--json"]);
        let value: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap_or_default();
        let rows = value.as_array().into_iter().flatten();
        rows.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Caveau {
    fn drop(&mut self) {
        self.leave_what_was_found();
        for name in self.groups() {
            let _ = self.run(&["rm", "--force", &name]);
        }
    }
}

/// Path of the `caveau` program under test: beside the test programs, where cargo puts it.
///
/// # Panics
/// Where this program has no path.
#[must_use]
pub fn program() -> PathBuf {
    std::env::var_os("CAVEAU_BIN").map_or_else(
        || {
            let mut folder = std::env::current_exe().expect("a test program has a path");
            folder.pop();
            folder.pop();
            folder.join("caveau")
        },
        PathBuf::from,
    )
}

/// Folder that all tests share: converted layers and the emulated root are costly to make.
pub(crate) fn shared_folder() -> PathBuf {
    let mut folder = std::env::current_exe().expect("a test program has a path");
    // <target>/<profile>/deps/<program>
    folder.pop();
    folder.pop();
    folder.pop();
    folder.join("tmp/caveau-tests")
}

/// Waits for a child and takes its output; ends it when the patience is over.
///
/// # Panics
/// Where it is over.
#[must_use]
#[track_caller]
pub fn finish(mut child: Child) -> Outcome {
    let mut pipes = (child.stdout.take(), child.stderr.take());
    let stdout = std::thread::spawn(move || read_all(pipes.0.as_mut()));
    let stderr = std::thread::spawn(move || read_all(pipes.1.as_mut()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let stdout = stdout.join().expect("the reader does not panic");
    let stderr = stderr.join().expect("the reader does not panic");
    Output { status, stdout, stderr }.into()
}

/// Everything that a pipe gives.
fn read_all(pipe: Option<&mut impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// A test image by name (`busybox`, `nginx`, `redis`, `python3`), as `caveau run` takes it.
///
/// # Panics
/// Where the harness was not set up; [`Caveau::new`] has said so before.
#[must_use]
pub fn image(name: &str) -> String {
    format!("oci:{}", images_folder().join(name).display())
}

/// Folder of the test images.
///
/// # Panics
/// As [`image`].
#[must_use]
pub fn images_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CAVEAU_TEST_IMAGES").expect("CAVEAU_TEST_IMAGES names a folder"))
}

/// Folder of the guest under test.
///
/// # Panics
/// As [`image`].
#[must_use]
pub fn guest_folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CAVEAU_GUEST").expect("CAVEAU_GUEST names a folder"))
}

/// Folder of recorded data that tests check against, or `None` with a visible word.
#[must_use]
pub fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no fixtures");
    None
}

/// A port of the loopback address that is free now.
///
/// # Panics
/// Where none is.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Body of `GET path` from a server on a loopback port, tried until it answers.
///
/// # Errors
/// Where there was no answer within [`PATIENCE`].
pub fn http_get(port: u16, path: &str) -> Result<String> {
    eventually(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no complete answer")?;
        if !head.starts_with("HTTP/1.1 200") && !head.starts_with("HTTP/1.0 200") {
            bail!("{}", head.lines().next().unwrap_or_default());
        }
        Ok(body.to_owned())
    })
}

/// Tries until it succeeds or [`PATIENCE`] is over.
///
/// # Errors
/// The last try's.
pub fn eventually<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > PATIENCE => return Err(error.context("gave up")),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
