//! `caveau measure` as a shell sees it: launch digests of `snp` are those of `sev-snp-measure`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// The recorded launches, where they are there.
fn launches() -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("attestation/measurement/synthetic");
    if !folder.is_dir() {
        println!("skipped: no fixtures at {}", folder.display());
        return None;
    }
    Some(folder)
}

/// Measures what a row of `vectors.json` is about.
fn measure(folder: &Path, row: &Value) -> Output {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let mut command = Command::new(env!("CARGO_BIN_EXE_caveau"));
    command.args(["measure", "--tee", "snp", "--firmware"]).arg(folder.join(text("firmware")));
    command.arg("--kernel").arg(folder.join("kernel.bin")).arg("--initrd").arg(folder.join("initrd.bin"));
    command.args(["--append", text("cmdline"), "--cpus", &row["vcpus"].to_string()]);
    command.args(["--cpu-type", text("vcpu_type"), "--guest-features", text("guest_features")]);
    command.output().expect("caveau starts")
}

#[test]
fn launch_digests_of_snp_are_the_recorded_ones() {
    let Some(folder) = launches() else { return };
    let text = std::fs::read_to_string(folder.join("vectors.json")).expect("the fixtures have it");
    let vectors: Value = serde_json::from_str(&text).expect("JSON");
    let rows = |name: &str| {
        let rows = vectors[name].as_array().expect("rows").iter();
        // What `caveau` starts: QEMU, with a kernel and an initial RAM disk.
        rows.filter(|row| row["vmm"] == "qemu" && row["kernel"] == true && row["initrd"] != false).collect::<Vec<_>>()
    };
    let (good, refused) = (rows("vectors"), rows("must_fail"));
    assert!(good.len() > 5 && !refused.is_empty(), "{} and {} rows", good.len(), refused.len());
    for row in good {
        let output = measure(&folder, row);
        assert!(output.status.success(), "{row}: {}", String::from_utf8_lossy(&output.stderr));
        let digest = String::from_utf8(output.stdout).expect("text");
        assert_eq!(digest.trim(), row["launch_digest"].as_str().expect("a digest"), "{row}");
    }
    for row in refused {
        let output = measure(&folder, row);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{row}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("kernel hashes"), "{row}: {output:?}");
    }
}
