//! The image configuration (OCI image specification, config; Docker image specification 1.2).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Digest, OciError, Platform, json, limits};

/// What an image says about how to run it, and the identities of its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Operating system by Go's name: `linux`.
    pub os: String,
    /// Processor architecture by Go's name: `amd64`.
    pub architecture: String,
    /// The architecture's variant, if said.
    pub variant: Option<String>,
    /// The first words of the command; empty if none.
    pub entrypoint: Vec<String>,
    /// The words after the entry point, which a user's own arguments replace; empty if none.
    pub cmd: Vec<String>,
    /// Environment variables, each `NAME=VALUE`, in the image's order.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// The signal that stops the main process, by name (`SIGTERM`) or number; none means SIGTERM.
    pub stop_signal: Option<String>,
    /// Ports, each `port/protocol` or `port`, sorted.
    pub exposed_ports: Vec<String>,
    /// Mount points that hold data of their own, sorted.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of each layer's uncompressed tar, base first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    config: RawRun,
    rootfs: RawRootfs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    #[serde(default, deserialize_with = "json::null_as_default")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    working_dir: String,
    #[serde(default, deserialize_with = "json::null_as_default")]
    user: String,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    volumes: BTreeMap<String, IgnoredAny>,
    #[serde(default, deserialize_with = "json::null_as_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "json::null_as_default")]
    diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Parses a configuration.
    ///
    /// # Errors
    /// [`OciError::Malformed`] if it is not such JSON, [`OciError::TooLarge`] beyond the limits, [`OciError::Invalid`]
    /// if a value could not be given to a process: a NUL byte, a variable without `=`, a relative working directory.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let raw: RawConfig = json::parse("the image's configuration", bytes, limits::MAX_CONFIG_BYTES)?;
        if raw.rootfs.kind != "layers" {
            return Err(invalid(format!("rootfs.type is {:?}, expected \"layers\"", clip(&raw.rootfs.kind))));
        }
        json::check_count("the number of diff IDs", raw.rootfs.diff_ids.len(), limits::MAX_LAYERS)?;
        let run = raw.config;
        let config = Self {
            os: raw.os,
            architecture: raw.architecture,
            variant: raw.variant.filter(|variant| !variant.is_empty()),
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            working_dir: run.working_dir,
            user: run.user,
            stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            labels: run.labels,
            diff_ids: raw.rootfs.diff_ids,
        };
        config.check()?;
        Ok(config)
    }

    /// The platform for which the image was made.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }

    /// Holds every value against the limits and against what a process can be given.
    fn check(&self) -> Result<(), OciError> {
        for (name, list) in [
            ("Entrypoint", &self.entrypoint),
            ("Cmd", &self.cmd),
            ("Env", &self.env),
            ("ExposedPorts", &self.exposed_ports),
            ("Volumes", &self.volumes),
        ] {
            json::check_count(
                "the number of values in a list of the image's configuration",
                list.len(),
                limits::MAX_CONFIG_ENTRIES,
            )?;
            list.iter().try_for_each(|value| check_string(name, value))?;
        }
        json::check_count("the number of labels", self.labels.len(), limits::MAX_CONFIG_ENTRIES)?;
        for (name, value) in &self.labels {
            check_string("Labels", name)?;
            check_string("Labels", value)?;
        }
        for (name, value) in [
            ("os", &self.os),
            ("architecture", &self.architecture),
            ("WorkingDir", &self.working_dir),
            ("User", &self.user),
        ] {
            check_string(name, value)?;
        }
        for (name, value) in [("variant", &self.variant), ("StopSignal", &self.stop_signal)] {
            value.iter().try_for_each(|value| check_string(name, value))?;
        }
        if let Some(bad) = self.env.iter().find(|variable| variable.find('=').is_none_or(|at| at == 0)) {
            return Err(invalid(format!("Env holds {:?}, expected NAME=VALUE", clip(bad))));
        }
        if !self.working_dir.is_empty() && !self.working_dir.starts_with('/') {
            return Err(invalid(format!("WorkingDir is {:?}, expected an absolute path", clip(&self.working_dir))));
        }
        Ok(())
    }
}

fn check_string(name: &'static str, value: &str) -> Result<(), OciError> {
    if value.len() > limits::MAX_STRING_BYTES {
        return Err(invalid(format!(
            "{name} holds a value of {} bytes, more than {}",
            value.len(),
            limits::MAX_STRING_BYTES
        )));
    }
    if value.contains('\0') {
        return Err(invalid(format!("{name} holds {:?}, which has a NUL byte", clip(value))));
    }
    Ok(())
}

fn invalid(reason: String) -> OciError {
    OciError::Invalid { what: "the image's configuration", reason }
}

/// As much of a value as an error should show.
fn clip(value: &str) -> String {
    value.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(run: &str) -> String {
        format!(
            r#"{{"os":"linux","architecture":"amd64","created":"2024-01-01T00:00:00Z","history":[{{}}],"config":{run},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(b"a")
        )
    }

    #[test]
    fn reads_what_docker_writes() {
        let config = ImageConfig::parse(
            with(
                r#"{"Hostname":"","User":"101:101","ExposedPorts":{"80/tcp":{},"443":{}},"Env":["PATH=/bin","E="],
                "Cmd":["-g","daemon off;"],"Image":"x","Volumes":{"/data":{}},"WorkingDir":"/srv","Entrypoint":["/usr/sbin/nginx"],
                "OnBuild":null,"Labels":{"a":"b"},"StopSignal":"SIGQUIT"}"#,
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(config.entrypoint, ["/usr/sbin/nginx"]);
        assert_eq!(config.cmd, ["-g", "daemon off;"]);
        assert_eq!(config.env, ["PATH=/bin", "E="]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "101:101"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config.exposed_ports, ["443", "80/tcp"]);
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.diff_ids, [Digest::of(b"a")]);
        assert_eq!(config.platform(), Platform::linux_amd64());
    }

    #[test]
    fn null_and_absent_mean_empty() {
        let nulls = r#"{"User":"","Env":null,"Cmd":null,"Entrypoint":null,"Volumes":null,"ExposedPorts":null,"Labels":null,"StopSignal":null,"WorkingDir":null}"#;
        let all = [nulls, "{}", "null"].map(|run| ImageConfig::parse(with(run).as_bytes()).unwrap());
        assert!(all.iter().all(|config| *config == all[0] && config.cmd.is_empty() && config.stop_signal.is_none()));
    }

    #[test]
    fn refuses_what_no_process_can_be_given() {
        for run in [
            r#"{"Env":["NOVALUE"]}"#,
            r#"{"Env":["=x"]}"#,
            r#"{"Env":["A=\u0000"]}"#,
            r#"{"WorkingDir":"srv"}"#,
            r#"{"Cmd":"sh"}"#,
            r#"{"Cmd":[1]}"#,
            r#"{"Cmd":["a"],"Cmd":["b"]}"#,
            r#"{"User":"a\u0000b"}"#,
            r#"{"Labels":{"a":1}}"#,
            r#"{"StopSignal":"\u0000"}"#,
        ] {
            assert!(ImageConfig::parse(with(run).as_bytes()).is_err(), "{run}");
        }
        let long = format!(r#"{{"Cmd":["{}"]}}"#, "x".repeat(limits::MAX_STRING_BYTES + 1));
        assert!(ImageConfig::parse(with(&long).as_bytes()).is_err());
        let many = format!(r#"{{"Cmd":[{}"x"]}}"#, r#""x","#.repeat(limits::MAX_CONFIG_ENTRIES));
        assert!(matches!(ImageConfig::parse(with(&many).as_bytes()), Err(OciError::TooLarge { .. })));
        assert!(ImageConfig::parse(with("{}").replace("layers", "squashfs").as_bytes()).is_err());
        assert!(ImageConfig::parse(with("{}").replace("sha256:", "sha512:").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ImageConfig::parse(&bytes);
        }

        #[test]
        fn strings_come_through_unchanged(
            command in proptest::collection::vec("[^\0]{0,20}", 0..6),
            values in proptest::collection::vec("[A-Z]{1,5}=[^\0]{0,20}", 0..6),
        ) {
            let run = serde_json::json!({ "Cmd": command, "Env": values }).to_string();
            let config = ImageConfig::parse(with(&run).as_bytes()).unwrap();
            prop_assert_eq!(config.cmd, command);
            prop_assert_eq!(config.env, values);
        }
    }
}
