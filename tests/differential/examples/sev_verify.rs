//! How long the crate `sev` takes to verify a report: what a benchmark holds ours against.
//!
//! ```text
//! sev_verify [--chain-cached] REPORT VEK INTERMEDIATE ROOT MILLISECONDS
//! ```
//! Verifies again and again for so many milliseconds, and prints the seconds that one took, as a decimal number. Certificates are
//! DER. Each time everything is read and verified; with `--chain-cached` the chain is once, before the clock runs, and then for
//! each report only what is the report's own.
#![allow(dead_code, clippy::allow_attributes, reason = "a test uses the other half of the peer")]

#[path = "../tests/snp/peer.rs"]
mod peer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use peer::{Pieces, verified_vek, verify_report, verify_whole};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let cached = arguments.iter().position(|argument| argument == "--chain-cached");
    if let Some(at) = cached {
        arguments.remove(at);
    }
    match measure(&arguments, cached.is_some()) {
        Ok(seconds) => {
            println!("{seconds:.9}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sev_verify: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String], cached: bool) -> Result<f64, String> {
    let [report, vek, intermediate, root, milliseconds] = arguments else {
        return Err("expected [--chain-cached] REPORT VEK INTERMEDIATE ROOT MILLISECONDS".to_owned());
    };
    let read = |path: &String| std::fs::read(path).map_err(|error| format!("failed to read {path}: {error}"));
    let (report, vek, intermediate, root) = (read(report)?, read(vek)?, read(intermediate)?, read(root)?);
    let milliseconds = milliseconds.parse().map_err(|_| format!("`{milliseconds}` is no number of milliseconds"))?;
    let patience = Duration::from_millis(milliseconds);
    if cached {
        let known = verified_vek(&vek, &intermediate, &root)?;
        return repeat(patience, || verify_report(&known, &report));
    }
    let pieces = Pieces { report: &report, vek: &vek, intermediate: &intermediate, root: &root };
    repeat(patience, || verify_whole(pieces))
}

/// Seconds of one run of many.
fn repeat(patience: Duration, mut run: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let (begin, mut times) = (Instant::now(), 0_u32);
    loop {
        run()?;
        times += 1;
        if begin.elapsed() >= patience {
            return Ok(begin.elapsed().as_secs_f64() / f64::from(times));
        }
    }
}
