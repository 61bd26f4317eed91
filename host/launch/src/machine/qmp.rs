//! A small client of QEMU's machine protocol (QMP specification, "QMP wire protocol").

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Greatest length of a line in bytes. QEMU's own answers stay far below.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// What can go wrong with QEMU's control connection.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU closed the connection: it has ended.
    #[error("QEMU closed its control connection")]
    Closed,
    /// QEMU says no.
    #[error("QEMU refused {command}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        description: String,
    },
    /// QEMU did not answer in time.
    #[error("QEMU did not answer {command} within {seconds} s")]
    Silent {
        /// The command.
        command: String,
        /// The limit.
        seconds: u64,
    },
    /// The connection failed.
    #[error("failed to talk to QEMU")]
    Stream(#[source] io::Error),
}

/// The connection to one QEMU. A thread reads it all the time, so that events never pile up in QEMU.
#[derive(Debug)]
pub struct Qmp {
    writer: UnixStream,
    replies: Receiver<Value>,
    events: Arc<Events>,
    limit: Duration,
}

/// What events have told so far.
#[derive(Debug, Default)]
struct Events {
    seen: Mutex<Vec<String>>,
    changed: Condvar,
}

/// Most event names that are remembered; each is kept once.
const MAX_EVENT_NAMES: usize = 64;

impl Qmp {
    /// Greets QEMU over `stream` and enters command mode; each exchange may take `limit`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn connect(stream: UnixStream, limit: Duration) -> Result<Self, QmpError> {
        let reader = stream.try_clone().map_err(QmpError::Stream)?;
        let (sender, replies) = mpsc::channel();
        let events = Arc::new(Events::default());
        let for_reader = Arc::clone(&events);
        std::thread::Builder::new()
            .name("qmp".into())
            .spawn(move || read_all(reader, &sender, &for_reader))
            .map_err(QmpError::Stream)?;
        let mut qmp = Self { writer: stream, replies, events, limit };
        qmp.receive("its greeting")?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and gives what it returns.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        self.send(command, arguments)?;
        let mut reply = self.receive(command)?;
        if let Some(error) = reply.get("error") {
            let description = error["desc"].as_str().unwrap_or("without a reason").to_owned();
            return Err(QmpError::Refused { command: command.to_owned(), description });
        }
        Ok(reply["return"].take())
    }

    /// Asks QEMU to leave, without waiting for what it says: whether it does is seen by its end.
    ///
    /// # Errors
    /// [`QmpError`] where it cannot be asked.
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.send("quit", &json!({}))
    }

    /// QEMU's run state: `running`, `prelaunch`, `internal-error` …
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn run_state(&mut self) -> Result<String, QmpError> {
        let status = self.execute("query-status", &json!({}))?;
        Ok(status["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether an event of that name has come; waits for it at most `limit`.
    #[must_use]
    pub fn wait_event(&self, name: &str, limit: Duration) -> bool {
        let start = Instant::now();
        let mut seen = self.events.seen.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if seen.iter().any(|event| event == name) {
                return true;
            }
            let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else { return false };
            seen = self.events.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<(), QmpError> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes()).map_err(closed_or_failed)
    }

    fn receive(&self, command: &str) -> Result<Value, QmpError> {
        self.replies.recv_timeout(self.limit).map_err(|error| match error {
            RecvTimeoutError::Disconnected => QmpError::Closed,
            RecvTimeoutError::Timeout => {
                QmpError::Silent { command: command.to_owned(), seconds: self.limit.as_secs() }
            }
        })
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        // Ends the reading thread; a connection that is down already is as good.
        let _ = self.writer.shutdown(std::net::Shutdown::Both);
    }
}

/// Hands replies to whoever waits and notes events, until the connection ends.
fn read_all(stream: UnixStream, replies: &Sender<Value>, events: &Events) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(count) if count > 0 => {}
            _ => break,
        }
        let Ok(value) = serde_json::from_slice::<Value>(&line) else { break };
        if let Some(event) = value.get("event").and_then(Value::as_str) {
            events.note(event);
        } else if replies.send(value).is_err() {
            break;
        }
    }
    events.changed.notify_all();
}

impl Events {
    fn note(&self, name: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MAX_EVENT_NAMES && !seen.iter().any(|event| event == name) {
            seen.push(name.to_owned());
        }
        self.changed.notify_all();
    }
}

/// A broken pipe means that QEMU has gone.
fn closed_or_failed(error: io::Error) -> QmpError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
        _ => QmpError::Stream(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}"#;

    /// A peer that greets, then answers each line with the next of `answers`.
    fn peer(answers: Vec<&'static str>) -> (UnixStream, std::thread::JoinHandle<Vec<String>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            writeln!(theirs, "{GREETING}").unwrap();
            let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            let mut asked = Vec::new();
            for answer in answers {
                asked.push(lines.next().unwrap().unwrap());
                theirs.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (ours, thread)
    }

    #[test]
    fn commands_get_their_replies_and_events_are_kept_apart() {
        let answers = vec![
            "{\"return\": {}}\n",
            "{\"event\": \"RESUME\", \"timestamp\": {}}\n{\"return\": {\"status\": \"running\"}}\n{\"event\": \"SHUTDOWN\"}\n",
        ];
        let (stream, thread) = peer(answers);
        let mut qmp = Qmp::connect(stream, Duration::from_secs(10)).unwrap();
        assert_eq!(qmp.run_state().unwrap(), "running");
        assert!(qmp.wait_event("RESUME", Duration::from_secs(10)));
        assert!(qmp.wait_event("SHUTDOWN", Duration::from_secs(10)));
        assert!(!qmp.wait_event("STOP", Duration::from_millis(1)));
        let asked = thread.join().unwrap();
        assert!(asked[0].contains("qmp_capabilities") && asked[1].contains("query-status"), "{asked:?}");
    }

    #[test]
    fn refusals_carry_the_reason() {
        let (stream, _thread) = peer(vec![
            "{\"return\": {}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n",
        ]);
        let mut qmp = Qmp::connect(stream, Duration::from_secs(10)).unwrap();
        let error = qmp.execute("device_add", &json!({})).unwrap_err();
        assert_eq!(error.to_string(), "QEMU refused device_add: no such thing");
    }

    #[test]
    fn a_peer_that_ends_or_is_silent_is_named() {
        let (stream, thread) = peer(vec!["{\"return\": {}}\n"]);
        let mut qmp = Qmp::connect(stream, Duration::from_secs(10)).unwrap();
        thread.join().unwrap();
        assert!(matches!(qmp.run_state(), Err(QmpError::Closed)));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(matches!(Qmp::connect(ours, Duration::from_millis(20)), Err(QmpError::Silent { .. })));
    }

    #[test]
    fn garbage_ends_the_connection() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"hello?\n").unwrap();
        assert!(matches!(Qmp::connect(ours, Duration::from_secs(10)), Err(QmpError::Closed)));
    }
}
