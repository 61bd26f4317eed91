//! `cargo xtask soak`: many starts and stops, and many groups at once, with nothing left over.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    guest, images, images_folder,
    process::{command, headline, output, run},
    setup,
};

/// Runs it: `cycles` starts and stops, then `groups` at once.
///
/// # Errors
/// Where a group does not do what it should, or something is left over.
pub(crate) fn soak(root: &Path, cycles: u32, groups: u32) -> Result<()> {
    let setup = setup::setup(root)?;
    let guest = guest::build_once(root, &setup)?;
    run(&mut command(root, "cargo", ["build", "--locked", "-p", "caveau"]))?;
    let image = images::build_one(&images_folder(root), "busybox", &setup.apt_config, &|step| eprintln!("   {step}"))?;
    let state = tempfile::Builder::new().prefix("caveau-soak-").tempdir()?;
    let soak = Soak {
        caveau: root.join("target/debug/caveau"),
        image: format!("oci:{}", image.display()),
        guest,
        state: state.path().to_path_buf(),
    };
    headline(&format!("{cycles} starts and stops"));
    soak.cycle(0)?;
    let before = soak.left_over()?;
    for number in 1..=cycles {
        soak.cycle(number)?;
        if number % 10 == 0 {
            eprintln!("   {number}");
        }
    }
    let after = soak.left_over()?;
    ensure!(after == before, "left over after {cycles} cycles: {:?}", after.difference(&before).collect::<Vec<_>>());
    headline(&format!("{groups} groups at once"));
    soak.at_once(groups)?;
    let after = soak.left_over()?;
    ensure!(after == before, "left over after {groups} groups: {:?}", after.difference(&before).collect::<Vec<_>>());
    headline("nothing is left over: no process, no file, no mount");
    Ok(())
}

/// The soak's own state.
struct Soak {
    caveau: PathBuf,
    image: String,
    guest: PathBuf,
    state: PathBuf,
}

impl Soak {
    /// One start, one exit or stop, in turns, and one removal.
    fn cycle(&self, number: u32) -> Result<()> {
        if number.is_multiple_of(2) {
            let said = self.caveau(&["run", "--rm", "--memory", "256M", &self.image, "--", "echo", "well"])?;
            ensure!(said == "well\n", "cycle {number} printed {said:?}");
            return Ok(());
        }
        let name = format!("soak-{number}");
        self.start(&name)?;
        self.caveau(&["stop", "--time", "2", &name])?;
        self.caveau(&["rm", &name]).map(drop)
    }

    /// Many groups beside each other, each asked once.
    fn at_once(&self, groups: u32) -> Result<()> {
        let names: Vec<_> = (0..groups).map(|number| format!("beside-{number}")).collect();
        names.iter().try_for_each(|name| self.start(name))?;
        for name in &names {
            let said = self.caveau(&["exec", name, "echo", "here"])?;
            ensure!(said == "here\n", "{name} printed {said:?}");
        }
        for name in &names {
            self.caveau(&["rm", "--force", name])?;
        }
        Ok(())
    }

    fn start(&self, name: &str) -> Result<()> {
        let image = &self.image;
        let script = "trap 'exit 0' TERM; while :; do sleep 1; done";
        let options = ["run", "-d", "--name", name, "--memory", "256M", "--allow-exec", "echo here", image];
        self.caveau(&[&options[..], &["--", "sh", "-c", script]].concat()).map(drop)
    }

    fn caveau(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.caveau);
        command.args(arguments).env("XDG_RUNTIME_DIR", &self.state).env("CAVEAU_GUEST", &self.guest);
        output(&mut command)
    }

    /// Everything of ours that is there: processes with our state in their environment, files of the state, mounts.
    fn left_over(&self) -> Result<BTreeSet<String>> {
        let mine = self.state.display().to_string();
        let mut found = BTreeSet::new();
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environ).contains(&mine) {
                found.insert(format!("process {}", entry.file_name().to_string_lossy()));
            }
        }
        for entry in fs::read_dir(self.state.join("caveau")).context("the state folder is gone")? {
            found.insert(format!("file {}", entry?.file_name().to_string_lossy()));
        }
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        found.extend(mounts.lines().filter(|line| line.contains("caveau")).map(|line| format!("mount {line}")));
        Ok(found)
    }
}
