//! Comparing what is asked with what a container allows, field by field, and saying how they differ.

use std::sync::Arc;

use caveau_group::Limits;

use super::{Framework, capabilities::same_members};
use crate::{
    denial::{Detail, Field, Reason, quoted},
    model::{Container, EnvRule, ExternalProcess, MountRule, UserRule},
    request::{CreateContainer, ExecInContainer, IdName, Mount},
};

/// Something of the policy that a process can turn out to be.
pub(super) trait Candidate {
    /// Its variables.
    fn env_rules(&self) -> Option<&[EnvRule]>;
    /// Its name for people.
    fn label(&self) -> String;
}

impl Candidate for Arc<Container> {
    fn env_rules(&self) -> Option<&[EnvRule]> {
        self.env_rules.as_deref()
    }

    fn label(&self) -> String {
        Container::label(self)
    }
}

impl Candidate for &ExternalProcess {
    fn env_rules(&self) -> Option<&[EnvRule]> {
        self.env_rules.as_deref()
    }

    fn label(&self) -> String {
        format!("external process {}", quoted(self.command.iter().flatten()))
    }
}

/// Prefixes of mount sources that stand for a folder of the guest (reference: the framework's data).
const SANDBOX: &str = "sandbox://";
const HUGE_PAGES: &str = "hugepages://";
const SHARE: &str = "plan9://";

/// Fields that a new container is compared by, before environment and capabilities.
const CREATE_FIELDS: [Field; 10] = [
    Field::NoNewPrivileges,
    Field::User,
    Field::Privileged,
    Field::WorkingDir,
    Field::Command,
    Field::Mounts,
    Field::Seccomp,
    Field::Devices,
    Field::ReadOnly,
    Field::Limits,
];

/// The same for a further process.
const EXEC_FIELDS: [Field; 4] = [Field::WorkingDir, Field::NoNewPrivileges, Field::User, Field::Command];

impl Framework<'_> {
    /// The fields in which a new container differs from one of the policy's.
    pub(super) fn create_differences(
        &self,
        container: &Container,
        request: &CreateContainer,
    ) -> impl Iterator<Item = Field> {
        CREATE_FIELDS.into_iter().filter(move |field| !self.create_field_ok(*field, container, request))
    }

    fn create_field_ok(&self, field: Field, container: &Container, request: &CreateContainer) -> bool {
        match field {
            Field::NoNewPrivileges => no_new_privileges_ok(container, request.no_new_privileges),
            Field::User => user_ok(container, &request.user, &request.groups, &request.umask),
            Field::Privileged => container.allow_elevated.is_some_and(|allowed| allowed || !request.privileged),
            Field::WorkingDir => container.working_dir.as_ref() == Some(&request.working_dir),
            Field::Command => container.command.as_ref() == Some(&request.arg_list),
            Field::Mounts => {
                self.stray_mounts(container, request).next().is_none()
                    && missing_mounts(container, request).next().is_none()
                    && container.mounts_stated()
            }
            Field::Seccomp => container.seccomp_profile_sha256.as_ref() == Some(&request.seccomp_profile_sha256),
            Field::Devices => request.devices.is_empty(),
            Field::ReadOnly => request.read_only_root || !container.must_be_read_only(),
            Field::Limits => request.limits.within(container.limits()),
            _ => false,
        }
    }

    /// The fields in which a further process differs from what a container allows.
    pub(super) fn exec_differences<'c>(
        &self,
        container: &'c Container,
        request: &'c ExecInContainer,
    ) -> impl Iterator<Item = Field> + use<'c> {
        EXEC_FIELDS.into_iter().filter(move |field| match field {
            Field::WorkingDir => container.working_dir.as_ref() != Some(&request.working_dir),
            Field::NoNewPrivileges => !no_new_privileges_ok(container, request.no_new_privileges),
            Field::User => !user_ok(container, &request.user, &request.groups, &request.umask),
            Field::Command => {
                let mut processes = container.exec_processes.iter().flatten();
                !processes.any(|process| process.command.as_ref() == Some(&request.arg_list))
            }
            _ => true,
        })
    }

    /// Mounts of the request that the container may not have.
    pub(super) fn stray_mounts<'r>(
        &self,
        container: &Container,
        request: &'r CreateContainer,
    ) -> impl Iterator<Item = &'r Mount> {
        request.mounts.iter().filter(move |mount| !self.mount_ok(container, mount, &request.container_id))
    }

    fn mount_ok(&self, container: &Container, mount: &Mount, id: &str) -> bool {
        let platform = self.platform;
        container.mounts.iter().flatten().any(|rule| self.mount_rule_ok(rule, mount, id))
            || platform.default_mounts.iter().any(|default| self.default_mount_ok(default, mount))
            || container.allow_elevated == Some(true)
                && platform.privileged_mounts.iter().any(|default| self.default_mount_ok(default, mount))
            || platform.sandbox_container && is_writable_sys(mount)
    }

    /// Whether a mount is one that the guest's defaults allow. They are written like a policy's.
    fn default_mount_ok(&self, default: &Mount, mount: &Mount) -> bool {
        let prefixed = [(SANDBOX, &self.platform.sandbox_dir), (HUGE_PAGES, &self.platform.huge_pages_dir)]
            .into_iter()
            .any(|(prefix, folder)| {
                default.source.starts_with(prefix)
                    && crate::pattern::Pattern::anchored(&default.source.replace(prefix, folder)).matches(&mount.source)
            });
        default.kind == mount.kind
            && (prefixed || default.source == mount.source)
            && !mount.destination.is_empty()
            && default.destination == mount.destination
            && same_members(&default.options, &mount.options)
    }

    fn mount_rule_ok(&self, rule: &MountRule, mount: &Mount, id: &str) -> bool {
        rule.kind.as_ref() == Some(&mount.kind)
            && self.source_ok(rule, &mount.source, id)
            && !mount.destination.is_empty()
            && rule.destination.as_ref() == Some(&mount.destination)
            && rule.options.as_ref().is_some_and(|options| same_members(options, &mount.options))
    }

    fn source_ok(&self, rule: &MountRule, source: &str, id: &str) -> bool {
        let share = rule.source.as_ref().is_some_and(|rule| rule.starts_with(SHARE));
        rule.source_matches_below(SANDBOX, &self.platform.sandbox_dir, source)
            || rule.source_matches_below(HUGE_PAGES, &self.platform.huge_pages_dir, source)
            || share && self.state.p9mounts.get(source).is_some_and(|owner| owner == id)
            || rule.source.as_deref() == Some(source)
    }

    /// How a new container differs from one of the policy's in a field.
    pub(super) fn create_reason(&self, field: Field, container: &Container, request: &CreateContainer) -> Reason {
        let (expected, got) = match field {
            Field::Privileged => ("false".to_owned(), request.privileged.to_string()),
            Field::Mounts => self.shown_mounts(container, request),
            Field::Limits => (shown_limits(container.limits()), shown_limits(request.limits)),
            Field::Seccomp => {
                let hash = |hash: &str| if hash.is_empty() { "none".to_owned() } else { hash.to_owned() };
                let expected = container.seccomp_profile_sha256.as_deref().map_or_else(unsaid, hash);
                (expected, hash(&request.seccomp_profile_sha256))
            }
            Field::Devices => ("none".to_owned(), format!("{} devices", request.devices.len())),
            Field::ReadOnly => ("true".to_owned(), "false".to_owned()),
            Field::Command => (container.command.as_ref().map_or_else(unsaid, quoted), quoted(&request.arg_list)),
            _ => {
                let process =
                    (&request.working_dir, request.no_new_privileges, &request.user, &request.groups, &request.umask);
                return process_reason(field, container, process);
            }
        };
        Reason { container: Some(container.label()), ..Reason::new(field, expected, got) }
    }

    /// The mounts that are wrong: ones that the container may not have, or else ones that it must have and that are missing.
    fn shown_mounts(&self, container: &Container, request: &CreateContainer) -> (String, String) {
        let stray: Vec<_> = self.stray_mounts(container, request).map(shown_mount).collect();
        if stray.is_empty() {
            let missing = quoted(missing_mounts(container, request));
            return (format!("mounts on {}", quoted(container.required_mounts())), format!("none on {missing}"));
        }
        (quoted(container.mounts.iter().flatten().map(shown_rule)), quoted(stray))
    }

    /// How a further process differs from what a container allows in a field.
    pub(super) fn exec_reason(&self, field: Field, container: &Container, request: &ExecInContainer) -> Reason {
        if field == Field::Command {
            let allowed = container.exec_processes.iter().flatten();
            let commands: Vec<_> = allowed.map(|process| quoted(process.command.iter().flatten())).collect();
            let expected = if commands.is_empty() { "no further process".to_owned() } else { commands.join(" or ") };
            let reason = Reason::new(field, expected, quoted(&request.arg_list));
            return Reason { container: Some(container.label()), ..reason };
        }
        let process = (&request.working_dir, request.no_new_privileges, &request.user, &request.groups, &request.umask);
        process_reason(field, container, process)
    }
}

type Process<'r> = (&'r String, bool, &'r IdName, &'r Vec<IdName>, &'r String);

/// The reason for a field that a first and a further process have in common.
fn process_reason(field: Field, container: &Container, process: Process<'_>) -> Reason {
    let (working_dir, no_new_privileges, user, groups, umask) = process;
    let (expected, got) = match field {
        Field::NoNewPrivileges => ("true".to_owned(), no_new_privileges.to_string()),
        Field::WorkingDir => (container.working_dir.clone().unwrap_or_else(unsaid), working_dir.clone()),
        _ => {
            let groups = quoted(groups.iter().map(shown_id));
            let expected = container.user.as_ref().map_or_else(unsaid, shown_user);
            (expected, format!("user {:?}, groups {groups}, umask {umask}", shown_id(user)))
        }
    };
    Reason { field, expected: Detail::plain(expected), got: Detail::plain(got), container: Some(container.label()) }
}

/// Where the container must have a mount and the request has none.
pub(super) fn missing_mounts<'c>(
    container: &'c Container,
    request: &'c CreateContainer,
) -> impl Iterator<Item = &'c String> {
    let there = move |place: &String| request.mounts.iter().any(|mount| mount.destination == *place);
    container.required_mounts().iter().filter(move |place| !there(place))
}

fn shown_limits(limits: Limits) -> String {
    let Limits { memory_bytes, cpu_millis, pids } = limits;
    let shown = [
        memory_bytes.map(|bytes| format!("memory of {bytes} bytes")),
        cpu_millis.map(|millis| format!("{millis} thousandths of a processor")),
        pids.map(|pids| format!("{pids} processes")),
    ];
    shown.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn unsaid() -> String {
    "something that the policy does not say".to_owned()
}

fn shown_id(found: &IdName) -> String {
    format!("{}({})", found.id, found.name)
}

pub(super) fn shown_user(rule: &UserRule) -> String {
    let user = rule.user_idname.as_ref().map_or_else(unsaid, |rule| rule.shown());
    let groups: Vec<_> = rule.group_idnames.iter().flatten().map(|rule| rule.shown()).collect();
    format!("user {user}, groups {}, umask {}", groups.join(" or "), rule.umask.clone().unwrap_or_else(unsaid))
}

fn shown_mount(mount: &Mount) -> String {
    format!("{} on {} type {} ({})", mount.source, mount.destination, mount.kind, mount.options.join(","))
}

fn shown_rule(rule: &MountRule) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let options = rule.options.as_deref().unwrap_or_default().join(",");
    format!("{} on {} type {} ({options})", text(&rule.source), text(&rule.destination), text(&rule.kind))
}

impl Container {
    /// Whether Caveau's extension wants a read-only root file system.
    fn must_be_read_only(&self) -> bool {
        self.caveau.as_ref().is_some_and(|extension| extension.read_only_root)
    }

    /// Whether the policy says anything about mounts and privilege, without which none can be compared.
    pub(super) fn mounts_stated(&self) -> bool {
        self.mounts.is_some() && self.allow_elevated.is_some()
    }
}

fn no_new_privileges_ok(container: &Container, requested: bool) -> bool {
    container.no_new_privileges.is_some_and(|wanted| requested || !wanted)
}

fn user_ok(container: &Container, user: &IdName, groups: &[IdName], umask: &str) -> bool {
    let Some(rule) = &container.user else { return false };
    let in_rules = |group: &IdName| rule.group_idnames.iter().flatten().any(|rule| rule.matches(group));
    rule.umask.as_deref() == Some(umask)
        && rule.user_idname.as_ref().is_some_and(|rule| rule.matches(user))
        && groups.iter().all(in_rules)
}

/// `/sys` writable, as container engines give it to the pause container of a privileged pod.
fn is_writable_sys(mount: &Mount) -> bool {
    let wanted = ["nosuid", "noexec", "nodev", "rw"];
    (mount.kind.as_str(), mount.source.as_str(), mount.destination.as_str()) == ("sysfs", "sysfs", "/sys")
        && mount.options.len() == wanted.len()
        && wanted.iter().all(|option| mount.options.iter().any(|found| found == option))
}
