//! A plan as an OCI runtime specification (config.json), for libcontainer.
//!
//! The defaults are Docker's, but for the cgroup's device rules, which libcontainer would skip: see `device.rs`.

use caveau_group::{Capability, Limits, MASKED_PATHS, Mount, READ_ONLY_PATHS};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use serde_json::{Value, json};

use crate::{
    RuntimeError,
    plan::{Bind, ContainerPlan, ProcessPlan, invalid},
};

/// Microseconds of a scheduling period, cgroup v2's own default.
const CPU_PERIOD: u64 = 100_000;

/// Open files: what containerd gives since 2.0.
pub(crate) const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// The specification of a container in the cgroup `cgroup`.
///
/// # Errors
/// [`RuntimeError::Invalid`] for a plan that cannot be said in it.
pub(crate) fn specification(plan: &ContainerPlan, cgroup: &str) -> Result<Value, RuntimeError> {
    plan.check()?;
    let mut mounts = default_mounts(plan.privileged);
    mounts.extend(plan.tmpfs.iter().map(tmpfs));
    mounts.extend(plan.binds.iter().map(bind));
    let namespaces = ["pid", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
    let mut linux = json!({
        "cgroupsPath": cgroup,
        "namespaces": namespaces,
        "resources": resources(plan.limits),
    });
    if let Some(linux) = linux.as_object_mut() {
        if !plan.privileged {
            linux.insert("maskedPaths".to_owned(), json!(MASKED_PATHS));
            linux.insert("readonlyPaths".to_owned(), json!(READ_ONLY_PATHS));
        }
        if let Some(text) = &plan.process.seccomp {
            linux.insert("seccomp".to_owned(), json!(parse_seccomp(text)?));
        }
    }
    Ok(json!({
        "ociVersion": "1.2.0",
        "hostname": plan.hostname,
        "root": { "path": plan.root, "readonly": plan.read_only },
        "mounts": mounts,
        "process": process(&plan.process, plan.terminal),
        "linux": linux,
    }))
}

/// Reads a filter, and refuses one that would hand decisions to another process.
///
/// # Errors
/// [`RuntimeError::Invalid`].
pub(crate) fn parse_seccomp(text: &str) -> Result<LinuxSeccomp, RuntimeError> {
    let bad = |form| invalid("seccomp profile", text, form);
    let value: Value = serde_json::from_str(text).map_err(|_| bad("an OCI linux.seccomp object as JSON"))?;
    let listens = ["listenerPath", "listenerMetadata"].iter().any(|field| value.get(field).is_some());
    let profile: LinuxSeccomp =
        serde_json::from_value(value).map_err(|_| bad("an OCI linux.seccomp object as JSON"))?;
    let rules = profile.syscalls().iter().flatten().map(|rule| rule.action());
    let mut actions = [profile.default_action()].into_iter().chain(rules);
    // The parsed ones: text can say the same in escapes.
    let asks =
        actions.any(|action| matches!(action, LinuxSeccompAction::ScmpActNotify | LinuxSeccompAction::ScmpActTrace));
    if listens || asks {
        return Err(bad("a filter that decides by itself, without SCMP_ACT_NOTIFY and SCMP_ACT_TRACE"));
    }
    Ok(profile)
}

/// OCI `process`. `noNewPrivileges` is left out where it is false: libcontainer loads the filter before it drops
/// capabilities only if it is absent, and afterwards could not.
fn process(plan: &ProcessPlan, terminal: bool) -> Value {
    let groups: Vec<u32> = plan.ids.groups.iter().map(|entry| entry.gid).collect();
    let mut process = json!({
        "args": plan.args,
        "capabilities": {
            "ambient": names(&plan.capabilities.ambient),
            "bounding": names(&plan.capabilities.bounding),
            "effective": names(&plan.capabilities.effective),
            "inheritable": names(&plan.capabilities.inheritable),
            "permitted": names(&plan.capabilities.permitted),
        },
        "cwd": plan.cwd,
        // Present so that libcontainer looks nothing up; what is executed gets the plan's own list.
        "env": [format!("HOME={}", plan.ids.home)],
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": OPEN_FILES.0, "hard": OPEN_FILES.1 }],
        "terminal": terminal,
        "user": { "uid": plan.ids.uid, "gid": plan.ids.gid, "umask": plan.umask, "additionalGids": groups },
    });
    if plan.no_new_privileges
        && let Some(process) = process.as_object_mut()
    {
        process.insert("noNewPrivileges".to_owned(), json!(true));
    }
    process
}

fn names<'c>(set: impl IntoIterator<Item = &'c Capability>) -> Vec<&'static str> {
    set.into_iter().map(|capability| capability.name()).collect()
}

/// OCI `linux.resources`.
fn resources(limits: Limits) -> Value {
    let mut resources = serde_json::Map::new();
    if let Some(bytes) = limits.memory_bytes {
        resources.insert("memory".to_owned(), json!({ "limit": i64::try_from(bytes).unwrap_or(i64::MAX) }));
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = u64::from(millis).saturating_mul(CPU_PERIOD / 1000).max(1000);
        resources.insert("cpu".to_owned(), json!({ "quota": quota, "period": CPU_PERIOD }));
    }
    if let Some(pids) = limits.pids {
        resources.insert("pids".to_owned(), json!({ "limit": pids }));
    }
    Value::Object(resources)
}

/// The mounts that every container has, as Docker's.
fn default_mounts(privileged: bool) -> Vec<Value> {
    let access = if privileged { "rw" } else { "ro" };
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", access]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ]
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// A memory file system; it never has devices or set-user-id programs, whatever was asked for.
fn tmpfs(mount: &Mount) -> Value {
    let mut options: Vec<&str> =
        mount.options.iter().map(String::as_str).filter(|option| !matches!(*option, "dev" | "suid")).collect();
    options.extend(["nosuid", "nodev"]);
    json!({ "destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

/// A file or folder of the guest's own.
fn bind(bind: &Bind) -> Value {
    let access = if bind.read_only { "ro" } else { "rw" };
    let options = ["bind", "nosuid", "nodev", "noexec", access];
    json!({ "destination": bind.destination, "type": "bind", "source": bind.source, "options": options })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use caveau_group::{Capabilities, Seccomp};
    use oci_spec::runtime::Spec;

    use super::*;
    use crate::plan::tests::container;

    fn read(plan: &ContainerPlan) -> Spec {
        serde_json::from_value(specification(plan, "/caveau/c1").unwrap()).unwrap()
    }

    #[test]
    fn a_plain_container_is_confined_as_docker_does() {
        let spec = read(&container());
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.masked_paths().as_ref().unwrap().iter().any(|path| path == "/proc/kcore"));
        assert!(linux.readonly_paths().as_ref().unwrap().iter().any(|path| path == "/proc/sys"));
        let kinds: Vec<String> =
            linux.namespaces().as_ref().unwrap().iter().map(|namespace| namespace.typ().to_string()).collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mnt", "cgroup"]);
        for mount in spec.mounts().as_ref().unwrap() {
            let options = mount.options().as_ref().unwrap();
            assert!(options.iter().any(|option| option == "nosuid"), "{mount:?}");
            let devices = mount.destination().to_str().unwrap();
            if devices != "/dev" && devices != "/dev/pts" {
                assert!(options.iter().any(|option| option == "nodev"), "{mount:?}");
            }
            if devices.starts_with("/sys") {
                assert!(options.iter().any(|option| option == "ro"), "{mount:?}");
            }
        }
        assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), None);
    }

    #[test]
    fn a_privileged_one_sees_everything() {
        let spec = read(&ContainerPlan { privileged: true, ..container() });
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.masked_paths().is_none() && linux.readonly_paths().is_none());
    }

    #[test]
    fn what_is_planned_is_said() {
        let mut plan = container();
        plan.process.capabilities = Capabilities::for_user(&Capability::docker_defaults().collect(), true);
        plan.process.no_new_privileges = true;
        plan.process.ids.uid = 101;
        plan.process.seccomp = Some(Seccomp::docker_default(&BTreeSet::new()).to_json());
        plan.limits = Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(1500), pids: Some(9) };
        plan.tmpfs = vec!["/data:size=64m".parse().unwrap()];
        plan.binds = vec![Bind { source: "/run/x".into(), destination: "/etc/hosts".to_owned(), read_only: false }];
        let spec = read(&plan);
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.user().uid(), 101);
        assert_eq!(process.user().umask(), Some(0o022));
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 14);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.seccomp().is_some());
        let resources = linux.resources().as_ref().unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(1 << 20));
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(150_000));
        let mounts = spec.mounts().as_ref().unwrap();
        assert_eq!(mounts.last().unwrap().source().as_ref().unwrap().to_str(), Some("/run/x"));
    }

    #[test]
    fn memory_file_systems_never_have_devices() {
        let mount = Mount {
            destination: "/d".to_owned(),
            source: "tmpfs".to_owned(),
            kind: "tmpfs".to_owned(),
            options: vec!["dev".to_owned(), "suid".to_owned(), "size=1m".to_owned()],
        };
        assert_eq!(tmpfs(&mount)["options"], json!(["size=1m", "nosuid", "nodev"]));
    }

    #[test]
    fn filters_decide_by_themselves() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_N\u004fTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_\u0041CT_TRACE"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_TRACE"}]}"#,
        ] {
            assert!(parse_seccomp(bad).is_err(), "{bad}");
        }
        parse_seccomp(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    }
}
