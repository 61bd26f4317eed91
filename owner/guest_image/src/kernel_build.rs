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
use crate::folder::{is_replaceable, put, write_file};
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

/// What decides a kernel's bytes: two builds of the same are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KernelInputs {
    /// SHA-256 of the sources' file.
    archive: Sha256,
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
    let output = std::path::absolute(output).context("resolve", output)?;
    let replaces = is_replaceable(&output, PACKAGE_FILE, GuestImageError::KernelDestination)?;
    let parent = output.parent().unwrap_or(&output);
    fs::create_dir_all(parent).context("make", parent)?;
    // What is exchanged goes with it.
    let temporary =
        tempfile::Builder::new().prefix(".kernel-").tempdir_in(parent).context("make a folder in", parent)?;
    let build = Build { folder: temporary.path().to_path_buf(), progress };
    let made = build.run(source, inputs)?;
    put(&made, &output, replaces)?;
    Ok(true)
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
        Ok(Self {
            archive: Sha256::from(caveau_measure::sha256(file).context("read", path)?),
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
            archive: package.sha256,
            options: build.options_sha256,
            compiler: build.compiler,
            linker: build.linker,
        })
    }
}

/// Name and version of the package of sources; of an archive alone, its file's name and the kernel's `release`.
fn identity(archive: &Path, release: String) -> Result<(String, String)> {
    if !is_package(archive) {
        return Ok((archive.file_name().unwrap_or_default().to_string_lossy().into_owned(), release));
    }
    let field = |name: &str| first_line("dpkg-deb", &["-f".as_ref(), archive.as_ref(), name.as_ref()]);
    Ok((field("Package")?, field("Version")?))
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
        self.collect(&tree, &config, &source.archive, inputs)
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
    fn collect(&self, tree: &Path, config: &str, archive: &Path, inputs: KernelInputs) -> Result<PathBuf> {
        let read = |path: &Path| fs::read_to_string(path).context("read", path);
        let release = read(&tree.join("include/config/kernel.release"))?.trim().to_owned();
        let made = self.folder.join("kernel");
        let modules = made.join("lib/modules").join(&release);
        for folder in [made.join("boot"), modules.join("kernel")] {
            fs::create_dir_all(&folder).context("make", &folder)?;
        }
        let copy = |from: PathBuf, to: PathBuf| write_file(&to, &fs::read(&from).context("read", &from)?);
        copy(tree.join("arch/x86/boot/bzImage"), made.join(format!("boot/vmlinuz-{release}")))?;
        copy(tree.join("modules.builtin"), modules.join("modules.builtin"))?;
        write_file(&made.join(format!("boot/config-{release}")), config.as_bytes())?;
        let (name, version) = identity(archive, release)?;
        let build = KernelBuild {
            options_sha256: inputs.options,
            config_sha256: Sha256::of(config.as_bytes()),
            compiler: inputs.compiler,
            linker: inputs.linker,
        };
        let package = KernelPackage { name, version, sha256: inputs.archive, build: Some(build) };
        // Strings always serialize.
        let text = serde_json::to_string_pretty(&package).unwrap_or_default();
        write_file(&made.join(PACKAGE_FILE), text.as_bytes())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with these bytes in an empty folder; `None` with a visible word where nothing can be built here.
    fn sources(name: &str, bytes: &[u8]) -> Option<(tempfile::TempDir, KernelSource)> {
        if let Err(error) = check_tools() {
            println!("skipped: {error}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join(name);
        fs::write(&archive, bytes).unwrap();
        Some((folder, KernelSource { archive, jobs: NonZeroUsize::MIN }))
    }

    /// A kernel that was made of `source`, as far as its description goes.
    fn kernel(folder: &Path, source: &KernelSource) -> PathBuf {
        let inputs = KernelInputs::of(source).unwrap();
        let build = KernelBuild {
            options_sha256: inputs.options,
            config_sha256: Sha256::of(b"whatever Kconfig made"),
            compiler: inputs.compiler,
            linker: inputs.linker,
        };
        let package =
            KernelPackage { name: "any".into(), version: "any".into(), sha256: inputs.archive, build: Some(build) };
        let kernel = folder.join("kernel");
        fs::create_dir(&kernel).unwrap();
        fs::write(kernel.join(PACKAGE_FILE), serde_json::to_vec(&package).unwrap()).unwrap();
        kernel
    }

    fn build(source: &KernelSource, output: &Path) -> Result<bool> {
        build_kernel(source, output, &mut |_, _| {})
    }

    #[test]
    fn a_kernel_of_the_same_inputs_stays() {
        let Some((folder, source)) = sources("linux.tar.xz", b"no sources at all") else { return };
        assert!(!build(&source, &kernel(folder.path(), &source)).unwrap());
    }

    #[test]
    fn broken_sources_leave_nothing_and_the_older_kernel() {
        let truncated = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4];
        for (name, bytes, step) in [
            ("linux.tar.xz", &b""[..], "unpack the sources"),
            ("linux.tar.xz", &truncated, "unpack the sources"),
            ("linux.tar.xz", &[0; 4096], "unpack the sources"),
            ("linux.deb", &b"!<arch>\n"[..], "unpack the package"),
        ] {
            let Some((folder, source)) = sources(name, b"older") else { return };
            let kernel = kernel(folder.path(), &source);
            let older = fs::read(kernel.join(PACKAGE_FILE)).unwrap();
            fs::write(&source.archive, bytes).unwrap();
            match build(&source, &kernel).unwrap_err() {
                GuestImageError::KernelStep { step: found, output } => {
                    assert!(found == step && !output.is_empty(), "{name}: {found}: {output}");
                }
                other => panic!("{name}: {other}"),
            }
            assert_eq!(fs::read(kernel.join(PACKAGE_FILE)).unwrap(), older);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{name}: nothing temporary is left");
        }
    }

    #[test]
    fn what_is_no_kernel_is_not_replaced() {
        let Some((folder, source)) = sources("linux.tar.xz", b"") else { return };
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("thesis"), "text").unwrap();
        for output in [&other, &other.join("thesis")] {
            let error = build(&source, output).unwrap_err();
            assert!(matches!(&error, GuestImageError::KernelDestination(path) if path == output), "{error}");
        }
        assert_eq!(fs::read(other.join("thesis")).unwrap(), b"text");
        let missing = KernelSource { archive: folder.path().join("missing"), ..source };
        assert!(build(&missing, &folder.path().join("new")).unwrap_err().to_string().contains("missing"));
    }
}
