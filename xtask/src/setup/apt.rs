//! Debian packages: what is needed, what is missing, and an apt of our own to get it with.

use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::sources::Sources;
use crate::process::{headline, output, run};

/// A package that is needed.
struct Package {
    name: &'static str,
    /// Oldest version that will do; what is newer than the release's comes from backports.
    at_least: Option<&'static str>,
}

const fn any(name: &'static str) -> Package {
    Package { name, at_least: None }
}

const fn at_least(name: &'static str, version: &'static str) -> Package {
    Package { name, at_least: Some(version) }
}

/// What building, running and testing need.
const PACKAGES: &[Package] = &[
    any("build-essential"),
    // Images come from registries over HTTPS.
    any("ca-certificates"),
    // The guest's kernel.
    any("flex"),
    any("bison"),
    any("bc"),
    any("libelf-dev"),
    any("xz-utils"),
    any("libseccomp-dev"),
    any("pkg-config"),
    // QEMU 10 emulates the SHA extensions: hashing in the guest is 2.7 times faster than with the release's own.
    at_least("qemu-system-x86", "1:10"),
    any("seabios"),
    any("ovmf"),
    any("cryptsetup-bin"),
    any("e2fsprogs"),
    any("skopeo"),
    any("umoci"),
    any("docker-registry"),
    any("openssl"),
    // Keys in tokens, for the signing of fragments.
    any("softhsm2"),
    any("opensc"),
    any("redis-tools"),
    any("wrk"),
    any("python3"),
    any("python3-venv"),
    any("procps"),
];

/// What single tests use, and say that they skip without it.
const WISHED: &[Package] = &[
    // Shows the pages of `caveau verify --html`.
    any("chromium-headless-shell"),
];

/// apt with its own configuration, lists and cache, so that the machine's sources stay as they are and no root is needed but to
/// install.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Writes the configuration below `work`; nothing is fetched yet.
    ///
    /// # Errors
    /// Where the machine is not a Debian, or has no sources.
    pub(crate) fn new(work: &Path) -> Result<Self> {
        let folder = work.join("apt");
        let config = folder.join("apt.conf");
        let codename = codename()?;
        let extra = backports(&codename);
        let sources = Sources::of_machine(&codename, extra.as_deref())?;
        for sub in ["lists/partial", "cache/archives/partial", "sources.d"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        write_changed(&folder.join("sources.d/caveau.list"), &sources.lines)?;
        write_changed(&folder.join("sources.d/caveau.sources"), &sources.stanzas)?;
        let dir = folder.to_str().context("the workspace's path is not UTF-8")?;
        let text = format!(
            "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{dir}/sources.d\";\nDir::State::lists \"{dir}/lists\";\n\
             Dir::Cache \"{dir}/cache\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        );
        write_changed(&config, &text)?;
        Ok(Self { folder, config })
    }

    /// The configuration, for `APT_CONFIG`.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// An apt program under this configuration.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("APT_CONFIG", &self.config).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Fetches the package lists.
    pub(crate) fn update(&self) -> Result<()> {
        headline("package lists");
        let mut update = self.command("apt-get", &["update", "-q"]);
        run(update.args(["-o", "Debug::NoLocking=1"])).context("failed to fetch the package lists; is there a network?")
    }

    /// Whether there are no package lists yet.
    pub(crate) fn is_empty(&self) -> bool {
        let lists = self.folder.join("lists").read_dir();
        !lists.is_ok_and(|mut lists| lists.any(|entry| entry.is_ok_and(|entry| entry.path().is_file())))
    }

    /// Installs the packages that are not there. Those that are only wished for may stay away.
    ///
    /// # Errors
    /// Without root or sudo, saying what to install; where apt fails.
    pub(crate) fn install_missing(&self) -> Result<()> {
        let (needed, wished) = (missing(PACKAGES)?, missing(WISHED)?);
        if !needed.is_empty() {
            self.install_needed(needed)?;
        }
        if !wished.is_empty()
            && let Err(error) = self.install_wished(&wished)
        {
            println!("going on without {}: {error:#}", names(&wished).join(" "));
        }
        Ok(())
    }

    fn install_needed(&self, missing: Vec<&Package>) -> Result<()> {
        let Some(prefix) = privilege()? else {
            bail!(
                "these packages are missing, and installing them needs root or sudo: {}\n\
                 Have them installed (`cargo xtask setup` as root does it), then run this again.",
                names(&missing).join(" ")
            );
        };
        self.update()?;
        let (newer, plain): (Vec<_>, Vec<_>) = missing.into_iter().partition(|package| package.at_least.is_some());
        self.install(prefix, &plain, None)?;
        self.install(prefix, &newer, backports(&codename()?).as_deref())
    }

    fn install_wished(&self, missing: &[&Package]) -> Result<()> {
        let prefix = privilege()?.context("installing needs root or sudo")?;
        self.update()?;
        self.install(prefix, missing, None)
    }

    /// Installs `packages`, and what they depend on, from `suite` where one is given.
    fn install(&self, prefix: &[&str], packages: &[&Package], suite: Option<&str>) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        headline(&format!("installing {}", names(packages).join(", ")));
        let config = format!("APT_CONFIG={}", self.config.display());
        let mut words = prefix.to_vec();
        words.extend(["env", &config, "DEBIAN_FRONTEND=noninteractive"]);
        words.extend(["apt-get", "install", "-q", "-y", "--no-install-recommends"]);
        words.extend(suite.iter().flat_map(|suite| ["-t", *suite]));
        words.extend(names(packages));
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        run(Command::new(program).args(arguments)).context("failed to install packages")
    }
}

fn names(packages: &[&Package]) -> Vec<&'static str> {
    packages.iter().map(|package| package.name).collect()
}

/// What makes a command run as root: nothing, sudo, or `None` where there is no way.
fn privilege() -> Result<Option<&'static [&'static str]>> {
    if fs::metadata("/proc/self").context("failed to read /proc")?.uid() == 0 {
        return Ok(Some(&[]));
    }
    let quiet = |arguments: &[&str]| {
        let mut sudo = Command::new("sudo");
        sudo.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sudo.status().is_ok_and(|status| status.success())
    };
    let without_password = quiet(&["-n", "true"]);
    let can_ask = std::io::stdin().is_terminal() && quiet(&["-V"]);
    Ok((without_password || can_ask).then_some(&["sudo"]))
}

/// Those of `packages` that are not installed, or too old.
fn missing(packages: &'static [Package]) -> Result<Vec<&'static Package>> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${Package}\t${db:Status-Status}\t${Version}\n"]);
    query.args(packages.iter().map(|package| package.name)).stderr(Stdio::null());
    // It fails where it does not know one of them, and tells about the others.
    let out = query.output().context("failed to run dpkg-query: this set-up is for Debian")?;
    let out = String::from_utf8(out.stdout)?;
    let installed = |name: &str| {
        let mut lines = out.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        lines.find_map(|line| match line.as_slice() {
            [package, "installed", version] if *package == name => Some((*version).to_owned()),
            _ => None,
        })
    };
    let lacks = |package: &&Package| match (installed(package.name), package.at_least) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(version), Some(wanted)) => !is_at_least(&version, wanted),
    };
    Ok(packages.iter().filter(lacks).collect())
}

fn is_at_least(version: &str, wanted: &str) -> bool {
    Command::new("dpkg")
        .args(["--compare-versions", version, "ge", wanted])
        .status()
        .is_ok_and(|status| status.success())
}

/// The release's code name, from os-release(5).
pub(super) fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("failed to read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name
        .context("/etc/os-release names no code name: this set-up is for Debian 12 or newer")?
        .trim_matches('"')
        .to_owned())
}

/// Debian 12's kernel and QEMU are too old, and its backports are not; later releases need none.
fn backports(codename: &str) -> Option<String> {
    (codename == "bookworm").then(|| format!("{codename}-backports"))
}

/// Writes a file unless it has that text already.
fn write_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// The value of `field` in apt-cache's answer about the newest `package`, backports included.
pub(crate) fn show(apt: &Apt, package: &str, field: &str) -> Result<String> {
    let mut query = apt.command("apt-cache", &["show", "--no-all-versions", package]);
    if let Some(suite) = backports(&codename()?) {
        query.args(["-o", &format!("APT::Default-Release={suite}")]);
    }
    let text = output(&mut query)?;
    let prefix = format!("{field}: ");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    Ok(value.with_context(|| format!("the package lists say no {field} of {package}"))?.to_owned())
}
