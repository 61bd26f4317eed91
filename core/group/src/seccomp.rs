//! The system call filter of a container: OCI `linux.seccomp` (runtime specification, "Seccomp").
//!
//! A policy holds the SHA-256 of the profile's JSON text, fields in the order of the specification's own Go types and
//! absent ones left out, which is what other tools of the field hash as well.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Capability,
    docker_syscalls::{ALWAYS, WITH_CAPABILITY},
};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The flags of clone(2) and unshare(2) that make namespaces: all but CLONE_NEWTIME, which clone(2) cannot take.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// `AF_ALG` and `AF_VSOCK` of socket(2): neither is a container's to open.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// What personality(2) may set: Linux or 32 bit Linux, each with or without its base below 3 GiB, or nothing (a query).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to a system call that no rule names.
    pub default_action: String,
    /// The error number that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures whose system calls are told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// Flags of seccomp(2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// The rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SeccompRule>,
}

/// One rule: what happens to these system calls when all `args` hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SeccompRule {
    /// Names of system calls.
    pub names: Vec<String>,
    /// `SCMP_ACT_…`.
    pub action: String,
    /// The error number that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions on arguments, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<SeccompArg>,
}

/// A condition on one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SeccompArg {
    /// Which argument, from 0.
    pub index: u32,
    /// What it is compared with; a mask for `SCMP_CMP_MASKED_EQ`.
    pub value: u64,
    /// What the masked argument must be; 0 otherwise.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// `SCMP_CMP_…`.
    pub op: String,
}

/// For serde: the specification leaves out a zero.
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Seccomp {
    /// Docker's default profile on x86-64 for a container that may have `capabilities`.
    #[must_use]
    pub fn docker_default(capabilities: &BTreeSet<Capability>) -> Self {
        let has = |name: &str| capabilities.iter().any(|capability| capability.name() == name);
        let mut names: BTreeSet<&str> = ALWAYS.split_ascii_whitespace().collect();
        for (capability, more) in WITH_CAPABILITY {
            if has(capability) {
                names.extend(*more);
            }
        }
        let mut syscalls = vec![SeccompRule::new(names, ALLOW, None, None)];
        syscalls.extend(socket_rules());
        syscalls.extend(PERSONALITIES.map(|value| {
            SeccompRule::new(["personality"], ALLOW, None, Some(SeccompArg::new(0, value, "SCMP_CMP_EQ")))
        }));
        if !has("CAP_SYS_ADMIN") {
            let no_namespaces = SeccompArg::new(0, CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ");
            syscalls.push(SeccompRule::new(["clone"], ALLOW, None, Some(no_namespaces)));
            // Its flags are in memory, out of a filter's sight; told that it is not there, libc falls back to clone.
            syscalls.push(SeccompRule::new(["clone3"], ERRNO, Some(ENOSYS), None));
        }
        Self {
            default_action: ERRNO.to_owned(),
            default_errno_ret: Some(EPERM),
            architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"].map(str::to_owned).to_vec(),
            flags: Vec::new(),
            syscalls,
        }
    }

    /// The profile's JSON text, always the same for the same profile.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// SHA-256 of [`Self::to_json`], lower-case hexadecimal: a policy's `seccomp_profile_sha256`.
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.to_json()))
    }
}

/// Every address family but `AF_ALG` (38) and `AF_VSOCK` (40). Filters of one system call are alternatives, so the two
/// holes have to be left out by ranges.
fn socket_rules() -> [SeccompRule; 3] {
    [(AF_ALG, "SCMP_CMP_LT"), (39, "SCMP_CMP_EQ"), (AF_VSOCK, "SCMP_CMP_GT")]
        .map(|(value, op)| SeccompRule::new(["socket"], ALLOW, None, Some(SeccompArg::new(0, value, op))))
}

impl SeccompRule {
    fn new<'n>(
        names: impl IntoIterator<Item = &'n str>,
        action: &str,
        errno_ret: Option<u32>,
        arg: Option<SeccompArg>,
    ) -> Self {
        Self {
            names: names.into_iter().map(str::to_owned).collect(),
            action: action.to_owned(),
            errno_ret,
            args: arg.into_iter().collect(),
        }
    }
}

impl SeccompArg {
    fn new(index: u32, value: u64, op: &str) -> Self {
        Self { index, value, value_two: 0, op: op.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker() -> Seccomp {
        Seccomp::docker_default(&Capability::docker_defaults().collect())
    }

    fn allows(profile: &Seccomp, name: &str) -> bool {
        profile
            .syscalls
            .iter()
            .any(|rule| rule.action == ALLOW && rule.args.is_empty() && rule.names.iter().any(|known| known == name))
    }

    #[test]
    fn dangerous_calls_need_their_capability() {
        let profile = docker();
        for name in ["read", "execve", "chroot", "ptrace", "arch_prctl"] {
            assert!(allows(&profile, name), "{name}");
        }
        for name in ["mount", "bpf", "init_module", "reboot", "keyctl", "io_uring_setup", "clone", "clone3", "unshare"]
        {
            assert!(!allows(&profile, name), "{name}");
        }
        let admin = Seccomp::docker_default(&["CAP_SYS_ADMIN".parse().unwrap()].into());
        assert!(allows(&admin, "mount") && allows(&admin, "clone3"));
        assert!(!admin.syscalls.iter().any(|rule| rule.errno_ret == Some(ENOSYS)));
    }

    #[test]
    fn the_text_is_the_specifications_and_reads_as_itself() {
        let text = docker().to_json();
        assert!(text.starts_with(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["#));
        assert!(text.contains(r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}]}"#));
        assert_eq!(serde_json::from_str::<Seccomp>(&text).unwrap(), docker());
        assert_eq!(docker().sha256().len(), 64);
        assert_ne!(docker().sha256(), Seccomp::docker_default(&BTreeSet::new()).sha256());
    }
}
