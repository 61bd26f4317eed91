//! Compressed files of a kernel package: modules and the kernel's payload.

use std::io::Read;

use crate::{GuestImageError, Result};

/// Most bytes that one file may expand to: a kernel with all its data has about 60 MB.
const MAX_BYTES: u64 = 512 << 20;

/// The decompressed contents of `bytes`, by the format that its first bytes show; what is not compressed is returned as it is.
pub(crate) fn decompress(what: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let (format, result) = if bytes.starts_with(b"\xfd7zXZ\0") {
        ("xz", read_bounded(lzma_rust2::XzReader::new(bytes, false)))
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        ("zstd", unzstd(bytes))
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        ("gzip", read_bounded(flate2::read::GzDecoder::new(bytes)))
    } else {
        return Ok(bytes.to_vec());
    };
    result.map_err(|source| GuestImageError::Decompress { what: what.to_owned(), format, source })
}

fn unzstd(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    read_bounded(ruzstd::decoding::StreamingDecoder::new(bytes).map_err(std::io::Error::other)?)
}

fn read_bounded(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut out)?;
    if out.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("expands to more than {MAX_BYTES} bytes")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_and_plain() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"module").unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(decompress("m", &packed).unwrap(), b"module");
        assert_eq!(decompress("m", b"module").unwrap(), b"module");
        let cut = decompress("m.ko.gz", &packed[..packed.len() - 3]).unwrap_err();
        assert_eq!(cut.to_string(), "failed to decompress m.ko.gz (gzip)");
    }

    #[test]
    fn damaged_xz_and_zstd_are_refused() {
        for magic in [&b"\xfd7zXZ\0"[..], &[0x28, 0xb5, 0x2f, 0xfd]] {
            assert!(decompress("m", &[magic, &[0xff; 40]].concat()).is_err());
        }
    }
}
