//! guest.json: what the guest consists of and which launch digests to expect.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use caveau_measure::LaunchDigest;
use serde::{Deserialize, Serialize};

use crate::{AgentBuild, KernelPackage, PackageFile, Tee};

/// Version of guest.json's form.
pub const FORMAT: u32 = 1;

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256([u8; 32]);

/// Text that is no SHA-256 digest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no SHA-256: expected 64 lower-case hexadecimal digits")]
pub struct NotASha256(String);

impl Sha256 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(out)
    }

    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = NotASha256;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        let upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if !upper => Ok(Self(bytes)),
            _ => Err(NotASha256(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Sha256 {
    type Error = NotASha256;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

/// guest.json.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Security version of the guest: raised whenever older guests should no longer be trusted.
    pub svn: u32,
    /// The agent.
    pub agent: Agent,
    /// The kernel.
    pub kernel: KernelInfo,
    /// The modules, in their order of loading.
    pub modules: Vec<ModuleInfo>,
    /// Every file in the folder but guest.json, by name.
    pub parts: BTreeMap<String, Part>,
    /// The distribution's packages that parts are from, by the part's name, where they are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, PackageFile>,
    /// What each TEE starts from.
    pub tees: BTreeMap<Tee, TeeInfo>,
    /// The group that these reference values are of, where they are of one: a guest's own description has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupValues>,
}

/// What tells a group from others in the same guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupValues {
    /// SHA-256 of its policy's text: HOST_DATA in each of its reports.
    pub policy_sha256: Sha256,
}

/// The agent in the initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// SHA-256 of the program.
    pub sha256: Sha256,
    /// Compilers and linker as the program itself names them: whoever builds it with the same ones gets the same bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub toolchain: Vec<String>,
    /// What it was built from and by, where that was recorded; what is in it then is the part [`crate::AGENT_CONTENTS_FILE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<AgentBuild>,
}

/// The kernel, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelInfo {
    /// What `uname -r` says.
    pub release: String,
    /// The whole version text of the kernel image.
    pub banner: String,
    /// The distribution's package, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<KernelPackage>,
}

/// A module in the initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleInfo {
    /// Name as the kernel knows it.
    pub name: String,
    /// SHA-256 of the module, uncompressed and without its signature.
    pub sha256: Sha256,
    /// The only TEE that loads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tee: Option<Tee>,
}

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its contents.
    pub sha256: Sha256,
}

/// What a TEE starts from: names of parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeeInfo {
    /// The kernel.
    pub kernel: String,
    /// The initial RAM disk.
    pub initrd: String,
    /// The file with the kernel's command line.
    pub cmdline: String,
    /// What runs before the kernel: for `emulated-snp` the BIOS and then its option ROMs; for `snp` OVMF, or nothing where it
    /// was not given when the guest was built.
    pub firmware: Vec<String>,
    /// Expected launch digests; empty where the firmware is not known.
    pub launch_digests: Vec<ExpectedDigest>,
}

/// The launch digest for one kind of machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedDigest {
    /// vCPU type, by QEMU's name.
    pub vcpu_type: String,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The digest.
    pub digest: LaunchDigest,
}

impl Manifest {
    /// The launch digests that are right for `vcpus` vCPUs under `tee`, each with its vCPU type.
    pub fn launch_digests(&self, tee: Tee, vcpus: u32) -> impl Iterator<Item = &ExpectedDigest> {
        let all = self.tees.get(&tee).map(|info| info.launch_digests.as_slice()).unwrap_or_default();
        all.iter().filter(move |expected| expected.vcpus == vcpus)
    }

    /// guest.json's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps keyed by strings always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digests_round_trip(bytes in any::<[u8; 32]>()) {
            let digest = Sha256::from(bytes);
            prop_assert_eq!(digest.to_string().parse::<Sha256>().unwrap(), digest);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Sha256>(&json).unwrap(), digest);
        }
    }

    #[test]
    fn digests_are_strict() {
        let known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256::of(b"").to_string(), known);
        assert!(known.to_uppercase().parse::<Sha256>().is_err());
        assert!(known[2..].parse::<Sha256>().is_err());
    }
}
