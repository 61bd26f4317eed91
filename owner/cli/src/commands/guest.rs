//! `caveau guest`: build, sign and inspect the measured guest and its kernel, list what is in it, build it again.

mod reproduce;
mod sbom;
mod sign;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::{
    FirmwareFile, GuestFolder, Inputs, KernelSource, OPTIONS, PACKAGE_FILE, build, build_kernel, record_beside,
};

use crate::{args, exit::Outcome, folders, streams::StartProgress, ui, units};

/// Runs it.
///
/// # Errors
/// Where the guest cannot be built or read.
pub(crate) fn run(command: args::Guest, json: bool, quiet: bool) -> Result<Outcome> {
    let guest = match command {
        args::Guest::Build(command) => build_guest(*command, quiet)?,
        args::Guest::Kernel(args::GuestKernel::Build { source, jobs, output }) => {
            let output = output.map_or_else(|| kept_kernel("own"), anyhow::Ok)?;
            make_kernel(source, jobs, &output, json, quiet)?;
            return Ok(Outcome::Done);
        }
        args::Guest::Kernel(args::GuestKernel::Options) => {
            ui::print(OPTIONS)?;
            return Ok(Outcome::Done);
        }
        args::Guest::Reproduce(command) => return reproduce::run(&command, json, quiet),
        args::Guest::Sbom(command) => return sbom::run(&command, quiet),
        args::Guest::Sign(command) => return sign::run(&command, json, quiet),
        args::Guest::Inspect { guest } => {
            let guest = GuestFolder::open(&guest.path()?)?;
            guest.check()?;
            guest
        }
    };
    print(&guest, json)?;
    Ok(Outcome::Done)
}

/// Puts a guest together.
fn build_guest(command: args::GuestBuild, quiet: bool) -> Result<GuestFolder> {
    let output = command.output.map_or_else(|| Ok(folders::data()?.join("guest")), anyhow::Ok)?;
    let beside = Some(record_beside(&command.agent)).filter(|path| path.is_file());
    let inputs = Inputs {
        kernel: kernel_folder(command.kernel)?,
        agent: command.agent,
        agent_record: command.agent_record.or(beside),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        svn: command.svn,
        bios: FirmwareFile::find(command.bios),
        pvh_rom: FirmwareFile::find(command.pvh_rom),
        ovmf: command.snp_firmware.map(FirmwareFile::find),
        vcpu_types: command.cpu_type,
        vcpus: command.max_cpus,
    };
    if let Some(parent) = output.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
    }
    let guest = build(&inputs, &output)?;
    ui::note(quiet, &format!("built {}", output.display()));
    Ok(guest)
}

/// Where a kernel of that name is kept.
fn kept_kernel(name: &str) -> Result<PathBuf> {
    Ok(folders::data()?.join("kernel").join(name))
}

/// The folder of the kernel that was chosen.
fn kernel_folder(choice: args::KernelChoice) -> Result<PathBuf> {
    let name = match choice {
        args::KernelChoice::Folder(folder) => return Ok(folder),
        args::KernelChoice::Kept(name) => name,
    };
    let folder = kept_kernel(name)?;
    ensure!(
        folder.is_dir(),
        "there is no kernel {name:?}: {} is missing. {} `cargo xtask setup` does it, too",
        folder.display(),
        if name == "own" {
            "Build it by `caveau guest kernel build`."
        } else {
            "Unpack Debian's linux-image-*-cloud-amd64 there."
        }
    );
    Ok(folder)
}

/// Builds a kernel, with its last line in sight on a terminal, and prints its folder; as JSON also what it is made of.
fn make_kernel(archive: PathBuf, jobs: Option<NonZeroUsize>, output: &Path, json: bool, quiet: bool) -> Result<()> {
    ensure!(
        archive.is_file(),
        "{} is not a file with the kernel's sources: install Debian's package linux-source-6.12, or name its file by \
         --source; `cargo xtask setup` fetches it, too",
        archive.display()
    );
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let mut progress = StartProgress::new(quiet, "building the kernel");
    let source = KernelSource { archive, jobs };
    let built = build_kernel(&source, output, &mut |step, line| progress.step(&format!("{step} {line:.80}")));
    progress.finish();
    let built = built?;
    let package = output.join(PACKAGE_FILE);
    let what = if built { "built" } else { "it is made of the same already:" };
    ui::note(quiet, &format!("{what} {}", package.display()));
    if json {
        let text = std::fs::read(&package).with_context(|| format!("failed to read {}", package.display()))?;
        let package: serde_json::Value = serde_json::from_slice(&text)?;
        return ui::json(&serde_json::json!({"folder": output, "built": built, "package": package}));
    }
    ui::line(output.display())
}

/// Prints what a guest is made of.
fn print(guest: &GuestFolder, json: bool) -> Result<()> {
    let manifest = guest.manifest();
    if json {
        return ui::json(manifest);
    }
    let package = manifest.kernel.package.as_ref();
    let kernel = package.map_or_else(|| manifest.kernel.release.clone(), |p| format!("{} {}", p.name, p.version));
    ui::line(format_args!("folder   {}", guest.path().display()))?;
    ui::line(format_args!("kernel   {kernel}"))?;
    if let Some(build) = package.and_then(|package| package.build.as_ref()) {
        ui::line(format_args!("         options {}, configuration {}", build.options_sha256, build.config_sha256))?;
        ui::line(format_args!("         made by {}, {}", build.compiler, build.linker))?;
    }
    ui::line(format_args!("agent    {}", manifest.agent.version))?;
    manifest.agent.toolchain.iter().try_for_each(|text| ui::line(format_args!("         made by {text}")))?;
    if let Some(build) = &manifest.agent.build {
        let commit = build.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
        ui::line(format_args!("         sources {}{commit}", build.source_sha256))?;
    }
    ui::line(format_args!("svn      {}", manifest.svn))?;
    let modules = manifest.modules.iter().map(|module| module.name.as_str()).collect::<Vec<_>>();
    ui::line(format_args!("modules  {}\n", modules.join(" ")))?;
    let parts = manifest.parts.iter();
    let rows: Vec<_> =
        parts.map(|(name, part)| vec![name.clone(), units::human(part.bytes), part.sha256.to_string()]).collect();
    ui::table(&["PART", "SIZE", "SHA-256"], &rows)?;
    ui::print("\n")?;
    let digests =
        manifest.tees.iter().flat_map(|(tee, info)| info.launch_digests.iter().map(move |digest| (tee, digest)));
    let rows: Vec<_> = digests
        .map(|(tee, expected)| {
            vec![tee.to_string(), expected.vcpu_type.clone(), expected.vcpus.to_string(), expected.digest.to_string()]
        })
        .collect();
    ui::table(&["TEE", "CPU TYPE", "CPUS", "LAUNCH DIGEST"], &rows)
}
