//! TCB info (Intel's provisioning certification service, versions 2 and 3): the levels of a kind of platform.

use caveau_snp::Hex;
use caveau_snp::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;

use crate::quote::TeeType;
use crate::status::TcbStatus;

/// Most levels accepted.
const MAX_LEVELS: usize = 256;

/// What Intel says of one kind of platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbInfo {
    /// For which TEE.
    pub tee_type: TeeType,
    /// When it was made.
    pub issue_date: Timestamp,
    /// Until when it may be used.
    pub next_update: Timestamp,
    /// The kind of platform.
    pub fmspc: Hex<6>,
    /// The provisioning certification enclave.
    pub pce_id: Hex<2>,
    /// Which set of rules it is: higher ones are newer.
    pub evaluation_number: u32,
    /// The TDX module before modules had versions.
    pub tdx_module: Option<TdxModule>,
    /// The TDX modules, by version.
    pub module_identities: Vec<ModuleIdentity>,
    /// The levels, the best first.
    pub levels: Vec<TcbLevel>,
}

/// A level that a platform may have reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbLevel {
    /// Least SVN of each of the platform's components.
    pub components: [u8; 16],
    /// Least PCESVN.
    pub pce_svn: u16,
    /// Least SVN of each of TDX's components; zeros for SGX.
    pub tdx_components: [u8; 16],
    /// The date for which it holds.
    pub date: Timestamp,
    /// How such a platform stands.
    pub status: TcbStatus,
    /// Which advisories concern it.
    pub advisories: Vec<String>,
}

/// Who signs a TDX module, and its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxModule {
    /// MRSIGNERSEAM.
    pub mr_signer: Hex<48>,
    /// SEAMATTRIBUTES.
    pub attributes: Hex<8>,
    /// Which bits of it count. The others must be zero.
    pub attributes_mask: Hex<8>,
}

/// The TDX module of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleIdentity {
    /// `TDX_01` for version 1.
    pub id: String,
    /// Signer and attributes.
    pub module: TdxModule,
    /// Its levels, the best first.
    pub levels: Vec<ModuleLevel>,
}

/// A level of a TDX module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLevel {
    /// Least ISVSVN.
    pub isv_svn: u8,
    /// The date for which it holds.
    pub date: Timestamp,
    /// How such a module stands.
    pub status: TcbStatus,
    /// Which advisories concern it.
    pub advisories: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    id: Option<String>,
    version: u32,
    issue_date: Date,
    next_update: Date,
    fmspc: AnyCase<6>,
    pce_id: AnyCase<2>,
    tcb_type: u32,
    tcb_evaluation_data_number: u32,
    tdx_module: Option<FileModule>,
    #[serde(default)]
    tdx_module_identities: Vec<FileIdentity>,
    tcb_levels: Vec<FileLevel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileModule {
    mrsigner: AnyCase<48>,
    attributes: AnyCase<8>,
    attributes_mask: AnyCase<8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileIdentity {
    id: String,
    #[serde(flatten)]
    module: FileModule,
    tcb_levels: Vec<FileModuleLevel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileModuleLevel {
    tcb: FileModuleTcb,
    tcb_date: Date,
    tcb_status: TcbStatus,
    #[serde(rename = "advisoryIDs", default)]
    advisories: Vec<String>,
}

#[derive(Deserialize)]
struct FileModuleTcb {
    isvsvn: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLevel {
    tcb: FileTcb,
    tcb_date: Date,
    tcb_status: TcbStatus,
    #[serde(rename = "advisoryIDs", default)]
    advisories: Vec<String>,
}

#[derive(Deserialize)]
struct FileTcb {
    sgxtcbcomponents: Option<[FileComponent; 16]>,
    tdxtcbcomponents: Option<[FileComponent; 16]>,
    pcesvn: u16,
    /// Version 2 names each: `sgxtcbcomp01svn` to `sgxtcbcomp16svn`.
    #[serde(flatten)]
    flat: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct FileComponent {
    svn: u8,
}

/// A point in time, as Intel writes it.
#[derive(Clone, Copy)]
pub(crate) struct Date(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// Bytes in hexadecimal of whatever case: Intel writes both.
#[derive(Clone, Copy)]
pub(crate) struct AnyCase<const N: usize>(pub(crate) Hex<N>);

impl<'de, const N: usize> Deserialize<'de> for AnyCase<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.to_ascii_lowercase().parse().map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for TcbInfo {
    /// Shown by what names it.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} (evaluation {})", self.fmspc, self.evaluation_number))
    }
}

impl TcbInfo {
    /// Reads TCB info. Fields that are not known are passed over: Intel adds some.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| format!("it is not the JSON expected: {error}"))?;
        let tee_type = match (file.version, file.id.as_deref()) {
            (2, None | Some("SGX")) | (3, Some("SGX")) => TeeType::Sgx,
            (3, Some("TDX")) => TeeType::Tdx,
            (version, id) => {
                return Err(format!("it is of version {version} for {id:?}, expected 2 or 3 for SGX, 3 for TDX"));
            }
        };
        if file.tcb_type != 0 {
            return Err(format!("its tcbType is {}, expected 0", file.tcb_type));
        }
        if tee_type == TeeType::Tdx && file.tdx_module.is_none() {
            return Err("it is for TDX and has no tdxModule".to_owned());
        }
        if file.tcb_levels.len() > MAX_LEVELS || file.tdx_module_identities.len() > MAX_LEVELS {
            return Err(format!("it has more than {MAX_LEVELS} levels"));
        }
        let of_platform = file.tcb_levels.iter().map(|level| (level.tcb_status, level.tcb_status.is_of_platform()));
        let modules = file.tdx_module_identities.iter().flat_map(|identity| &identity.tcb_levels);
        let of_module = modules.map(|level| (level.tcb_status, level.tcb_status.is_of_module()));
        if let Some((odd, _)) = of_platform.chain(of_module).find(|(_, fits)| !fits) {
            return Err(format!("a level of it is {odd}, which no platform or module of its kind is"));
        }
        let levels = file.tcb_levels.into_iter().map(|level| level.read(tee_type)).collect::<Result<_, _>>()?;
        Ok(Self {
            tee_type,
            issue_date: file.issue_date.0,
            next_update: file.next_update.0,
            fmspc: file.fmspc.0,
            pce_id: file.pce_id.0,
            evaluation_number: file.tcb_evaluation_data_number,
            tdx_module: file.tdx_module.as_ref().map(FileModule::read),
            module_identities: file.tdx_module_identities.into_iter().map(FileIdentity::read).collect(),
            levels,
        })
    }
}

impl FileLevel {
    fn read(self, tee_type: TeeType) -> Result<TcbLevel, String> {
        let svns = |list: [FileComponent; 16]| list.map(|component| component.svn);
        let tdx_components = match (self.tcb.tdxtcbcomponents, tee_type) {
            (Some(list), TeeType::Tdx) => svns(list),
            (None, TeeType::Sgx) => [0; 16],
            (Some(_), TeeType::Sgx) => return Err("a level for SGX has components of TDX".to_owned()),
            (None, TeeType::Tdx) => return Err("a level for TDX lacks tdxtcbcomponents".to_owned()),
        };
        let components = match self.tcb.sgxtcbcomponents {
            Some(list) => svns(list),
            None => flat(&self.tcb.flat)?,
        };
        Ok(TcbLevel {
            components,
            pce_svn: self.tcb.pcesvn,
            tdx_components,
            date: self.tcb_date.0,
            status: self.tcb_status,
            advisories: self.advisories,
        })
    }
}

/// The components of version 2.
fn flat(fields: &BTreeMap<String, serde_json::Value>) -> Result<[u8; 16], String> {
    let mut out = [0; 16];
    for (number, component) in (1_u8..).zip(&mut out) {
        let name = format!("sgxtcbcomp{number:02}svn");
        let svn = fields.get(&name).and_then(serde_json::Value::as_u64).and_then(|svn| u8::try_from(svn).ok());
        *component = svn.ok_or_else(|| format!("a level has neither sgxtcbcomponents nor a usable {name}"))?;
    }
    Ok(out)
}

impl FileModule {
    const fn read(&self) -> TdxModule {
        TdxModule { mr_signer: self.mrsigner.0, attributes: self.attributes.0, attributes_mask: self.attributes_mask.0 }
    }
}

impl FileIdentity {
    fn read(self) -> ModuleIdentity {
        let level = |level: FileModuleLevel| ModuleLevel {
            isv_svn: level.tcb.isvsvn,
            date: level.tcb_date.0,
            status: level.tcb_status,
            advisories: level.advisories,
        };
        let module = self.module.read();
        ModuleIdentity { id: self.id, module, levels: self.tcb_levels.into_iter().map(level).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn info(version: u32, id: Option<&str>, level: Value) -> Value {
        let mut info = json!({
            "version": version, "issueDate": "2026-01-01T00:00:00Z", "nextUpdate": "2026-02-01T00:00:00Z",
            "fmspc": "00A067110000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 17,
            "tcbLevels": [{ "tcb": level, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate" }]
        });
        if let Some(id) = id {
            info["id"] = id.into();
        }
        info
    }

    fn parse(value: &Value) -> Result<TcbInfo, String> {
        TcbInfo::parse(&value.to_string())
    }

    fn components() -> Value {
        (0..16).map(|svn| json!({ "svn": svn, "category": "BIOS" })).collect()
    }

    #[test]
    fn levels_of_both_versions_are_read() {
        let third = info(3, Some("SGX"), json!({ "sgxtcbcomponents": components(), "pcesvn": 13 }));
        let mut flat = json!({ "pcesvn": 13 });
        for number in 1..=16 {
            flat[format!("sgxtcbcomp{number:02}svn")] = (number - 1).into();
        }
        let (third, second) = (parse(&third).unwrap(), parse(&info(2, None, flat)).unwrap());
        assert_eq!(third, second);
        assert_eq!(third.levels[0].components[15], 15);
        assert_eq!(third.fmspc.to_string(), "00a067110000");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = json!({ "sgxtcbcomponents": components(), "pcesvn": 13 });
        for (value, said) in [
            (info(3, None, good.clone()), "version 3 for None"),
            (info(4, Some("SGX"), good.clone()), "version 4"),
            (info(3, Some("TDX"), good.clone()), "no tdxModule"),
            (info(3, Some("SGX"), json!({ "pcesvn": 1 })), "sgxtcbcomp01svn"),
            (info(3, Some("SGX"), json!({ "sgxtcbcomponents": [{ "svn": 1 }], "pcesvn": 1 })), "not the JSON"),
            (info(3, Some("SGX"), json!({ "sgxtcbcomponents": components() })), "pcesvn"),
        ] {
            let error = parse(&value).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        // What follows from two statuses is in no statement.
        for status in ["Fine", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded"] {
            let mut unknown = info(3, Some("SGX"), good.clone());
            unknown["tcbLevels"][0]["tcbStatus"] = status.into();
            assert!(parse(&unknown).unwrap_err().contains(status));
        }
    }
}
