//! Other processes: programs that keep logins, and a second one that wants the same layer. The example `pull` is that
//! process.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use caveau_oci::Digest;
use caveau_registry::Store;

use crate::server::{Reply, Server};
use crate::support::{Parts, Place, diff_ids, layer, noise};
use crate::wire::honest;

/// A process that pulls `app:v1` of `server` into the store of `place`; ended when dropped.
struct Puller(Child);

impl Puller {
    fn command(place: &Place, server: &Server) -> Command {
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        program.push("examples/pull");
        assert!(program.is_file(), "{} is not built: `cargo test -p caveau-registry` builds it", program.display());
        let mut command = Command::new(program);
        command.arg(place.store.root()).arg(format!("{}/app:v1", server.address));
        command.env("DOCKER_CONFIG", place.path("docker")).stdin(Stdio::null());
        command
    }

    fn start(place: &Place, server: &Server) -> Self {
        let mut command = Self::command(place, server);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Reads what it tells until an event begins with `word`.
    fn reaches(&mut self, word: &str) {
        let lines = BufReader::new(self.0.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        for line in lines {
            if line.starts_with(word) {
                return;
            }
            seen.push(line);
        }
        panic!("it ended instead: {seen:?}");
    }

    /// Waits for its end: what it printed, and what it told since the last look.
    fn ends(mut self) -> (String, String) {
        // Standard error first: it is the longer one, and nobody else reads it.
        let told = std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap();
        let printed = std::io::read_to_string(self.0.stdout.take().unwrap()).unwrap();
        assert!(self.0.wait().unwrap().success(), "{told}");
        (printed, told)
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An image of one layer.
fn one_layer() -> Parts {
    Parts::new(&[layer(&[("big", &noise(4_000_000, 3))])])
}

/// A server that answers the first request for the layer with half of it, and the second, for the rest, when it is told
/// to; and which says when that one has come.
fn stalling(parts: &Parts) -> (Server, Receiver<()>, Sender<()>) {
    let (parts, blob) = (parts.clone(), format!("blobs/{}", Digest::of(&parts.layers[0].1)));
    let ((stalls, stalled), (go_on, told)) = (channel(), channel::<()>());
    let (stalls, told, asked) = (Mutex::new(stalls), Mutex::new(told), AtomicUsize::new(0));
    let server = Server::new(move |request| {
        let reply = honest(&parts, request);
        if !request.target.ends_with(&blob) {
            return reply;
        }
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Reply { cut: Some(reply.body.len() / 2), ..reply },
            1 => {
                stalls.lock().unwrap_or_else(PoisonError::into_inner).send(()).unwrap();
                // The test goes on, or has ended.
                let _ = told.lock().unwrap_or_else(PoisonError::into_inner).recv();
                reply
            }
            _ => reply,
        }
    });
    (server, stalled, go_on)
}

#[test]
fn a_second_process_waits_for_the_layer_that_the_first_converts() {
    let (place, parts) = (Place::new(), one_layer());
    let (server, stalled, go_on) = stalling(&parts);
    let first = Puller::start(&place, &server);
    stalled.recv().unwrap();
    let mut second = Puller::start(&place, &server);
    second.reaches("LayerAwaited");
    go_on.send(()).unwrap();
    let ((printed, told), (again, told_again)) = (first.ends(), second.ends());
    assert!(told.contains("LayerStored") && !told_again.contains("LayerStored"), "{told_again}");
    assert!(told_again.contains("LayerCached"), "{told_again}");
    assert_eq!(printed, again);
    assert!(printed.starts_with(&parts.layers[0].0.to_string()), "{printed}");
}

#[test]
fn a_killed_process_leaves_nothing_that_is_served() {
    let (place, parts) = (Place::new(), one_layer());
    let (server, stalled, go_on) = stalling(&parts);
    let mut first = Puller::start(&place, &server);
    stalled.recv().unwrap();
    let mut second = Puller::start(&place, &server);
    second.reaches("LayerAwaited");
    let of = |part: &str| place.files().into_iter().filter(|file| file.starts_with(part)).collect::<Vec<_>>();
    assert_eq!(of("tmp/").len(), 1, "the layer is being written");
    // SIGKILL, in the middle of the layer.
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    // Who waits for it takes over, and uses what had come.
    let (printed, told) = second.ends();
    assert!(["LayerStarted", "LayerResumed", "LayerStored"].iter().all(|event| told.contains(event)), "{told}");
    drop(go_on);
    let elsewhere = Place::new();
    let image = elsewhere.resolve(&format!("{}/app:v1", server.address)).unwrap();
    assert_eq!(printed, format!("{} {}\n", diff_ids(&image)[0], image.layers[0].root));
    let stored = place.resolve(&format!("{}/app:v1", server.address)).unwrap();
    let made = |image: &caveau_registry::Image| fs::read(&image.layers[0].path).unwrap();
    assert!(made(&stored) == made(&image), "another layer was stored");
    Store::open(place.store.root()).unwrap();
    assert_eq!(of("tmp/"), Vec::<String>::new(), "what the killed process left is swept");
    assert_eq!(of("partial/"), Vec::<String>::new(), "what had come is not needed any more");
}

/// A folder with programs `docker-credential-*` in it, which `PATH` names first.
struct Helpers {
    folder: PathBuf,
    path: std::ffi::OsString,
}

impl Helpers {
    fn new(place: &Place) -> Self {
        let folder = place.path("programs");
        fs::create_dir(&folder).unwrap();
        let usual = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([folder.clone()].into_iter().chain(std::env::split_paths(&usual))).unwrap();
        Self { folder, path }
    }

    /// Installs one. Another process writes it: what this one has open for writing, a child that is just being started
    /// by another test may have open too, and such a file cannot be run.
    fn add(&self, name: &str, script: &str) {
        let path = self.folder.join(format!("docker-credential-{name}"));
        let mut install =
            Command::new("install").args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped()).spawn();
        let install = install.as_mut().unwrap();
        install.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(install.wait().unwrap().success());
    }
}

/// Pulls with a configuration of Docker's.
fn pull_with(place: &Place, server: &Server, helpers: &Helpers, config: &str) -> Output {
    fs::create_dir_all(place.path("docker")).unwrap();
    fs::write(place.path("docker/config.json"), config).unwrap();
    // What is remembered of the image would need no registry.
    fs::remove_dir_all(place.store.root().join("images")).unwrap();
    Puller::command(place, server).env("PATH", &helpers.path).output().unwrap()
}

#[test]
fn logins_come_from_helpers_that_are_found_on_the_path() {
    let (place, parts) = (Place::new(), Parts::small());
    let server = Server::new(move |request| {
        let user = request.headers.get("authorization").and_then(|value| value.strip_prefix("Basic "));
        let user = user.and_then(|user| String::from_utf8(BASE64_STANDARD.decode(user).ok()?).ok()).unwrap_or_default();
        match user.split_once(':') {
            // The helper's secret is for the server that it was asked about.
            Some(("helped", secret)) if secret == format!("for {}", request.headers["host"]) => honest(&parts, request),
            Some(("written", "down")) => honest(&parts, request),
            _ => Reply::status(401).with("www-authenticate", "Basic realm=\"r\""),
        }
    });
    let helpers = Helpers::new(&place);
    helpers.add("mine", r#"[ "$1" = get ] && printf '{"Username":"helped","Secret":"for %s"}' "$(cat)""#);
    helpers.add("empty", "cat > /dev/null; echo credentials not found in native keychain; exit 1");
    helpers.add("broken", "cat > /dev/null; echo the keychain is locked; exit 1");
    let address = &server.address;
    let auths = format!(r#""auths":{{"{address}":{{"auth":"{}"}}}}"#, BASE64_STANDARD.encode("written:down"));
    let for_it = |helper: &str| format!(r#""credHelpers":{{"{address}":"{helper}"}}"#);
    for config in [
        for_it("mine"),
        r#""credsStore":"mine""#.to_owned(),
        // A helper of the registry's own goes before the one for all.
        format!(r#"{},"credsStore":"broken""#, for_it("mine")),
        // What the store does not have may stand in the configuration.
        format!(r#"{auths},"credsStore":"empty""#),
        format!(r#"{auths},"credHelpers":{{"other.example":"broken"}}"#),
    ] {
        let output = pull_with(&place, &server, &helpers, &format!("{{{config}}}"));
        assert!(output.status.success(), "{config}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for (config, says) in [
        (r#""credsStore":"empty""#.to_owned(), "there is none for it"),
        (format!(r#"{auths},"credsStore":"broken""#), "the keychain is locked"),
        (format!(r#"{auths},"credsStore":"absent""#), "docker-credential-absent"),
        // Docker asks only the registry's own helper, too.
        (format!("{auths},{}", for_it("empty")), "there is none for it"),
    ] {
        let output = pull_with(&place, &server, &helpers, &format!("{{{config}}}"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(says), "{config}: {told}");
    }
}
