//! The sections of the appraisal policy on evidence of other kinds than SEV-SNP: Intel's, Azure's, tokens.

use std::collections::BTreeMap;

use caveau_dcap::{EnclaveIdentity, Expectations, TcbStatus, TdIdentity};
use caveau_snp::Hex;
use serde::Deserialize;
use serde_json::Value;

use super::{AppraisalPolicyError, refuse};

/// Platforms of Intel's.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intel {
    tcb_statuses: Option<Vec<String>>,
    #[serde(default)]
    advisories: Advisories,
    #[serde(default)]
    least_evaluation_number: u32,
    platforms: Option<Vec<Hex<6>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisories {
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Vec<String>,
}

/// Trust domains.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tdx {
    domains: Option<Vec<Domain>>,
    service_domain: Option<Hex<48>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Domain {
    mr_td: Hex<48>,
    rtmr0: Option<Hex<48>>,
    rtmr1: Option<Hex<48>>,
    rtmr2: Option<Hex<48>>,
    rtmr3: Option<Hex<48>>,
    mr_config_id: Option<Hex<48>>,
    mr_owner: Option<Hex<48>>,
    mr_owner_config: Option<Hex<48>>,
    mr_seam: Option<Hex<48>>,
}

/// Enclaves.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sgx {
    enclaves: Option<Vec<Enclave>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enclave {
    mr_enclave: Option<Hex<32>>,
    mr_signer: Option<Hex<32>>,
    isv_prod_id: Option<u16>,
    least_isv_svn: Option<u16>,
    config_id: Option<Hex<64>>,
}

/// Confidential VMs of Azure's.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Azure {
    pcrs: Option<BTreeMap<String, Hex<32>>>,
    #[serde(default)]
    vm_configuration: BTreeMap<String, Value>,
}

/// Tokens.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tokens {
    pub(super) issuers: Option<Vec<String>>,
}

/// What is expected of a platform of Intel's and of what runs on it.
pub(super) fn intel(intel: Intel, tdx: Tdx, sgx: Sgx) -> Result<Expectations, AppraisalPolicyError> {
    let status =
        |text: &String| text.parse::<TcbStatus>().map_err(|error| refuse("intel.tcb_statuses", error.to_string()));
    let statuses = intel.tcb_statuses.map(|list| list.iter().map(status).collect::<Result<Vec<_>, _>>()).transpose()?;
    if statuses.as_ref().is_some_and(|list| list.contains(&TcbStatus::Revoked)) {
        return Err(refuse("intel.tcb_statuses", "a platform that is revoked is never taken".to_owned()));
    }
    let enclaves =
        sgx.enclaves.map(|list| list.into_iter().map(Enclave::read).collect::<Result<_, _>>()).transpose()?;
    Ok(Expectations {
        report_data: None,
        statuses,
        allowed_advisories: intel.advisories.allow,
        denied_advisories: intel.advisories.deny,
        least_evaluation_number: intel.least_evaluation_number,
        platforms: intel.platforms,
        domains: tdx.domains.map(|list| list.into_iter().map(Domain::read).collect()),
        enclaves,
        require_crl: None,
        service_td: tdx.service_domain,
    })
}

impl Domain {
    fn read(self) -> TdIdentity {
        TdIdentity {
            mr_td: Some(self.mr_td),
            rtmrs: [self.rtmr0, self.rtmr1, self.rtmr2, self.rtmr3],
            mr_config_id: self.mr_config_id,
            mr_owner: self.mr_owner,
            mr_owner_config: self.mr_owner_config,
            mr_seam: self.mr_seam,
        }
    }
}

impl Enclave {
    fn read(self) -> Result<EnclaveIdentity, AppraisalPolicyError> {
        let Self { mr_enclave, mr_signer, isv_prod_id, least_isv_svn, config_id } = self;
        let identity = EnclaveIdentity { mr_enclave, mr_signer, isv_prod_id, least_isv_svn, config_id };
        if identity.names_one() {
            return Ok(identity);
        }
        let reason =
            "an enclave is named by `mr_enclave`, or by `mr_signer`, `isv_prod_id` and `least_isv_svn` together";
        Err(refuse("sgx.enclaves", reason.to_owned()))
    }
}

/// Registers and set-up of a VM.
pub(super) type OfVm = (Option<BTreeMap<usize, Hex<32>>>, BTreeMap<String, Value>);

impl Azure {
    pub(super) fn read(self) -> Result<OfVm, AppraisalPolicyError> {
        let register = |(number, value): (String, Hex<32>)| {
            let number = number.parse().ok().filter(|number| *number < 24);
            number
                .map(|number: usize| (number, value))
                .ok_or_else(|| refuse("azure.pcrs", "registers are numbered from \"0\" to \"23\"".to_owned()))
        };
        let registers = self.pcrs.map(|map| map.into_iter().map(register).collect::<Result<_, _>>()).transpose()?;
        Ok((registers, self.vm_configuration))
    }
}
