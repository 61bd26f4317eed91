//! Output that the host does not get: read as it comes, so that no container waits for a reader, and kept for owners.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use caveau_protocol::{AgentError, AgentReply, ContainerId, Log, Stream};

use crate::{
    answer::{Answer, invalid},
    live::{Seen, chunk, read_within},
};

/// Latest bytes of each stream that are kept.
const KEPT: usize = 128 << 10;

/// Streams that are kept at a time, two for a container; then those that ended first are forgotten.
const MAX_STREAMS: usize = 48;

/// How long a reader waits for one piece.
const PIECE: Duration = Duration::from_secs(60);

/// All sealed output.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    streams: Mutex<Streams>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Streams {
    kept: BTreeMap<(ContainerId, Stream), Kept>,
    /// In the order of their making.
    order: VecDeque<(ContainerId, Stream)>,
}

/// What is kept of one stream.
#[derive(Debug, Default)]
struct Kept {
    /// Bytes that were forgotten.
    from: u64,
    bytes: VecDeque<u8>,
    ended: bool,
}

impl Kept {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let over = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..over);
        self.from = self.from.saturating_add(u64::try_from(over).unwrap_or(u64::MAX));
    }
}

impl Sealed {
    /// Keeps what a container writes from now on.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub(crate) fn keep(self: &Arc<Self>, container: &ContainerId, seen: &Arc<dyn Seen>) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let key = (container.clone(), stream);
            self.begin(key.clone());
            let (sealed, seen) = (Arc::clone(self), Arc::clone(seen));
            let read = move || sealed.read_all(&key, &*seen);
            thread::Builder::new().name("sealed".into()).stack_size(64 << 10).spawn(read)?;
        }
        Ok(())
    }

    fn begin(&self, key: (ContainerId, Stream)) {
        let mut streams = self.lock();
        let Streams { kept, order } = &mut *streams;
        if order.len() >= MAX_STREAMS {
            let ended = order.iter().position(|key| kept.get(key).is_none_or(|stream| stream.ended));
            if let Some(old) = ended.and_then(|place| order.remove(place)) {
                kept.remove(&old);
            }
        }
        kept.insert(key.clone(), Kept::default());
        order.push_back(key);
    }

    /// Reads one stream to its end. What cannot be read is at its end.
    fn read_all(&self, key: &(ContainerId, Stream), seen: &dyn Seen) {
        let source = match key.1 {
            Stream::Stdout => seen.stdio().output(),
            Stream::Stderr => seen.stdio().error(),
        };
        let mut buffer = [0; 4096];
        while let Some(source) = source {
            match read_within(source, &mut buffer, PIECE) {
                Ok(None) => {}
                Ok(Some(count)) if count > 0 => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.change(key, |kept| kept.add(bytes));
                }
                Ok(Some(_)) | Err(_) => break,
            }
        }
        self.change(key, |kept| kept.ended = true);
    }

    fn change(&self, key: &(ContainerId, Stream), change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = self.lock().kept.get_mut(key) {
            change(kept);
        }
        self.grown.notify_all();
    }

    /// What there is of a stream from a place on, waited for until `limit` is over.
    pub(crate) fn read(
        &self,
        container: Option<&ContainerId>,
        stream: Stream,
        from: u64,
        max: u32,
        limit: Duration,
    ) -> Answer {
        let max = chunk(max)?;
        let end = Instant::now().checked_add(limit).ok_or_else(|| invalid("the time is too long"))?;
        let mut streams = self.lock();
        let key = streams.find(container, stream)?;
        loop {
            let kept = streams.kept.get(&key).ok_or_else(|| invalid("what was written is forgotten"))?;
            let start = from.max(kept.from);
            let skip = usize::try_from(start.saturating_sub(kept.from)).unwrap_or(usize::MAX);
            let bytes: Vec<u8> = kept.bytes.iter().skip(skip).take(max).copied().collect();
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            if !bytes.is_empty() || kept.ended || left.is_none() {
                let eof = bytes.is_empty() && kept.ended;
                return Ok((AgentReply::Log(Log { from: start, eof }), bytes));
            }
            let left = left.unwrap_or_default();
            streams = self.grown.wait_timeout(streams, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    /// The stream of this container, or of the only one.
    fn find(&self, container: Option<&ContainerId>, stream: Stream) -> Result<(ContainerId, Stream), AgentError> {
        match container {
            Some(id) => {
                let key = (id.clone(), stream);
                let known = self.kept.contains_key(&key);
                known.then_some(key).ok_or_else(|| invalid(format!("there is no sealed output of a container {id}")))
            }
            None => {
                let mut all = self.kept.keys().filter(|(_, other)| *other == stream);
                match (all.next(), all.next()) {
                    (Some(only), None) => Ok(only.clone()),
                    (None, _) => Err(invalid("no container's output is sealed: the policy gives it to the host")),
                    (Some(_), Some(_)) => Err(invalid("several containers have sealed output: name one")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::OwnedFd};

    use super::*;
    use crate::live::tests::Running;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(20);

    fn id(byte: u8) -> ContainerId {
        ContainerId::from_bytes([byte; 32])
    }

    fn written(ends: [OwnedFd; 3]) -> std::fs::File {
        let [_, output, _] = ends;
        output.into()
    }

    fn read(sealed: &Sealed, from: u64) -> (Vec<u8>, Log) {
        match sealed.read(None, Stream::Stdout, from, 1000, LONG).unwrap() {
            (AgentReply::Log(log), bytes) => (bytes, log),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn output_is_read_from_any_place_until_its_end() {
        let sealed = Arc::new(Sealed::default());
        let (process, ends) = Running::attached();
        sealed.keep(&id(1), &(process as Arc<dyn Seen>)).unwrap();
        let mut output = written(ends);
        output.write_all(b"secret").unwrap();
        assert_eq!(read(&sealed, 0), (b"secret".to_vec(), Log { from: 0, eof: false }));
        assert_eq!(read(&sealed, 3), (b"ret".to_vec(), Log { from: 3, eof: false }));
        assert_eq!(sealed.read(None, Stream::Stdout, 6, 9, SHORT).unwrap().1, b"");
        drop(output);
        assert_eq!(read(&sealed, 6), (vec![], Log { from: 6, eof: true }));
        assert!(sealed.read(Some(&id(2)), Stream::Stdout, 0, 9, SHORT).is_err());
        assert!(sealed.read(None, Stream::Stdout, 0, 0, SHORT).is_err());
    }

    #[test]
    fn what_nobody_reads_is_forgotten_and_stalls_nobody() {
        let sealed = Arc::new(Sealed::default());
        let (process, ends) = Running::attached();
        sealed.keep(&id(1), &(process as Arc<dyn Seen>)).unwrap();
        let mut output = written(ends);
        output.write_all(&vec![b'x'; 3 * KEPT]).unwrap();
        drop(output);
        while !sealed.lock().kept[&(id(1), Stream::Stdout)].ended {
            thread::yield_now();
        }
        let (bytes, log) = read(&sealed, 0);
        assert_eq!((bytes.len(), log), (1000, Log { from: 2 * KEPT as u64, eof: false }));
    }

    #[test]
    fn streams_that_have_ended_make_room() {
        let sealed = Arc::new(Sealed::default());
        for number in 0..MAX_STREAMS as u8 {
            sealed.begin((id(number), Stream::Stdout));
        }
        sealed.change(&(id(3), Stream::Stdout), |kept| kept.ended = true);
        sealed.begin((id(200), Stream::Stdout));
        let streams = sealed.lock();
        assert!(!streams.kept.contains_key(&(id(3), Stream::Stdout)));
        assert!(streams.kept.contains_key(&(id(200), Stream::Stdout)) && streams.kept.len() == MAX_STREAMS);
    }
}
