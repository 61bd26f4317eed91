//! Every target under libFuzzer: `CAVEAU_FUZZ_TARGET` says which, and `CAVEAU_FUZZ_SEEDS` where its seeds are to be written.
#![no_main]

use std::sync::LazyLock;

use caveau_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("CAVEAU_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        std::process::exit(if name.is_empty() { 0 } else { 2 });
    })
});

libfuzzer_sys::fuzz_target!(init: write_seeds(), |data: &[u8]| (TARGET.run)(data));

/// Writes the target's seeds before libFuzzer reads its corpus folders.
fn write_seeds() {
    let target = &**TARGET;
    let Some(folder) = std::env::var_os("CAVEAU_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    let write = || {
        std::fs::create_dir_all(&folder)?;
        (0..).zip(target.corpus()).try_for_each(|(number, seed)| {
            let number: u32 = number;
            std::fs::write(folder.join(format!("seed-{number}")), seed)
        })
    };
    if let Err(error) = write() {
        eprintln!("failed to write the seeds into {}: {error}", folder.display());
        std::process::exit(2);
    }
}
