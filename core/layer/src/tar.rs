//! A strict streaming tar reader: v7, ustar, pax, GNU and star headers, read as the reference's tar library (Go's
//! `archive/tar`) reads them, since what it makes of a header decides what is in the image.
//!
//! An own reader rather than the `tar` crate's, because the image depends on details: pax records with binary values
//! and their last occurrence, header fields that pax records override, sparse maps, entries that carry no data whatever
//! their size field says, and where exactly an archive ends.
//!
//! ```text
//! next_entry:  skip rest of data ──> header block ──> x, L, K: keep for the next header, again
//!                                                └──> anything else: an entry
//! ```

mod header;
mod number;
mod pax;
mod sparse;

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
};

use self::{
    header::{Format, Header},
    pax::Records,
    sparse::Run,
};
use crate::{LayerError, time::Moment};

/// Bytes of a tar block.
const TAR_BLOCK: usize = 512;

/// Longest pax header, GNU long name or sparse map that is read, in bytes: the reference's limit.
const MAX_SPECIAL: u64 = 1 << 20;

/// Bytes read ahead. File data larger than this goes past the buffer.
const READ_AHEAD: usize = 64 << 10;

/// What can be wrong with a tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The header's checksum is not the sum of its bytes.
    #[error("failed to read tar header: its checksum is wrong; this is not a tar, or it is damaged")]
    Checksum,
    /// A global pax header sets its own path and has a record that cannot be read; what the reference does is chance.
    #[error("failed to read global pax header: it sets a path and has an unreadable {key} record")]
    GlobalHeader {
        /// The key of the record that sets the path.
        key: &'static str,
    },
    /// One zero block is followed by something else than another.
    #[error("failed to read tar header: a single zero block stands amid the archive")]
    LoneZeroBlock,
    /// A numeric field is neither octal nor a binary number that fits.
    #[error("failed to read tar header: field {field} is not a number: {value:?}")]
    Number {
        /// The field.
        field: &'static str,
        /// Its bytes, escaped.
        value: String,
    },
    /// A pax record is not `length key=value` or has a value of the wrong kind.
    #[error("failed to read pax record: {0}")]
    Pax(String),
    /// The tar cannot be read.
    #[error("failed to read the tar")]
    Read(#[source] io::Error),
    /// A size is negative.
    #[error("failed to read tar header: size {0} is negative")]
    Size(i64),
    /// A sparse file's map does not fit its data.
    #[error("failed to read sparse file: {0}")]
    Sparse(&'static str),
    /// A pax header or long name is too long.
    #[error("failed to read extended header: {bytes} bytes, expected at most {MAX_SPECIAL}")]
    SpecialTooLong {
        /// Bytes that its header announces.
        bytes: u64,
    },
    /// The tar ends within an entry.
    #[error("failed to read the tar: it is truncated")]
    Truncated,
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BlockDevice,
    CharacterDevice,
    Directory,
    Fifo,
    HardLink,
    /// A regular file, and every type that the reference does not know, which it makes regular files.
    Regular,
    Symlink,
}

/// One entry's metadata.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// Bytes of the file's content, holes included.
    pub(crate) size: u64,
    /// Permission bits, and set-user-ID, set-group-ID and sticky bit.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Option<Moment>,
    pub(crate) accessed: Option<Moment>,
    pub(crate) changed: Option<Moment>,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads entries and their data one after another.
pub(crate) struct TarReader<R> {
    reader: BufReader<R>,
    /// Bytes read from the tar so far.
    offset: u64,
    /// Where the current entry's first header begins.
    entry_offset: u64,
    /// Data bytes of the current entry still to be read.
    data_left: u64,
    /// Zero bytes between the current entry's data and the next header.
    padding: usize,
    /// How the current entry's content is put together, the next run last.
    runs: Vec<Run>,
    /// The map names more or less data than there is: found out when the data is read, as in the reference.
    sparse_mismatch: Option<&'static str>,
}

impl<R: Read> TarReader<R> {
    /// Starts at the reader's current position.
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(READ_AHEAD, reader),
            offset: 0,
            entry_offset: 0,
            data_left: 0,
            padding: 0,
            runs: Vec::new(),
            sparse_mismatch: None,
        }
    }

    /// An error with the place of the current entry.
    pub(crate) fn error(&self, source: TarError) -> LayerError {
        LayerError::Tar { offset: self.entry_offset, source }
    }

    /// The next entry, or nothing at the archive's end. Data of the entry before that was not read is passed over.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, LayerError> {
        self.read_entry().map_err(|source| self.error(source))
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let (mut records, mut long_name, mut long_link) = (Records::default(), Vec::new(), Vec::new());
        let mut first = true;
        // What was not read of the entry before is passed over.
        (self.runs, self.sparse_mismatch) = (Vec::new(), None);
        loop {
            let Some(block) = self.next_header(first)? else { return Ok(None) };
            first = false;
            let mut header = Header::parse(&block)?;
            self.begin_data(&header)?;
            match header.type_flag {
                b'x' => records = Records::parse(&self.read_special()?)?,
                b'g' => return header.into_global(Records::parse(&self.read_special()?)?).map(Some),
                b'L' => long_name = until_nul(&self.read_special()?).to_vec(),
                b'K' => long_link = until_nul(&self.read_special()?).to_vec(),
                _ => {
                    header.merge(&records)?;
                    for (field, long) in [(&mut header.path, long_name), (&mut header.link, long_link)] {
                        if !long.is_empty() {
                            *field = long;
                        }
                    }
                    header.settle_old_type();
                    self.begin_data(&header)?;
                    self.begin_content(&mut header, &block, &records)?;
                    return Ok(Some(header.into_entry(records)));
                }
            }
        }
    }

    /// Passes over what is left of the entry before and reads one header block; nothing at the end.
    ///
    /// An archive ends with two zero blocks, or one, or none, or within the padding: the reference takes all of these.
    fn next_header(&mut self, first: bool) -> Result<Option<[u8; TAR_BLOCK]>, TarError> {
        self.skip(self.data_left)?;
        self.data_left = 0;
        let mut block = [0; TAR_BLOCK];
        let padding = block.get_mut(..self.padding).unwrap_or_default();
        let wanted = padding.len();
        if fill(&mut self.reader, padding)? < wanted {
            return Ok(None);
        }
        self.offset = self.offset.saturating_add(wanted as u64);
        self.padding = 0;
        if first {
            self.entry_offset = self.offset;
        }
        if !self.read_block(&mut block)? {
            return Ok(None);
        }
        if block != [0; TAR_BLOCK] {
            return Ok(Some(block));
        }
        if self.read_block(&mut block)? && block != [0; TAR_BLOCK] {
            return Err(TarError::LoneZeroBlock);
        }
        Ok(None)
    }

    /// Reads a whole block and says so, or finds the end of the stream before its first byte.
    fn read_block(&mut self, block: &mut [u8; TAR_BLOCK]) -> Result<bool, TarError> {
        match fill(&mut self.reader, block)? {
            0 => Ok(false),
            TAR_BLOCK => {
                self.offset = self.offset.saturating_add(TAR_BLOCK as u64);
                Ok(true)
            }
            _ => Err(TarError::Truncated),
        }
    }

    /// Sets up the data that follows a header.
    fn begin_data(&mut self, header: &Header) -> Result<(), TarError> {
        let size = if header.has_no_data() { 0 } else { header.size };
        self.data_left = u64::try_from(size).map_err(|_| TarError::Size(size))?;
        self.padding = (self.data_left.wrapping_neg() & (TAR_BLOCK as u64).saturating_sub(1)) as usize;
        Ok(())
    }

    /// Sets up the entry's content: its data as it is, or spread out by a sparse map.
    fn begin_content(
        &mut self,
        header: &mut Header,
        block: &[u8; TAR_BLOCK],
        records: &Records,
    ) -> Result<(), TarError> {
        let map = if header.type_flag == b'S' {
            if header.format != Format::Gnu {
                return Err(TarError::Sparse("the old sparse format needs a GNU header"));
            }
            header.size = number::numeric("realsize", block.get(483..495).unwrap_or_default())?;
            let mut extend = || self.next_block();
            Some(sparse::read_old_map(block, &mut extend)?)
        } else {
            match sparse::Version::of(records) {
                None => None,
                Some(version) => {
                    sparse::override_header(header, records)?;
                    Some(match version {
                        sparse::Version::InRecords => sparse::read_record_map(records)?,
                        sparse::Version::InData => sparse::read_data_map(&mut || self.next_data_block())?,
                    })
                }
            }
        };
        let Some(map) = map else {
            self.runs = vec![Run::Data(self.data_left)];
            return Ok(());
        };
        if header.has_no_data() {
            return Err(TarError::Sparse("an entry without content has a sparse map"));
        }
        let size = u64::try_from(header.size).map_err(|_| TarError::Size(header.size))?;
        let (mut runs, data) = sparse::runs(&map, size)?;
        runs.reverse();
        self.runs = runs;
        self.sparse_mismatch = match data.cmp(&self.data_left) {
            std::cmp::Ordering::Less => Some("it contains data that its map does not name"),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some("its map names data that it does not contain"),
        };
        Ok(())
    }

    /// One block between header and data.
    fn next_block(&mut self) -> Result<[u8; TAR_BLOCK], TarError> {
        let mut block = [0; TAR_BLOCK];
        if self.read_block(&mut block)? { Ok(block) } else { Err(TarError::Truncated) }
    }

    /// One block from the front of the data.
    fn next_data_block(&mut self) -> Result<[u8; TAR_BLOCK], TarError> {
        self.data_left = self.data_left.checked_sub(TAR_BLOCK as u64).ok_or(TarError::Truncated)?;
        self.next_block()
    }

    /// All of a special entry's data.
    fn read_special(&mut self) -> Result<Vec<u8>, TarError> {
        if self.data_left > MAX_SPECIAL {
            return Err(TarError::SpecialTooLong { bytes: self.data_left });
        }
        let mut data = Vec::new();
        self.reader.by_ref().take(self.data_left).read_to_end(&mut data)?;
        if (data.len() as u64) < self.data_left {
            return Err(TarError::Truncated);
        }
        self.offset = self.offset.saturating_add(self.data_left);
        self.data_left = 0;
        Ok(data)
    }

    /// The next run of the current entry's content. The caller reads all of a run of data before it asks again.
    pub(crate) fn next_run(&mut self) -> Result<Option<Run>, LayerError> {
        match self.sparse_mismatch {
            Some(what) => Err(self.error(TarError::Sparse(what))),
            None => Ok(self.runs.pop()),
        }
    }

    /// Reads at least one byte of the current entry's data into a buffer that is no longer than its run.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let count = loop {
            match self.reader.read(buffer) {
                Ok(0) => return Err(self.error(TarError::Truncated)),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error.into())),
            }
        };
        self.offset = self.offset.saturating_add(count as u64);
        self.data_left = self.data_left.saturating_sub(count as u64);
        Ok(count)
    }

    /// Passes over so many bytes.
    fn skip(&mut self, bytes: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())?;
        self.offset = self.offset.saturating_add(skipped);
        if skipped < bytes { Err(TarError::Truncated) } else { Ok(()) }
    }
}

/// Reads until the buffer is full or the stream ends; returns how many bytes came.
fn fill(reader: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<usize> {
    let all = buffer.len();
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => break,
            Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all.saturating_sub(buffer.len()))
}

/// The bytes before the first NUL, or all.
fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(crate) use self::sparse::Run as ContentRun;

#[cfg(test)]
mod tests;
