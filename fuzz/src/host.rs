//! What the owner's and the host's programs read back: guest descriptions, QEMU's words, logs of what a guest wrote.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use caveau_guest_image::{AgentContents, GuestFolder, Sha256, Tee, read_manifest};
use caveau_launch::{Follow, LogEntry, LogReader, Qmp};
use caveau_protocol::Stream;

use crate::Target;
use crate::archives::Place;

/// agent.json, what is in a guest's agent: what is accepted is written and read back the same, and leads nowhere else.
pub(crate) const AGENT_CONTENTS: Target =
    Target { name: "agent_contents", run: agent_contents, seeds: agents, fixtures: &[], rounds: 600 };

/// guest.json, a verifier's reference values: what is accepted is written and read back the same.
pub(crate) const GUEST_MANIFEST: Target =
    Target { name: "guest_manifest", run: guest_manifest, seeds: manifests, fixtures: &[], rounds: 600 };

/// QEMU's control connection.
pub(crate) const QMP: Target = Target { name: "qmp", run: qmp, seeds: qmp_lines, fixtures: &[], rounds: 300 };

/// A group's log.
pub(crate) const LOG_FILE: Target =
    Target { name: "log_file", run: log_file, seeds: log_lines, fixtures: &[], rounds: 600 };

fn agent_contents(data: &[u8]) {
    let path = Path::new("agent.json");
    let Ok(contents) = AgentContents::parse(path, data) else { return };
    let again = AgentContents::parse(path, contents.to_json().as_bytes()).expect("what was written can be read");
    assert_eq!(again, contents);
    let there = |id: &String| contents.crates.iter().any(|info| info.id() == *id);
    assert!(there(&contents.agent) && contents.crates.iter().flat_map(|info| &info.dependencies).all(there));
}

fn agents() -> Vec<Vec<u8>> {
    let sha256 = Sha256::of(b"program");
    let text = format!(
        r#"{{"format":1,"program":"{sha256}","agent":"a@0.1.0","crates":[
        {{"name":"a","version":"0.1.0","origin":"workspace","license":"MIT","role":"linked","dependencies":["b@1.0.0+x"]}},
        {{"name":"b","version":"1.0.0+x","origin":"registry","checksum":"{sha256}","role":"procedural-macro","dependencies":[]}}],
        "libraries":[{{"file":"libc.a","sha256":"{sha256}","package":"libc6-dev","version":"2","license":"LGPL"}}]}}"#
    );
    vec![text.into_bytes()]
}

fn guest_manifest(data: &[u8]) {
    let place = Place::new();
    let path = place.file("guest.json", data);
    let Ok(manifest) = read_manifest(&path) else { return };
    let again = place.file("guest.json", manifest.to_json().as_bytes());
    assert_eq!(read_manifest(&again).expect("what was written can be read"), manifest);
    let folder = again.parent().expect("a file is in a folder");
    let guest = GuestFolder::open(folder).expect("what was written can be opened");
    for tee in [Tee::Snp, Tee::EmulatedSnp] {
        if let Ok(files) = guest.tee(tee) {
            let all = files.firmware.iter().chain([&files.kernel, &files.initrd, &files.cmdline]);
            all.for_each(|path| assert_eq!(path.parent(), Some(folder), "a part outside the guest's folder"));
        }
    }
}

fn manifests() -> Vec<Vec<u8>> {
    let sha256 = Sha256::of(b"part");
    let part = format!(r#"{{"bytes":4,"sha256":"{sha256}"}}"#);
    let text = format!(
        r#"{{"format":1,"svn":2,"agent":{{"version":"0.1.0","sha256":"{sha256}"}},
        "kernel":{{"release":"6.12","banner":"Linux version 6.12"}},
        "modules":[],"parts":{{"vmlinuz":{part},"initrd.img":{part},"cmdline.snp":{part},"OVMF.fd":{part}}},
        "tees":{{"snp":{{"kernel":"vmlinuz","initrd":"initrd.img","cmdline":"cmdline.snp","firmware":["OVMF.fd"],"launch_digests":[]}}}}}}"#
    );
    let build = format!(
        r#""build":{{"source_sha256":"{sha256}","commit":"0","compiler":"rustc","c_compiler":"gcc","target":"x86_64","profile":"guest","flags":["-C"]}}"#
    );
    let recorded = text.replace(r#""version":"0.1.0","#, &format!(r#""version":"0.1.0",{build},"#));
    let package = r#""packages":{"OVMF.fd":{"name":"ovmf","version":"1","path":"/usr/share/OVMF.fd"}},"tees""#;
    vec![text.into_bytes(), recorded.replace(r#""tees""#, package).into_bytes()]
}

fn qmp(data: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    thread::scope(|scope| {
        scope.spawn(|| {
            // A client that gave up takes no more.
            drop((&theirs).write_all(data));
            drop(theirs.shutdown(Shutdown::Write));
            drop((&theirs).read_to_end(&mut Vec::new()));
        });
        // The other side hangs up: no limit is waited for.
        if let Ok(mut qmp) = Qmp::connect(ours, Duration::from_secs(600)) {
            drop(qmp.run_state());
            let _ = qmp.wait_event("SHUTDOWN", Duration::ZERO);
        }
    });
}

fn qmp_lines() -> Vec<Vec<u8>> {
    let greeting = r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10}},"capabilities":["oob"]}}"#;
    let event = r#"{"timestamp":{"seconds":1,"microseconds":2},"event":"SHUTDOWN","data":{"guest":true}}"#;
    let status = r#"{"return":{"status":"running","running":true}}"#;
    let refused = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
    let lines = |lines: &[&str]| lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
    vec![lines(&[greeting, r#"{"return":{}}"#, event, status]), lines(&[greeting, event, refused])]
}

fn log_file(data: &[u8]) {
    let place = Place::new();
    let path = place.file("0000000001.jsonl", data);
    let mut reader = LogReader::open(path.parent().expect("a file is in a folder"));
    for _ in 0..data.len() + 2 {
        match reader.next_entry() {
            Ok(Follow::Entry(entry)) => drop(entry.bytes()),
            Ok(Follow::Gap { .. }) => {}
            Ok(Follow::Quiet) | Err(_) => return,
        }
    }
    panic!("a log of {} bytes has more entries than bytes", data.len());
}

fn log_lines() -> Vec<Vec<u8>> {
    let entry = |stream, text: Option<&str>, base64: Option<&str>| {
        let (text, base64) = (text.map(str::to_owned), base64.map(str::to_owned));
        let entry = LogEntry { time_ns: 1_780_000_000_000_000_000, container: "main".to_owned(), stream, text, base64 };
        serde_json::to_vec(&entry).expect("an entry can be written")
    };
    let lines = [
        entry(Stream::Stdout, Some("a line\n"), None),
        entry(Stream::Stderr, None, Some("/wA=")),
        entry(Stream::Stdout, None, None),
    ];
    vec![[lines.join(&b'\n'), b"\n".to_vec()].concat(), lines[0].clone()]
}
