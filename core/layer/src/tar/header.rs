//! One 512-byte header block in the dialects that there are.
//!
//! | offset | bytes | field |  | offset | bytes | field |
//! |---|---|---|---|---|---|---|
//! | 0 | 100 | name |  | 257 | 6 | magic |
//! | 100 | 8 | mode |  | 263 | 2 | version |
//! | 108 | 8 | uid |  | 329 | 8 | device major |
//! | 116 | 8 | gid |  | 337 | 8 | device minor |
//! | 124 | 12 | size |  | 345 | 155 | prefix (ustar), 131 of it in star |
//! | 136 | 12 | mtime |  | 345 | 12 | atime (GNU), 476 in star |
//! | 148 | 8 | checksum |  | 357 | 12 | ctime (GNU), 488 in star |
//! | 156 | 1 | type |  | 508 | 4 | `tar\0` (star) |
//! | 157 | 100 | link name |  | | | |

use std::collections::BTreeMap;

use super::{
    Entry, Kind, TAR_BLOCK, TarError,
    number::{decimal, numeric, octal},
    pax::{Records, parse_time},
    until_nul,
};
use crate::time::Moment;

/// The dialect, told by magic, version and trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gnu,
    Star,
    Ustar,
    V7,
}

/// A header's fields, and what pax records put in their place.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) type_flag: u8,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: i64,
    mode: i64,
    uid: i64,
    gid: i64,
    modified: Option<Moment>,
    accessed: Option<Moment>,
    changed: Option<Moment>,
    device: (i64, i64),
}

/// A field of the block.
fn field(block: &[u8; TAR_BLOCK], offset: usize, length: usize) -> &[u8] {
    block.get(offset..).and_then(|rest| rest.get(..length)).unwrap_or_default()
}

impl Header {
    /// Reads a block whose checksum is right.
    pub(super) fn parse(block: &[u8; TAR_BLOCK]) -> Result<Self, TarError> {
        check_sum(block)?;
        let number = |name, offset, length| numeric(name, field(block, offset, length));
        let mut header = Self {
            format: format(block),
            type_flag: field(block, 156, 1).first().copied().unwrap_or_default(),
            path: until_nul(field(block, 0, 100)).to_vec(),
            link: until_nul(field(block, 157, 100)).to_vec(),
            size: number("size", 124, 12)?,
            mode: number("mode", 100, 8)?,
            uid: number("uid", 108, 8)?,
            gid: number("gid", 116, 8)?,
            modified: Some(Moment::new(number("mtime", 136, 12)?, 0)),
            accessed: None,
            changed: None,
            device: (0, 0),
        };
        if header.format == Format::V7 {
            return Ok(header);
        }
        header.device = (number("devmajor", 329, 8)?, number("devminor", 337, 8)?);
        let prefix = match header.format {
            Format::V7 | Format::Ustar => until_nul(field(block, 345, 155)),
            Format::Star => {
                header.accessed = Some(Moment::new(number("atime", 476, 12)?, 0));
                header.changed = Some(Moment::new(number("ctime", 488, 12)?, 0));
                until_nul(field(block, 345, 131))
            }
            Format::Gnu => header.read_gnu_times(block),
        };
        if !prefix.is_empty() {
            header.path = [prefix, b"/", &header.path].concat();
        }
        Ok(header)
    }

    /// Reads access and change time where GNU has them. Where they are no numbers, the block comes from a writer that
    /// wrongly put a prefix there (Go before 1.8), and that is the result.
    fn read_gnu_times<'a>(&mut self, block: &'a [u8; TAR_BLOCK]) -> &'a [u8] {
        let time = |name, offset| match field(block, offset, 12) {
            [0, ..] => Ok(None),
            bytes => numeric(name, bytes).map(|seconds| Some(Moment::new(seconds, 0))),
        };
        if let (Ok(accessed), Ok(changed)) = (time("atime", 345), time("ctime", 357)) {
            (self.accessed, self.changed) = (accessed, changed);
            return &[];
        }
        let prefix = until_nul(field(block, 345, 155));
        if prefix.is_ascii() { prefix } else { &[] }
    }

    /// Puts pax records in the fields' places; empty values leave a field as it is.
    pub(super) fn merge(&mut self, records: &Records) -> Result<(), TarError> {
        for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
            let bad = || {
                let key = key.escape_ascii();
                TarError::Pax(format!("{key} has the value {:?}", value.escape_ascii().to_string()))
            };
            match key {
                b"path" => self.path = value.to_vec(),
                b"linkpath" => self.link = value.to_vec(),
                b"uid" => self.uid = decimal(value).ok_or_else(bad)?,
                b"gid" => self.gid = decimal(value).ok_or_else(bad)?,
                b"size" => self.size = decimal(value).ok_or_else(bad)?,
                b"mtime" => self.modified = Some(parse_time(value).ok_or_else(bad)?),
                b"atime" => self.accessed = Some(parse_time(value).ok_or_else(bad)?),
                b"ctime" => self.changed = Some(parse_time(value).ok_or_else(bad)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// The oldest type for files also meant directories, told by a slash at the end.
    pub(super) fn settle_old_type(&mut self) {
        if self.type_flag == 0 {
            self.type_flag = if self.path.ends_with(b"/") { b'5' } else { b'0' };
        }
    }

    /// Whether entries of this type have no data, whatever their size field says.
    pub(super) fn has_no_data(&self) -> bool {
        matches!(self.type_flag, b'1'..=b'6')
    }

    /// The entry that the reference makes of a global header: it does not apply the records to the entries that follow,
    /// but takes the header for an empty file, with no owner, mode or time, and the records' extended attributes.
    pub(super) fn into_global(mut self, records: Records) -> Result<Entry, TarError> {
        let sets_path = records.iter().any(|(key, value)| key == b"path" && !value.is_empty());
        // A record that cannot be read drops all extended attributes. Whether it also drops the path depends, in the
        // reference, on the order in which a hash table happens to be walked.
        let readable = self.merge(&records).is_ok();
        if !readable && sets_path {
            return Err(TarError::GlobalHeader { key: "path" });
        }
        Ok(Entry {
            kind: Kind::Regular,
            path: self.path,
            link: Vec::new(),
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            modified: None,
            accessed: None,
            changed: None,
            device: (0, 0),
            xattrs: if readable { records.into_xattrs() } else { BTreeMap::new() },
        })
    }

    /// The entry of any other header. Numbers are cut to the width that ext4 has for them, as in the reference.
    pub(super) fn into_entry(self, records: Records) -> Entry {
        Entry {
            kind: match self.type_flag {
                b'1' => Kind::HardLink,
                b'2' => Kind::Symlink,
                b'3' => Kind::CharacterDevice,
                b'4' => Kind::BlockDevice,
                b'5' => Kind::Directory,
                b'6' => Kind::Fifo,
                _ => Kind::Regular,
            },
            path: self.path,
            link: self.link,
            size: self.size.try_into().unwrap_or_default(),
            mode: self.mode as u16 & 0o7777,
            uid: self.uid as u32,
            gid: self.gid as u32,
            modified: self.modified,
            accessed: self.accessed,
            changed: self.changed,
            device: (self.device.0 as u32, self.device.1 as u32),
            xattrs: records.into_xattrs(),
        }
    }
}

/// Tells the dialect.
fn format(block: &[u8; TAR_BLOCK]) -> Format {
    match (field(block, 257, 6), field(block, 263, 2), field(block, 508, 4)) {
        (b"ustar\0", _, b"tar\0") => Format::Star,
        (b"ustar\0", _, _) => Format::Ustar,
        (b"ustar ", b" \0", _) => Format::Gnu,
        _ => Format::V7,
    }
}

/// Compares the checksum with the sum of all bytes, its own taken as spaces. Old writers summed signed bytes.
fn check_sum(block: &[u8; TAR_BLOCK]) -> Result<(), TarError> {
    let stored = octal("checksum", field(block, 148, 8)).map_err(|_| TarError::Checksum)?;
    let bytes = || {
        let own = 148..156;
        block.iter().enumerate().map(move |(place, byte)| if own.contains(&place) { b' ' } else { *byte })
    };
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    if stored == unsigned || stored == signed { Ok(()) } else { Err(TarError::Checksum) }
}
