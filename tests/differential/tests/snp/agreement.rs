//! Every field of a report that both accept.

use caveau_differential::Ledger;
use caveau_evidence::{Claims, FirmwareVersion, Tcb};
use caveau_snp::report::SigningKey;
use sev::firmware::guest::{AttestationReport, Version};
use sev::firmware::host::TcbVersion;
use sev::parser::ByteParser as _;

/// Compares the fields one by one.
pub(super) fn compare(ledger: &mut Ledger, name: &dyn std::fmt::Display, ours: &Claims, theirs: &AttestationReport) {
    let signing_key = match ours.signing_key {
        SigningKey::Vcek => 0,
        SigningKey::Vlek => 1,
    };
    let fms = ours.fms.map(|fms| [fms.family, fms.model, fms.stepping]);
    let theirs_fms =
        [theirs.cpuid_fam_id, theirs.cpuid_mod_id, theirs.cpuid_step].into_iter().collect::<Option<Vec<_>>>();
    // Where ours says that there is none, the field is zero, or the flag that it counts is.
    let absent = |digest: [u8; 48], is_there: bool| is_there.then_some(digest);
    let chip = Some(theirs.chip_id).filter(|chip| *chip != [0; 64]);
    macro_rules! field {
        ($field:literal, $ours:expr, $theirs:expr) => {
            ledger.field(name, $field, &format!("{:?}", $ours), &format!("{:?}", $theirs))
        };
    }
    field!("version", ours.report_version, theirs.version);
    field!("guest SVN", ours.guest_svn, theirs.guest_svn);
    // The conversion of sev's own sets bit 17.
    field!("policy", ours.guest_policy.0.to_le_bytes(), theirs.policy.to_bytes().unwrap());
    field!("family ID", ours.family_id.0, theirs.family_id);
    field!("image ID", ours.image_id.0, theirs.image_id);
    field!("VMPL", ours.vmpl, theirs.vmpl);
    field!("current TCB", levels(ours.current_tcb), their_levels(theirs.current_tcb));
    field!("platform info", ours.platform_info.0, u64::from(theirs.plat_info));
    field!("signing key", signing_key, theirs.key_info.signing_key());
    field!("report data", ours.report_data.0, theirs.report_data);
    field!("measurement", ours.measurement.0, theirs.measurement);
    field!("host data", ours.host_data.0, theirs.host_data);
    let digest = theirs.id_key_digest;
    field!("ID key digest", ours.id_key_digest.map(|digest| digest.0), absent(digest, digest != [0; 48]));
    let author = absent(theirs.author_key_digest, theirs.key_info.author_key_en());
    field!("author key digest", ours.author_key_digest.map(|digest| digest.0), author);
    field!("report ID", ours.report_id.0, theirs.report_id);
    field!("report ID of the migration agent", ours.report_id_ma.0, theirs.report_id_ma);
    field!("reported TCB", levels(ours.reported_tcb), their_levels(theirs.reported_tcb));
    field!("FMS", fms.map(Vec::from), theirs_fms);
    field!("chip ID", ours.chip_id.map(|chip| chip.0), chip);
    field!("committed TCB", levels(ours.committed_tcb), their_levels(theirs.committed_tcb));
    field!("current firmware", numbers(ours.current_firmware), their_numbers(theirs.current));
    field!("committed firmware", numbers(ours.committed_firmware), their_numbers(theirs.committed));
    field!("launch TCB", levels(ours.launch_tcb), their_levels(theirs.launch_tcb));
    field!("launch mitigations", ours.launch_mit_vector, theirs.launch_mit_vector);
    field!("current mitigations", ours.current_mit_vector, theirs.current_mit_vector);
}

fn levels(tcb: Tcb) -> (Option<u8>, [u8; 4]) {
    (tcb.fmc, [tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode])
}

fn their_levels(tcb: TcbVersion) -> (Option<u8>, [u8; 4]) {
    (tcb.fmc, [tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode])
}

fn numbers(version: FirmwareVersion) -> [u8; 3] {
    [version.major, version.minor, version.build]
}

fn their_numbers(version: Version) -> [u8; 3] {
    [version.major, version.minor, version.build]
}
