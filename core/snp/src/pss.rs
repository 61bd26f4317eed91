//! The one signature algorithm of SEV-SNP certificates: RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt 48, RSA-4096 keys.

use caveau_signature::{Hash, Key, Scheme, verifies_again};

/// The AlgorithmIdentifier without a trailer field: newer certificates, CRLs, and all that we make.
pub(crate) const ALGORITHM: [u8; 67] = *b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa2\x03\x02\x01\x30";

/// The same with the trailer field spelled out, which DER forbids and AMD's older certificates do.
const ALGORITHM_WITH_TRAILER: [u8; 72] = *b"\x30\x46\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x39\
\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
\xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01";

/// Whether a whole AlgorithmIdentifier is that algorithm with exactly these parameters, in either spelling.
pub(crate) fn is_expected(algorithm: &[u8]) -> bool {
    algorithm == ALGORITHM || algorithm == ALGORITHM_WITH_TRAILER
}

/// Whether `signature` is the signature of `message` by the RSA key `public_key` (PKCS #1 RSAPublicKey).
pub(crate) fn holds(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    verifies_again(Scheme::RsaPss(Hash::Sha384), &Key::Rsa(public_key), message, signature)
}
