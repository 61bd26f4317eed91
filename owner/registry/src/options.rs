//! How an image is to be fetched.

use std::path::PathBuf;
use std::time::Duration;

use caveau_oci::Platform;

pub use crate::remote::Proxies;
use crate::remote::docker_config_dir;

/// When a registry is asked although the image is in the store (as `docker run --pull`). Local sources are always read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Ask the registry what the name means now; fetch what is not stored.
    Always,
    /// Ask the registry only for images that are not stored.
    #[default]
    Missing,
    /// Never ask the registry.
    Never,
}

impl std::str::FromStr for PullPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(format!("{text:?} is no pull policy: expected always, missing or never")),
        }
    }
}

/// How an image is to be fetched; the default is what Docker does, and the only place where the environment is asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// The platform wanted from an image that has several.
    pub platform: Platform,
    /// When the registry is asked.
    pub pull: PullPolicy,
    /// Files with PEM certificates to trust beside the system's.
    pub ca_certificates: Vec<PathBuf>,
    /// Registries (host, or host and port) that may be reached over TLS without verification or over plain HTTP.
    /// Loopback addresses and `localhost` always may.
    pub insecure_registries: Vec<String>,
    /// The folder of Docker's `config.json`, where logins are: `$DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Proxies between here and registries: those of the environment.
    pub proxies: Proxies,
    /// Layers that are fetched and converted at the same time.
    pub parallel: usize,
    /// How often and how soon a failed request is tried again.
    pub retry: Retry,
    /// Bounds on sizes.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: Platform::linux_amd64(),
            pull: PullPolicy::default(),
            ca_certificates: Vec::new(),
            insecure_registries: Vec::new(),
            docker_config: docker_config_dir(),
            proxies: Proxies::from_environment(),
            parallel: 4,
            retry: Retry::default(),
            limits: Limits::default(),
        }
    }
}

/// How often and how soon a failed request is tried again. Each attempt that brings new bytes starts the count anew.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts without any success before giving up, the first included.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from one to the next.
    pub first_pause: Duration,
    /// The longest pause; a server's `Retry-After` beyond it counts as a failure.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(500), longest_pause: Duration::from_secs(20) }
    }
}

/// Bounds on what an image may cost.
///
/// An image may unpack to `free_bytes` however well it is compressed; what goes beyond must not be more than `ratio`
/// times the compressed bytes read so far. gzip reaches at most a ratio of 1032, zstd any, real layers 2 to 10. The same
/// holds for what is written to disk when layers become file systems: a short tar can name long paths and sparse files.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one compressed layer.
    pub blob_bytes: u64,
    /// Bytes of one uncompressed layer. The largest file system that the conversion makes has 128 GiB.
    pub layer_bytes: u64,
    /// Bytes of all uncompressed layers of an image.
    pub image_bytes: u64,
    /// Bytes that an image may unpack to whatever its compressed size.
    pub free_bytes: u64,
    /// Uncompressed bytes for each compressed byte, beyond `free_bytes`.
    pub ratio: u64,
    /// Names that a layer may have whatever its compressed size: each takes memory while the layer is converted, and up
    /// to 8 KiB of disk.
    pub free_names: u64,
    /// Compressed bytes for each name beyond `free_names`. An entry of a real layer takes 10 and more.
    pub name_bytes: u64,
    /// Entries of an outer archive.
    pub archive_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob_bytes: 64 << 30,
            layer_bytes: 128 << 30,
            image_bytes: 256 << 30,
            free_bytes: 8 << 30,
            ratio: 200,
            free_names: 65_536,
            name_bytes: 4,
            archive_entries: 100_000,
        }
    }
}
