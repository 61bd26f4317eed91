//! Which level a platform has reached.

use caveau_snp::Hex;
use caveau_snp::check::Refusal;

use crate::body::TdReport;
use crate::identity::equal_under;
use crate::pck::PckExtensions;
use crate::status::TcbStatus;
use crate::tcb_info::{ModuleIdentity, ModuleLevel, TcbInfo, TcbLevel};
use caveau_snp::time::Timestamp;

/// What a platform, a part of it, or all together come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) status: TcbStatus,
    pub(crate) date: Timestamp,
    pub(crate) advisories: Vec<String>,
}

impl Standing {
    /// This standing with that of a part.
    pub(crate) fn with_part(mut self, status: TcbStatus, date: Timestamp, advisories: &[String]) -> Self {
        self.status = self.status.with_part(status);
        self.date = self.date.min(date);
        for advisory in advisories {
            if !self.advisories.contains(advisory) {
                self.advisories.push(advisory.clone());
            }
        }
        self
    }
}

/// How a platform stands without its quoting enclave: at the domain's launch, and by the TDX module that runs now, where a report
/// tells of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlatformStanding {
    launch: Standing,
    current: Option<TcbStatus>,
}

impl PlatformStanding {
    /// Both in one.
    pub(crate) fn status(&self) -> TcbStatus {
        self.current.map_or(self.launch.status, |current| self.launch.status.with_current(current))
    }

    /// The date of the launch's level.
    pub(crate) const fn date(&self) -> Timestamp {
        self.launch.date
    }

    /// This standing with that of the quoting enclave, which counts for both: to launch a domain anew is no help against an old one.
    /// As for Intel's library, one that is anything else than up to date is old; a revoked one stays so.
    pub(crate) fn with_quoting_enclave(self, qe: &Standing) -> Standing {
        let status = match qe.status {
            TcbStatus::UpToDate | TcbStatus::Revoked => qe.status,
            _ => TcbStatus::OutOfDate,
        };
        let current = self.current.map(|current| current.with_part(status));
        let launch = self.launch.with_part(status, qe.date, &qe.advisories);
        Standing { status: Self { launch: launch.clone(), current }.status(), ..launch }
    }
}

/// The platform's standing.
pub(crate) fn platform(
    info: &TcbInfo,
    pck: &PckExtensions,
    td: Option<&TdReport>,
) -> Result<PlatformStanding, Refusal> {
    let launch = of_svns(info, pck, td.map(|td| &td.tee_tcb_svn.0))?;
    let td15 = td.and_then(|td| td.td15.as_ref());
    let current = td15.map(|td15| of_svns(info, pck, Some(&td15.tee_tcb_svn2.0))).transpose()?;
    Ok(PlatformStanding { launch, current: current.map(|current| current.status) })
}

/// The standing by these SVNs of TDX: the platform's level, with that of the TDX module of its version.
fn of_svns(info: &TcbInfo, pck: &PckExtensions, tdx: Option<&[u8; 16]>) -> Result<Standing, Refusal> {
    let reached = info.levels.iter().find(|level| is_reached(level, pck, tdx));
    let level = reached.ok_or_else(|| {
        let svns = tdx.map(|svns| format!(", TDX {}", Hex(*svns))).unwrap_or_default();
        let sentence = format!(
            "no level of TCB info {} is reached: components {}, PCESVN {}{svns}",
            info.evaluation_number,
            Hex(pck.components),
            pck.pce_svn
        );
        Refusal::new("tcb-level-none", sentence)
    })?;
    let standing = Standing { status: level.status, date: level.date, advisories: level.advisories.clone() };
    let Some(identity) = tdx.map(|svns| module_of(info, svns)).transpose()?.flatten() else { return Ok(standing) };
    let ModuleLevel { date, status, advisories, .. } = module_level(identity, tdx)?;
    Ok(standing.with_part(*status, *date, advisories))
}

/// Where a module has a version, its own levels say what its first two SVNs are worth.
fn is_reached(level: &TcbLevel, pck: &PckExtensions, tdx: Option<&[u8; 16]>) -> bool {
    let at_least = |found: &[u8], least: &[u8]| found.iter().zip(least).all(|(found, least)| found >= least);
    let tdx_reached = tdx.is_none_or(|svns| {
        let skip = if has_version(svns) { 2 } else { 0 };
        let (found, least) =
            (svns.get(skip..).unwrap_or_default(), level.tdx_components.get(skip..).unwrap_or_default());
        at_least(found, least)
    });
    at_least(&pck.components, &level.components) && pck.pce_svn >= level.pce_svn && tdx_reached
}

fn has_version([_, version, ..]: &[u8; 16]) -> bool {
    *version > 0
}

/// The identity of the TDX module with these SVNs; `None` where it has no version.
fn module_of<'a>(info: &'a TcbInfo, svns: &[u8; 16]) -> Result<Option<&'a ModuleIdentity>, Refusal> {
    if !has_version(svns) {
        return Ok(None);
    }
    let [_, version, ..] = svns;
    let id = format!("TDX_{version:02X}");
    let identity = info.module_identities.iter().find(|identity| identity.id.eq_ignore_ascii_case(&id));
    identity.map(Some).ok_or_else(|| Refusal::new("tdx-module-unknown", format!("TCB info knows no TDX module {id}")))
}

fn module_level<'a>(identity: &'a ModuleIdentity, tdx: Option<&[u8; 16]>) -> Result<&'a ModuleLevel, Refusal> {
    let isv_svn = tdx.map_or(0, |[isv_svn, ..]| *isv_svn);
    identity.levels.iter().find(|level| isv_svn >= level.isv_svn).ok_or_else(|| {
        let sentence = format!("no level of the TDX module {} is reached by its SVN {isv_svn}", identity.id);
        Refusal::new("tcb-level-none", sentence)
    })
}

/// Who signed the TDX module, and its attributes.
pub(crate) fn tdx_module(info: &TcbInfo, td: &TdReport) -> Result<String, Refusal> {
    let refuse = |sentence: String| Err(Refusal::new("tdx-module", sentence));
    let identity = module_of(info, &td.tee_tcb_svn.0)?;
    let Some(expected) = identity.map(|identity| identity.module).or(info.tdx_module) else {
        return refuse("TCB info does not say what the TDX module must be".to_owned());
    };
    if td.mr_signer_seam != expected.mr_signer {
        return refuse(format!("MRSIGNERSEAM is {}, expected {}", td.mr_signer_seam, expected.mr_signer));
    }
    let mask = expected.attributes_mask.0;
    let excess = td.seam_attributes.iter().zip(mask).any(|(found, mask)| found & !mask != 0);
    if excess || !equal_under(&td.seam_attributes.0, &expected.attributes.0, &mask) {
        let sentence = format!("SEAMATTRIBUTES are {}, expected {}", td.seam_attributes, expected.attributes);
        return refuse(sentence);
    }
    let name = identity.map_or("without a version", |identity| identity.id.as_str());
    Ok(format!("the TDX module {name} is Intel's, and is not set up for debugging"))
}
