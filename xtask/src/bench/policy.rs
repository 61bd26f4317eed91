//! Generating a policy: no other tool that packages give makes one, so this is time alone.

use std::process::Command;

use anyhow::Result;

use super::{
    Bed,
    measure::{Pairs, timed},
    report::Report,
};
use crate::{images, images_folder};

/// The bench: an image whose layers are in the store, against an empty store, where layers are converted first.
///
/// # Errors
/// Where the image cannot be made or a policy not be generated.
pub(super) fn bench(bed: &Bed<'_>) -> Result<Report> {
    let layout = images::build_one(&images_folder(bed.root), "nginx", &bed.setup.apt_config, &|step| {
        eprintln!("   {step}");
    })?;
    let image = format!("oci:{}", layout.display());
    let generate = |store: &str| {
        let mut command = Command::new(&bed.caveau);
        command.args(["--quiet", "policy", "generate", &image]).env("XDG_CACHE_HOME", bed.work.join(store));
        timed(&mut command)
    };
    let (mut warm_policy, mut cold_policy) = (String::new(), String::new());
    let pairs = Pairs::take(
        bed.pairs,
        || {
            let (sample, policy) = generate("warm")?;
            warm_policy = policy;
            Ok(sample)
        },
        || {
            let cold = bed.work.join("cold");
            if cold.exists() {
                std::fs::remove_dir_all(&cold)?;
            }
            let (sample, policy) = generate("cold")?;
            cold_policy = policy;
            Ok(sample)
        },
    )?;
    anyhow::ensure!(warm_policy == cold_policy, "the policy depends on whether the layers were in the store");
    let mut report =
        Report::new("policy", "caveau policy generate nginx, layers in the store", "the same with an empty store");
    report.pairs(pairs);
    report.fact("policy", format!("{} bytes", warm_policy.len()));
    Ok(report)
}
