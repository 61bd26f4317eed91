//! What another implementation makes of software certificates: sound, and refused for the marker it does not know.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "tests stop at the first surprise")]

use std::path::Path;
use std::process::Command;

use crate::processor::{ONE, Persona, now};

/// `openssl` with these arguments in `folder`: whether it succeeded, and all that it said. `None` where it is not installed.
fn openssl(folder: &Path, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn openssl_finds_the_chain_sound_and_refuses_its_marker() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if openssl(folder, &["version"]).is_none() {
        println!("skipped: no openssl");
        return;
    }
    for (name, persona) in [("vcek", Persona::software(5)), ("vlek", Persona::vlek())] {
        let certificates = ONE.evidence(&persona).certificates;
        for (file, der) in
            [("vek", certificates.vek), ("intermediate", certificates.intermediate), ("root", certificates.root)]
        {
            std::fs::write(folder.join("in.der"), der.unwrap()).unwrap();
            let (converted, said) =
                openssl(folder, &["x509", "-inform", "der", "-in", "in.der", "-out", file]).unwrap();
            assert!(converted, "{name} {file}: {said}");
        }
        let time = now().unix().to_string();
        let verify = ["verify", "-attime", &time, "-CAfile", "root", "-untrusted", "intermediate"];
        let (accepted, said) = openssl(folder, &[&verify[..], &["vek"]].concat()).unwrap();
        assert!(!accepted && said.contains("unhandled critical extension"), "{name}: {said}");
        let (accepted, said) = openssl(folder, &[&verify[..], &["-ignore_critical", "vek"]].concat()).unwrap();
        assert!(accepted, "{name}: {said}");
    }
    std::fs::write(folder.join("crl.der"), ONE.crl(&Persona::software(5))).unwrap();
    let (_, said) = openssl(folder, &["crl", "-inform", "der", "-in", "crl.der", "-CAfile", "root", "-noout"]).unwrap();
    assert!(said.contains("verify OK"), "{said}");
}
