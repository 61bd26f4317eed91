//! PID 1 of the guest, and the helper that makes its containers: see the library.
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

use std::process::ExitCode;

fn main() -> ExitCode {
    // libcontainer must not run in a process of several threads, so that the same program is its helper.
    if std::env::args_os().next().is_some_and(|name| name == caveau_runtime::HELPER_NAME) {
        return caveau_runtime::run_helper();
    }
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        eprintln!("caveau-agent is the first process of a guest; it has no use elsewhere");
        return ExitCode::from(2);
    }
    caveau_agent::run()
}
