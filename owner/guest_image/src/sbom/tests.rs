//! The document's form, by what the specification demands of every document, and its contents.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::agent_record::tests::record;
use crate::build::tests::inputs;
use crate::{GuestFolder, MANIFEST_FILE, PackageFile, build, write_record};

/// The bill of a small guest with a module, recorded packages and a recorded agent; and the guest.
fn bill() -> (GuestFolder, Value, String, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let mut inputs = inputs(place.path());
    let agent = std::fs::read(&inputs.agent).unwrap();
    inputs.agent_record = Some(write_record(&inputs.agent, &record(&agent)).unwrap());
    inputs.bios.package =
        Some(PackageFile { name: "seabios".into(), version: "1.16+a~1".into(), path: "/usr/share/bios".into() });
    let package = crate::KernelPackage {
        name: "linux-source".into(),
        version: "1.2-1".into(),
        sha256: Sha256::of(b"sources"),
        build: Some(crate::KernelBuild {
            options_sha256: Sha256::of(b"options"),
            config_sha256: Sha256::of(b"configuration"),
            compiler: "gcc".into(),
            linker: "ld".into(),
        }),
    };
    std::fs::write(inputs.kernel.join(crate::PACKAGE_FILE), serde_json::to_vec(&package).unwrap()).unwrap();
    let guest = build(&inputs, &place.path().join("guest")).unwrap();
    let described = Sha256::of(&std::fs::read(guest.path().join(MANIFEST_FILE)).unwrap());
    let text = sbom(guest.manifest(), described, &guest.agent_contents().unwrap().unwrap());
    (guest, serde_json::from_str(&text).unwrap(), text, place)
}

/// A component by its reference.
fn component<'a>(bill: &'a Value, reference: &str) -> &'a Value {
    let components = bill["components"].as_array().unwrap();
    components.iter().find(|component| component["bom-ref"] == reference).unwrap()
}

fn property<'a>(component: &'a Value, name: &str) -> Option<&'a str> {
    let properties = component["properties"].as_array()?;
    properties.iter().find(|property| property["name"] == format!("caveau:{name}"))?["value"].as_str()
}

/// What a component depends on.
fn needs<'a>(bill: &'a Value, reference: &str) -> Vec<&'a str> {
    let dependencies = bill["dependencies"].as_array().unwrap();
    let found = dependencies.iter().find(|dependency| dependency["ref"] == reference).unwrap();
    found["dependsOn"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// Type, name and version of a package URL.
fn parse_purl(purl: &str) -> Option<(&str, String, String)> {
    let (kind, rest) = purl.strip_prefix("pkg:")?.split_once('/')?;
    let (path, version) = rest.split('?').next()?.split_once('@')?;
    let decode = |text: &str| {
        let mut parts = text.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.try_fold(first, |out, part| {
            let byte = u8::from_str_radix(part.get(..2)?, 16).ok()?;
            Some(out + &char::from(byte).to_string() + &part[2..])
        })
    };
    Some((kind, decode(path)?, decode(version)?))
}

#[test]
fn the_form_is_that_of_cyclonedx_1_6() {
    let (_, bill, ..) = bill();
    assert_eq!(
        (&bill["bomFormat"], &bill["specVersion"], &bill["version"]),
        (&"CycloneDX".into(), &"1.6".into(), &1.into())
    );
    let serial = bill["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    let lengths: Vec<_> = serial.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert!(serial.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    let components = bill["components"].as_array().unwrap();
    let all = components.iter().chain([&bill["metadata"]["component"]]);
    let mut references = BTreeSet::new();
    for component in all {
        let kinds = ["application", "device-driver", "file", "firmware", "library", "operating-system", "platform"];
        assert!(kinds.contains(&component["type"].as_str().unwrap()), "{component}");
        assert!(!component["name"].as_str().unwrap().is_empty());
        assert!(references.insert(component["bom-ref"].as_str().unwrap()), "{component} is there twice");
        for hash in component["hashes"].as_array().into_iter().flatten() {
            assert_eq!(hash["alg"], "SHA-256");
            assert!(hash["content"].as_str().unwrap().parse::<Sha256>().is_ok());
        }
        if let Some(purl) = component["purl"].as_str() {
            let (kind, name, version) = parse_purl(purl).unwrap();
            assert!(["cargo", "deb"].contains(&kind) && version == component["version"].as_str().unwrap(), "{purl}");
            assert!(kind != "cargo" || name == component["name"].as_str().unwrap(), "{purl}");
        }
    }
    let mut described = BTreeSet::new();
    for dependency in bill["dependencies"].as_array().unwrap() {
        assert!(described.insert(dependency["ref"].as_str().unwrap()), "{dependency} is there twice");
        let needed = dependency["dependsOn"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let needed: Vec<_> = needed.collect();
        assert!(needed.iter().all(|name| references.contains(name)), "{dependency} leads nowhere");
        assert_eq!(needed.iter().collect::<BTreeSet<_>>().len(), needed.len(), "{dependency} names something twice");
    }
    assert_eq!(described, references, "each component says what it needs");
}

#[test]
fn every_part_module_crate_and_library_is_there() {
    let (guest, bill, ..) = bill();
    let manifest = guest.manifest();
    for (name, part) in manifest.parts.iter().filter(|(name, _)| *name != AGENT_CONTENTS_FILE) {
        assert_eq!(component(&bill, &format!("part:{name}"))["hashes"][0]["content"], part.sha256.to_string());
    }
    let bios = component(&bill, "part:bios-256k.bin");
    assert_eq!((&bios["type"], &bios["purl"]), (&"firmware".into(), &"pkg:deb/debian/seabios@1.16%2Ba~1".into()));
    assert_eq!(property(bios, "measured-by"), Some("emulated-snp"));
    assert_eq!(component(&bill, "part:pvh.bin")["type"], "firmware");
    let kernel = component(&bill, "kernel");
    assert_eq!(kernel["pedigree"]["ancestors"][0]["purl"], "pkg:deb/debian/linux-source@1.2-1");
    assert_eq!(property(kernel, "configuration-sha256"), Some(Sha256::of(b"configuration").to_string().as_str()));
    assert_eq!(property(kernel, "compiler"), Some("gcc"));
    assert_eq!(component(&bill, "module:dm_verity")["hashes"][0]["content"], manifest.modules[0].sha256.to_string());
    let agent = component(&bill, "crate:agent@1.0.0");
    assert_eq!(agent["type"], "application");
    assert_eq!(agent["hashes"][0]["content"], manifest.agent.sha256.to_string());
    assert_eq!(agent["purl"], "pkg:cargo/agent@1.0.0?download_url=file://.");
    let hex = component(&bill, "crate:hex@1.0.0");
    assert_eq!((&hex["scope"], &hex["licenses"][0]["expression"]), (&"required".into(), &"MIT OR Apache-2.0".into()));
    assert_eq!(hex["hashes"][0]["content"], Sha256::of(b"hex").to_string());
    let sys = component(&bill, "crate:sys@1.0.0");
    assert_eq!(sys["licenses"][0]["license"]["name"], "see LICENSE in its archive");
    for name in ["cc", "derive"] {
        let excluded = component(&bill, &format!("crate:{name}@1.0.0"));
        assert_eq!(excluded["scope"], "excluded");
        assert!(property(excluded, "excluded-because").is_some(), "{excluded}");
    }
    assert_eq!(component(&bill, "library:libseccomp.a")["licenses"][0]["license"]["name"], "LGPL-2.1");
}

#[test]
fn dependencies_lead_from_the_guest_to_the_last_crate() {
    let (guest, bill, ..) = bill();
    assert_eq!(needs(&bill, "part:initrd.img"), ["crate:agent@1.0.0", "module:dm_verity"]);
    assert_eq!(needs(&bill, "part:vmlinux"), ["kernel"]);
    assert_eq!(
        needs(&bill, "crate:agent@1.0.0"),
        ["crate:derive@1.0.0", "crate:hex@1.0.0", "crate:sys@1.0.0", "library:libseccomp.a"]
    );
    assert_eq!(needs(&bill, "crate:sys@1.0.0"), ["crate:cc@1.0.0", "crate:hex@1.0.0"]);
    assert_eq!(needs(&bill, "guest").len(), guest.manifest().parts.len() - 1);
}

#[test]
fn the_same_guest_gives_the_same_bytes_and_another_one_another_number() {
    let (guest, one, text, _place) = bill();
    let (_, _, again, _again) = bill();
    assert_eq!(text, again);
    let contents = guest.agent_contents().unwrap().unwrap();
    let other: Value = serde_json::from_str(&sbom(guest.manifest(), Sha256::of(b"another"), &contents)).unwrap();
    assert_ne!(other["serialNumber"], one["serialNumber"]);
    assert_eq!(other["metadata"]["component"]["hashes"][0]["content"], Sha256::of(b"another").to_string());
}

#[test]
fn contents_that_were_swapped_are_refused() {
    let (guest, _, _, _place) = bill();
    let path = guest.path().join(AGENT_CONTENTS_FILE);
    let mut contents = guest.agent_contents().unwrap().unwrap();
    contents.crates[3].license = None;
    std::fs::write(&path, contents.to_json()).unwrap();
    let error = guest.agent_contents().unwrap_err();
    assert!(matches!(&error, crate::GuestImageError::Part { path, .. } if path.ends_with("agent.json")), "{error}");
}
