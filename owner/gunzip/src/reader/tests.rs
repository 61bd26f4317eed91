//! Held against `flate2`, and against streams made to be difficult.

use std::io::Write;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use proptest::prelude::*;

use super::*;

/// Chunks so small that small streams have many.
const SMALL: Cut = Cut { chunk: 8 << 10, overlap: 2 << 10 };
const TINY: Cut = Cut { chunk: 1 << 10, overlap: 1 << 10 };

/// Packs, with a new block after every so many bytes.
fn pack_in_blocks(content: &[u8], level: u32, block: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    for (number, part) in content.chunks(block).enumerate() {
        if number > 0 {
            encoder.flush().unwrap();
        }
        encoder.write_all(part).unwrap();
    }
    encoder.finish().unwrap()
}

fn pack(content: &[u8], level: u32) -> Vec<u8> {
    pack_in_blocks(content, level, usize::MAX)
}

/// The content, and how many guesses came true.
fn unpack_with(packed: &[u8], threads: usize, cut: Cut) -> io::Result<(Vec<u8>, u64)> {
    let mut reader = GunzipReader::with_cut(io::Cursor::new(packed.to_vec()), threads, cut)?;
    let mut out = Vec::new();
    reader.read_to_end(&mut out)?;
    Ok((out, reader.engine.hits))
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    Ok(unpack_with(packed, 1, CUT)?.0)
}

fn reference(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    MultiGzDecoder::new(packed).read_to_end(&mut out)?;
    Ok(out)
}

/// Bytes with runs, repetitions near and far, and noise.
fn content(length: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(length);
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    while out.len() < length {
        let (kind, many) = (random() % 4, 1 + random() % 700);
        match kind {
            0 => out.extend(std::iter::repeat_n(random() as u8, many)),
            1 => out.extend(std::iter::repeat_with(|| random() as u8).take(many)),
            2 => out.extend(std::iter::repeat_with(|| b'a' + (random() % 7) as u8).take(many)),
            _ => {
                let back = (1 + random() % 40_000).min(out.len());
                let start = out.len() - back;
                (0..many.min(back * 50)).for_each(|at| out.push(out[start + at % back.max(1)]));
            }
        }
    }
    out.truncate(length);
    out
}

#[test]
fn large_content_of_every_level_round_trips() {
    let content = content(4_000_000, 7);
    for level in 0..=9 {
        let packed = pack(&content, level);
        for threads in [1, 2, 3] {
            assert!(unpack_with(&packed, threads, CUT).unwrap().0 == content, "level {level}, {threads} threads");
        }
    }
}

#[test]
fn most_guesses_come_true() {
    let content = content(3_000_000, 11);
    let packed = pack_in_blocks(&content, 6, 10_000);
    for threads in [1, 2] {
        let (unpacked, hits) = unpack_with(&packed, threads, SMALL).unwrap();
        assert!(unpacked == content);
        let chunks = (packed.len() / SMALL.chunk) as u64;
        assert!(hits > chunks * 9 / 10, "{hits} of {chunks}");
    }
}

#[test]
fn streams_without_anything_to_guess_at_are_unpacked() {
    // Stored blocks, with headers of blocks in their content; and codes in one block longer than many chunks.
    let inner = pack_in_blocks(&content(300_000, 3), 6, 5000);
    for cut in [SMALL, TINY] {
        assert!(unpack_with(&pack(&inner, 0), 2, cut).unwrap().0 == inner);
    }
    let long = fixed_block(&[0x5a; 200_000]);
    assert!(reference(&long).unwrap() == [0x5a; 200_000]);
    assert!(unpack_with(&long, 2, TINY).unwrap().0 == [0x5a; 200_000]);
}

#[test]
fn a_guess_that_runs_into_its_own_end_leaves_nothing_behind() {
    // The end of a nested stream is taken for one of the outer one, and what follows it for a header. A later guess in
    // the same chunk is right, and goes on to the header of the member after it.
    for length in (1000..40_000).step_by(1500) {
        let inner = pack_in_blocks(&content(length, 3), 6, 700);
        let (near, far) = (content(2_000, 5), content(30_000, 6));
        let packed = [pack(&inner, 0), pack_in_blocks(&near, 6, 500), pack(&far, 6)].concat();
        let expected = [&inner[..], &near, &far].concat();
        assert!(reference(&packed).unwrap() == expected);
        for (threads, cut) in [(1, SMALL), (2, SMALL), (1, TINY), (2, TINY)] {
            let unpacked = unpack_with(&packed, threads, cut);
            assert!(unpacked.unwrap().0 == expected, "{length} bytes, {threads} threads, {cut:?}");
        }
    }
}

/// One block of fixed codes with literals below 144 alone.
fn fixed_block(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut held, mut count) = (0b011_u32, 3);
    let mut put = |bits: u32, many: u32| {
        held |= bits << count;
        count += many;
        while count >= 8 {
            out.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    };
    content.iter().for_each(|byte| put(u32::from((byte + 0x30).reverse_bits()), 8));
    put(0, 7);
    put(0, 7);
    out.extend(crc32fast::hash(content).to_le_bytes());
    out.extend((content.len() as u32).to_le_bytes());
    out
}

#[test]
fn headers_with_everything_are_read() {
    let (name, comment) = ("n".repeat(3000), "c".repeat(2000));
    let header = GzBuilder::new().filename(name).comment(comment).extra(vec![1; 5000]);
    let mut encoder = header.write(Vec::new(), Compression::best());
    encoder.write_all(b"content").unwrap();
    let packed = encoder.finish().unwrap();
    for cut in [CUT, TINY] {
        assert_eq!(unpack_with(&packed, 1, cut).unwrap().0, b"content");
    }
    // A reserved flag, and another method than deflate.
    for (at, value) in [(3, 0x20), (2, 7)] {
        let mut packed = pack(b"content", 6);
        packed[at] = value;
        assert!(unpack(&packed).unwrap_err().to_string().contains("header"));
    }
}

#[test]
fn a_headers_checksum_is_checked() {
    let packed = pack(b"content", 6);
    let mut header = packed[..10].to_vec();
    header[3] = 2;
    let crc = crc32fast::hash(&header) as u16;
    for (crc, good) in [(crc, true), (crc ^ 0x100, false)] {
        let packed = [&header[..], &crc.to_le_bytes(), &packed[10..]].concat();
        assert_eq!(unpack(&packed).is_ok(), good);
    }
}

#[test]
fn every_byte_of_the_trailer_is_checked() {
    let packed = pack(&content(10_000, 3), 6);
    for at in packed.len() - 8..packed.len() {
        let mut damaged = packed.clone();
        damaged[at] ^= 1;
        assert!(unpack(&damaged).unwrap_err().to_string().contains("checksum"), "{at}");
    }
}

#[test]
fn a_match_before_the_beginning_is_refused() {
    // One fixed block: the literal `a`, then a match of three bytes two back; in a second member as well.
    let member = |bits: &[u8]| [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], bits, &[0; 8]].concat();
    let bad = member(&[0x4b, 0x04, 0x42, 0x00]);
    assert!(reference(&bad).is_err());
    let first = pack(&content(50_000, 5), 6);
    for packed in [bad.clone(), [first, bad].concat()] {
        assert!(unpack(&packed).unwrap_err().to_string().contains("match"));
    }
}

#[test]
fn a_stream_cut_off_anywhere_is_an_error() {
    let packed = pack_in_blocks(&content(8000, 9), 6, 2000);
    for length in 0..packed.len() {
        assert!(unpack_with(&packed[..length], 1, TINY).is_err(), "{length}");
    }
}

#[test]
fn what_follows_the_end_is_an_error() {
    let packed = pack(&content(20_000, 9), 6);
    for junk in [&[0][..], b"junk", &[0; 5000], &packed[..40]] {
        assert!(unpack(&[&packed, junk].concat()).is_err());
    }
}

#[test]
fn an_error_stays_one() {
    let packed = pack(&content(20_000, 9), 6);
    let mut reader = GunzipReader::new(io::Cursor::new(packed[..9000].to_vec()), 2).unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
    assert!(reader.read(&mut [0]).is_err());
}

/// Gives a few bytes at a time, then fails.
struct Failing(io::Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let few = buffer.len().min(1 + self.0.position() as usize % 700);
        match self.0.read(&mut buffer[..few])? {
            0 => Err(io::Error::other("the cable is out")),
            read => Ok(read),
        }
    }
}

#[test]
fn an_error_of_the_input_comes_through() {
    let packed = pack(&content(400_000, 9), 6);
    for threads in [1, 2] {
        let input = Failing(io::Cursor::new(packed[..packed.len() / 2].to_vec()));
        let mut reader = GunzipReader::with_cut(input, threads, SMALL).unwrap();
        assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().to_string(), "the cable is out");
    }
}

#[test]
fn a_thread_that_panics_is_an_error() {
    struct Panicking(io::Cursor<Vec<u8>>);
    impl Read for Panicking {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(self.0.position() < 100_000, "a bug");
            self.0.read(buffer)
        }
    }
    let packed = pack(&content(400_000, 9), 6);
    let mut reader = GunzipReader::with_cut(Panicking(io::Cursor::new(packed)), 2, SMALL).unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("has failed"), "{error}");
}

#[test]
fn threads_end_with_a_reader_that_is_given_up() {
    let packed = pack(&content(3_000_000, 9), 6);
    let input = std::sync::Arc::new(());
    struct Held(io::Cursor<Vec<u8>>, #[expect(dead_code, reason = "held")] std::sync::Arc<()>);
    impl Read for Held {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    for read in [0, 1, 300_000] {
        let held = Held(io::Cursor::new(packed.clone()), std::sync::Arc::clone(&input));
        let mut reader = GunzipReader::with_cut(held, 2, SMALL).unwrap();
        reader.read_exact(&mut vec![0; read]).unwrap();
        drop(reader);
        assert_eq!(std::sync::Arc::strong_count(&input), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_flate2(
        length in 0_usize..400_000, seed: u64, level in 0_u32..=9, members in 1_usize..4, block in 500_usize..60_000,
        threads in 1_usize..4, cut in prop::sample::select(vec![CUT, SMALL, TINY]),
    ) {
        let content = content(length, seed);
        let packed = pack_in_blocks(&content, level, block).repeat(members);
        prop_assert!(unpack_with(&packed, threads, cut).unwrap().0 == content.repeat(members));
    }

    #[test]
    fn members_with_streams_in_their_stored_blocks_agree(
        parts in proptest::collection::vec((0_usize..40_000, any::<u64>(), any::<bool>(), 300_usize..9_000), 1..6),
        threads in 1_usize..3, cut in prop::sample::select(vec![SMALL, TINY]),
    ) {
        let (mut packed, mut expected) = (Vec::new(), Vec::new());
        for (length, seed, nested, block) in parts {
            let inner = content(length, seed);
            let (plain, level) = if nested { (pack_in_blocks(&inner, 6, block), 0) } else { (inner, 6) };
            packed.extend(pack_in_blocks(&plain, level, block * 2));
            expected.extend(plain);
        }
        prop_assert!(unpack_with(&packed, threads, cut).unwrap().0 == expected);
    }

    #[test]
    fn reads_of_any_size_give_the_same(length in 0_usize..600_000, seed: u64, sizes in proptest::collection::vec(1_usize..70_000, 1..9)) {
        let content = content(length, seed);
        let mut reader = GunzipReader::with_cut(io::Cursor::new(pack(&content, 6)), 1, SMALL).unwrap();
        let (mut out, mut sizes) = (Vec::new(), sizes.into_iter().cycle());
        loop {
            let mut buffer = vec![0; sizes.next().unwrap()];
            let read = reader.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            out.extend_from_slice(&buffer[..read]);
        }
        prop_assert!(out == content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damage_is_treated_as_flate2_does(
        length in 1_usize..30_000, seed: u64, level in 0_u32..=9, block in 200_usize..9000, threads in 1_usize..3,
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut packed = pack_in_blocks(&content(length, seed), level, block);
        for (place, value) in damages {
            let at = place.index(packed.len());
            packed[at] = value;
        }
        match (unpack_with(&packed, threads, TINY), reference(&packed)) {
            (Ok((ours, _)), Ok(theirs)) => prop_assert!(ours == theirs),
            (Err(_), Err(_)) => {}
            // Reserved flags of the header, which the format wants refused, and nothing else.
            (ours, _) => prop_assert!(packed[3] & 0xe0 != 0 && ours.is_err()),
        }
    }

    #[test]
    fn bits_of_any_kind_are_treated_as_flate2_does(
        dynamic: bool, bits in proptest::collection::vec(any::<u8>(), 1..600),
    ) {
        let mut packed = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255][..], &bits].concat();
        if dynamic {
            packed[10] = packed[10] & !7 | 4;
        }
        prop_assert_eq!(unpack(&packed).is_err(), reference(&packed).is_err());
    }
}
