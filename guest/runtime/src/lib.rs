//! Containers: a plan becomes processes that are confined as Docker confines them.
//!
//! ```text
//!   agent (threads)                         helper (the same program, one thread)
//!   ContainerPlan ─▶ config.json ──────────▶ libcontainer: namespaces, mounts, limits
//!                    reaper adopts the pid ◀── pid, status pipe, terminal
//!                    device program on the cgroup
//!                    "go" ──────────────────▶ exits; the container's init becomes the agent's child
//!   start         ─▶ notify.sock ───────────▶ init execs; the status pipe closes, or says why not
//! ```
//!
//! *Trusts* that whoever calls it asked the policy first, and the kernel. *Promises*: no thread of the agent is ever
//! cloned into a container; every process gets exactly the planned arguments, environment, user, capabilities and system
//! call filter, processes executed later no less than the first; devices other than the harmless few cannot be opened
//! whoever made their node; every exit is collected. *Refuses* plans that libcontainer or the kernel would reinterpret
//! (relative paths, NUL bytes, filters that notify).
//!
//! libcontainer 0.7 makes the containers. Not used of it, and why: its *exec* (it forgets the system call filter of the
//! container), its executor (it leaves SIGPIPE ignored and looks up `HOME` through the C library's name services, which
//! may load code from the container), its device rules (skipped on cgroup v2 without a C library).
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

mod cgroup;
mod channel;
mod container;
mod device;
mod error;
mod execute;
mod files;
mod helper;
mod plan;
mod reaper;
mod reserve;
mod signal;
mod spec;
mod stdio;
mod user;

pub use cgroup::Usage;
pub use container::{Container, Process, Runtime, Watch};
pub use error::RuntimeError;
pub use files::open_in;
pub use helper::{HELPER_NAME, run_helper};
pub use plan::{Bind, ContainerPlan, ProcessPlan};
pub use reaper::{ExitStatus, Reaper};
pub use reserve::bound_containers;
pub use stdio::{Stdio, StdioKind, TerminalSize};
pub use user::{GroupEntry, Ids, UserError, parse_group, parse_passwd, resolve_user};
