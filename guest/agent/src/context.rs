//! Files of the guest's own that every container sees: names, and the security context as in ACI.

use std::{ffi::CStr, fs, io, net::Ipv4Addr, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_protocol::network::{GUEST, NAME_SERVER};
use caveau_runtime::Bind;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The variable that tells a container where its security context is.
pub(crate) const VARIABLE: &str = "UVM_SECURITY_CONTEXT_DIR";

/// What holds a container's own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// A memory file system of their own: the container may write to them, and must not fill the guest.
    Memory,
    /// The folder itself, for tests, which may not mount.
    #[cfg(test)]
    Folder,
}

/// What the security context holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'a> {
    /// The policy in force.
    pub(crate) policy: &'a str,
    /// The certificates that go with reports, as JSON.
    pub(crate) host_certificates: Option<&'a str>,
    /// Signed reference values (COSE_Sign1). The host gives them, and nobody here believes them: whoever verifies a report
    /// knows whose signature to expect.
    pub(crate) reference_info: Option<&'a [u8]>,
}

/// The security context: made once, when the policy is in force.
#[derive(Debug)]
pub(crate) struct Context {
    /// Below this the agent keeps its own files.
    folder: PathBuf,
    space: Space,
    /// Where containers see it.
    destination: String,
}

impl Context {
    /// Writes the policy below `folder`, and what else there is, each in base64.
    ///
    /// # Errors
    /// Where the files cannot be written.
    pub(crate) fn new(folder: PathBuf, space: Space, contents: &Contents<'_>) -> io::Result<Self> {
        let security = folder.join("security");
        fs::create_dir_all(&security)?;
        for (name, content) in [
            ("security-policy-base64", Some(contents.policy.as_bytes())),
            ("host-amd-cert-base64", contents.host_certificates.map(str::as_bytes)),
            ("reference-info-base64", contents.reference_info),
        ] {
            if let Some(content) = content {
                fs::write(security.join(name), BASE64_STANDARD.encode(content))?;
            }
        }
        // A random name, as in ACI: no image can have put something there.
        let mut random = [0u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self { folder, space, destination: format!("/security-context-{}", hex::encode(random)) })
    }

    /// The variable for a container's environment.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE}={}", self.destination)
    }

    /// The mounts for one container.
    pub(crate) fn binds(&self, files: &ContainerFiles) -> Vec<Bind> {
        let security =
            Bind { source: self.folder.join("security"), destination: self.destination.clone(), read_only: true };
        let named = NAMES.map(|name| Bind {
            source: files.folder.join(name),
            destination: format!("/etc/{name}"),
            read_only: false,
        });
        [security].into_iter().chain(named).collect()
    }

    /// Makes one container's files. `hostname` is of its form.
    ///
    /// # Errors
    /// Where the files cannot be made.
    pub(crate) fn files(&self, number: u32, hostname: &str) -> io::Result<ContainerFiles> {
        let folder = self.folder.join(number.to_string());
        fs::create_dir_all(&folder)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if self.space == Space::Memory {
            mount("tmpfs", &folder, "tmpfs", flags, SPACE)?;
        }
        let files = ContainerFiles { folder, space: self.space };
        let written = files.write(hostname);
        if written.is_err() {
            // What failed is told; an empty folder more is no matter.
            let _ = files.remove();
        }
        written.map(|()| files)
    }
}

/// Names of the files below `/etc`.
const NAMES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Options of the file system that holds them: the container may write to its files, and must not fill the guest's memory.
const SPACE: &CStr = c"mode=755,size=64k,nr_inodes=8";

/// A container's own copies of the files that name it and its network.
#[derive(Debug)]
pub(crate) struct ContainerFiles {
    folder: PathBuf,
    space: Space,
}

impl ContainerFiles {
    fn write(&self, hostname: &str) -> io::Result<()> {
        let contents =
            [format!("{hostname}\n"), hosts(hostname, GUEST), format!("nameserver {NAME_SERVER}\noptions timeout:2\n")];
        NAMES.iter().zip(contents).try_for_each(|(name, contents)| fs::write(self.folder.join(name), contents))
    }

    /// Removes them.
    ///
    /// # Errors
    /// Where they are in use.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match self.space {
            Space::Memory => {
                unmount(&self.folder, UnmountFlags::DETACH)?;
                fs::remove_dir(&self.folder)
            }
            #[cfg(test)]
            Space::Folder => fs::remove_dir_all(&self.folder),
        }
    }
}

/// The container's `/etc/hosts`.
fn hosts(hostname: &str, address: Ipv4Addr) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {hostname}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_names_the_container_and_loopback() {
        let text = hosts("web", Ipv4Addr::new(10, 0, 2, 15));
        assert!(text.contains("127.0.0.1 localhost\n") && text.ends_with("10.0.2.15 web\n"));
    }

    #[test]
    fn the_context_is_what_containers_look_for() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| {
            let text = fs::read_to_string(folder.path().join("security").join(name)).ok()?;
            Some(String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap())
        };
        let new = |host_certificates, reference_info| {
            let contents = Contents { policy: "policy", host_certificates, reference_info };
            Context::new(folder.path().to_owned(), Space::Folder, &contents).unwrap()
        };
        let names = ["security-policy-base64", "host-amd-cert-base64", "reference-info-base64"];
        new(None, None);
        assert_eq!(names.map(read), [Some("policy".into()), None, None]);
        let context = new(Some("{}"), Some(b"signed"));
        assert_eq!(names.map(read), ["policy", "{}", "signed"].map(|text| Some(text.to_owned())));
        let files = context.files(1, "web").unwrap();
        let binds = context.binds(&files);
        let places: Vec<&str> = binds.iter().skip(1).map(|bind| bind.destination.as_str()).collect();
        assert_eq!(places, ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
        assert!(binds[0].read_only && context.variable().ends_with(&binds[0].destination));
        assert_eq!(fs::read_to_string(&binds[1].source).unwrap(), "web\n");
        files.remove().unwrap();
        assert!(!binds[1].source.exists());
    }
}
