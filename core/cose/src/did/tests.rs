use super::*;

const PREFIX: &str = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s";

fn refused(text: &str) -> String {
    DidX509::parse(text).unwrap_err().to_string()
}

#[test]
fn names_that_are_in_use_read_and_write_back() {
    for policies in [
        "eku:1.3.6.1.4.1.311.76.59.1.2",
        "eku:1.3.6.1.5.5.7.3.3::eku:1.3.6.1.4.1.311.10.3.21",
        "subject:CN:Microsoft%20Corporation",
        "subject:C:US:S:California:L:San%20Francisco:O:GitHub%2C%20Inc.",
        "fulcio-issuer:github.com%2Flogin%2Foauth::san:email:igarcia%40suse.com",
        "san:uri:https%3A%2F%2Fgithub.com%2Fowner%2Frepo",
        "san:dns:example.org",
        "san:ipaddress:2001%3Adb8%3A%3A1",
        "subject:1.2.840.113549.1.9.1:a%40b.c",
    ] {
        let did = DidX509::parse(&format!("{PREFIX}::{policies}")).unwrap();
        let written: Vec<_> = did.policies().iter().map(ToString::to_string).collect();
        assert_eq!(written.join("::"), policies);
    }
    let state = DidX509::parse(&format!("{PREFIX}::subject:ST:X:o:Y")).unwrap();
    let expected = vec![(vec![0x55, 4, 8], "X".to_owned()), (vec![0x55, 4, 10], "Y".to_owned())];
    assert_eq!(state.policies(), [Policy::Subject(expected)]);
}

#[test]
fn what_is_not_encoded_is_read_as_itself_where_that_is_not_ambiguous() {
    let did = DidX509::parse(&format!("{PREFIX}::san:email:a@b&c=d$")).unwrap();
    assert_eq!(did.policies(), [Policy::San(San::Email("a@b&c=d$".to_owned()))]);
}

#[test]
fn other_texts_are_refused() {
    for (text, problem) in [
        ("djd:x509:0:sha256:abcd::eku:1.2", "expected did:x509"),
        ("did:x509:1:sha256:abcd::eku:1.2", "version 1"),
        ("did:x509:0:sha1:abcd::eku:1.2", "none of sha256"),
        ("did:x509:0:sha256:abc::eku:1.2", "no sha256 digest"),
        ("did:x509:0:sha256::eku:1.2", "expected did:x509"),
    ] {
        assert!(refused(text).contains(problem), "{text}: {}", refused(text));
    }
    // A part that the reference ignores, another digest's length, padding, bits beyond the digest, no policy.
    for text in [
        format!("{PREFIX}:more::eku:1.2"),
        PREFIX.replace("sha256", "sha384") + "::eku:1.2",
        format!("{PREFIX}=::eku:1.2"),
        PREFIX.replace("pt9s", "pt9t") + "::eku:1.2",
        PREFIX.to_owned(),
        format!("{PREFIX}::"),
        format!("{PREFIX}::eku:1.2::"),
        format!("{PREFIX}::{}", ["eku:1.2"; 17].join("::")),
    ] {
        refused(&text);
    }
    for (policy, problem) in [
        ("eku", "no policy"),
        ("eku:1.2:1.3", "no policy"),
        ("eku:x", "object identifier"),
        ("EKU:1.2", "no policy"),
        ("subject", "each with a value"),
        ("subject:CN", "each with a value"),
        ("subject:CN:a:O", "each with a value"),
        ("subject:CN:a:cn:a", "comes twice"),
        ("subject:S:a:ST:a", "comes twice"),
        ("subject:XX:a", "no key"),
        ("subject:CN:", "each with a value"),
        ("subject:CN:a+b", "%2B"),
        ("subject:CN:a b", "percent-encoded"),
        ("subject:CN:a%2", "hexadecimal"),
        ("subject:CN:a%zz", "hexadecimal"),
        ("subject:CN:%ff", "not UTF-8"),
        ("san:dns", "no policy"),
        ("san:other:a", "none of dns"),
        ("san:ipaddress:010.1.1.1", "no IP address"),
        ("fulcio-issuer:a:b", "no policy"),
        ("CN:a", "no policy"),
    ] {
        let said = refused(&format!("{PREFIX}::{policy}"));
        assert!(said.contains(problem) || policy == "subject:CN:", "{policy}: {said}");
    }
}
