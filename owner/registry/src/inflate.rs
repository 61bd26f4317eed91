//! Unpacking of layers: gzip (RFC 1952, several members), zstd (RFC 8878, several frames, skippable ones) or plain tar.

use std::io::{self, BufRead, Read};

use caveau_gunzip::GunzipReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::pipe::{CHUNK_BYTES, PipeReader, PipeWriter, fill, pipe};

/// The largest window that a zstd frame may ask for. All of it is kept, so it must fit into what a layer's conversion is
/// promised to take, 64 MiB. Decoders are to take 8 MiB (RFC 8878, section 3.1.1.1.2), which is what `zstd` needs up to
/// level 19 and what tools for images use; the best level of the Go library that these have asks for 32 MiB.
const MAX_ZSTD_WINDOW: u64 = 32 << 20;

/// Threads that unpack gzip beside the one that reads: so many pay where nothing else is to be done meanwhile.
pub(crate) const GZIP_THREADS: usize = 2;

/// Reads the unpacked bytes of a stream whose first bytes say how it is packed.
pub(crate) enum Unpacker<R> {
    Gzip(Box<GunzipReader<R>>),
    Plain(R),
    Zstd(Box<ZstdFrames<R>>),
}

/// The unpacked bytes of a layer's tar that may be packed with gzip or zstd; its first bytes say how. The first buffer of
/// `input` must hold four of them if there are as many. Unpacking goes on in threads of its own, a little ahead of who
/// reads.
///
/// # Errors
/// Where the first bytes cannot be read. Broken packing is an error of the reader that comes back.
pub fn unpacked<R: BufRead + Send + 'static>(input: R) -> io::Result<impl Read> {
    Ok(match Unpacker::new(input, GZIP_THREADS)? {
        Unpacker::Zstd(mut frames) => {
            let (writer, reader) = pipe();
            std::thread::Builder::new().name("unpack".to_owned()).spawn(move || {
                match pump(&mut frames, &writer, |_| Ok(())) {
                    Ok(()) => writer.finish(),
                    Err(error) => writer.fail(error),
                }
            })?;
            Unpacked::Ahead(reader)
        }
        // It has threads of its own, or needs none.
        unpacker => Unpacked::Direct(unpacker),
    })
}

/// What [`unpacked`] gives.
enum Unpacked<R> {
    Ahead(PipeReader),
    Direct(Unpacker<R>),
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Ahead(pipe) => pipe.read(buffer),
            Self::Direct(unpacker) => unpacker.read(buffer),
        }
    }
}

/// Sends on all that `source` gives, in whole chunks but for the last, after asking `check` about each chunk's length.
/// A reader that has gone away ends it without an error: it knows why.
pub(crate) fn pump(
    source: &mut dyn Read,
    out: &PipeWriter,
    mut check: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let mut chunk = out.buffer();
        let read = fill(source, &mut chunk)?;
        check(read as u64)?;
        chunk.truncate(read);
        let ended = read < CHUNK_BYTES;
        if read > 0 && out.send(chunk).is_err() || ended {
            return Ok(());
        }
    }
}

impl<R: BufRead + Send + 'static> Unpacker<R> {
    /// Looks at the first bytes of `input`, whose first buffer must hold four of them if there are as many. Gzip is
    /// unpacked by `threads` threads beside the one that reads; by the latter alone where that is none or one.
    pub(crate) fn new(mut input: R, threads: usize) -> io::Result<Self> {
        Ok(match input.fill_buf()? {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(GunzipReader::new(input, threads)?)),
            // A frame, or a skippable frame before the first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Self::Zstd(Box::new(ZstdFrames::new(input)))
            }
            _ => Self::Plain(input),
        })
    }
}

impl<R> Unpacker<R> {
    /// Whether the stream is packed at all.
    pub(crate) fn is_packed(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

impl<R: BufRead> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Plain(input) => input.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Reads zstd frames one after the other.
pub(crate) struct ZstdFrames<R> {
    input: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(input: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW);
        Self { input, decoder, in_frame: false }
    }

    /// Goes to the next frame with content; false at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.input.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.input) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.input.by_ref().take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a skippable frame is cut off"));
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) => {
                    let reason = format!(
                        "a zstd frame wants a window of {requested} bytes, more than the limit of {MAX_ZSTD_WINDOW}; \
                         pack the layer without --long, at level 20 at most"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.in_frame = false;
            // A frame need not have a checksum (RFC 8878, section 3.1.1).
            let expected = self.decoder.get_checksum_from_data();
            if expected.is_some() && expected != self.decoder.get_calculated_checksum() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "broken zstd: the content's checksum is wrong"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::Fastest)
    }

    fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Unpacker::new(io::Cursor::new(packed.to_vec()), 1)?.read_to_end(&mut out)?;
        let mut again = Vec::new();
        unpacked(io::Cursor::new(packed.to_vec()))?.read_to_end(&mut again)?;
        assert!(out == again, "threads make a difference");
        Ok(out)
    }

    #[test]
    fn several_members_and_frames_are_one_stream() {
        assert_eq!(unpack(&[gzip(b"one "), gzip(b""), gzip(b"two")].concat()).unwrap(), b"one two");
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let frames = [zstd(b"one "), skippable.clone(), zstd(b""), zstd(b"two"), skippable.clone()].concat();
        assert_eq!(unpack(&frames).unwrap(), b"one two");
        assert_eq!(unpack(&[skippable, zstd(b"x")].concat()).unwrap(), b"x");
    }

    #[test]
    fn cut_off_or_followed_by_junk_is_an_error() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&content), zstd(&content)] {
            for length in [5, packed.len() / 2, packed.len() - 1] {
                assert!(unpack(&packed[..length]).is_err(), "{length}");
            }
            assert!(unpack(&[&packed[..], b"junk after the end"].concat()).is_err());
        }
        assert!(unpack(&[0x5a, 0x2a, 0x4d, 0x18, 200, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn checksums_are_compared() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&content), zstd(&content)] {
            assert!(unpack(&packed).is_ok());
            // In gzip, the length comes after the checksum.
            for at in [packed.len() - 8, packed.len() - 4, packed.len() - 1] {
                let mut damaged = packed.clone();
                damaged[at] ^= 1;
                let error = unpack(&damaged);
                assert!(error.is_err() || at == packed.len() - 8 && packed[0] == 0x28, "{at} of {}", packed.len());
            }
        }
    }

    #[test]
    fn a_huge_window_is_refused_before_it_is_allocated() {
        // A frame header, its window descriptor, and an empty last block. The descriptor: bits 3 to 7 are the exponent over
        // 2^10, bits 0 to 2 eighths of that on top.
        let frame = |window: u8| unpack(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 1, 0, 0]);
        assert_eq!(frame(15 << 3).unwrap(), b"", "32 MiB");
        for (window, bytes) in [(15 << 3 | 1, "37748736"), (17 << 3, "134217728"), (0xfe, "3848290697216")] {
            let error = frame(window).unwrap_err().to_string();
            assert!(error.contains(bytes) && error.contains("33554432") && error.contains("--long"), "{error}");
        }
        // More than the format allows.
        let error = frame(0xff).unwrap_err();
        assert!(error.to_string().to_lowercase().contains("window"), "{error}");
    }

    proptest! {
        #[test]
        fn round_trips(content in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(unpack(&gzip(&content)).unwrap(), content.clone());
            prop_assert_eq!(unpack(&zstd(&content)).unwrap(), content);
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(
            magic in prop::sample::select(vec![&[0x1f_u8, 0x8b, 8, 0][..], &[0x28, 0xb5, 0x2f, 0xfd], &[]]),
            content in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = unpack(&[magic, &content].concat());
        }
    }
}
