//! What can be wrong with a layer, sorted by whose fault it is.

use std::{fmt, io};

use caveau_verity::GeometryError;

use crate::tar::TarError;

/// Why a layer was not converted.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry asks for what cannot be done.
    #[error("failed to convert layer: {path}: {reason}")]
    Entry {
        /// The entry's path in the tar.
        path: PathText,
        /// What is wrong with it.
        reason: EntryError,
    },
    /// The image has no hash tree that dm-verity could use.
    #[error("failed to convert layer")]
    Geometry(#[from] GeometryError),
    /// The image would be larger than allowed.
    #[error("failed to convert layer: its image exceeds the limit of {limit} bytes")]
    ImageTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// Writing the image, or reading back from it, failed.
    #[error("failed to write layer image")]
    Sink(#[source] io::Error),
    /// The tar is malformed or cannot be read.
    #[error("failed to convert layer: byte {offset} of the tar")]
    Tar {
        /// Where the header of the entry in question begins, in bytes from the tar's start.
        offset: u64,
        /// What is wrong there.
        #[source]
        source: TarError,
    },
    /// More extended attributes have to be kept than allowed.
    #[error("failed to convert layer: its extended attributes exceed the limit of {limit} bytes")]
    TooManyAttributes {
        /// Bytes allowed.
        limit: u64,
    },
    /// The layer has more names than allowed.
    #[error("failed to convert layer: it has more than the {limit} names that are allowed")]
    TooManyEntries {
        /// Names allowed.
        limit: u64,
    },
}

/// What can be wrong with one entry. The rules are the reference converter's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A file's or symbolic link's data is already in the image and cannot be taken back.
    #[error("cannot overwrite a file that has data already written; remove the earlier entry from the tar")]
    AlreadyWritten,
    /// A directory stands where another kind of entry is to go.
    #[error("cannot replace a directory with a file")]
    DirectoryInTheWay,
    /// A whiteout marks a file with data as opaque, whose data is not there again.
    #[error("cannot mark a file with data as opaque")]
    DataMissing,
    /// Another kind of entry stands where a directory is to go.
    #[error("cannot replace a file with a directory")]
    FileInTheWay,
    /// A file is larger than an image may be.
    #[error("file of {size} bytes is too big: expected at most {limit}")]
    FileTooBig {
        /// Bytes of the file.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A hard link's target is a directory.
    #[error("hard link to a directory: {0}")]
    LinkToDirectory(PathText),
    /// A hard link's target is not in this layer.
    #[error("hard link to {0}, which is not in the tar before it")]
    LinkTargetMissing(PathText),
    /// A name has more bytes than ext4 allows.
    #[error("name of {length} bytes is too long: expected at most 255")]
    NameTooLong {
        /// Bytes of the name.
        length: usize,
    },
    /// A hard link would replace the only name of something.
    #[error("hard link would orphan an existing file or directory")]
    Orphan,
    /// A path leads through something that is not a directory.
    #[error("a parent of it is not a directory")]
    ParentNotDirectory,
    /// More names or subdirectories than ext4 counts.
    #[error("more than the 65000 links that ext4 allows")]
    TooManyLinks,
    /// A long symbolic link is marked opaque, whose target is not there again.
    #[error("cannot mark a symbolic link with a long target as opaque")]
    TargetMissing,
    /// Extended attributes that were stored cannot be read back, since a name is over 255 bytes or empty.
    #[error("its extended attributes cannot be merged, since one of them has a name that ext4 cannot hold")]
    XattrUnreadable,
    /// An extended attribute does not fit.
    #[error("extended attribute {0} does not fit: inode and attribute block are full")]
    XattrTooBig(PathText),
}

impl LayerError {
    /// An entry's error with the entry's path.
    pub(crate) fn entry(path: &[u8], reason: EntryError) -> Self {
        Self::Entry { path: PathText::new(path), reason }
    }
}

/// A path or name from a tar made fit to print: escaped where it is not plain text, cut where it is long.
#[derive(Clone, PartialEq, Eq)]
pub struct PathText(String);

impl PathText {
    /// Longest part of a path that is printed.
    const LIMIT: usize = 200;

    /// From the bytes in the tar.
    pub(crate) fn new(path: &[u8]) -> Self {
        let mut text = String::new();
        for character in String::from_utf8_lossy(path).chars().take(Self::LIMIT) {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        if path.len() > Self::LIMIT {
            text.push('…');
        }
        Self(text)
    }
}

impl From<&str> for PathText {
    fn from(path: &str) -> Self {
        Self::new(path.as_bytes())
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(no name)" } else { &self.0 })
    }
}

impl fmt::Debug for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
