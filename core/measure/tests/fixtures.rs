//! Launch digests and ID blocks made by other tools.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use caveau_measure::{
    Firmware, GuestFeatures, IdAuth, IdBlock, KernelHashes, LaunchSpec, MeasureError, VcpuType, Vmm, launch_digest,
    sha256,
};
use serde_json::Value;

/// The folder `attestation/measurement` of the fixtures, where they are there.
fn fixtures() -> Option<PathBuf> {
    let root = std::env::var_os("CAVEAU_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
    let folder = root.join("attestation/measurement");
    if !folder.is_dir() {
        println!("skipped: no fixtures at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The measurement asked for by one row of `vectors.json`.
fn measure_row(folder: &Path, row: &Value) -> Result<String, MeasureError> {
    let firmware = read(folder, row["firmware"].as_str().unwrap());
    let kernel = row["kernel"].as_bool().unwrap_or(false).then(|| {
        let digest = |name: &str| sha256(&read(folder, name)[..]).unwrap();
        let initrd = row["initrd"].as_bool().unwrap_or(false).then(|| digest("initrd.bin"));
        KernelHashes::new(digest("kernel.bin"), initrd, row["cmdline"].as_str().unwrap_or(""))
    });
    let features = row["guest_features"].as_str().unwrap().trim_start_matches("0x");
    let spec = LaunchSpec {
        firmware: Firmware::Ovmf(&firmware),
        kernel,
        vcpus: u32::try_from(row["vcpus"].as_u64().unwrap()).unwrap(),
        vcpu_type: row["vcpu_type"].as_str().unwrap().parse().unwrap(),
        guest_features: GuestFeatures(u64::from_str_radix(features, 16).unwrap()),
        vmm: match row["vmm"].as_str().unwrap() {
            "qemu" => Vmm::Qemu,
            "ec2" => Vmm::Ec2,
            "gce" => Vmm::Gce,
            other => panic!("unknown vmm {other}"),
        },
    };
    launch_digest(&spec).map(|digest| digest.to_string())
}

#[test]
fn every_vector_of_the_reference_tool() {
    let Some(folder) = fixtures().map(|folder| folder.join("synthetic")) else { return };
    let vectors: Value = serde_json::from_slice(&read(&folder, "vectors.json")).unwrap();
    let rows = vectors["vectors"].as_array().unwrap();
    for row in rows {
        assert_eq!(measure_row(&folder, row).unwrap(), row["launch_digest"].as_str().unwrap(), "{row}");
    }
    let must_fail = vectors["must_fail"].as_array().unwrap();
    for row in must_fail {
        assert_eq!(measure_row(&folder, row).unwrap_err(), MeasureError::NoKernelHashes, "{row}");
    }
    println!("launch digests: {} equal, {} refused as expected", rows.len(), must_fail.len());
    assert!(rows.len() >= 33 && !must_fail.is_empty());
}

#[test]
fn the_id_block_verifies_and_a_changed_one_does_not() {
    let Some(folder) = fixtures().map(|folder| folder.join("idblock")) else { return };
    let (block_bytes, auth_bytes) = (read(&folder, "id-block.bin"), read(&folder, "id-auth.bin"));
    let block = IdBlock::parse(&block_bytes).unwrap();
    let auth = IdAuth::parse(&auth_bytes).unwrap();
    assert_eq!(block.to_bytes()[..], block_bytes);
    assert_eq!(auth.to_bytes()[..], auth_bytes);
    let keys = auth.verify(&block).unwrap();
    // SHA-384 of the upstream test keys in AMD's format (MANIFEST.md, id-a and author-a).
    assert_eq!(
        hex::encode(keys.id_key_digest),
        base64_as_hex("WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i")
    );
    assert_eq!(
        keys.author_key_digest.map(hex::encode),
        Some(base64_as_hex("7tgRafsMteDsNHlPEo/U4MSkb2fGWhrfqB/LJLzAiMJyNpt//D6ytq9qQoShs2xf"))
    );
    for at in [0, 50, 95] {
        let mut changed = block_bytes.clone();
        changed[at] ^= 1;
        assert!(auth.verify(&IdBlock::parse(&changed).unwrap()).is_err(), "byte {at}");
    }
    for at in [8, 0x150, 0x644, 0xfff] {
        let mut changed = auth_bytes.clone();
        changed[at] ^= 1;
        assert!(IdAuth::parse(&changed).is_err(), "reserved byte {at:#x}");
    }
}

fn base64_as_hex(text: &str) -> String {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bits: String = text.bytes().map(|c| format!("{:06b}", value(c))).collect();
    bits.as_bytes()
        .chunks(4)
        .map(|four| format!("{:x}", u8::from_str_radix(std::str::from_utf8(four).unwrap(), 2).unwrap()))
        .collect()
}

/// One launch, as both implementations are told it.
struct Launch<'a> {
    firmware: &'a Path,
    kernel_and_initrd: Option<(&'a Path, &'a Path)>,
    cmdline: &'a str,
    vcpus: u32,
    vcpu_type: VcpuType,
    features: u64,
    vmm: Vmm,
}

impl Launch<'_> {
    /// Our digest; `None` when it is refused.
    fn ours(&self) -> Option<String> {
        let firmware = std::fs::read(self.firmware).unwrap();
        let kernel = self.kernel_and_initrd.map(|(kernel, initrd)| {
            let (kernel, initrd) = (std::fs::read(kernel).unwrap(), std::fs::read(initrd).unwrap());
            KernelHashes::from_bytes(&kernel, Some(&initrd), self.cmdline)
        });
        let spec = LaunchSpec {
            firmware: Firmware::Ovmf(&firmware),
            kernel,
            vcpus: self.vcpus,
            vcpu_type: self.vcpu_type,
            guest_features: GuestFeatures(self.features),
            vmm: self.vmm,
        };
        launch_digest(&spec).ok().map(|digest| digest.to_string())
    }

    /// The digest of `tool`; `None` when it is refused.
    fn of_tool(&self, tool: &str) -> Option<String> {
        let vmm = match self.vmm {
            Vmm::Qemu => "QEMU",
            Vmm::Ec2 => "ec2",
            Vmm::Gce => "gce",
        };
        let mut command = Command::new(tool);
        command.args(["--mode", "snp", "--vcpu-type", self.vcpu_type.name().unwrap(), "--vmm-type", vmm]);
        command.args(["--vcpus", &self.vcpus.to_string(), "--guest-features", &format!("{:#x}", self.features)]);
        command.arg("--ovmf").arg(self.firmware);
        if let Some((kernel, initrd)) = self.kernel_and_initrd {
            command.arg("--kernel").arg(kernel).arg("--initrd").arg(initrd).args(["--append", self.cmdline]);
        }
        let told = command.output().unwrap();
        told.status.success().then(|| String::from_utf8(told.stdout).unwrap().trim().to_owned())
    }
}

/// The reference tool: named by `CAVEAU_SEV_SNP_MEASURE`, or found on the path.
fn reference_tool() -> Option<String> {
    let tool = std::env::var("CAVEAU_SEV_SNP_MEASURE").unwrap_or_else(|_| "sev-snp-measure".to_owned());
    if Command::new(&tool).arg("--version").output().is_err() {
        println!(
            "skipped: no sev-snp-measure (pip install sev-snp-measure==0.0.13, or name it in CAVEAU_SEV_SNP_MEASURE)"
        );
        return None;
    }
    Some(tool)
}

/// Launches that no fixture covers, with made-up firmware.
#[test]
fn the_reference_tool_agrees_on_fresh_launches() {
    let Some(tool) = reference_tool() else { return };
    let Some(folder) = fixtures().map(|folder| folder.join("synthetic")) else { return };
    let mut compared = 0;
    for (index, vcpu_type) in VcpuType::all().enumerate() {
        let launch = Launch {
            firmware: &folder.join(["fw-a.bin", "fw-c-order.bin"][index % 2]),
            kernel_and_initrd: Some((&folder.join("kernel.bin"), &folder.join("initrd.bin"))),
            cmdline: &format!("console=hvc0 index={index} ä"),
            vcpus: u32::try_from(index + 1).unwrap(),
            vcpu_type,
            features: 1 << index | 1,
            vmm: [Vmm::Qemu, Vmm::Ec2, Vmm::Gce][index % 3],
        };
        let ours = launch.ours();
        assert!(ours.is_some() && ours == launch.of_tool(&tool), "{vcpu_type}");
        compared += 1;
    }
    println!("launch digests compared with sev-snp-measure: {compared}");
}

/// The distribution's OVMF: real tables, and no place for kernel hashes, which both must find.
#[test]
fn the_reference_tool_agrees_on_real_firmware() {
    let Some(tool) = reference_tool() else { return };
    let candidates = ["/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_CODE_4M.fd"];
    let mut answers = [0, 0];
    for firmware in candidates.into_iter().map(Path::new).filter(|path| path.is_file()) {
        for kernel_and_initrd in [None, Some((firmware, firmware))] {
            let vcpu_type = "EPYC-v4".parse().unwrap();
            let launch =
                Launch { firmware, kernel_and_initrd, cmdline: "x", vcpus: 4, vcpu_type, features: 1, vmm: Vmm::Qemu };
            let ours = launch.ours();
            assert_eq!(ours, launch.of_tool(&tool), "{}, kernel: {}", firmware.display(), kernel_and_initrd.is_some());
            answers[usize::from(ours.is_some())] += 1;
        }
    }
    match answers {
        [0, 0] => println!("skipped: no OVMF at {}", candidates.join(" ")),
        [refused, equal] => println!("real OVMF: {equal} digests equal, {refused} launches refused by both"),
    }
}
