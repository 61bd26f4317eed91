//! Signatures verified by aws-lc-rs.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1,
    ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA512_ASN1,
    ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use crate::{Curve, Hash, Key, Scheme, Verifier};

/// aws-lc-rs.
#[derive(Clone, Copy, Debug)]
pub struct AwsLc;

impl Verifier for AwsLc {
    fn verifies(&self, scheme: Scheme, key: &Key<'_>, message: &[u8], signature: &[u8]) -> bool {
        match *key {
            Key::Ecdsa(curve, point) if is_uncompressed(curve, point) => {
                ecdsa(scheme, curve).is_some_and(|algorithm| holds(algorithm, point, message, signature))
            }
            Key::Ecdsa(..) => false,
            Key::Ed25519(bytes) => scheme == Scheme::Ed25519 && holds(&ED25519, bytes, message, signature),
            Key::Rsa(der) => rsa(scheme).is_some_and(|algorithm| holds(algorithm, der, message, signature)),
            Key::RsaNumbers { n, e } => rsa(scheme)
                .is_some_and(|algorithm| RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature).is_ok()),
        }
    }
}

fn holds(algorithm: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

/// Whether it has the form of an uncompressed point. The library would take a compressed one too, and a whole
/// SubjectPublicKeyInfo.
fn is_uncompressed(curve: Curve, point: &[u8]) -> bool {
    let bytes = match curve {
        Curve::P256 => 65,
        Curve::P384 => 97,
        Curve::P521 => 133,
    };
    point.len() == bytes && point.first() == Some(&4)
}

fn ecdsa(scheme: Scheme, curve: Curve) -> Option<&'static dyn VerificationAlgorithm> {
    use Hash::{Sha256, Sha384, Sha512};
    Some(match (scheme, curve) {
        (Scheme::EcdsaDer(Sha256), Curve::P256) => &ECDSA_P256_SHA256_ASN1,
        (Scheme::EcdsaDer(Sha384), Curve::P256) => &ECDSA_P256_SHA384_ASN1,
        (Scheme::EcdsaDer(Sha512), Curve::P256) => &ECDSA_P256_SHA512_ASN1,
        (Scheme::EcdsaDer(Sha256), Curve::P384) => &ECDSA_P384_SHA256_ASN1,
        (Scheme::EcdsaDer(Sha384), Curve::P384) => &ECDSA_P384_SHA384_ASN1,
        (Scheme::EcdsaDer(Sha512), Curve::P384) => &ECDSA_P384_SHA512_ASN1,
        (Scheme::EcdsaDer(Sha256), Curve::P521) => &ECDSA_P521_SHA256_ASN1,
        (Scheme::EcdsaDer(Sha384), Curve::P521) => &ECDSA_P521_SHA384_ASN1,
        (Scheme::EcdsaDer(Sha512), Curve::P521) => &ECDSA_P521_SHA512_ASN1,
        (Scheme::EcdsaFixed(Sha256), Curve::P256) => &ECDSA_P256_SHA256_FIXED,
        (Scheme::EcdsaFixed(Sha384), Curve::P384) => &ECDSA_P384_SHA384_FIXED,
        _ => return None,
    })
}

fn rsa(scheme: Scheme) -> Option<&'static RsaParameters> {
    use Hash::{Sha256, Sha384, Sha512};
    Some(match scheme {
        Scheme::RsaPkcs1(Sha256) => &RSA_PKCS1_2048_8192_SHA256,
        Scheme::RsaPkcs1(Sha384) => &RSA_PKCS1_2048_8192_SHA384,
        Scheme::RsaPkcs1(Sha512) => &RSA_PKCS1_2048_8192_SHA512,
        Scheme::RsaPss(Sha256) => &RSA_PSS_2048_8192_SHA256,
        Scheme::RsaPss(Sha384) => &RSA_PSS_2048_8192_SHA384,
        Scheme::RsaPss(Sha512) => &RSA_PSS_2048_8192_SHA512,
        Scheme::EcdsaDer(_) | Scheme::EcdsaFixed(_) | Scheme::Ed25519 => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    };

    use super::*;

    const MESSAGE: &[u8] = b"what was signed";

    /// A curve with the hash that goes with it, the order of its group, and a key with its signature of [`MESSAGE`].
    struct Subject {
        curve: Curve,
        hash: Hash,
        order: Vec<u8>,
        point: Vec<u8>,
        r: Vec<u8>,
        s: Vec<u8>,
    }

    fn subject(curve: Curve, hash: Hash, signing: &'static EcdsaSigningAlgorithm, order: &str) -> Subject {
        let order = hex::decode(order).unwrap();
        let key = EcdsaKeyPair::generate(signing).unwrap();
        loop {
            let signature = key.sign(&SystemRandom::new(), MESSAGE).unwrap();
            let (r, s) = signature.as_ref().split_at(order.len());
            // With their highest bits set they need a zero before them in DER.
            if r[0] >= 0x80 && s[0] >= 0x80 {
                let (point, r, s) = (key.public_key().as_ref().to_vec(), r.to_vec(), s.to_vec());
                return Subject { curve, hash, order, point, r, s };
            }
        }
    }

    fn subjects() -> [Subject; 2] {
        [
            subject(
                Curve::P256,
                Hash::Sha256,
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
            ),
            subject(
                Curve::P384,
                Hash::Sha384,
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
            ),
        ]
    }

    impl Subject {
        fn fixed(&self, signature: &[u8]) -> bool {
            self.by(&self.point, Scheme::EcdsaFixed(self.hash), signature)
        }

        fn der(&self, signature: &[u8]) -> bool {
            self.by(&self.point, Scheme::EcdsaDer(self.hash), signature)
        }

        fn by(&self, point: &[u8], scheme: Scheme, signature: &[u8]) -> bool {
            AwsLc.verifies(scheme, &Key::Ecdsa(self.curve, point), MESSAGE, signature)
        }

        /// n - number.
        fn negated(&self, number: &[u8]) -> Vec<u8> {
            let mut borrow = 0;
            let digits = self.order.iter().zip(number).rev().map(|(order, number)| {
                let difference = i16::from(*order) - i16::from(*number) - borrow;
                borrow = i16::from(difference < 0);
                u8::try_from(difference.rem_euclid(256)).unwrap()
            });
            digits.collect::<Vec<_>>().into_iter().rev().collect()
        }

        /// n + number, one byte longer.
        fn increased(&self, number: &[u8]) -> Vec<u8> {
            let mut carry = 0;
            let mut digits: Vec<u8> = Vec::new();
            for (order, number) in self.order.iter().zip(number).rev() {
                let sum = u16::from(*order) + u16::from(*number) + carry;
                carry = sum >> 8;
                digits.push(u8::try_from(sum & 0xff).unwrap());
            }
            digits.push(u8::try_from(carry).unwrap());
            digits.into_iter().rev().collect()
        }

        fn small(&self, value: u8) -> Vec<u8> {
            let mut number = vec![0; self.order.len()];
            *number.last_mut().unwrap() = value;
            number
        }
    }

    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    /// An INTEGER in its one form.
    fn integer(number: &[u8]) -> Vec<u8> {
        let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len() - 1);
        let number = &number[first..];
        let sign: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
        tlv(2, &[sign, number].concat())
    }

    fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        tlv(0x30, &parts.concat())
    }

    #[test]
    fn genuine_signatures_hold() {
        for subject in subjects() {
            let Subject { r, s, .. } = &subject;
            assert!(subject.fixed(&[&r[..], s].concat()));
            assert!(subject.der(&sequence(&[&integer(r), &integer(s)])));
            // The other one of two, which anybody can make: no signature names anything.
            let other = subject.negated(s);
            assert!(subject.fixed(&[&r[..], &other].concat()));
            assert!(subject.der(&sequence(&[&integer(r), &integer(&other)])));
            let mut changed = s.clone();
            changed[20] ^= 1;
            assert!(!subject.fixed(&[&r[..], &changed].concat()));
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for subject in subjects() {
            let Subject { order, r, s, .. } = &subject;
            let (zero, one) = (subject.small(0), subject.small(1));
            let before = subject.negated(&one);
            let after = subject.increased(&one)[1..].to_vec();
            let all = vec![0xff; order.len()];
            for number in [&zero, order, &before, &after, &all, &one] {
                for (r, s) in [(number, s), (r, number), (number, number)] {
                    assert!(!subject.fixed(&[&r[..], s].concat()), "{:?} {number:x?}", subject.curve);
                    assert!(!subject.der(&sequence(&[&integer(r), &integer(s)])), "{:?} {number:x?}", subject.curve);
                }
            }
            // Equal to the genuine ones but for the order.
            for (r, s) in [(&subject.increased(r), s), (r, &subject.increased(s))] {
                assert!(!subject.der(&sequence(&[&integer(r), &integer(s)])));
            }
        }
    }

    #[test]
    fn fixed_signatures_have_one_length() {
        for subject in subjects() {
            let genuine = [&subject.r[..], &subject.s].concat();
            let zero_before_each = [&[0], &subject.r[..], &[0], &subject.s].concat();
            for wrong in
                [&genuine[1..], &genuine[..genuine.len() - 1], &[], &[&genuine[..], &[0]].concat(), &zero_before_each]
            {
                assert!(!subject.fixed(wrong), "{} bytes", wrong.len());
            }
            assert!(!subject.fixed(&sequence(&[&integer(&subject.r), &integer(&subject.s)])));
            assert!(!subject.der(&genuine));
        }
    }

    /// DER has one form for everything; what BER, or a lenient reader, has besides is refused.
    #[test]
    fn signatures_in_der_have_one_form() {
        for subject in subjects() {
            let Subject { r: r_bytes, s: s_bytes, .. } = &subject;
            let (r, s) = (integer(r_bytes), integer(s_bytes));
            let good = sequence(&[&r, &s]);
            assert!(subject.der(&good));
            let content = &good[2..];
            let length = u8::try_from(content.len()).unwrap();
            let padded = |number: &[u8]| tlv(2, &[&[0, 0], number].concat());
            let long_form = |number: &[u8]| [&[2, 0x81, number[1]], &number[2..]].concat();
            let wrong: [(&str, Vec<u8>); 20] = [
                ("r negative", sequence(&[&tlv(2, r_bytes), &s])),
                ("s negative", sequence(&[&r, &tlv(2, s_bytes)])),
                ("r padded", sequence(&[&padded(r_bytes), &s])),
                ("s padded", sequence(&[&r, &padded(s_bytes)])),
                ("length in long form", [&[0x30, 0x81, length], content].concat()),
                ("length in a longer form", [&[0x30, 0x82, 0, length], content].concat()),
                ("length of r in long form", sequence(&[&long_form(&r), &s])),
                ("length of s in long form", sequence(&[&r, &long_form(&s)])),
                ("indefinite length", [&[0x30, 0x80], content, &[0, 0]].concat()),
                ("bytes after it", [&good[..], &[0]].concat()),
                ("bytes after s", sequence(&[&r, &s, &[0]])),
                ("a NULL after s", sequence(&[&r, &s, &[5, 0]])),
                ("a third number", sequence(&[&r, &s, &s])),
                ("without s", sequence(&[&r])),
                ("empty", sequence(&[])),
                ("empty r", sequence(&[&tlv(2, &[]), &s])),
                ("another tag", [&[0x31, length], content].concat()),
                ("another tag of r", sequence(&[&tlv(4, &r[2..]), &s])),
                ("cut", good[..good.len() - 1].to_vec()),
                ("nothing", vec![]),
            ];
            for (what, signature) in wrong {
                assert!(!subject.der(&signature), "{:?}: {what}", subject.curve);
            }
        }
    }

    #[test]
    fn keys_are_uncompressed_points_of_their_curve() {
        let subjects = subjects();
        for (subject, other) in [(&subjects[0], &subjects[1]), (&subjects[1], &subjects[0])] {
            let Subject { point, r, s, order, .. } = subject;
            let size = order.len();
            let (x, y) = point[1..].split_at(size);
            let signature = [&r[..], s].concat();
            let holds = |point: &[u8]| {
                let der = sequence(&[&integer(r), &integer(s)]);
                let [fixed, der] =
                    [(Scheme::EcdsaFixed(subject.hash), &signature), (Scheme::EcdsaDer(subject.hash), &der)]
                        .map(|(scheme, signature)| subject.by(point, scheme, signature));
                assert_eq!(fixed, der);
                fixed
            };
            assert!(holds(point));
            let odd = y[size - 1] & 1;
            let mut beside = point.clone();
            beside[2 * size] ^= 1;
            let spki_header: &[u8] = match subject.curve {
                Curve::P256 => &[
                    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
                    0x3d, 3, 1, 7, 3, 0x42, 0,
                ],
                _ => &[
                    0x30, 0x76, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22, 3,
                    0x62, 0,
                ],
            };
            let wrong: [(&str, Vec<u8>); 12] = [
                ("not on the curve", beside),
                ("x and y exchanged", [&[4], y, x].concat()),
                ("at infinity", vec![0]),
                ("at infinity, as long as others", vec![0; 2 * size + 1]),
                ("zeros", [&[4][..], &vec![0; 2 * size]].concat()),
                ("coordinates out of range", [&[4][..], &vec![0xff; 2 * size]].concat()),
                ("compressed", [&[2 + odd], x].concat()),
                ("hybrid", [&[6 + odd], x, y].concat()),
                ("without its first byte", point[1..].to_vec()),
                ("with a byte more", [&point[..], &[0]].concat()),
                ("with its algorithm", [spki_header, point].concat()),
                ("of the other curve", other.point.clone()),
            ];
            for (what, point) in wrong {
                assert!(!holds(&point), "{:?}: {what}", subject.curve);
            }
        }
    }
}
