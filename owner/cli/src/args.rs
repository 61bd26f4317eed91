//! The command line: one source for names, help and completion.

mod examples;
mod fragment;
mod owner;
mod policy;
mod run;
mod signing;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use fragment::{
    FRAGMENT_CONTENT, Fragment, FragmentAttach, FragmentChain, FragmentDiscover, FragmentGenerate, FragmentInspect,
    FragmentSign,
};
pub(crate) use owner::{Owner, OwnerCopy, OwnerExec, OwnerLogs, Session};
pub(crate) use policy::{ConvertTo, Policy, SeverityChoice};
pub(crate) use run::{ContainerOptions, Fetch, GuestFolder, Pull, Run, Source, TeeChoice, Vm};
pub(crate) use signing::{FormChoice, Signing};
pub(crate) use verify::{Expected, ProfileChoice, Verify};

/// Run standard container images in an attested VM of their own.
#[derive(Debug, Parser)]
#[command(name = "caveau", version, max_term_width = 110, after_help = examples::CAVEAU, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print JSON where a command prints a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but results, errors, and warnings of what is not protected.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an image in a VM of its own.
    Run(Box<Run>),
    /// List groups.
    Ps(Ps),
    /// Print what a container wrote.
    Logs(Logs),
    /// Run one more process in a running container, where the policy allows it.
    Exec(Exec),
    /// Stop a group: its image's stop signal, then SIGKILL when the time is over.
    Stop(Stop),
    /// Remove groups that have ended.
    Rm(Rm),
    /// Print all that is known of a group.
    #[command(after_help = examples::INSPECT)]
    Inspect(Name),
    /// Print what a group uses.
    #[command(after_help = examples::STATS)]
    Stats(Name),
    /// Make policies and look at them.
    #[command(subcommand, after_help = examples::POLICY)]
    Policy(Policy),
    /// Make, sign and hand out policy fragments: what a policy takes in later.
    #[command(subcommand, after_help = examples::FRAGMENT)]
    Fragment(Fragment),
    /// Get a signed proof of what a running group is.
    Attest(Attest),
    /// Talk to a guest itself, as one of the owners that its policy names: the host carries it and cannot read it.
    #[command(subcommand, after_help = examples::OWNER)]
    Owner(Owner),
    /// Check a proof against your own expectations.
    Verify(Box<Verify>),
    /// Compute the launch digest that a secure processor would measure.
    Measure(Measure),
    /// Build and inspect the measured guest.
    #[command(subcommand, after_help = examples::GUEST)]
    Guest(Guest),
    /// Images and their converted layers.
    #[command(subcommand, after_help = examples::IMAGE)]
    Image(Image),
    /// Convert layers.
    #[command(subcommand, after_help = examples::LAYER)]
    Layer(Layer),
    /// Say what this machine can do, by trying it.
    Doctor(Doctor),
    /// Print a completion script for a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The process that owns one group's VM.
    #[command(name = "__supervise", hide = true)]
    Supervise(Internal),
    /// The software secure processor of one group.
    #[command(name = "__softsp", hide = true)]
    SoftSp(Internal),
    /// A look-alike of AMD's key distribution service for the software secure processor, for tests.
    #[command(name = "__kds", hide = true)]
    Kds {
        /// Where to listen: a loopback address; port 0 is a free one.
        #[arg(default_value = "127.0.0.1:0")]
        address: std::net::SocketAddr,
    },
}

/// Arguments that Caveau's own processes hand to each other.
#[derive(Debug, Args)]
pub(crate) struct Internal {
    /// Not for people.
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// `caveau ps`.
#[derive(Debug, Args)]
#[command(after_help = examples::PS)]
pub(crate) struct Ps {
    /// Also those that have ended. Those that failed or were lost are shown anyway, until they are removed.
    #[arg(long, short)]
    pub(crate) all: bool,
}

/// A group's name.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The group.
    pub(crate) name: String,
}

/// `caveau logs`.
#[derive(Debug, Args)]
#[command(after_help = examples::LOGS)]
pub(crate) struct Logs {
    /// The group.
    pub(crate) name: String,
    /// Go on until the container ends.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last N lines.
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// With the time at which the host got each line.
    #[arg(long, short)]
    pub(crate) timestamps: bool,
}

/// `caveau exec`.
#[derive(Debug, Args)]
#[command(after_help = examples::EXEC)]
pub(crate) struct Exec {
    /// The group.
    pub(crate) name: String,
    /// Pass standard input on.
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give the process a terminal.
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Program and arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// `caveau stop`.
#[derive(Debug, Args)]
#[command(after_help = examples::STOP)]
pub(crate) struct Stop {
    /// The groups.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Seconds to wait before SIGKILL.
    #[arg(long, short, default_value_t = 10)]
    pub(crate) time: u32,
}

/// `caveau rm`.
#[derive(Debug, Args)]
#[command(after_help = examples::RM)]
pub(crate) struct Rm {
    /// The groups.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Stop them first.
    #[arg(long, short)]
    pub(crate) force: bool,
}

/// `caveau attest`.
#[derive(Debug, Args)]
#[command(after_help = examples::ATTEST)]
pub(crate) struct Attest {
    /// The group.
    #[arg(required_unless_present = "connect")]
    pub(crate) name: Option<String>,
    /// Ask the guest itself over the network: evidence of this very session, which nobody in between can pass on.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "name")]
    pub(crate) connect: Option<crate::channel::Address>,
    /// With what the guest did so far: its event log, which the report binds.
    #[arg(long, conflicts_with = "connect")]
    pub(crate) events: bool,
    /// 16 to 64 fresh bytes as hexadecimal digits, chosen by whoever wants the proof.
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: String,
    /// Write the evidence here instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) certificates: CertificateSources,
}

/// Where certificates come from that did not come with the report.
#[derive(Debug, Args)]
#[command(next_help_heading = "Certificates")]
pub(crate) struct CertificateSources {
    /// Take certificates, or a revocation list, from this file: PEM, DER, a certificate table, or THIM's JSON. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificates: Vec<PathBuf>,
    /// Ask AMD's key distribution service, or the one at URL, for what is missing and for the newest revocation list.
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = caveau_evidence::kds::AMD)]
    pub(crate) fetch_certificates: Option<String>,
    /// Folder of what was fetched before [default: certificates, in Caveau's cache folder].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) certificate_cache: Option<PathBuf>,
}

/// `caveau measure`.
#[derive(Debug, Args)]
#[command(after_help = examples::MEASURE)]
pub(crate) struct Measure {
    /// TEE to compute for.
    #[arg(long, value_enum, default_value_t = MeasuredTee::EmulatedSnp)]
    pub(crate) tee: MeasuredTee,
    /// Firmware (OVMF), for `--tee snp`; with `--group`, for `snp` where the guest has none.
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Option<PathBuf>,
    /// Kernel, instead of the guest folder's.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Initial RAM disk, instead of the guest folder's.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Kernel command line, instead of the guest folder's.
    #[arg(long, value_name = "TEXT")]
    pub(crate) append: Option<String>,
    /// Number of virtual processors.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) cpus: u32,
    /// Type of the virtual processors, such as EPYC-v4. Repeatable with `--group` [default: EPYC-v4; with `--group` those that
    /// guest.json lists].
    #[arg(long, value_name = "TYPE")]
    pub(crate) cpu_type: Vec<caveau_measure::VcpuType>,
    /// SEV_FEATURES of the virtual processors' save areas.
    #[arg(long, value_name = "BITS", default_value = "0x1")]
    pub(crate) guest_features: String,
    #[command(flatten)]
    pub(crate) of_group: MeasuredGroup,
    #[command(flatten)]
    pub(crate) guest: GuestFolder,
}

/// A whole group to compute for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reference values of a group")]
pub(crate) struct MeasuredGroup {
    /// Compute the reference values of the group with this policy: Rego, base64 of it, or an ARM template with one group; `-` is
    /// standard input. They have the policy's digest and all launch digests of the guest, and are for `caveau verify --reference`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tee", "kernel", "initrd", "append", "cpus", "guest_features"])]
    pub(crate) group: Option<PathBuf>,
    /// List launch digests for 1 to this many processors [default: the numbers that guest.json lists].
    #[arg(long, value_name = "N", requires = "group", value_parser = clap::value_parser!(u32).range(1..=i64::from(caveau_guest_image::MAX_EXPECTED_VCPUS)))]
    pub(crate) max_cpus: Option<u32>,
    /// Write the reference values here instead of to standard output.
    #[arg(long, short, value_name = "FILE", requires = "group")]
    pub(crate) output: Option<PathBuf>,
}

/// TEE to compute for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MeasuredTee {
    /// AMD SEV-SNP under QEMU.
    Snp,
    /// The emulated one.
    EmulatedSnp,
}

/// `caveau guest`.
#[derive(Debug, Subcommand)]
pub(crate) enum Guest {
    /// Put kernel, modules and agent together.
    Build(Box<GuestBuild>),
    /// The guest's own kernel.
    #[command(subcommand, after_help = examples::GUEST_KERNEL)]
    Kernel(GuestKernel),
    /// Build a guest again from what its guest.json records, and say part by part whether it is the same.
    Reproduce(Box<GuestReproduce>),
    /// Print what software is in a guest, from where and under which licence: a bill of materials (CycloneDX 1.6, JSON).
    Sbom(GuestSbom),
    /// Sign a guest's launch digests as reference values that others can verify by.
    #[command(after_help = examples::GUEST_SIGN)]
    Sign(Box<GuestSign>),
    /// Print what a guest is made of.
    #[command(after_help = examples::GUEST_INSPECT)]
    Inspect {
        #[command(flatten)]
        guest: GuestFolder,
    },
}

/// `caveau guest build`.
#[derive(Debug, Args)]
#[command(after_help = examples::GUEST_BUILD)]
pub(crate) struct GuestBuild {
    /// `own` (made for this), `distro` (Debian's), or the folder of an unpacked kernel package.
    #[arg(long, value_name = "KERNEL", default_value = "own")]
    pub(crate) kernel: KernelChoice,
    /// The agent's static binary.
    #[arg(long, value_name = "FILE")]
    pub(crate) agent: PathBuf,
    /// What the agent's build recorded of it [default: the agent's name with .json, where that is there].
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_record: Option<PathBuf>,
    /// SeaBIOS image that boots the emulated machine.
    #[arg(long, value_name = "FILE", default_value = "/usr/share/seabios/bios-256k.bin")]
    pub(crate) bios: PathBuf,
    /// QEMU's option ROM that enters the kernel.
    #[arg(long, value_name = "FILE", default_value = "/usr/share/qemu/pvh.bin")]
    pub(crate) pvh_rom: PathBuf,
    /// OVMF firmware, AmdSev build, to compute launch digests on SEV-SNP with.
    #[arg(long, value_name = "FILE")]
    pub(crate) snp_firmware: Option<PathBuf>,
    /// Security version of this guest: raise it with each fix that verifiers shall insist on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) svn: u32,
    /// List launch digests for these processor types; may be repeated.
    #[arg(long, value_name = "TYPE", default_values = ["EPYC-v4", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"])]
    pub(crate) cpu_type: Vec<caveau_measure::VcpuType>,
    /// List launch digests for 1 to this many processors.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) max_cpus: u32,
    /// Folder to write [default: $XDG_DATA_HOME/caveau/guest].
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
}

/// `caveau guest sbom`.
#[derive(Debug, Args)]
#[command(after_help = examples::GUEST_SBOM)]
pub(crate) struct GuestSbom {
    /// The guest's folder, or the guest.json in it [default: the guest folder].
    #[arg(value_name = "FOLDER|GUEST.JSON")]
    pub(crate) guest_or_file: Option<PathBuf>,
    /// Where to write it [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) guest: GuestFolder,
}

/// `caveau guest reproduce`.
#[derive(Debug, Args)]
#[command(after_help = examples::GUEST_REPRODUCE)]
pub(crate) struct GuestReproduce {
    /// The guest.json, or the folder that it is in [default: that of the guest folder].
    #[arg(value_name = "GUEST.JSON|FOLDER")]
    pub(crate) guest_or_file: Option<PathBuf>,
    /// Checkout of Caveau to build from. Its build runs as you: take it from where you trust it.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(crate) source: PathBuf,
    /// Take from the checkout's build folder what is compiled there already; without, the agent is compiled in an empty one.
    #[arg(long)]
    pub(crate) reuse: bool,
    /// Compile the kernel again, even where one that was compiled from the same is kept: some ten minutes on two processors.
    #[arg(long)]
    pub(crate) compile_kernel: bool,
    /// Keep what was built in this folder, which must be empty or not be there.
    #[arg(long, short, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Build nothing: compare what `cargo xtask guest --like` built in this folder.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["source", "reuse", "compile_kernel", "output"])]
    pub(crate) rebuilt: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) guest: GuestFolder,
}

/// `caveau guest sign`.
#[derive(Debug, Args)]
pub(crate) struct GuestSign {
    /// The guest's guest.json [default: that of the guest folder].
    pub(crate) file: Option<PathBuf>,
    /// Where to write them [default: reference-info.TEE.cose beside guest.json, whence groups get it]; `-` is standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What the values are about, such as the guest's name: verifiers ask for it.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) feed: String,
    /// TEE whose launch digests to sign.
    #[arg(long, value_enum, default_value_t = MeasuredTee::Snp)]
    pub(crate) tee: MeasuredTee,
    /// Sign launch digests with this number of processors alone.
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Sign launch digests with this processor type alone. One digest that is left has the form that Azure's tools read.
    #[arg(long, value_name = "TYPE")]
    pub(crate) cpu_type: Option<String>,
    #[command(flatten)]
    pub(crate) signing: Signing,
    #[command(flatten)]
    pub(crate) guest: GuestFolder,
}

/// `caveau guest kernel`.
#[derive(Debug, Subcommand)]
pub(crate) enum GuestKernel {
    /// Build the guest's kernel from a distribution's sources, unless it is there already, made of the same.
    #[command(after_help = examples::GUEST_KERNEL_BUILD)]
    Build {
        /// Debian's package linux-source-6.12, as a file, or the archive that it installs.
        #[arg(long, value_name = "FILE", default_value = "/usr/src/linux-source-6.12.tar.xz")]
        source: PathBuf,
        /// Compilers at once [default: one for each processor].
        #[arg(long, short, value_name = "N")]
        jobs: Option<std::num::NonZeroUsize>,
        /// Folder to write [default: $XDG_DATA_HOME/caveau/kernel/own].
        #[arg(long, short, value_name = "FOLDER")]
        output: Option<PathBuf>,
    },
    /// Print the options that it is built with, and why each is there.
    #[command(after_help = examples::GUEST_KERNEL_OPTIONS)]
    Options,
}

/// A kernel to build a guest from.
#[derive(Clone, Debug)]
pub(crate) enum KernelChoice {
    /// One that is kept below the data folder, by its name.
    Kept(&'static str),
    /// Any other.
    Folder(PathBuf),
}

impl std::str::FromStr for KernelChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kept = ["own", "distro"].into_iter().find(|name| *name == text);
        Ok(kept.map_or_else(|| Self::Folder(text.into()), Self::Kept))
    }
}

/// `caveau image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Fetch an image and convert its layers.
    #[command(after_help = examples::IMAGE_PULL)]
    Pull(Source),
    /// List the images that are here.
    #[command(after_help = examples::IMAGE_LS)]
    Ls,
    /// Remove images; layers that no image uses go with them.
    #[command(after_help = examples::IMAGE_RM)]
    Rm {
        /// Images by name, digest or ID, as `caveau image ls` shows them.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove layers that no image uses, and what was left half-done.
    #[command(after_help = examples::IMAGE_PRUNE)]
    Prune {
        /// Also all images.
        #[arg(long, short)]
        all: bool,
    },
}

/// `caveau layer`.
#[derive(Debug, Subcommand)]
pub(crate) enum Layer {
    /// Print `ROOT<tab>TAR` for each layer tar (plain, gzip or zstd).
    #[command(after_help = examples::LAYER_HASH)]
    Hash {
        /// The tars.
        #[arg(required = true)]
        tars: Vec<PathBuf>,
    },
    /// Write the block image of a layer: ext4, dm-verity superblock and tree.
    #[command(after_help = examples::LAYER_BUILD)]
    Build {
        /// The tar (plain, gzip or zstd).
        tar: PathBuf,
        /// Where to write the image.
        #[arg(long, short)]
        output: PathBuf,
    },
}

/// `caveau doctor`.
#[derive(Debug, Args)]
#[command(after_help = examples::DOCTOR)]
pub(crate) struct Doctor {
    /// OVMF firmware, AmdSev build, to try for `snp` [default: the guest folder's, if it has one].
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) guest: GuestFolder,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
