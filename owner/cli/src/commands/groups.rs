//! Commands on groups: `ps`, `logs`, `exec`, `stop`, `rm`, `inspect`, `stats`.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use caveau_launch::{Follow, Group, GroupError, LogEntry, StateRoot, Status, list};
use caveau_protocol::{ErrorKind, Exec, Stream};
use serde_json::json;

use crate::{
    args, container,
    exit::{CodedError, ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND, Outcome},
    streams::{self, Ended},
    ui, units,
};

/// The group of that name.
///
/// # Errors
/// Where there is none, or the name is not of the form.
pub(crate) fn open(name: &str) -> Result<Group> {
    Ok(Group::open(&StateRoot::open()?, &name.parse()?)?)
}

/// `caveau ps`.
///
/// # Errors
/// Where the state folder cannot be read.
pub(crate) fn ps(command: &args::Ps, json: bool) -> Result<Outcome> {
    // A group that could not be started, or whose VM went away, is shown until somebody has seen to it and removes it.
    let is_shown = |status: &Status| command.all || !matches!(status, Status::Exited { .. });
    let groups = list(&StateRoot::open()?)?;
    let shown: Vec<_> = groups.into_iter().filter(|group| is_shown(&group.status)).collect();
    if json {
        let rows = shown.iter().map(|group| {
            let record = group.record.as_ref();
            json!({
                "name": group.name, "state": group.status, "status": group.status.to_string(),
                "tee": record.map(|record| record.tee),
                "image": record.and_then(|record| record.containers.first()).map(|container| &container.image),
                "created_ns": record.map(|record| record.created_ns),
                "ports": record.map(|record| &record.ports),
            })
        });
        ui::json(&rows.collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|group| {
            let record = group.record.as_ref();
            let image = record.and_then(|record| record.containers.first()).map(|container| container.image.clone());
            let ports =
                record.map(|record| record.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
            vec![
                group.name.to_string(),
                image.unwrap_or_default(),
                record.map(|record| record.tee.to_string()).unwrap_or_default(),
                group.status.to_string(),
                record.map(|record| age(record.created_ns)).unwrap_or_default(),
                ports.unwrap_or_default(),
            ]
        })
        .collect();
    ui::table(&["NAME", "IMAGE", "TEE", "STATUS", "CREATED", "PORTS"], &rows)?;
    Ok(Outcome::Done)
}

/// How long ago, for people.
fn age(created_ns: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_nanos(created_ns);
    let seconds = SystemTime::now().duration_since(then).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `caveau logs`.
///
/// # Errors
/// Where there is no such group, or its log is damaged.
pub(crate) fn logs(command: &args::Logs, json: bool) -> Result<Outcome> {
    let group = open(&command.name)?;
    let mut log = group.log();
    let print = |entry: &LogEntry| print_entry(entry, command.timestamps, json);
    let mut tail = std::collections::VecDeque::new();
    // With --tail, entries are held back until the log has been read to its present end.
    let mut holding = command.tail;
    loop {
        // Asked before the log is read: what was written until then is read below.
        let live = group.is_live()?;
        loop {
            match log.next_entry()? {
                Follow::Entry(entry) => match holding {
                    Some(most) => {
                        tail.push_back(entry);
                        if tail.len() > most {
                            tail.pop_front();
                        }
                    }
                    None => print(&entry)?,
                },
                // Whoever wants the end alone does not miss the beginning.
                Follow::Gap { .. } if holding.is_some() => {}
                Follow::Gap { files } => {
                    ui::note(false, &format!("{files} older files of the log are gone: it is bounded"));
                }
                Follow::Quiet => break,
            }
        }
        holding = None;
        tail.drain(..).try_for_each(|entry| print(&entry))?;
        if !command.follow || !live {
            return Ok(Outcome::Done);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn print_entry(entry: &LogEntry, timestamps: bool, json: bool) -> Result<()> {
    if json {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, entry)?;
        return Ok(writeln!(out)?);
    }
    let mut line = Vec::new();
    if timestamps {
        line.extend_from_slice(
            format!("{}.{:09} ", entry.time_ns / 1_000_000_000, entry.time_ns % 1_000_000_000).as_bytes(),
        );
    }
    line.extend_from_slice(&entry.bytes());
    match entry.stream {
        Stream::Stdout => io::stdout().lock().write_all(&line)?,
        Stream::Stderr => io::stderr().lock().write_all(&line)?,
    }
    Ok(())
}

/// `caveau exec`.
///
/// # Errors
/// Where it cannot be run: with Docker's codes.
pub(crate) fn exec(command: &args::Exec) -> Result<Outcome> {
    let group = open(&command.name)?;
    let plan = group.plan()?;
    let first = plan.containers.first().context("the group has no container")?;
    let streams = container::Streams { terminal: command.tty.then(streams::terminal_size), stdin: command.interactive };
    let exec = Exec {
        container: first.create.container.clone(),
        process: container::another_process(&first.create.process, command.command.clone(), streams),
    };
    let attachment = group.exec(exec).map_err(|error| {
        let code = match &error {
            GroupError::Agent(error) => match error.kind {
                ErrorKind::NotFound => NOT_FOUND,
                ErrorKind::NotExecutable => NOT_EXECUTABLE,
                _ => ENGINE_FAILED,
            },
            _ => ENGINE_FAILED,
        };
        CodedError { message: format!("{:#}", anyhow::Error::from(error)), code }
    })?;
    match streams::attach(attachment, command.interactive)? {
        Ended::Exit(code) => Ok(Outcome::Container(code)),
        Ended::Lost(reason) => Err(CodedError { message: reason, code: ENGINE_FAILED }.into()),
    }
}

/// `caveau stop`: all groups at once, since each may use its whole time.
///
/// # Errors
/// The first group's that cannot be stopped, after all were tried.
pub(crate) fn stop(command: &args::Stop, quiet: bool) -> Result<Outcome> {
    let groups = command.names.iter().map(|name| open(name)).collect::<Result<Vec<_>>>()?;
    let patience = Duration::from_secs(command.time.into());
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = groups.iter().map(|group| scope.spawn(move || group.stop(patience))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for (name, result) in command.names.iter().zip(results) {
        let report = result.map_err(|_| anyhow::anyhow!("failed to stop {name}"))??;
        report.notes.iter().for_each(|text| ui::note(quiet, &format!("{name}: {text}")));
        ui::line(name)?;
    }
    Ok(Outcome::Done)
}

/// `caveau rm`.
///
/// # Errors
/// Where a group runs and `--force` is not given, among others.
pub(crate) fn rm(command: &args::Rm) -> Result<Outcome> {
    for name in &command.names {
        let group = open(name)?;
        if command.force {
            group.kill()?;
        }
        group.remove()?;
        ui::line(name)?;
    }
    Ok(Outcome::Done)
}

/// `caveau inspect`: always JSON, for it has no other form.
///
/// # Errors
/// Where there is no such group.
pub(crate) fn inspect(command: &args::Name) -> Result<Outcome> {
    let group = open(&command.name)?;
    let (status, record) = group.status()?;
    ui::json(&json!({
        "name": command.name,
        "status": status.to_string(),
        "state": status,
        "folder": group.folder().path(),
        "record": record,
        "plan": group.plan()?,
    }))?;
    Ok(Outcome::Done)
}

/// `caveau stats`.
///
/// # Errors
/// Where the group does not run, or the policy does not allow it.
pub(crate) fn stats(command: &args::Name, json: bool) -> Result<Outcome> {
    let group = open(&command.name)?;
    let stats = group.stats(None)?;
    if json {
        ui::json(&stats)?;
        return Ok(Outcome::Done);
    }
    // Without a bound of its own a container has all of the VM's memory.
    let vm = u64::from(group.plan()?.memory_mib) << 20;
    let limit = units::human(stats.memory_limit_bytes.unwrap_or(vm));
    let row = vec![
        command.name.clone(),
        format!("{:.2} s", Duration::from_micros(stats.cpu_us).as_secs_f64()),
        units::human(stats.memory_bytes),
        units::human(stats.memory_peak_bytes),
        limit,
        stats.pids.to_string(),
        units::human(stats.network_received_bytes),
        units::human(stats.network_sent_bytes),
        units::human(stats.agent_memory_bytes),
    ];
    ui::table(&["NAME", "CPU", "MEMORY", "PEAK", "LIMIT", "PIDS", "RECEIVED", "SENT", "AGENT"], &[row])?;
    Ok(Outcome::Done)
}
