//! Who is attached to a process: output goes to each of them whole, and the slowest sets the pace.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use caveau_protocol::{Frame, Stream, write_frame};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::control::ServerFrame;

/// The clients attached to one process.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: Vec<Arc<Client>>,
    end: Option<ServerFrame>,
}

/// One attached client's connection, for writing.
#[derive(Debug)]
pub(super) struct Client {
    writer: Mutex<UnixStream>,
    stream: UnixStream,
}

impl Client {
    pub(super) fn new(stream: &UnixStream) -> std::io::Result<Self> {
        Ok(Self { writer: Mutex::new(stream.try_clone()?), stream: stream.try_clone()? })
    }

    /// Sends one frame; waits as long as the client takes. `false` where the client has gone.
    pub(super) fn send(&self, frame: &ServerFrame, body: &[u8]) -> bool {
        let Ok(frame) = Frame::new(frame, body.to_vec()) else { return false };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *writer, &frame).is_ok()
    }

    /// Whether the other side has closed the connection, or this one has.
    pub(super) fn has_left(&self) -> bool {
        let mut watched = [PollFd::new(&self.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let looked = rustix::event::poll(&mut watched, Some(&now));
        looked.is_err() || watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Ends the connection, waking whoever writes to it.
    pub(super) fn cut(&self) {
        // One that has ended already is as good.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Hub {
    /// Adds a client. One that comes after the end hears the end at once.
    pub(super) fn attach(&self, client: Arc<Client>) {
        let mut state = self.state();
        match state.end.clone() {
            None => state.clients.push(client),
            Some(end) => {
                drop(state);
                client.send(&end, &[]);
                client.cut();
            }
        }
    }

    /// Sends output to all; returns when all have taken it.
    pub(super) fn output(&self, stream: Stream, bytes: &[u8]) {
        let clients = self.state().clients.clone();
        let gone: Vec<_> =
            clients.iter().filter(|client| !client.send(&ServerFrame::Bytes { stream }, bytes)).collect();
        if !gone.is_empty() {
            self.state().clients.retain(|client| !gone.iter().any(|other| Arc::ptr_eq(client, other)));
        }
    }

    /// Tells all something that is no output.
    pub(super) fn notice(&self, message: &str) {
        let clients = self.state().clients.clone();
        for client in clients {
            client.send(&ServerFrame::Notice { message: message.to_owned() }, &[]);
        }
    }

    /// Tells all how it ended, and lets them go. Only the first end counts.
    pub(super) fn finish(&self, end: ServerFrame) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end.clone());
        let clients = std::mem::take(&mut state.clients);
        drop(state);
        for client in clients {
            client.send(&end, &[]);
            client.cut();
        }
    }

    /// Cuts all connections, so that nothing waits for a client that does not read.
    pub(super) fn cut(&self) {
        let clients = self.state().clients.clone();
        clients.iter().for_each(|client| client.cut());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, thread};

    use caveau_protocol::{Exit, read_frame};

    use super::*;

    fn attached(hub: &Hub) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        hub.attach(Arc::new(Client::new(&ours).unwrap()));
        theirs
    }

    fn received(stream: &mut UnixStream) -> (Vec<u8>, Option<ServerFrame>) {
        let mut bytes = Vec::new();
        let mut end = None;
        while let Ok(Some(frame)) = read_frame(stream) {
            match frame.header::<ServerFrame>().unwrap() {
                ServerFrame::Bytes { .. } => bytes.extend(frame.body),
                other => end = Some(other),
            }
        }
        (bytes, end)
    }

    const EXIT: ServerFrame = ServerFrame::Exit(Exit { code: 3, out_of_memory: false });

    #[test]
    fn a_slow_client_loses_nothing() {
        let hub = Arc::new(Hub::default());
        let mut slow = attached(&hub);
        let for_writer = Arc::clone(&hub);
        let chunk: Vec<u8> = (0..60_000u32).map(|number| number.to_le_bytes()[0]).collect();
        let sent = chunk.repeat(50);
        let writer = thread::spawn(move || {
            for _ in 0..50 {
                for_writer.output(Stream::Stdout, &chunk);
            }
            for_writer.finish(EXIT);
        });
        let mut first = [0; 1];
        slow.read_exact(&mut first).unwrap();
        assert!(!writer.is_finished(), "three megabytes do not fit a socket's buffer");
        let mut rest = std::io::Cursor::new(first).chain(slow);
        let mut bytes = Vec::new();
        while let Some(frame) = read_frame(&mut rest).unwrap() {
            bytes.extend(frame.body);
        }
        writer.join().unwrap();
        assert_eq!(bytes, sent);
    }

    #[test]
    fn clients_that_leave_do_not_stop_the_others() {
        let hub = Hub::default();
        drop(attached(&hub));
        let mut stays = attached(&hub);
        hub.output(Stream::Stdout, b"a");
        hub.output(Stream::Stderr, b"b");
        hub.finish(EXIT);
        assert_eq!(received(&mut stays), (b"ab".to_vec(), Some(EXIT)));
    }

    #[test]
    fn whoever_comes_late_hears_the_end() {
        let hub = Hub::default();
        hub.finish(EXIT);
        hub.finish(ServerFrame::Lost { reason: "later".into() });
        let mut late = attached(&hub);
        assert_eq!(received(&mut late), (vec![], Some(EXIT)));
    }

    #[test]
    fn cutting_frees_whoever_waits_for_a_client() {
        let hub = Arc::new(Hub::default());
        let _never_reads = attached(&hub);
        let for_writer = Arc::clone(&hub);
        let writer = thread::spawn(move || (0..50).for_each(|_| for_writer.output(Stream::Stdout, &[0; 60_000])));
        while !writer.is_finished() {
            thread::sleep(std::time::Duration::from_millis(5));
            hub.cut();
        }
        writer.join().unwrap();
    }
}
