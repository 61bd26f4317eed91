//! What supervisor and secure processor say of themselves.

use std::{fs, io::Write as _};

use crate::groups::{Place, eventually};

/// Bytes that `supervisor.log` may have.
const LIMIT: u64 = 256 * 1024;

pub(crate) fn messages_are_bounded_and_the_newest_are_kept() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: what a process that hides itself has open is root's alone to write to");
        return;
    }
    let place = Place::new();
    let group = place.run("wait");
    let (_, record) = group.status().unwrap();
    let log = group.folder().supervisor_log();
    for pid in [record.supervisor_pid, record.processor_pid.unwrap()] {
        // Said in its place, through its own standard error.
        let mut said = fs::File::options().write(true).open(format!("/proc/{pid}/fd/2")).unwrap();
        for number in 0..20_000 {
            writeln!(said, "process {pid} complains for the {number}th time").unwrap();
        }
        let last = format!("process {pid} complains for the 19999th time\n");
        eventually("the last words are in the log", || fs::read_to_string(&log).unwrap().ends_with(&last));
        let length = fs::metadata(&log).unwrap().len();
        assert!((LIMIT / 2..=LIMIT).contains(&length), "{length} bytes");
    }
    let mut said = fs::File::options().write(true).open(format!("/proc/{}/fd/2", record.supervisor_pid)).unwrap();
    said.write_all(b"and nothing more\n").unwrap();
    drop(said);
    group.stop(std::time::Duration::from_secs(1)).unwrap();
    Place::end_of(&group);
    assert!(fs::read_to_string(&log).unwrap().ends_with("and nothing more\n"), "the end waits for the last words");
}
