//! `caveau run`, and what other commands share with it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where an image comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Source {
    /// Image: `NAME[:TAG|@DIGEST]`, `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME]`.
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) fetch: Fetch,
}

/// How images are fetched.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fetch {
    /// When to ask the registry.
    #[arg(long, value_enum, default_value_t = Pull::Missing, help_heading = "Image")]
    pub(crate) pull: Pull,
    /// Platform to take from an image of several.
    #[arg(long, default_value = "linux/amd64", value_name = "OS/ARCH", help_heading = "Image")]
    pub(crate) platform: String,
    /// Registry that may speak plain HTTP or show an unknown certificate; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Image")]
    pub(crate) insecure_registry: Vec<String>,
    /// File of certificate authorities (PEM) that registries may show besides the system's; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Image")]
    pub(crate) ca_cert: Vec<PathBuf>,
}

/// When to ask the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// Always, so that a moved tag is noticed.
    Always,
    /// Only when the image is not here.
    Missing,
    /// Never.
    Never,
}

/// What the container shall be, beyond what its image says. All of it stands in the policy.
#[derive(Clone, Debug, Args)]
pub(crate) struct ContainerOptions {
    /// Environment variable; `NAME` alone takes its value from here. Stands in the policy, which the host can read.
    #[arg(long, short, value_name = "NAME[=VALUE]", help_heading = "Container")]
    pub(crate) env: Vec<String>,
    /// Memory file system at PATH, with options such as `size=64m,mode=1777`; may be repeated.
    #[arg(long, short = 'v', value_name = "tmpfs:PATH[:OPTIONS]", help_heading = "Container")]
    pub(crate) volume: Vec<String>,
    /// The same as `-v tmpfs:PATH[:OPTIONS]`, as Docker writes it; may be repeated.
    #[arg(long, value_name = "PATH[:OPTIONS]", help_heading = "Container")]
    pub(crate) tmpfs: Vec<String>,
    /// User and group, names or numbers.
    #[arg(long, short, value_name = "USER[:GROUP]", help_heading = "Container")]
    pub(crate) user: Option<String>,
    /// Working directory.
    #[arg(long, short, value_name = "PATH", help_heading = "Container")]
    pub(crate) workdir: Option<String>,
    /// Program to run instead of the image's entry point and its arguments; empty for none, so that ARGS are the program.
    #[arg(long, value_name = "PROGRAM", help_heading = "Container")]
    pub(crate) entrypoint: Option<String>,
    /// Give a capability beyond Docker's 14, such as NET_ADMIN, or ALL; may be repeated.
    #[arg(long, value_name = "CAPABILITY", help_heading = "Container")]
    pub(crate) cap_add: Vec<String>,
    /// Take one of Docker's 14 away, or ALL but what --cap-add names; may be repeated.
    #[arg(long, value_name = "CAPABILITY", help_heading = "Container")]
    pub(crate) cap_drop: Vec<String>,
    /// Make the root file system read-only.
    #[arg(long, help_heading = "Container")]
    pub(crate) read_only: bool,
    /// Give the process a terminal.
    #[arg(long, short, help_heading = "Container")]
    pub(crate) tty: bool,
    /// Allow this command to be run with `caveau exec`, as one string of shell words; may be repeated.
    #[arg(long, value_name = "COMMAND", help_heading = "Policy")]
    pub(crate) allow_exec: Vec<String>,
    /// Keep the container's streams from the host: no logs, no attach.
    #[arg(long, help_heading = "Policy")]
    pub(crate) no_stdio: bool,
    /// Forbid gaining privileges by set-user-ID programs.
    #[arg(long, help_heading = "Policy")]
    pub(crate) no_new_privileges: bool,
    /// Write to the VM's memory instead of an encrypted disk. Faster, and what is written takes from --memory.
    #[arg(long, help_heading = "Policy")]
    pub(crate) memory_scratch: bool,
    /// Make no evidence of the group before the container was started.
    #[arg(long, help_heading = "Policy")]
    pub(crate) must_run: bool,
    /// Forbid the host to leave out a memory file system of -v or --tmpfs.
    #[arg(long, help_heading = "Policy")]
    pub(crate) require_mounts: bool,
    /// Most memory of the container, of the VM's --memory; the guest kills what goes above.
    #[arg(long, value_name = "SIZE", help_heading = "Policy")]
    pub(crate) container_memory: Option<String>,
    /// Most processors that the container keeps busy, of the VM's --cpus, such as 0.5.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub(crate) container_cpus: Option<String>,
    /// Most processes and threads of the container at a time. Unlike --pids-limit it stands in the policy.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Policy")]
    pub(crate) container_pids: Option<u32>,
    /// Forward a port of the host to the container; the address is 127.0.0.1 unless given. May be repeated.
    #[arg(long, short, value_name = "[ADDRESS:]HOST:CONTAINER[/tcp|udp]", help_heading = "Network")]
    pub(crate) publish: Vec<String>,
    /// Have the guest drop every connection but those to published ports and those of --allow-connect and --allow-listen. The
    /// container goes without NET_RAW then.
    #[arg(long, help_heading = "Network")]
    pub(crate) restrict_network: bool,
    /// Let the holder of this key talk to the guest itself, unseen by the host (caveau owner): a key in PEM, private or public, or
    /// its digest; with these rights of denials, exec and logs, or all. May be repeated.
    #[arg(long, value_name = "KEY[=RIGHT,…]", help_heading = "Policy")]
    pub(crate) owner: Vec<String>,
    /// Let the container connect there: an address or network, by TCP where only a port follows; `dns` is the guest's
    /// resolver. May be repeated.
    #[arg(
        long,
        value_name = "dns|ADDRESS[/PREFIX][:PORT[-PORT]][/tcp|udp]",
        requires = "restrict_network",
        help_heading = "Network"
    )]
    pub(crate) allow_connect: Vec<String>,
    /// Let others connect to this port without publishing it. May be repeated.
    #[arg(long, value_name = "PORT[/tcp|udp]", requires = "restrict_network", help_heading = "Network")]
    pub(crate) allow_listen: Vec<String>,
    /// Program's arguments instead of the image's.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<String>,
}

/// `caveau run`.
#[derive(Debug, Args)]
#[command(after_help = super::examples::RUN)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) options: ContainerOptions,
    #[command(flatten)]
    pub(crate) vm: Vm,
    /// The group's name; made up when absent.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Leave it running and print its name.
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Keep standard input open and pass it on.
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Remove the group's records when it ends.
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep what is asked of the policy, and what it says, for `caveau policy replay`: requests.jsonl in the group's state
    /// folder, values of variables included.
    #[arg(long, help_heading = "Policy")]
    pub(crate) record: bool,
    /// Let others talk to the guest itself here: caveau attest --connect, caveau owner. The address is 127.0.0.1 unless given.
    #[arg(long, value_name = "[ADDRESS:]PORT", help_heading = "Network", value_parser = owner_address)]
    pub(crate) owner_port: Option<std::net::SocketAddr>,
    /// Policy to run under, instead of one made from the image and these options.
    #[arg(long, value_name = "FILE", help_heading = "Policy")]
    pub(crate) policy: Option<PathBuf>,
    /// Signed fragment of policy to load after the policy, which must allow it. May be repeated.
    #[arg(long, value_name = "FILE", requires = "policy", help_heading = "Policy")]
    pub(crate) fragment: Vec<PathBuf>,
    /// Signed list of transparency ledgers, whose receipts fragments may need. May be repeated.
    #[arg(long, value_name = "FILE", requires = "policy", help_heading = "Policy")]
    pub(crate) trust_list: Vec<PathBuf>,
}

fn owner_address(text: &str) -> Result<std::net::SocketAddr, String> {
    let whole = if text.contains(':') { text.to_owned() } else { format!("127.0.0.1:{text}") };
    let address: Option<std::net::SocketAddr> = whole.parse().ok();
    let wrong = || format!("{text:?} is no address to listen on: expected [ADDRESS:]PORT with a port from 1 to 65535");
    address.filter(|address| address.port() != 0).ok_or_else(wrong)
}

/// The VM.
#[derive(Clone, Debug, Args)]
pub(crate) struct Vm {
    /// The VM's memory, from 128M: the bound on what the container and the guest's kernel use together.
    #[arg(long, short, value_name = "SIZE", default_value = "512M", help_heading = "VM")]
    pub(crate) memory: String,
    /// Number of virtual processors, 1 to 64. Part of the launch digest.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "VM")]
    pub(crate) cpus: u32,
    /// Most processes and threads of the container at a time [default: no bound but the VM's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "VM")]
    pub(crate) pids_limit: Option<u32>,
    /// Size of the encrypted scratch disk that the container writes to, from 20M; taken from the host as it is used
    /// [default: 4G; with --memory-scratch half of the memory].
    #[arg(long, value_name = "SIZE", help_heading = "VM")]
    pub(crate) scratch: Option<String>,
    /// Trusted execution environment.
    #[arg(long, value_enum, default_value_t = TeeChoice::Auto, help_heading = "VM")]
    pub(crate) tee: TeeChoice,
    /// OVMF firmware, AmdSev build, for `--tee snp`.
    #[arg(long, value_name = "FILE", help_heading = "VM")]
    pub(crate) firmware: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) guest: GuestFolder,
}

/// The guest to boot.
#[derive(Clone, Debug, Args)]
pub(crate) struct GuestFolder {
    /// Folder of the guest, as `caveau guest build` makes it [default: $XDG_DATA_HOME/caveau/guest].
    #[arg(long, value_name = "FOLDER", env = "CAVEAU_GUEST", help_heading = "VM")]
    pub(crate) guest: Option<PathBuf>,
}

/// Trusted execution environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TeeChoice {
    /// SEV-SNP where this machine has it and a firmware for it is given, the emulated one where it has not.
    Auto,
    /// AMD SEV-SNP.
    Snp,
    /// The emulated one: no protection from the host; for development and tests.
    EmulatedSnp,
}
