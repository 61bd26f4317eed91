//! A folder with Debian 13's tools, which benchmarks are held against: `mkfs.erofs` that reads tars, and a newer `veritysetup`.
//!
//! apt downloads and checks the packages as for a machine that has nothing, and their contents are unpacked; no maintainer
//! script runs, and none of it needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{apt::codename, sources::Sources};
use crate::process::{headline, run};
use crate::work_folder;

/// The release.
const CODENAME: &str = "trixie";

/// What is in it: the tools, and what every Debian has, so that it makes a realistic layer.
const PACKAGES: [&str; 7] = ["?essential", "apt", "cryptsetup-bin", "e2fsprogs", "erofs-utils", "isal", "zstd"];

/// Keys that the packages are checked with, where the machine has Debian's.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Makes the folder and gives its path; its programs are run by its own loader.
///
/// # Errors
/// Where the packages cannot be downloaded or unpacked.
pub(crate) fn debian13(root: &Path) -> Result<PathBuf> {
    let folder = work_folder(root).join("debian13");
    if PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return Ok(folder);
    }
    headline("Debian 13's tools");
    let temporary = tempfile::Builder::new().prefix(".debian13-").tempdir_in(work_folder(root))?;
    let tree = temporary.path().join("tree");
    fs::create_dir(&tree)?;
    for package in download(temporary.path())? {
        run(Command::new("dpkg-deb").arg("--extract").args([&package, &tree]))?;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::rename(&tree, &folder).with_context(|| format!("failed to move the folder to {}", folder.display()))?;
    Ok(folder)
}

/// The programs without which the folder is not whole.
const PROGRAMS: [&str; 4] = ["usr/bin/mkfs.erofs", "usr/sbin/veritysetup", "usr/bin/igzip", "usr/bin/zstd"];

/// Downloads the packages, and what they depend on, into `folder`; gives their files.
fn download(folder: &Path) -> Result<Vec<PathBuf>> {
    let sources = Sources::of_machine(&codename()?, None)?;
    let uri = sources.uri.context("no package source")?;
    let options = if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let archives = folder.join("cache/archives");
    for sub in ["lists/partial", "cache/archives/partial", "sources.d"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    fs::write(folder.join("sources.d/debian13.list"), format!("deb {options}{uri} {CODENAME} main\n"))?;
    fs::write(folder.join("status"), "")?;
    let dir = folder.to_str().context("the workspace's path is not UTF-8")?;
    let text = format!(
        "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{dir}/sources.d\";\nDir::State::lists \"{dir}/lists\";\n\
         Dir::State::status \"{dir}/status\";\nDir::Cache \"{dir}/cache\";\nAPT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\nDebug::NoLocking \"1\";\n"
    );
    let config = folder.join("apt.conf");
    fs::write(&config, text)?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("APT_CONFIG", &config).env("LC_ALL", "C").stdin(Stdio::null());
        command.stdout(std::io::stderr());
        run(&mut command)
    };
    apt(&["update", "-q"]).context("failed to fetch Debian 13's package lists; is there a network?")?;
    let options = ["install", "-qq", "-y", "--download-only", "--no-install-recommends"];
    apt(&[&options[..], &PACKAGES].concat()).context("failed to download Debian 13's packages")?;
    let files = fs::read_dir(&archives)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}
