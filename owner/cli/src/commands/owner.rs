//! `caveau owner`: what a policy's owners may ask of the guest itself. The guest proves itself first, in the same session.

mod copy;
mod process;

use std::{
    io::{self, Read as _},
    path::Path,
    sync::mpsc::{self, Receiver},
    thread,
};

use anyhow::{Context as _, Result};
use caveau_evidence::{Outcome as Judged, Tee, Verdict};
use caveau_group::Capability;
use caveau_protocol::{AgentError, AgentReply, AgentRequest, Capabilities, ErrorKind, Nonce, ProcessSpec, Stream};
use process::{CHUNK, Input, LONG_MS, follow, start};
use serde_json::Value;

use crate::{
    args,
    channel::{Channel, read_key, unexpected},
    commands::verify,
    container,
    exit::{CodedError, ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND, Outcome},
    streams::{self, RawTerminal},
    ui,
};

/// Runs it.
///
/// # Errors
/// Where a key cannot be used, the guest cannot be reached, or it refuses.
pub(crate) fn run(command: args::Owner, json: bool, quiet: bool) -> Result<Outcome> {
    match command {
        args::Owner::Key { file } => key(&file),
        args::Owner::Denials(session) => denials(&session, json, quiet),
        args::Owner::Logs(command) => logs(&command, quiet),
        args::Owner::Exec(command) => exec(&command, quiet),
        args::Owner::Cp(command) => copy::copy(&command, quiet),
    }
}

fn key(file: &Path) -> Result<Outcome> {
    ui::line(container::owner_key(file)?)?;
    Ok(Outcome::Done)
}

/// A session with the guest that is expected; none where it is not, which is told.
fn session(session: &args::Session, quiet: bool) -> Result<Option<Channel>> {
    let key = read_key(&session.key)?;
    let mut channel = Channel::connect(&session.connect, Some(&key))?;
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let nonce = Nonce::try_from(random.to_vec())?;
    let evidence = channel.attest(&nonce)?;
    let emulated = evidence.tee == Tee::EmulatedSnp;
    let judgement = verify::judge_session(&session.expected, evidence, &nonce, quiet)?;
    if judgement.outcome != Judged::Passed {
        let left = |verdict| judgement.checks.iter().filter(move |check| check.verdict == verdict);
        for check in left(Verdict::Failed) {
            ui::complain(&format!("{}: {}", check.name, check.sentence));
        }
        ui::complain(match judgement.outcome {
            Judged::Refused => "the guest is not what is expected: nothing was asked of it",
            _ => {
                "the guest is authentic, and was not held against all of --policy, --reference and --cpus: nothing was \
                 asked of it"
            }
        });
        return Ok(None);
    }
    if emulated {
        ui::warning("the TEE is emulated: the host can read what passes here");
    }
    Ok(Some(channel))
}

fn denials(command: &args::Session, json: bool, quiet: bool) -> Result<Outcome> {
    let Some(mut channel) = session(command, quiet)? else { return Ok(Outcome::Refused) };
    let mut after = 0;
    loop {
        let lines = match channel.call(AgentRequest::Denials { after }, &[])? {
            (AgentReply::Denials, lines) => String::from_utf8(lines).context("the guest's denials are not text")?,
            (other, _) => return Err(unexpected(&other)),
        };
        if lines.is_empty() {
            return Ok(Outcome::Done);
        }
        for line in lines.lines() {
            let denial: Value = serde_json::from_str(line).context("a denial is not JSON")?;
            ui::print(&if json { format!("{line}\n") } else { shown(&denial) })?;
            let number = denial["number"].as_u64().filter(|number| *number > after);
            after = number.context("a denial's number does not follow the one before")?;
        }
    }
}

/// A denial for people: what differed, and the smallest change of the policy that would allow it.
fn shown(denial: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = format!("{}  {} denied\n", denial["number"], text(&denial["point"]));
    for reason in denial["reasons"].as_array().into_iter().flatten() {
        let container = reason.get("container").map(|name| format!("container {}: ", text(name))).unwrap_or_default();
        let (field, expected, got) = (&reason["field"], &reason["expected"], &reason["got"]);
        out.push_str(&format!("   {container}{}: expected {}, got {}\n", text(field), text(expected), text(got)));
    }
    if let Some(change) = denial.get("change") {
        out.push_str(&format!("   would be allowed with this change of the policy: {change}\n"));
    }
    out
}

fn logs(command: &args::OwnerLogs, quiet: bool) -> Result<Outcome> {
    let Some(mut channel) = session(&command.session, quiet)? else { return Ok(Outcome::Refused) };
    let mut open = vec![(Stream::Stdout, 0u64), (Stream::Stderr, 0)];
    while !open.is_empty() {
        let mut still = Vec::new();
        for (stream, from) in open {
            let timeout_ms = if command.follow { LONG_MS } else { 0 };
            let request = AgentRequest::ReadLog { container: None, stream, from, max: CHUNK, timeout_ms };
            let (log, bytes) = match channel.call(request, &[])? {
                (AgentReply::Log(log), bytes) => (log, bytes),
                (other, _) => return Err(unexpected(&other)),
            };
            if log.from > from {
                ui::note(
                    false,
                    &format!("{} bytes before this were forgotten: what is kept is bounded", log.from - from),
                );
            }
            write(stream, &bytes)?;
            let ended = log.eof || (bytes.is_empty() && !command.follow);
            if !ended {
                still.push((stream, log.from.saturating_add(u64::try_from(bytes.len())?)));
            }
        }
        open = still;
    }
    Ok(Outcome::Done)
}

fn write(stream: Stream, bytes: &[u8]) -> Result<()> {
    fn all(mut to: impl io::Write, bytes: &[u8]) -> io::Result<()> {
        to.write_all(bytes)?;
        to.flush()
    }
    match stream {
        Stream::Stdout => all(io::stdout().lock(), bytes)?,
        Stream::Stderr => all(io::stderr().lock(), bytes)?,
    }
    Ok(())
}

/// Runs a program, with the codes of `docker exec`.
fn exec(command: &args::OwnerExec, quiet: bool) -> Result<Outcome> {
    let Some(mut channel) = session(&command.session, quiet)? else {
        // As a failure, so that it is not taken for the program's own code.
        return Err(CodedError { message: "nothing was run".to_owned(), code: ENGINE_FAILED }.into());
    };
    let process = start(&mut channel, process(command))?;
    let raw = if command.tty && command.interactive { RawTerminal::enter()? } else { None };
    let input = command.interactive.then(|| typed().map(Input::of)).transpose()?;
    let code = follow(&mut channel, &process, command.tty, input, &mut write);
    drop(raw);
    Ok(Outcome::Container(code?))
}

/// A refusal with Docker's code for it.
fn coded(error: anyhow::Error) -> anyhow::Error {
    let code = match error.downcast_ref::<AgentError>().map(|error| error.kind) {
        Some(ErrorKind::NotFound) => NOT_FOUND,
        Some(ErrorKind::NotExecutable) => NOT_EXECUTABLE,
        _ => ENGINE_FAILED,
    };
    CodedError { message: format!("{error:#}"), code }.into()
}

fn process(command: &args::OwnerExec) -> ProcessSpec {
    ProcessSpec {
        cwd: command.workdir.clone(),
        user: command.user.clone(),
        terminal: command.tty.then(streams::terminal_size),
        stdin: command.interactive,
        ..program(command.command.clone(), command.env.clone())
    }
}

/// A program with the capabilities that Docker gives, and these variables.
fn program(args: Vec<String>, mut env: Vec<String>) -> ProcessSpec {
    let names: Vec<_> = Capability::docker_defaults().map(|capability| capability.name().to_owned()).collect();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.push(format!("PATH={}", caveau_group::DEFAULT_PATH));
    }
    ProcessSpec {
        args,
        env,
        cwd: "/".to_owned(),
        user: String::new(),
        capabilities: Capabilities {
            bounding: names.clone(),
            effective: names.clone(),
            permitted: names,
            ..Capabilities::default()
        },
        no_new_privileges: true,
        terminal: None,
        stdin: false,
        stdio: true,
    }
}

/// What is typed here, a piece at a time; an empty piece is the end.
fn typed() -> Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(4);
    // Ends with the process: a read of a terminal cannot be called back.
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = io::stdin().lock().read(&mut buffer).unwrap_or(0);
            if sender.send(buffer[..count].to_vec()).is_err() || count == 0 {
                return;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use caveau_cose::KeyKind;
    use caveau_fragment::{PrivateKey, pem};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_key_of_a_policy_is_the_one_that_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        for kind in [KeyKind::Ed25519, KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa] {
            let key = PrivateKey::generate(kind).unwrap();
            std::fs::write(&file, key.to_pem().as_bytes()).unwrap();
            let of_private = container::owner_key(&file).unwrap();
            assert_eq!(read_key(&file).unwrap().digest(), of_private, "{kind}: what TLS shows");
            let public = key.public_key().unwrap().to_spki();
            std::fs::write(&file, pem::write("PUBLIC KEY", &public).as_bytes()).unwrap();
            assert_eq!(container::owner_key(&file).unwrap(), of_private, "{kind}");
            std::fs::write(&file, pem::write("PUBLIC KEY", &public[1..]).as_bytes()).unwrap();
            let error = container::owner_key(&file).unwrap_err();
            assert!(format!("{error:#}").contains("the public key is none of"), "{kind}: {error:#}");
        }
    }

    #[test]
    fn a_denial_is_told_with_all_that_differed_and_what_would_allow_it() {
        let text = shown(&json!({
            "number": 3, "point": "exec_in_container",
            "reasons": [
                {"field": "command", "expected": "[\"true\"]", "got": "[\"false\"]", "container": "db"},
                {"field": "user", "expected": "1", "got": "0"}
            ],
            "change": [{"set": "x"}]
        }));
        let expected = "3  exec_in_container denied\n   container db: command: expected [\"true\"], got [\"false\"]\n   \
                        user: expected 1, got 0\n   would be allowed with this change of the policy: [{\"set\":\"x\"}]\n";
        assert_eq!(text, expected);
    }
}
