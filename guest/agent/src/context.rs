//! Files of the guest's own that every container sees: names, and the security context as in ACI.

use std::{
    ffi::CStr,
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_protocol::network::{GUEST, NAME_SERVER};
use caveau_runtime::Bind;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Below this the agent keeps its own files.
const FOLDER: &str = "/run/caveau/context";

/// The variable that tells a container where its security context is.
pub(crate) const VARIABLE: &str = "UVM_SECURITY_CONTEXT_DIR";

/// The security context: made once, when the policy is in force.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where containers see it.
    destination: String,
}

impl Context {
    /// Writes the policy, and the host's certificates where it gave some, each in base64.
    ///
    /// # Errors
    /// Where the files cannot be written.
    pub(crate) fn new(policy: &str, host_certificates: Option<&str>) -> io::Result<Self> {
        let folder = Path::new(FOLDER).join("security");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("security-policy-base64"), BASE64_STANDARD.encode(policy))?;
        if let Some(certificates) = host_certificates {
            fs::write(folder.join("host-amd-cert-base64"), BASE64_STANDARD.encode(certificates))?;
        }
        // A random name, as in ACI: no image can have put something there.
        let mut random = [0u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self { destination: format!("/security-context-{}", hex::encode(random)) })
    }

    /// The variable for a container's environment.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE}={}", self.destination)
    }

    /// The mounts for one container.
    pub(crate) fn binds(&self, files: &ContainerFiles) -> Vec<Bind> {
        let security =
            Bind { source: Path::new(FOLDER).join("security"), destination: self.destination.clone(), read_only: true };
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
        let folder = Path::new(FOLDER).join(number.to_string());
        fs::create_dir_all(&folder)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", &folder, "tmpfs", flags, SPACE)?;
        let files = ContainerFiles { folder };
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
        unmount(&self.folder, UnmountFlags::DETACH)?;
        fs::remove_dir(&self.folder)
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
}
