//! The last step of a new process: execve(2), or a word to the agent on why not.

use std::{
    ffi::{CString, NulError},
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    ptr,
    time::{Duration, Instant},
};

use caveau_group::DEFAULT_PATH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::RuntimeError;

/// Replaces this process; returns only where that failed.
pub(crate) fn execute(args: &[String], env: &[String]) -> io::Error {
    match (strings(args), strings(env)) {
        (Ok(args), Ok(env)) => execute_first(&args, &env, &candidates(args.first(), env.as_slice())),
        (Err(error), _) | (_, Err(error)) => io::Error::new(io::ErrorKind::InvalidInput, error),
    }
}

/// Says on the status pipe why nothing was executed. A process that was executed has closed it.
pub(crate) fn report_failure(status: &OwnedFd, error: &io::Error) {
    let number = error.raw_os_error().unwrap_or(libc::EINVAL);
    if let Ok(pipe) = status.try_clone() {
        // The agent sees an exit code of 255 where even this fails.
        let _ = File::from(pipe).write_all(&number.to_le_bytes());
    }
}

/// Waits until the process has been executed, or says why it was not. Past `limit` it is [`RuntimeError::Stalled`], and may
/// still be executed: the container's root can stop a process of its container at any time.
pub(crate) fn await_execution(status: OwnedFd, program: &str, limit: Duration) -> Result<(), RuntimeError> {
    let end = Instant::now().checked_add(limit);
    let mut waited = [PollFd::new(&status, PollFlags::IN)];
    loop {
        let left = end.and_then(|end| end.checked_duration_since(Instant::now())).unwrap_or_default();
        let left = Timespec::try_from(left).map_err(|error| RuntimeError::Helper(io::Error::other(error)))?;
        match poll(&mut waited, Some(&left)) {
            Ok(0) => {
                let program = program.chars().take(200).collect();
                return Err(RuntimeError::Stalled { program, seconds: limit.as_secs() });
            }
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RuntimeError::Helper(error.into())),
        }
    }
    // Four bytes are written at once, so what is read now is all or the end.
    let mut bytes = vec![0; 4];
    let count = rustix::io::read(&status, bytes.as_mut_slice()).map_err(|error| RuntimeError::Helper(error.into()))?;
    bytes.truncate(count);
    if bytes.is_empty() {
        return Ok(());
    }
    let number = bytes.try_into().map(i32::from_le_bytes).unwrap_or(libc::EIO);
    let program = program.chars().take(200).collect();
    match number {
        libc::ENOENT | libc::ENOTDIR => Err(RuntimeError::NotFound { program }),
        _ => Err(RuntimeError::NotExecutable { program, source: io::Error::from_raw_os_error(number) }),
    }
}

fn strings(texts: &[String]) -> Result<Vec<CString>, NulError> {
    texts.iter().map(|text| CString::new(text.as_bytes())).collect()
}

/// Where the program may be: itself where it has a slash, else in each folder of PATH.
fn candidates(program: Option<&CString>, env: &[CString]) -> Vec<CString> {
    let Some(program) = program else { return Vec::new() };
    if program.as_bytes().contains(&b'/') {
        return vec![program.clone()];
    }
    let path = env.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="));
    path.unwrap_or(DEFAULT_PATH.as_bytes())
        .split(|byte| *byte == b':')
        .map(|folder| if folder.is_empty() { b".".as_slice() } else { folder })
        .filter_map(|folder| CString::new([folder, b"/", program.as_bytes()].concat()).ok())
        .collect()
}

/// Tries each in turn. A folder without the program is passed over; one that cannot be executed is remembered, for a
/// better reason than "not found" in the end. Never falls back to a shell.
fn execute_first(args: &[CString], env: &[CString], candidates: &[CString]) -> io::Error {
    reset_signals();
    let mut reason = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        let error = execve(candidate, args, env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => reason = error,
            _ => return error,
        }
    }
    reason
}

/// Ignored signals stay ignored over execve(2), and Rust's own start-up ignores SIGPIPE.
fn reset_signals() {
    #[expect(unsafe_code, reason = "rustix leaves signal handling to the C library")]
    // SAFETY: the process has one thread and installs the default action, which runs no code of ours.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

fn execve(program: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    #[expect(unsafe_code, reason = "the standard library sorts the environment and may fall back to a shell")]
    // SAFETY: program and both lists are NUL-terminated and outlive the call, which returns only on failure.
    unsafe {
        libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr());
    }
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(program: &str, env: &[&str]) -> Vec<String> {
        let env: Vec<CString> = env.iter().map(|text| CString::new(*text).unwrap()).collect();
        candidates(Some(&CString::new(program).unwrap()), &env)
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_program_is_looked_for_in_its_own_path() {
        assert_eq!(paths("sh", &["A=1", "PATH=/a:/b"]), ["/a/sh", "/b/sh"]);
        assert_eq!(paths("sh", &["PATH=:/b"]), ["./sh", "/b/sh"]);
        assert_eq!(paths("./sh", &["PATH=/a"]), ["./sh"]);
        assert_eq!(paths("/bin/sh", &[]), ["/bin/sh"]);
        assert_eq!(paths("sh", &[]).len(), 6);
    }

    #[test]
    fn what_fails_is_told_by_kind() {
        let outcome = |number: Option<i32>| {
            let (reader, writer) = io::pipe().unwrap();
            let writer = OwnedFd::from(writer);
            if let Some(number) = number {
                report_failure(&writer, &io::Error::from_raw_os_error(number));
            }
            drop(writer);
            await_execution(reader.into(), "prog", Duration::from_secs(60))
        };
        outcome(None).unwrap();
        assert!(matches!(outcome(Some(libc::ENOENT)), Err(RuntimeError::NotFound { program }) if program == "prog"));
        assert!(matches!(outcome(Some(libc::EACCES)), Err(RuntimeError::NotExecutable { .. })));
        assert!(matches!(outcome(Some(libc::ENOEXEC)), Err(RuntimeError::NotExecutable { .. })));
    }

    #[test]
    fn a_process_that_is_held_up_is_given_up() {
        let (reader, _writer) = io::pipe().unwrap();
        let outcome = await_execution(reader.into(), "prog", Duration::from_millis(5));
        assert!(matches!(outcome, Err(RuntimeError::Stalled { program, .. }) if program == "prog"));
    }

    #[test]
    fn programs_that_cannot_run_leave_this_one_running() {
        let missing = execute(&["/nonexistent".to_owned()], &[]);
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        let folder = execute(&["/".to_owned()], &[]);
        assert_eq!(folder.raw_os_error(), Some(libc::EACCES));
        assert_eq!(execute(&["a\0b".to_owned()], &[]).kind(), io::ErrorKind::InvalidInput);
    }
}
