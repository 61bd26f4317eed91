//! Whole supervisors, as processes, against a fake QEMU with a fake guest in it: what is true when anything is killed.
//!
//! This program is supervisor, secure processor, fake QEMU, user and test runner in one, as its first argument says.

mod fake_qemu;
mod groups;
mod messages;
mod runner;

use std::{env, ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("__supervise") => caveau_launch::supervise(&arguments[1..]),
        Some("__softsp") => caveau_softsp::serve(&arguments[1..]),
        Some("__start") => groups::start_only(&arguments[1..]),
        Some("-no-user-config") => fake_qemu::main(&arguments),
        _ => runner::main(groups::TESTS),
    }
}
