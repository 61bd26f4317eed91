"""Signed envelopes by other people's COSE, ASN.1 and signatures: what Caveau's are compared with.

make:  prints envelopes, one JSON object a line: algorithm, form, issuer, others (names that are not the signer's), envelope.
check: reads lines with `envelope`, verifies chain and signature of each, and prints what its header says.
"""

import base64
import datetime
import json
import sys

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = 1_790_000_000
FULCIO_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
# RFC 9053, section 2; RFC 8230, section 2: number, hash, and bytes of a coordinate for ECDSA.
ALGORITHMS = {
    "ES256": (-7, hashes.SHA256(), 32, lambda: ec.generate_private_key(ec.SECP256R1())),
    "ES384": (-35, hashes.SHA384(), 48, lambda: ec.generate_private_key(ec.SECP384R1())),
    "ES512": (-36, hashes.SHA512(), 66, lambda: ec.generate_private_key(ec.SECP521R1())),
    "PS256": (-37, hashes.SHA256(), None, lambda: rsa.generate_private_key(65537, 2048)),
    "PS384": (-38, hashes.SHA384(), None, lambda: rsa.generate_private_key(65537, 2048)),
    "PS512": (-39, hashes.SHA512(), None, lambda: rsa.generate_private_key(65537, 2048)),
    "EdDSA": (-8, None, None, ed25519.Ed25519PrivateKey.generate),
}
TRUE_NAMES = [
    "eku:1.3.6.1.5.5.7.3.3",
    "subject:CN:Signer%20of%20tests",
    "subject:O:Tests%2C%20Inc.:CN:Signer%20of%20tests",
    "san:email:who%40example.org",
    "san:uri:https%3A%2F%2Fexample.org%2Fa",
    "fulcio-issuer:example.org%2Flogin::san:email:who%40example.org",
]
FALSE_NAMES = [
    "eku:1.3.6.1.5.5.7.3.4",
    "subject:CN:Signer",
    "san:email:whose%40example.org",
    "san:dns:example.org",
    "fulcio-issuer:example.org",
]


def certificate(subject, key, issuer, issuer_key, is_authority):
    def at(years):
        return datetime.datetime.fromtimestamp(NOW, datetime.UTC) + datetime.timedelta(days=365 * years)

    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), at(-1), at(1))
    builder = builder.add_extension(x509.BasicConstraints(is_authority, None), True)
    usage = {"key_cert_sign": is_authority, "digital_signature": not is_authority}
    others = ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only"]
    usage.update({name: False for name in [*others, "decipher_only"]})
    builder = builder.add_extension(x509.KeyUsage(**usage), True)
    if not is_authority:
        names = [x509.RFC822Name("who@example.org"), x509.UniformResourceIdentifier("https://example.org/a")]
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        builder = builder.add_extension(x509.UnrecognizedExtension(FULCIO_ISSUER, b"https://example.org/login"), False)
    own = isinstance(issuer_key, ed25519.Ed25519PrivateKey)
    return builder.sign(issuer_key, None if own else hashes.SHA384())


def chain_of(key, make_key):
    root_key = make_key()
    root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of tests")])
    organization = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests, Inc.")
    subject = x509.Name([organization, x509.NameAttribute(NameOID.COMMON_NAME, "Signer of tests")])
    return [certificate(subject, key, root, root_key, False), certificate(root, root_key, root, root_key, True)]


def to_sign(protected, payload):
    return cbor2.dumps(["Signature1", protected, b"", payload])


def pss(digest):
    return padding.PSS(padding.MGF1(digest), digest.digest_size)


def sign(algorithm, key, message):
    _, digest, size, _ = ALGORITHMS[algorithm]
    if digest is None:
        return key.sign(message)
    if size is None:
        return key.sign(message, pss(digest), digest)
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def verify(algorithm, key, message, signature):
    _, digest, size, _ = ALGORITHMS[algorithm]
    if digest is None:
        key.verify(signature, message)
    elif size is None:
        key.verify(signature, message, pss(digest), digest)
    else:
        assert len(signature) == 2 * size, "r and s are as long as the field"
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(digest))


def header(form, number, issuer, chain):
    thumbprint = chain[0].fingerprint(hashes.SHA256())
    fields = {1: number, 3: "text/plain", 33: [one.public_bytes(Encoding.DER) for one in chain], 34: [-16, thumbprint]}
    if form == "claims":
        return fields | {15: {1: issuer, 2: "tests/feed", 6: NOW, "svn": 7}}
    return fields | {"iss": issuer, "feed": "tests/feed", "signingtime": cbor2.CBORTag(1, NOW)}


def make():
    for algorithm, (number, _, _, make_key) in ALGORITHMS.items():
        key = make_key()
        chain = chain_of(key, make_key)
        root = base64.urlsafe_b64encode(chain[1].fingerprint(hashes.SHA256())).decode().rstrip("=")
        for form in ["claims", "legacy"]:
            for name in TRUE_NAMES:
                issuer = f"did:x509:0:sha256:{root}::{name}"
                protected = cbor2.dumps(header(form, number, issuer, chain), canonical=True)
                payload = f"{algorithm}, {form}".encode()
                parts = [protected, {}, payload, sign(algorithm, key, to_sign(protected, payload))]
                envelope = cbor2.dumps(cbor2.CBORTag(18, parts)).hex()
                others = [f"did:x509:0:sha256:{root}::{name}" for name in FALSE_NAMES]
                line = {"algorithm": algorithm, "form": form, "issuer": issuer, "others": others, "envelope": envelope}
                print(json.dumps(line))


def check():
    for line in sys.stdin:
        tag = cbor2.loads(bytes.fromhex(json.loads(line)["envelope"]))
        assert tag.tag == 18, "a COSE_Sign1"
        protected, _, payload, signature = tag.value
        fields = cbor2.loads(protected)
        chain = [x509.load_der_x509_certificate(one) for one in fields[33]]
        for subject, issuer in zip(chain, chain[1:] + chain[-1:]):
            subject.verify_directly_issued_by(issuer)
        algorithm = next(name for name, (number, *_) in ALGORITHMS.items() if number == fields[1])
        verify(algorithm, chain[0].public_key(), to_sign(protected, payload), signature)
        claims = fields.get(15, {})
        issuer, feed = claims.get(1, fields.get("iss")), claims.get(2, fields.get("feed"))
        said = {"algorithm": algorithm, "issuer": issuer, "feed": feed, "svn": claims.get("svn"), "payload": payload.hex()}
        print(json.dumps(said))


{"make": make, "check": check}[sys.argv[1]]()
