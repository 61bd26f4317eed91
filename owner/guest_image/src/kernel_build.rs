//! The guest's own kernel, from the sources that a distribution ships.
//!
//! ```text
//!   linux-source-*.deb ─▶ linux-source-*.tar.xz ─▶ tree ─▶ tinyconfig + guest/kernel/options ─▶ make bzImage ─▶ kernel folder
//! ```
//!
//! The kernel folder has the form of an extracted kernel package, so that [`crate::build`] takes either. The same sources,
//! options, compiler and linker give the same bytes: the tree's place, the time, the user and the machine do not enter them
//! (kernel documentation, Reproducible builds).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::IoContext as _;
use crate::options::{OPTIONS, differences};
use crate::{GuestImageError, KernelPackage, PACKAGE_FILE, Result, Sha256};

/// What must be there to build a kernel: program, Debian package.
const TOOLS: [(&str, &str); 10] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("dpkg-deb", "dpkg"),
];

/// The header of the library that one of the kernel's own tools reads object files with, and its package.
const LIBELF: (&str, &str) = ("/usr/include/gelf.h", "libelf-dev");

/// The end of a failed step's output that is told.
const TOLD_BYTES: u64 = 4096;

/// How a kernel was built from sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelBuild {
    /// SHA-256 of the options that the guest asks for, `guest/kernel/options`.
    pub options_sha256: Sha256,
    /// SHA-256 of the whole configuration that Kconfig made of them.
    pub config_sha256: Sha256,
    /// The compiler, in its own words.
    pub compiler: String,
    /// The linker, in its own words.
    pub linker: String,
}

/// Sources of a kernel.
#[derive(Clone, Debug)]
pub struct KernelSource {
    /// A Debian package `linux-source-*.deb`, or the archive in it, `linux-source-*.tar.xz`.
    pub archive: PathBuf,
    /// Compilers at once.
    pub jobs: NonZeroUsize,
}

/// What a kernel folder would be made of: the inputs of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KernelInputs {
    name: String,
    version: String,
    sha256: Sha256,
    options: Sha256,
    compiler: String,
    linker: String,
}

/// Builds the guest's kernel into the folder `output`, unless it is there already, made of the same inputs; says whether it
/// was built. `progress` gets the name of each step, with an empty text where it begins, and then with each line that it prints.
///
/// # Errors
/// [`GuestImageError::KernelTools`] where a program is missing, [`GuestImageError::KernelOptions`] where an option does not take,
/// [`GuestImageError::KernelStep`] where a step fails. Nothing is left behind then, and an older kernel stays as it was.
pub fn build_kernel(
    source: &KernelSource,
    output: &Path,
    progress: &mut dyn FnMut(&'static str, &str),
) -> Result<bool> {
    check_tools()?;
    let inputs = KernelInputs::of(source)?;
    if KernelInputs::recorded(output).as_ref() == Some(&inputs) {
        return Ok(false);
    }
    if output.exists() && !output.join(PACKAGE_FILE).is_file() {
        return Err(GuestImageError::KernelDestination(output.to_path_buf()));
    }
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).context("make", parent)?;
    let temporary =
        tempfile::Builder::new().prefix(".kernel-").tempdir_in(parent).context("make a folder in", parent)?;
    let build = Build { folder: temporary.path().to_path_buf(), progress };
    let made = build.run(source, inputs)?;
    replace(&made, output)?;
    Ok(true)
}

/// Puts a finished folder where an older one may be.
fn replace(made: &Path, output: &Path) -> Result<()> {
    let old = made.with_extension("old");
    match fs::rename(output, &old) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("replace", output),
    }
    fs::rename(made, output).context("write", output)
}

/// Says all that is missing at once.
fn check_tools() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let programs = TOOLS.iter().filter(|(program, _)| !is_there(program));
    let library = std::iter::once(&LIBELF).filter(|(header, _)| !Path::new(header).is_file());
    let missing: Vec<_> = programs.chain(library).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |part: fn(&(&'static str, &'static str)) -> &'static str| {
        missing.iter().map(|pair| part(pair)).collect::<Vec<_>>()
    };
    Err(GuestImageError::KernelTools {
        missing: list(|pair| pair.0).join(", "),
        packages: list(|pair| pair.1).join(" "),
    })
}

impl KernelInputs {
    /// Of a build that is to be made.
    fn of(source: &KernelSource) -> Result<Self> {
        let path = &source.archive;
        let file = File::open(path).context("open", path)?;
        let sha256 = Sha256::from(caveau_measure::sha256(file).context("read", path)?);
        let (name, version) = if is_package(path) {
            (
                first_line("dpkg-deb", &["-f".as_ref(), path.as_ref(), "Package".as_ref()])?,
                first_line("dpkg-deb", &["-f".as_ref(), path.as_ref(), "Version".as_ref()])?,
            )
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.into_owned(), String::new())
        };
        Ok(Self {
            name,
            version,
            sha256,
            options: Sha256::of(OPTIONS.as_bytes()),
            compiler: first_line("gcc", &["--version".as_ref()])?,
            linker: first_line("ld", &["--version".as_ref()])?,
        })
    }

    /// Of the kernel in `folder`, where there is one that was built from sources.
    fn recorded(folder: &Path) -> Option<Self> {
        let package: KernelPackage = serde_json::from_slice(&fs::read(folder.join(PACKAGE_FILE)).ok()?).ok()?;
        let build = package.build?;
        Some(Self {
            name: package.name,
            version: package.version,
            sha256: package.sha256,
            options: build.options_sha256,
            compiler: build.compiler,
            linker: build.linker,
        })
    }
}

fn is_package(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "deb")
}

/// The first line that a program prints.
fn first_line(program: &str, arguments: &[&OsStr]) -> Result<String> {
    let failed = |reason: String| GuestImageError::KernelStep { step: format!("ask {program}"), output: reason };
    let out =
        Command::new(program).args(arguments).env("LC_ALL", "C").output().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&out.stdout);
    match text.lines().next() {
        Some(line) if out.status.success() => Ok(line.to_owned()),
        _ => Err(failed(String::from_utf8_lossy(&out.stderr).into_owned())),
    }
}

/// A build under way, in a folder of its own.
struct Build<'a> {
    folder: PathBuf,
    progress: &'a mut dyn FnMut(&'static str, &str),
}

impl Build<'_> {
    /// From sources to a kernel folder, whose place it gives.
    fn run(mut self, source: &KernelSource, inputs: KernelInputs) -> Result<PathBuf> {
        let tree = self.unpack(&source.archive)?;
        let config = self.configure(&tree)?;
        let jobs = format!("-j{}", source.jobs);
        self.step("compile the kernel", make(&tree).args([jobs.as_str(), "bzImage"]))?;
        self.collect(&tree, &config, inputs)
    }

    /// The source tree.
    fn unpack(&mut self, archive: &Path) -> Result<PathBuf> {
        let mut archive = archive.to_path_buf();
        if is_package(&archive) {
            let folder = self.folder.join("package");
            self.step("unpack the package", Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&folder))?;
            archive =
                only(&folder.join("usr/src"), |name| name.starts_with("linux-source-") && name.ends_with(".tar.xz"))?;
        }
        let tree = self.folder.join("tree");
        fs::create_dir(&tree).context("make", &tree)?;
        let mut tar = Command::new("tar");
        // What no build of the kernel reads is a third of it.
        tar.args(["-x", "--xz", "--strip-components=1", "--no-same-owner"]);
        tar.args(["--exclude=*/Documentation/*/*", "--exclude=*/tools/testing/*"]);
        self.step("unpack the sources", tar.arg("-C").arg(&tree).arg("-f").arg(&archive))?;
        Ok(tree)
    }

    /// The whole configuration, once each option that is asked for has taken.
    fn configure(&mut self, tree: &Path) -> Result<String> {
        self.step("configure the kernel", make(tree).arg("tinyconfig"))?;
        let path = tree.join(".config");
        let read = || fs::read_to_string(&path).context("read", &path);
        // Later lines win.
        fs::write(&path, read()? + OPTIONS).context("write", &path)?;
        self.step("configure the kernel", make(tree).arg("olddefconfig"))?;
        let config = read()?;
        match differences(OPTIONS, &config) {
            differ if differ.is_empty() => Ok(config),
            differ => Err(GuestImageError::KernelOptions(differ.join("; "))),
        }
    }

    /// Puts what was built together as a kernel package has it.
    fn collect(&self, tree: &Path, config: &str, inputs: KernelInputs) -> Result<PathBuf> {
        let read = |path: &Path| fs::read_to_string(path).context("read", path);
        let release = read(&tree.join("include/config/kernel.release"))?.trim().to_owned();
        let made = self.folder.join("kernel");
        let modules = made.join("lib/modules").join(&release);
        for folder in [made.join("boot"), modules.join("kernel")] {
            fs::create_dir_all(&folder).context("make", &folder)?;
        }
        let copy = |from: PathBuf, to: PathBuf| fs::copy(&from, to).context("copy", &from).map(drop);
        copy(tree.join("arch/x86/boot/bzImage"), made.join(format!("boot/vmlinuz-{release}")))?;
        copy(tree.join("modules.builtin"), modules.join("modules.builtin"))?;
        let write = |path: PathBuf, text: &str| fs::write(&path, text).context("write", &path);
        write(made.join(format!("boot/config-{release}")), config)?;
        let version = if inputs.version.is_empty() { release } else { inputs.version };
        let build = KernelBuild {
            options_sha256: inputs.options,
            config_sha256: Sha256::of(config.as_bytes()),
            compiler: inputs.compiler,
            linker: inputs.linker,
        };
        let package = KernelPackage { name: inputs.name, version, sha256: inputs.sha256, build: Some(build) };
        // Strings always serialize.
        write(made.join(PACKAGE_FILE), &serde_json::to_string_pretty(&package).unwrap_or_default())?;
        Ok(made)
    }

    /// Runs one step; its output goes to `progress`, and its end into the error where it fails.
    fn step(&mut self, step: &'static str, command: &mut Command) -> Result<()> {
        let failed = |output: String| GuestImageError::KernelStep { step: step.to_owned(), output };
        let log = self.folder.join("errors");
        let errors = File::create(&log).context("write", &log)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        (self.progress)(step, "");
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        for line in lines.into_iter().flatten().map_while(std::result::Result::ok) {
            let line = line.trim();
            if !line.is_empty() {
                (self.progress)(step, line);
            }
        }
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(()) } else { Err(failed(tail(&log)?)) }
    }
}

/// `make` in `tree`, with nothing of the caller's surroundings but its search path.
fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(tree).env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    make.envs([
        ("ARCH", "x86_64"),
        ("LC_ALL", "C"),
        ("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC"),
        ("KBUILD_BUILD_USER", "caveau"),
        ("KBUILD_BUILD_HOST", "caveau"),
        ("KBUILD_BUILD_VERSION", "1"),
    ]);
    make
}

/// The only file in `folder` with such a name.
fn only(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().context("read folder", folder)? {
        let entry = entry.context("read folder", folder)?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found.push(entry.path());
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => Err(GuestImageError::KernelStep {
            step: "unpack the package".to_owned(),
            output: "it does not hold exactly one archive of kernel sources".to_owned(),
        }),
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path).context("read", path)?;
    let length = file.metadata().context("read", path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TOLD_BYTES))).context("read", path)?;
    let mut bytes = Vec::new();
    file.take(TOLD_BYTES).read_to_end(&mut bytes).context("read", path)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
