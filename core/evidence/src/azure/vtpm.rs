//! Quotes of a virtual TPM (TPM 2.0 Library, part 2: TPMS_ATTEST, TPMT_SIGNATURE), numbers big-endian.
//!
//! ```text
//! u32 0xff544347, u16 0x8018, u16 size + name of the signer, u16 size + nonce, u64 clock, u32 resets, u32 restarts, u8 safe,
//! u64 firmware, u32 count, per bank: u16 hash, u8 size, bit map; u16 size + digest of the registers chosen
//! ```

use caveau_signature::{Hash, Key, Scheme, sha256, verifies};
use caveau_snp::Hex;

const MAGIC: u32 = 0xff54_4347;
const QUOTE: u16 = 0x8018;
const SHA_256: u16 = 0x000b;
const RSASSA: u16 = 0x0014;
const RSAPSS: u16 = 0x0016;
/// Registers of a bank.
pub(crate) const REGISTERS: usize = 24;
/// Largest quote accepted.
const MAX_MESSAGE_BYTES: usize = 4096;

/// A quote of a TPM as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmQuote {
    /// What the verifier had sent along.
    pub nonce: Vec<u8>,
    /// How often the TPM was reset: each start of the VM does.
    pub resets: u32,
    /// Which registers of the SHA-256 bank it is about, lowest first.
    pub registers: Vec<usize>,
    /// SHA-256 of their values.
    pub digest: Hex<32>,
}

/// Why bytes are no quote of a TPM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// Shorter or longer than its parts.
    #[error("the TPM's quote has not the length of its parts")]
    Length,
    /// Something else that a TPM signs.
    #[error("the TPM's statement is of type {0:#x}, expected a quote (0x8018)")]
    Kind(u32),
    /// Another choice of registers than of one SHA-256 bank.
    #[error("the TPM's quote is about {0}, expected registers of one bank of SHA-256")]
    Bank(String),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TpmError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, TpmError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, TpmError> {
        self.array().map(u32::from_be_bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TpmError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TpmError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Bytes after their length.
    fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

impl TpmQuote {
    /// Reads a quote.
    ///
    /// # Errors
    /// [`TpmError`], for the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(TpmError::Length);
        }
        let mut from = Reader(bytes);
        let magic = from.u32()?;
        if magic != MAGIC {
            return Err(TpmError::Kind(magic));
        }
        let kind = from.u16()?;
        if kind != QUOTE {
            return Err(TpmError::Kind(kind.into()));
        }
        from.sized()?;
        let nonce = from.sized()?.to_vec();
        from.take(8)?;
        let resets = from.u32()?;
        from.take(4 + 1 + 8)?;
        let registers = selection(&mut from)?;
        let digest = from.sized()?.try_into().map_err(|_| TpmError::Bank("a digest of another length".to_owned()))?;
        if !from.0.is_empty() {
            return Err(TpmError::Length);
        }
        Ok(Self { nonce, resets, registers, digest: Hex(digest) })
    }

    /// Whether these are the values of the registers that the quote is about. `values` are those of a whole bank, or of the
    /// chosen registers alone.
    #[must_use]
    pub fn is_of(&self, values: &[Hex<32>]) -> bool {
        self.values(values).is_some_and(|chosen| {
            let values: Vec<&[u8]> = chosen.iter().map(|(_, value)| value.0.as_slice()).collect();
            sha256(&values) == self.digest.0
        })
    }

    /// The chosen registers with their values; `None` where there are fewer or more values than registers.
    #[must_use]
    pub fn values(&self, values: &[Hex<32>]) -> Option<Vec<(usize, Hex<32>)>> {
        if values.len() == self.registers.len() {
            return Some(self.registers.iter().copied().zip(values.iter().copied()).collect());
        }
        if values.len() != REGISTERS {
            return None;
        }
        self.registers.iter().map(|register| values.get(*register).map(|value| (*register, *value))).collect()
    }
}

/// The registers of one bank of SHA-256.
fn selection(from: &mut Reader<'_>) -> Result<Vec<usize>, TpmError> {
    let count = from.u32()?;
    if count != 1 {
        return Err(TpmError::Bank(format!("{count} banks")));
    }
    let hash = from.u16()?;
    if hash != SHA_256 {
        return Err(TpmError::Bank(format!("a bank of hash {hash:#x}")));
    }
    let [length] = from.array()?;
    let map = from.take(usize::from(length))?;
    if map.len() > REGISTERS / 8 {
        return Err(TpmError::Bank(format!("a bit map of {length} bytes")));
    }
    let bits = map.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    Ok(bits.enumerate().filter_map(|(register, chosen)| chosen.then_some(register)).collect())
}

/// Whether the RSA key made this signature over the quote: a TPMT_SIGNATURE, or the bare signature by RSASSA. SHA-256.
#[must_use]
pub(crate) fn is_signed(message: &[u8], signature: &[u8], key: &Key<'_>) -> bool {
    let (scheme, bare) = bare_signature(signature).unwrap_or((Scheme::RsaPkcs1(Hash::Sha256), signature));
    verifies(scheme, key, message, bare)
}

/// The signature in a TPMT_SIGNATURE; `None` where it is none.
fn bare_signature(signature: &[u8]) -> Option<(Scheme, &[u8])> {
    let mut from = Reader(signature);
    let scheme = match (from.u16().ok()?, from.u16().ok()?) {
        (RSASSA, SHA_256) => Scheme::RsaPkcs1(Hash::Sha256),
        (RSAPSS, SHA_256) => Scheme::RsaPss(Hash::Sha256),
        _ => return None,
    };
    let bare = from.sized().ok()?;
    from.0.is_empty().then_some((scheme, bare))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn made(nonce: &[u8], map: &[u8], digest: &[u8]) -> Vec<u8> {
        let mut out = [&MAGIC.to_be_bytes()[..], &QUOTE.to_be_bytes(), &[0, 2, 8, 8]].concat();
        out.extend(u16::try_from(nonce.len()).unwrap().to_be_bytes());
        out.extend(nonce);
        out.extend([0; 8]);
        out.extend([0, 0, 0, 3, 0, 0, 0, 1, 1]);
        out.extend([0; 8]);
        out.extend([0, 0, 0, 1, 0, 0x0b, u8::try_from(map.len()).unwrap()]);
        out.extend(map);
        out.extend([0, u8::try_from(digest.len()).unwrap()]);
        out.extend(digest);
        out
    }

    #[test]
    fn a_quote_is_read_and_is_about_its_registers() {
        let values: Vec<Hex<32>> = (0..24).map(|register| Hex([register; 32])).collect();
        let hash = sha256(&[&[1; 32], &[10; 32]]);
        let quote = TpmQuote::parse(&made(b"nonce", &[2, 4, 0], &hash)).unwrap();
        assert_eq!(
            (quote.nonce.as_slice(), quote.resets, quote.registers.as_slice()),
            (&b"nonce"[..], 3, &[1, 10][..])
        );
        assert!(quote.is_of(&values) && quote.is_of(&[Hex([1; 32]), Hex([10; 32])]));
        assert!(!quote.is_of(&values[..23]) && !quote.is_of(&[Hex([1; 32]), Hex([11; 32])]));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = made(b"n", &[1, 0, 0], &[5; 32]);
        for length in 0..good.len() {
            assert!(TpmQuote::parse(&good[..length]).is_err());
        }
        assert_eq!(TpmQuote::parse(&[&good[..], &[0]].concat()), Err(TpmError::Length));
        assert!(matches!(TpmQuote::parse(&made(b"n", &[1, 0, 0, 1], &[5; 32])), Err(TpmError::Bank(_))));
        assert!(matches!(TpmQuote::parse(&made(b"n", &[1], &[5; 20])), Err(TpmError::Bank(_))));
        let mut other = good;
        other[5] = 0x17;
        assert_eq!(TpmQuote::parse(&other), Err(TpmError::Kind(0x8017)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_quote_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            let _ = TpmQuote::parse(&bytes);
            let _ = bare_signature(&bytes);
            let _ = TpmQuote::parse(&[&MAGIC.to_be_bytes()[..], &QUOTE.to_be_bytes(), &bytes].concat());
        }
    }
}
