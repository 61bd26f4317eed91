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
pub mod owner;
mod reply;
mod request;

pub use frame::{Frame, FrameError, MAX_BODY, MAX_HEADER, read_frame, read_frame_within, write_frame};
pub use id::{ContainerId, InvalidId, LayerId, Nonce, ProcessId};
pub use reply::{
    AgentError, AgentReply, BootStep, ContainerStats, ErrorKind, Event, EventKind, Exit, Hello, Log, Output,
    ReplyEnvelope, Report,
};
pub use request::{
    AgentRequest, Capabilities, CreateContainer, Exec, Limits, MountLayer, MountOverlay, MountScratch, ProcessSpec,
    RequestEnvelope, Stream, TerminalSize, TmpfsMount,
};

/// Version of this protocol; a peer that says another one is refused.
pub const VERSION: u16 = 1;

/// Name of the virtio-serial port that carries it.
pub const AGENT_PORT: &str = "caveau.agent.0";

/// Name of the virtio-serial port between guest and software secure processor.
pub const SECURE_PROCESSOR_PORT: &str = "caveau.sp.0";

/// Greatest number of bytes of output or input that one request carries.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Most requests that may be open at once. One more is answered with [`ErrorKind::Busy`].
pub const MAX_OPEN_REQUESTS: usize = 128;

/// How many of [`MAX_OPEN_REQUESTS`] are kept for steps and for the question for news, whatever else is waited for: a group
/// can be stopped and looked at however much runs in it.
pub const KEPT_REQUESTS: usize = 16;

/// Requests that a process may have open for as long as it runs: for its end, for each output stream, for its input.
pub const REQUESTS_OF_A_PROCESS: usize = 4;

/// Most containers of a group: what [`MAX_OPEN_REQUESTS`] has room for, with some left for executed processes.
pub const MAX_CONTAINERS: usize = 24;

/// Most channels that are open at once. Each has two requests open, which count among [`KEPT_REQUESTS`].
pub const MAX_CHANNELS: usize = 4;

/// How many executed processes a host may follow at once beside this many containers, so that none of its requests is
/// [`ErrorKind::Busy`] for long.
#[must_use]
pub const fn max_followed(containers: usize) -> usize {
    let of_processes = MAX_OPEN_REQUESTS.saturating_sub(KEPT_REQUESTS).saturating_div(REQUESTS_OF_A_PROCESS);
    of_processes.saturating_sub(containers)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_room_for_executed_processes() {
        assert_eq!(max_followed(1), 27);
        assert_eq!(max_followed(MAX_CONTAINERS), 4);
        assert_eq!(max_followed(usize::MAX), 0);
    }
}
