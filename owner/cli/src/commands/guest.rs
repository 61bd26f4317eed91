//! `caveau guest`: build and inspect the measured guest.

use anyhow::{Context as _, Result};
use caveau_guest_image::{GuestFolder, Inputs, build};

use crate::{args, exit::Outcome, folders, ui, units};

/// Runs it.
///
/// # Errors
/// Where the guest cannot be built or read.
pub(crate) fn run(command: args::Guest, json: bool, quiet: bool) -> Result<Outcome> {
    let guest = match command {
        args::Guest::Build { kernel, agent, bios, pvh_rom, snp_firmware, svn, cpu_type, max_cpus, output } => {
            let output = output.map_or_else(|| Ok(folders::data()?.join("guest")), anyhow::Ok)?;
            let inputs = Inputs {
                kernel,
                agent,
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                svn,
                bios,
                pvh_rom,
                ovmf: snp_firmware,
                vcpu_types: cpu_type,
                vcpus: max_cpus,
            };
            if let Some(parent) = output.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
            }
            let guest = build(&inputs, &output)?;
            ui::note(quiet, &format!("built {}", output.display()));
            guest
        }
        args::Guest::Inspect { guest } => {
            let guest = GuestFolder::open(&guest.path()?)?;
            guest.check()?;
            guest
        }
    };
    print(&guest, json)?;
    Ok(Outcome::Done)
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
    ui::line(format_args!("agent    {}", manifest.agent.version))?;
    manifest.agent.toolchain.iter().try_for_each(|text| ui::line(format_args!("         made by {text}")))?;
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
