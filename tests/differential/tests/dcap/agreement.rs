//! Every field of a quote that both accept.

use std::fmt::Display;

use caveau_differential::Ledger;
use caveau_evidence::dcap::{Body, Claims, EnclaveReport, TcbStatus, TdReport};
use dcap_qvl::quote::{EnclaveReport as TheirEnclave, Report, TDReport10, TDReport15, TDReport15Ex};
use dcap_qvl::verify::VerifiedReport;

/// A field's name, and what it is to ours and to the other.
type Fields<'a> = Vec<(&'static str, &'a [u8], &'a [u8])>;

/// Compares the fields one by one. Where ours has a worse status for a reason that is known, the reason.
pub(super) fn compare(
    ledger: &mut Ledger,
    name: &dyn Display,
    ours: &Claims,
    theirs: &VerifiedReport,
) -> Option<&'static str> {
    fields(ledger, name, ours, theirs);
    let is_worse = theirs.status.parse::<TcbStatus>().is_ok_and(|theirs| theirs < ours.tcb_status);
    let reason = is_worse.then(|| why_worse(ours)).flatten();
    if reason.is_none() {
        ledger.field(name, "TCB status", ours.tcb_status.name(), &theirs.status);
    }
    reason
}

/// Why ours may say a worse status than the other.
fn why_worse(ours: &Claims) -> Option<&'static str> {
    // Intel's library takes a quoting enclave that is neither up to date nor revoked for one that is out of date; so does ours. The
    // other does so where its level has this very name.
    if !matches!(ours.quoting_enclave.status, TcbStatus::UpToDate | TcbStatus::OutOfDate) {
        return Some("a quoting enclave that is not up to date");
    }
    // Of a module that was replaced, Intel's rule asks whether a new launch would help, and the other lets nothing but the launch
    // count besides; for ours the module counts as well that has the domain in its hands now, should it be worse.
    let Body::Td(td) = &ours.body else { return None };
    let is_other = td.td15.is_some_and(|now| now.tee_tcb_svn2 != td.tee_tcb_svn);
    is_other.then_some("a module that is worse now than at launch")
}

fn fields(ledger: &mut Ledger, name: &dyn Display, ours: &Claims, theirs: &VerifiedReport) {
    ledger.field(name, "advisories", &ours.advisories.join(", "), &theirs.advisory_ids.join(", "));
    let qe = theirs.qe_status.status.to_string();
    ledger.field(name, "status of the quoting enclave", ours.quoting_enclave.status.name(), &qe);
    ledger.field(name, "PPID", &ours.platform.pck.ppid.to_string(), &hex::encode(&theirs.ppid));
    let fields = match (&ours.body, &theirs.report) {
        (Body::Enclave(ours), Report::SgxEnclave(theirs)) => enclave(ledger, name, ours, theirs),
        (Body::Td(ours), Report::TD10(theirs)) if ours.td15.is_none() => domain(ours, theirs),
        (Body::Td(ours), Report::TD15(theirs)) if ours.td15_ex.is_none() => domain15(ours, theirs),
        (Body::Td(ours), Report::TD15Ex(theirs)) => domain15_ex(ours, theirs),
        (ours, theirs) => return ledger.field(name, "kind of report", &format!("{ours:?}"), &format!("{theirs:?}")),
    };
    for (field, ours, theirs) in fields {
        ledger.field(name, field, &hex::encode(ours), &hex::encode(theirs));
    }
}

/// What the other has no names for stands in what it calls reserved.
fn enclave<'a>(
    ledger: &mut Ledger,
    name: &dyn Display,
    ours: &'a EnclaveReport,
    theirs: &'a TheirEnclave,
) -> Fields<'a> {
    let numbers = |misc: [u8; 4], prod: u16, svn: u16, config: [u8; 2], cet: u8| {
        format!("{misc:?} {prod} {svn} {} {cet}", u16::from_le_bytes(config))
    };
    let their_config = [theirs.reserved4[0], theirs.reserved4[1]];
    ledger.field(
        name,
        "MISCSELECT, ISVPRODID, ISVSVN, CONFIGSVN, CET_ATTRIBUTES",
        &numbers(
            ours.misc_select.0,
            ours.isv_prod_id,
            ours.isv_svn,
            ours.config_svn.to_le_bytes(),
            ours.cet_attributes,
        ),
        &numbers(
            theirs.misc_select.to_le_bytes(),
            theirs.isv_prod_id,
            theirs.isv_svn,
            their_config,
            theirs.reserved1[0],
        ),
    );
    vec![
        ("CPUSVN", &ours.cpu_svn.0, &theirs.cpu_svn),
        ("ISVEXTPRODID", &ours.isv_ext_prod_id.0, &theirs.reserved1[12..]),
        ("ATTRIBUTES", &ours.attributes.0, &theirs.attributes),
        ("MRENCLAVE", &ours.mr_enclave.0, &theirs.mr_enclave),
        ("MRSIGNER", &ours.mr_signer.0, &theirs.mr_signer),
        ("CONFIGID", &ours.config_id.0, &theirs.reserved3[32..]),
        ("ISVFAMILYID", &ours.isv_family_id.0, &theirs.reserved4[44..]),
        ("REPORTDATA", &ours.report_data.0, &theirs.report_data),
    ]
}

fn domain<'a>(ours: &'a TdReport, theirs: &'a TDReport10) -> Fields<'a> {
    let [first, second, third, fourth] = &ours.rtmrs;
    vec![
        ("TEE_TCB_SVN", &ours.tee_tcb_svn.0, &theirs.tee_tcb_svn),
        ("MRSEAM", &ours.mr_seam.0, &theirs.mr_seam),
        ("MRSIGNERSEAM", &ours.mr_signer_seam.0, &theirs.mr_signer_seam),
        ("SEAMATTRIBUTES", &ours.seam_attributes.0, &theirs.seam_attributes),
        ("TDATTRIBUTES", &ours.td_attributes.0, &theirs.td_attributes),
        ("XFAM", &ours.xfam.0, &theirs.xfam),
        ("MRTD", &ours.mr_td.0, &theirs.mr_td),
        ("MRCONFIGID", &ours.mr_config_id.0, &theirs.mr_config_id),
        ("MROWNER", &ours.mr_owner.0, &theirs.mr_owner),
        ("MROWNERCONFIG", &ours.mr_owner_config.0, &theirs.mr_owner_config),
        ("RTMR0", &first.0, &theirs.rt_mr0),
        ("RTMR1", &second.0, &theirs.rt_mr1),
        ("RTMR2", &third.0, &theirs.rt_mr2),
        ("RTMR3", &fourth.0, &theirs.rt_mr3),
        ("REPORTDATA", &ours.report_data.0, &theirs.report_data),
    ]
}

fn domain15<'a>(ours: &'a TdReport, theirs: &'a TDReport15) -> Fields<'a> {
    let mut fields = domain(ours, &theirs.base);
    let added = ours.td15.as_ref().unwrap();
    fields.extend([
        ("TEE_TCB_SVN2", &added.tee_tcb_svn2.0[..], &theirs.tee_tcb_svn2[..]),
        ("MRSERVICETD", &added.mr_service_td.0, &theirs.mr_service_td),
    ]);
    fields
}

fn domain15_ex<'a>(ours: &'a TdReport, theirs: &'a TDReport15Ex) -> Fields<'a> {
    let mut fields = domain15(ours, &theirs.base);
    let added = ours.td15_ex.as_ref().unwrap();
    fields.extend([
        ("VM ID", std::slice::from_ref(&added.vm_id), std::slice::from_ref(&theirs.vmid)),
        ("TD_ID", &added.td_id.0, &theirs.td_id),
        ("DEV_INFO", &added.dev_info.0, &theirs.dev_info),
        ("INIT_SERVTD_HASH", &added.init_service_td_hash.0, &theirs.init_service_td_hash),
        ("INIT_SERVTD_ATTRIBUTES", &added.init_service_td_attributes.0, &theirs.init_service_td_attributes),
        ("INIT_CPUSVN", &added.init_cpu_svn.0, &theirs.init_cpu_svn),
        ("INIT_TEE_TCB_SVN", &added.init_tee_tcb_svn.0, &theirs.init_tee_tcb_svn),
        ("INIT_TEE_FMSPC", &added.init_tee_fmspc.0, &theirs.init_tee_fmspc),
        ("CUR_SERVTD_HASH", &added.cur_service_td_hash.0, &theirs.cur_service_td_hash),
        ("CUR_SERVTD_ATTRIBUTES", &added.cur_service_td_attributes.0, &theirs.cur_service_td_attributes),
    ]);
    fields
}
