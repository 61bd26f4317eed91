//! A container from an image's configuration and what was asked on top, by Docker's rules.

use std::collections::BTreeSet;

use caveau_verity::RootHash;

use crate::{
    Capabilities, Capability, Container, DEFAULT_PATH, EnvRule, ExecProcess, GroupError, Limits, Mount, Seccomp,
    Signal, User, limits,
};

/// What an image says about how it is run (OCI image specification, "Image Configuration"), and its layers.
///
/// `Volumes`, `ExposedPorts` and labels change nothing about what runs: a volume's path is part of the container's own
/// file system.
#[derive(Clone, Debug, Default)]
pub struct ImageParts {
    /// Where the image came from; for people.
    pub reference: String,
    /// Root hashes of its layers, base first.
    pub layers: Vec<RootHash>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, `NAME=value` each.
    pub env: Vec<String>,
    /// `WorkingDir`; empty is `/`.
    pub working_dir: String,
    /// `User`; empty is root.
    pub user: String,
    /// `StopSignal`; SIGTERM where absent.
    pub stop_signal: Option<String>,
}

/// What was asked on top of the image.
#[derive(Clone, Debug)]
pub struct Overrides {
    /// The container's name.
    pub name: String,
    /// Arguments instead of the image's `Cmd`; empty keeps it.
    pub args: Vec<String>,
    /// Instead of the image's `Entrypoint`; its `Cmd` is then not used either.
    pub entrypoint: Option<Vec<String>>,
    /// Further variables, `NAME=value` each; one of the same name replaces the image's.
    pub env: Vec<String>,
    /// Instead of the image's `WorkingDir`.
    pub working_dir: Option<String>,
    /// Instead of the image's `User`.
    pub user: Option<String>,
    /// Memory file systems.
    pub tmpfs: Vec<Mount>,
    /// Capabilities beyond Docker's 14.
    pub cap_add: Vec<Capability>,
    /// Capabilities to go without.
    pub cap_drop: Vec<Capability>,
    /// Run elevated.
    pub privileged: bool,
    /// `execve` may gain no privileges.
    pub no_new_privileges: bool,
    /// Root file system read-only.
    pub read_only: bool,
    /// Whether the host gets the streams. On by default; they are how `caveau run` and `caveau logs` show anything.
    pub stdio: bool,
    /// Whether its processes may be given a terminal, and with it the variable `TERM=xterm`.
    pub terminal: bool,
    /// Commands that the host may run in it.
    pub exec: Vec<Vec<String>>,
    /// Signals that the host may send its first process, beyond SIGINT, SIGKILL, SIGTERM and the image's stop signal.
    pub signals: Vec<Signal>,
    /// No evidence of the group before it was started.
    pub must_run: bool,
    /// Every mount must be there.
    pub require_mounts: bool,
    /// Bounds on what it uses.
    pub limits: Limits,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            args: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            working_dir: None,
            user: None,
            tmpfs: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            no_new_privileges: false,
            read_only: false,
            stdio: true,
            terminal: false,
            exec: Vec::new(),
            signals: Vec::new(),
            must_run: false,
            require_mounts: false,
            limits: Limits::default(),
        }
    }
}

impl Overrides {
    /// Checks all that can be checked without an image, so that a mistake is told before an image is fetched.
    ///
    /// # Errors
    /// As [`Container::from_image`].
    pub fn check(&self) -> Result<(), GroupError> {
        check_name(&self.name)?;
        self.user.as_deref().map(str::parse::<User>).transpose()?;
        if let Some(path) = &self.working_dir {
            absolute_working_dir(path)?;
        }
        environment(&[], self)?;
        exec(self)?;
        mounts(self)?;
        self.limits.check()?;
        limits::strings("argument", &self.args)?;
        self.entrypoint.iter().try_for_each(|entrypoint| limits::strings("argument", entrypoint))
    }
}

impl Container {
    /// The container that an image and overrides describe. It may be started once.
    ///
    /// # Errors
    /// A [`GroupError`] names the first value that is not of its form or exceeds a limit.
    pub fn from_image(image: ImageParts, overrides: Overrides) -> Result<Self, GroupError> {
        check_name(&overrides.name)?;
        let user: User = overrides.user.as_deref().unwrap_or(&image.user).parse()?;
        let capabilities = capabilities(&overrides, &user);
        let seccomp = (!overrides.privileged).then(|| Seccomp::docker_default(&capabilities.bounding));
        overrides.limits.check()?;
        let mounts = mounts(&overrides)?;
        let required = mounts.iter().filter(|_| overrides.require_mounts);
        Ok(Self {
            name: overrides.name.clone(),
            env: environment(&image.env, &overrides)?,
            command: command(&image, &overrides)?,
            working_dir: working_dir(&image, &overrides)?,
            signals: signals(&image, &overrides)?,
            exec: exec(&overrides)?,
            required_mounts: required.map(|mount| mount.destination.clone()).collect(),
            mounts,
            layers: layers(image.layers)?,
            image: image.reference,
            user,
            capabilities,
            seccomp,
            no_new_privileges: overrides.no_new_privileges,
            privileged: overrides.privileged,
            read_only: overrides.read_only,
            stdio: overrides.stdio,
            max_starts: Some(1),
            must_run: overrides.must_run,
            after: Vec::new(),
            limits: overrides.limits,
        })
    }
}

/// A name as Docker allows it.
fn check_name(name: &str) -> Result<(), GroupError> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if starts && plain && name.len() <= 128 {
        return Ok(());
    }
    Err(GroupError::invalid(
        "container name",
        name,
        "at most 128 letters, digits, `_`, `.` and `-`, a letter or digit first",
    ))
}

fn layers(layers: Vec<RootHash>) -> Result<Vec<RootHash>, GroupError> {
    if layers.is_empty() {
        return Err(GroupError::NoLayers);
    }
    limits::within("the number of layers", layers.len(), limits::MAX_LAYERS)?;
    Ok(layers)
}

/// Entry point and arguments. Another entry point leaves the image's arguments behind, as they were not meant for it.
fn command(image: &ImageParts, overrides: &Overrides) -> Result<Vec<String>, GroupError> {
    let (entrypoint, default_args) = match &overrides.entrypoint {
        Some(entrypoint) => (entrypoint, &[][..]),
        None => (&image.entrypoint, &image.cmd[..]),
    };
    let args = if overrides.args.is_empty() { default_args } else { &overrides.args[..] };
    let command: Vec<String> = entrypoint.iter().chain(args).cloned().collect();
    check_command(&command)?;
    Ok(command)
}

fn check_command(command: &[String]) -> Result<(), GroupError> {
    if command.first().is_none_or(String::is_empty) {
        return Err(GroupError::NoCommand);
    }
    limits::strings("argument", command)
}

/// The image's variables and the ones on top, the last of each name, in the order in which names first come; with a search
/// path where there is none, as Docker adds it. Each is required: the host can leave none out.
fn environment(image: &[String], overrides: &Overrides) -> Result<Vec<EnvRule>, GroupError> {
    limits::strings("variable", image)?;
    limits::strings("variable", &overrides.env)?;
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for variable in image.iter().chain(&overrides.env) {
        let name = match variable.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            _ => return Err(GroupError::invalid("variable", variable, "NAME=value")),
        };
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = variable,
            None => variables.push((name, variable)),
        }
    }
    let path = format!("PATH={DEFAULT_PATH}");
    if !variables.iter().any(|(name, _)| *name == "PATH") {
        variables.insert(0, ("PATH", &path));
    }
    let mut rules: Vec<_> = variables
        .iter()
        .map(|(_, variable)| EnvRule::Exact { value: (*variable).to_owned(), required: true })
        .collect();
    if overrides.terminal && !variables.iter().any(|(name, _)| *name == "TERM") {
        rules.push(EnvRule::Exact { value: "TERM=xterm".to_owned(), required: false });
    }
    Ok(rules)
}

fn working_dir(image: &ImageParts, overrides: &Overrides) -> Result<String, GroupError> {
    absolute_working_dir(overrides.working_dir.as_deref().unwrap_or(&image.working_dir))
}

fn absolute_working_dir(given: &str) -> Result<String, GroupError> {
    // Images are written with a slash at the end now and then.
    let trimmed = given.trim_end_matches('/');
    let path = if trimmed.is_empty() { "/" } else { trimmed };
    limits::absolute_path("working directory", path)?;
    Ok(path.to_owned())
}

/// Docker's 14, more and fewer; everything for a privileged container.
fn capabilities(overrides: &Overrides, user: &User) -> Capabilities {
    if overrides.privileged {
        return Capabilities::privileged();
    }
    let mut allowed: BTreeSet<Capability> = Capability::docker_defaults().collect();
    allowed.extend(&overrides.cap_add);
    allowed.retain(|capability| !overrides.cap_drop.contains(capability));
    Capabilities::for_user(&allowed, !user.is_numbered_other())
}

fn signals(image: &ImageParts, overrides: &Overrides) -> Result<Vec<Signal>, GroupError> {
    let mut signals = BTreeSet::from([Signal::INT, Signal::KILL, Signal::TERM]);
    if let Some(stop) = image.stop_signal.as_deref().filter(|text| !text.is_empty()) {
        signals.insert(stop.parse()?);
    }
    signals.extend(&overrides.signals);
    Ok(signals.into_iter().collect())
}

fn exec(overrides: &Overrides) -> Result<Vec<ExecProcess>, GroupError> {
    limits::within("the number of exec commands", overrides.exec.len(), limits::MAX_ITEMS)?;
    overrides
        .exec
        .iter()
        .map(|command| {
            check_command(command)?;
            Ok(ExecProcess { command: command.clone(), signals: vec![Signal::INT, Signal::KILL, Signal::TERM] })
        })
        .collect()
}

fn mounts(overrides: &Overrides) -> Result<Vec<Mount>, GroupError> {
    limits::within("the number of mounts", overrides.tmpfs.len(), limits::MAX_ITEMS)?;
    let mut seen = BTreeSet::new();
    for mount in &overrides.tmpfs {
        if !seen.insert(&mount.destination) {
            return Err(GroupError::invalid("mount", &mount.destination, "given once"));
        }
    }
    Ok(overrides.tmpfs.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Group, IdName, Permissions};

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn nginx() -> ImageParts {
        ImageParts {
            reference: "docker.io/library/nginx:1".to_owned(),
            layers: vec!["ab".repeat(32).parse().unwrap()],
            entrypoint: strings(&["/docker-entrypoint.sh"]),
            cmd: strings(&["nginx", "-g", "daemon off;"]),
            env: strings(&["PATH=/usr/bin", "NGINX_VERSION=1", "A=1"]),
            stop_signal: Some("SIGQUIT".to_owned()),
            ..ImageParts::default()
        }
    }

    fn exact(container: &Container) -> Vec<(&str, bool)> {
        container
            .env
            .iter()
            .map(|rule| match rule {
                EnvRule::Exact { value, required } => (value.as_str(), *required),
                EnvRule::Pattern { .. } => panic!("no patterns by default"),
            })
            .collect()
    }

    #[test]
    fn an_image_runs_as_docker_runs_it() {
        let container = Container::from_image(nginx(), Overrides::default()).unwrap();
        assert_eq!(container.command, ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]);
        assert_eq!(container.working_dir, "/");
        assert_eq!(container.user.user, IdName::Id(0));
        assert_eq!(container.capabilities.effective.len(), 14);
        assert!(!container.no_new_privileges && !container.privileged && container.stdio);
        assert_eq!(container.signals.iter().map(|signal| signal.number()).collect::<Vec<_>>(), [2, 3, 9, 15]);
        assert_eq!(exact(&container), [("PATH=/usr/bin", true), ("NGINX_VERSION=1", true), ("A=1", true)]);
        assert!(container.seccomp.is_some() && container.mounts.is_empty() && container.exec.is_empty());
    }

    #[test]
    fn overrides_follow_dockers_rules() {
        let args = Overrides { args: strings(&["-v"]), ..Overrides::default() };
        assert_eq!(Container::from_image(nginx(), args).unwrap().command, ["/docker-entrypoint.sh", "-v"]);
        let entrypoint = Overrides { entrypoint: Some(strings(&["/bin/sh"])), ..Overrides::default() };
        assert_eq!(Container::from_image(nginx(), entrypoint).unwrap().command, ["/bin/sh"]);
        let env = Overrides { env: strings(&["A=2", "B=", "B=3"]), terminal: true, ..Overrides::default() };
        let container = Container::from_image(nginx(), env).unwrap();
        assert_eq!(
            exact(&container),
            [("PATH=/usr/bin", true), ("NGINX_VERSION=1", true), ("A=2", true), ("B=3", true), ("TERM=xterm", false)]
        );
        let privileged = Overrides { privileged: true, ..Overrides::default() };
        let container = Container::from_image(nginx(), privileged).unwrap();
        assert!(container.seccomp.is_none() && container.capabilities.inheritable.len() == 41);
        let user = Overrides { user: Some("101".to_owned()), ..Overrides::default() };
        assert!(Container::from_image(nginx(), user).unwrap().capabilities.effective.is_empty());
    }

    #[test]
    fn what_cannot_be_said_exactly_is_refused() {
        let refuse =
            |image: ImageParts, overrides: Overrides| Container::from_image(image, overrides).unwrap_err().to_string();
        let default = Overrides::default;
        let env = |text: &str| Overrides { env: vec![text.to_owned()], ..default() };
        assert!(refuse(nginx(), env("NAME")).contains("invalid variable \"NAME\": it must be NAME=value"));
        assert!(refuse(nginx(), env("=x")).contains("NAME=value"));
        assert!(refuse(nginx(), env("A=\0")).contains("NUL"));
        assert!(refuse(nginx(), env(&format!("A={}", "x".repeat(limits::MAX_STRING)))).contains("too much"));
        let nothing = ImageParts { entrypoint: Vec::new(), cmd: Vec::new(), ..nginx() };
        assert_eq!(refuse(nothing, default()), GroupError::NoCommand.to_string());
        assert_eq!(refuse(ImageParts { layers: Vec::new(), ..nginx() }, default()), GroupError::NoLayers.to_string());
        let relative = Overrides { working_dir: Some("tmp".to_owned()), ..default() };
        assert!(refuse(nginx(), relative).contains("working directory"));
        assert!(refuse(nginx(), Overrides { name: "../x".to_owned(), ..default() }).contains("container name"));
        let tmpfs = vec!["/a".parse().unwrap(), "/a".parse().unwrap()];
        assert!(refuse(nginx(), Overrides { tmpfs, ..default() }).contains("given once"));
    }

    #[test]
    fn mistakes_are_told_before_there_is_an_image() {
        Overrides::default().check().unwrap();
        let fine =
            Overrides { env: vec!["A=1".to_owned()], working_dir: Some("/a/".to_owned()), ..Overrides::default() };
        fine.check().unwrap();
        type Mistake = fn(&mut Overrides);
        let mistakes: [(&str, Mistake); 7] = [
            ("container name", |all| all.name = "-".to_owned()),
            ("user", |all| all.user = Some("a:b:c".to_owned())),
            ("working directory", |all| all.working_dir = Some("tmp".to_owned())),
            ("variable", |all| all.env = vec!["A".to_owned()]),
            ("no program", |all| all.exec = vec![Vec::new()]),
            ("given once", |all| all.tmpfs = vec!["/a".parse().unwrap(), "/a".parse().unwrap()]),
            ("argument", |all| all.args = vec!["\0".to_owned()]),
        ];
        for (words, mistake) in mistakes {
            let mut overrides = Overrides::default();
            mistake(&mut overrides);
            let error = overrides.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error} does not contain {words}");
            assert_eq!(Container::from_image(nginx(), overrides).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn groups_have_containers_with_names_of_their_own() {
        let container = Container::from_image(nginx(), Overrides::default()).unwrap();
        let group = |containers| Group::new(containers, Permissions::default());
        assert_eq!(group(Vec::new()), Err(GroupError::Empty));
        assert!(group(vec![container.clone()]).is_ok());
        assert!(group(vec![container.clone(), container]).unwrap_err().to_string().contains("given once"));
    }

    proptest! {
        #[test]
        fn equal_inputs_give_equal_containers_and_no_input_panics(
            env in proptest::collection::vec("\\PC{0,20}", 0..5),
            user in "\\PC{0,12}",
            working_dir in "\\PC{0,12}",
        ) {
            let image = ImageParts { env, user, working_dir, ..nginx() };
            let first = Container::from_image(image.clone(), Overrides::default());
            prop_assert_eq!(first, Container::from_image(image, Overrides::default()));
        }
    }
}
