//! A real registry on the loopback interface: Debian's docker-registry.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::{eventually, free_port, images_folder};

/// A registry that speaks plain HTTP; ended when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    /// Its host and port.
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Starts an empty one.
    ///
    /// # Panics
    /// Where it does not start: `cargo xtask setup` installs it.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = format!("127.0.0.1:{}", free_port());
        let config = folder.path().join("config.yml");
        let storage = json!({"filesystem": {"rootdirectory": folder.path().join("data")}});
        let http = json!({"addr": address, "secret": "test"});
        // JSON is YAML.
        let text = json!({"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": http});
        fs::write(&config, text.to_string()).expect("its configuration is written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("docker-registry starts");
        let registry = Self { process, address, _folder: folder };
        eventually(|| Ok(std::net::TcpStream::connect(&registry.address)?)).expect("the registry answers");
        registry
    }

    /// Pushes a test image with skopeo; gives the reference by which `caveau run` takes it.
    ///
    /// # Panics
    /// Where skopeo fails.
    #[must_use]
    pub fn push(&self, image: &str) -> String {
        let layout = format!("oci:{}:latest", images_folder().join(image).display());
        let reference = format!("{}/tests/{image}:latest", self.address);
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &layout]);
        let output = command.arg(format!("docker://{reference}")).output().expect("skopeo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
