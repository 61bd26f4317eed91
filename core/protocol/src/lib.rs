//! Messages between host and guest: frames on one byte stream, requests of one step each, and their replies.
//!
//! ```text
//!   host (supervisor)                        guest (agent)
//!   request id 1: set_policy + text  ──────▶  SHA-256(text) = HOST_DATA?
//!                                    ◀──────  reply id 1: ok | error
//!   request id 2: mount_layer        ──────▶  asked of the policy, then done
//!   request id 3: read_output        ──────▶  answered when there is output
//!   request id 4: wait               ──────▶  answered when the process ends
//!                                    ◀──────  reply id 2, 4, 3 … in any order
//! ```
//!
//! The host asks, the guest answers; the guest never speaks first. Output is *pulled*: a container that nobody reads
//! fills its own pipe and stalls only itself, and what is in flight is bounded by the requests that are open.
//!
//! Trusts nothing: both directions are parsed strictly (unknown fields are errors) and every length is bounded before
//! anything is allocated. Refuses frames over [`MAX_HEADER`] and [`MAX_BODY`], and identifiers that are not of their form.
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

mod frame;
mod id;
mod reply;
mod request;

pub use frame::{Frame, FrameError, MAX_BODY, MAX_HEADER, read_frame, write_frame};
pub use id::{ContainerId, InvalidId, LayerId, Nonce, ProcessId};
pub use reply::{
    AgentError, AgentReply, BootStep, ContainerStats, ErrorKind, Event, EventKind, Exit, Hello, Output, ReplyEnvelope,
    Report,
};
pub use request::{
    AgentRequest, Capabilities, CreateContainer, Exec, Limits, MountLayer, MountOverlay, MountScratch, ProcessSpec,
    RequestEnvelope, Stream, TmpfsMount,
};

/// Version of this protocol; a peer that says another one is refused.
pub const VERSION: u16 = 1;

/// Name of the virtio-serial port that carries it.
pub const AGENT_PORT: &str = "caveau.agent.0";

/// Name of the virtio-serial port between guest and software secure processor.
pub const SECURE_PROCESSOR_PORT: &str = "caveau.sp.0";

/// Greatest number of bytes of output or input that one request carries.
pub const MAX_CHUNK: usize = 64 * 1024;

/// The guest's fixed network: the host is not asked, so it cannot choose.
pub mod network {
    use core::net::Ipv4Addr;

    /// The guest's own address, with [`PREFIX`].
    pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    /// Length of the network's prefix in bits.
    pub const PREFIX: u8 = 24;
    /// Default route.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    /// Name server in every container's `/etc/resolv.conf`.
    pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
}
