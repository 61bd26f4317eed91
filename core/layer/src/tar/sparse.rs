//! Sparse files: the old GNU format, and the three that GNU puts into pax records (GNU tar manual, "Storing Sparse
//! Files").

use super::{
    MAX_SPECIAL, TAR_BLOCK, TarError,
    header::Header,
    number::{decimal, numeric},
    pax::{Records, SPARSE_MAP},
};

/// A piece of data: where it belongs in the file, and its length, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    offset: i64,
    length: i64,
}

/// What a file's content is made of, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// So many bytes from the tar.
    Data(u64),
    /// So many zeros.
    Zeros(u64),
}

/// Where a pax entry's map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// In front of the data (1.0).
    InData,
    /// In the records (0.0 and 0.1).
    InRecords,
}

impl Version {
    /// The version that the records tell, if any that is known.
    pub(super) fn of(records: &Records) -> Option<Self> {
        match (records.value(b"GNU.sparse.major"), records.value(b"GNU.sparse.minor")) {
            (b"0", b"0" | b"1") => Some(Self::InRecords),
            (b"1", b"0") => Some(Self::InData),
            (b"", b"") if !records.value(SPARSE_MAP).is_empty() => Some(Self::InRecords),
            _ => None,
        }
    }
}

/// Name and size of a sparse file are in records of their own, since the usual ones describe what is stored.
pub(super) fn override_header(header: &mut Header, records: &Records) -> Result<(), TarError> {
    let name = records.value(b"GNU.sparse.name");
    if !name.is_empty() {
        header.path = name.to_vec();
    }
    let size = match records.value(b"GNU.sparse.size") {
        b"" => records.value(b"GNU.sparse.realsize"),
        size => size,
    };
    if !size.is_empty() {
        header.size = decimal(size).ok_or(TarError::Sparse("its size is not a number"))?;
    }
    Ok(())
}

/// The old GNU map: four entries in the header, 21 in each block that extends it.
pub(super) fn read_old_map(
    header: &[u8; TAR_BLOCK],
    extend: &mut dyn FnMut() -> Result<[u8; TAR_BLOCK], TarError>,
) -> Result<Vec<Fragment>, TarError> {
    const ENTRY: usize = 24;
    let mut map = Vec::new();
    let mut array = header.get(386..483).unwrap_or_default().to_vec();
    let mut total = array.len() as u64;
    while total < MAX_SPECIAL {
        let entries = array.chunks_exact(ENTRY);
        let extended = entries.remainder().first().is_some_and(|flag| *flag > 0);
        for entry in entries.take_while(|entry| entry.first().is_some_and(|first| *first != 0)) {
            let (offset, length) = entry.split_at_checked(ENTRY / 2).unwrap_or_default();
            map.push(Fragment { offset: numeric("sparse offset", offset)?, length: numeric("sparse length", length)? });
        }
        if !extended {
            return Ok(map);
        }
        array = extend()?.to_vec();
        total = total.saturating_add(TAR_BLOCK as u64);
    }
    Err(TarError::Sparse("its map is too long"))
}

/// The map of formats 0.0 and 0.1: one record with all numbers, and one with how many entries there are.
pub(super) fn read_record_map(records: &Records) -> Result<Vec<Fragment>, TarError> {
    let bad = TarError::Sparse("its map does not have as many entries as it says");
    let count = decimal(records.value(b"GNU.sparse.numblocks")).and_then(|count| usize::try_from(count).ok());
    let map = records.value(SPARSE_MAP);
    let numbers: Vec<_> =
        if map.is_empty() { Vec::new() } else { map.split(|byte| *byte == b',').map(decimal).collect() };
    if count.and_then(|count| count.checked_mul(2)) != Some(numbers.len()) {
        return Err(bad);
    }
    fragments(&numbers)
}

/// The map of format 1.0, in front of the data: lines with the number of entries and the entries' two numbers each,
/// then whatever fills the last block.
pub(super) fn read_data_map(
    next: &mut dyn FnMut() -> Result<[u8; TAR_BLOCK], TarError>,
) -> Result<Vec<Fragment>, TarError> {
    let mut text = Vec::new();
    let mut lines = 0_u64;
    let mut read_lines = |text: &mut Vec<u8>, wanted: u64| {
        while lines < wanted {
            if text.len() as u64 >= MAX_SPECIAL {
                return Err(TarError::Sparse("its map is too long"));
            }
            let block = next()?;
            lines = lines.saturating_add(block.iter().filter(|byte| **byte == b'\n').count() as u64);
            text.extend(block);
        }
        Ok(())
    };
    read_lines(&mut text, 1)?;
    let count = text.split(|byte| *byte == b'\n').next().and_then(decimal).and_then(|count| u64::try_from(count).ok());
    // The reference's own integers are 64 bits wide: twice the count must fit them.
    let count = count.filter(|count| *count <= i64::MAX.unsigned_abs() / 2);
    let count = count.ok_or(TarError::Sparse("the number of its map's entries is not a number"))?;
    let wanted = count.saturating_mul(2).saturating_add(1);
    read_lines(&mut text, wanted)?;
    let numbers = text.split(|byte| *byte == b'\n').skip(1).map(decimal);
    fragments(&numbers.take(usize::try_from(count.saturating_mul(2)).unwrap_or(usize::MAX)).collect::<Vec<_>>())
}

/// Numbers two by two.
fn fragments(numbers: &[Option<i64>]) -> Result<Vec<Fragment>, TarError> {
    let pairs = numbers.as_chunks::<2>().0.iter();
    let map: Option<Vec<_>> =
        pairs.map(|[offset, length]| Some(Fragment { offset: (*offset)?, length: (*length)? })).collect();
    map.ok_or(TarError::Sparse("its map has something that is not a number"))
}

/// Turns a map into runs that fill the file, and the bytes of data among them.
///
/// Fragments must be in order, apart from one another, and within the file.
pub(super) fn runs(map: &[Fragment], size: u64) -> Result<(Vec<Run>, u64), TarError> {
    let bad = TarError::Sparse("its map's entries overlap, are out of order or beyond its end");
    let (mut runs, mut end, mut data) = (Vec::new(), 0_u64, 0_u64);
    for fragment in map {
        let place = u64::try_from(fragment.offset).ok().zip(u64::try_from(fragment.length).ok());
        let place = place.filter(|(offset, length)| {
            *offset >= end && offset.checked_add(*length).is_some_and(|fragment_end| fragment_end <= size)
        });
        let Some((offset, length)) = place else { return Err(bad) };
        runs.push(Run::Zeros(offset.saturating_sub(end)));
        runs.push(Run::Data(length));
        end = offset.saturating_add(length);
        data = data.saturating_add(length);
    }
    runs.push(Run::Zeros(size.saturating_sub(end)));
    runs.retain(|run| !matches!(run, Run::Data(0) | Run::Zeros(0)));
    Ok((runs, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: i64, length: i64) -> Fragment {
        Fragment { offset, length }
    }

    #[test]
    fn runs_fill_the_file() {
        let map = [fragment(2, 5), fragment(18, 3), fragment(25, 0)];
        let expected = [Run::Zeros(2), Run::Data(5), Run::Zeros(11), Run::Data(3), Run::Zeros(4)];
        assert_eq!(runs(&map, 25).unwrap(), (expected.to_vec(), 8));
        assert_eq!(runs(&[], 0).unwrap(), (vec![], 0));
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        for map in [
            [fragment(-1, 1), fragment(5, 1)],
            [fragment(0, -1), fragment(5, 1)],
            [fragment(0, 6), fragment(5, 1)],
            [fragment(0, 1), fragment(10, 1)],
            [fragment(0, 1), fragment(i64::MAX, i64::MAX)],
        ] {
            assert!(runs(&map, 10).is_err(), "{map:?}");
        }
    }

    #[test]
    fn a_map_in_front_of_the_data_ends_with_its_block() {
        let mut blocks = vec![*b"2\n0\n3\n9\n"; 1].into_iter().map(|text| {
            let mut block = [0; TAR_BLOCK];
            block[..8].copy_from_slice(&text);
            block[8..10].copy_from_slice(b"1\n");
            block
        });
        let map = read_data_map(&mut || blocks.next().ok_or(TarError::Truncated)).unwrap();
        assert_eq!(map, [fragment(0, 3), fragment(9, 1)]);
        let endless = read_data_map(&mut || Ok([b'1'; TAR_BLOCK]));
        assert!(matches!(endless, Err(TarError::Sparse("its map is too long"))));
    }
}
