//! The container group: one typed model of what shall run, from which the policy is generated and the group is launched.
//!
//! Trusts nothing it reads: an image's configuration comes from a registry, overrides from a command line, and both are
//! checked against stated limits. Promises that what [`Container::from_image`] gives is whole: every command, path, variable,
//! user, signal and mount in it is of a form that the guest can carry out, and equal inputs give equal containers. Refuses what cannot be said
//! exactly, such as a variable without `=`, a NUL byte, a relative path or an unknown capability, naming the value.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "a test may fail loudly"
    )
)]

mod capability;
mod container;
mod docker_syscalls;
mod error;
mod image;
mod limits;
mod mount;
mod network;
mod network_rules;
mod owners;
mod paths;
mod seccomp;
mod signal;
mod user;

pub use capability::{Capabilities, Capability};
pub use caveau_verity::RootHash;
pub use container::{Container, EnvRule, ExecProcess, Group, Limits, Permissions};
pub use error::GroupError;
pub use image::{ImageParts, Overrides};
pub use limits::MAX_LAYERS;
pub use mount::Mount;
pub use network::{IpNetwork, NetworkError};
pub use network_rules::{Destination, Listener, MAX_DESTINATIONS, MAX_LISTENERS, NetworkRules, Protocol};
pub use owners::{KeyDigest, MAX_OWNERS, Owner, Owners, Right};
pub use paths::{DEFAULT_PATH, MASKED_PATHS, READ_ONLY_PATHS};
pub use seccomp::{Seccomp, SeccompArg, SeccompRule};
pub use signal::Signal;
pub use user::{IdName, User};
