//! The comparison, with a changed byte in each part.

use std::fs;

use super::*;
use crate::GuestFolder;
use crate::build::tests::inputs;
use crate::{build, write_record};

/// A guest, and what it is built again from.
fn guest(place: &Path) -> (GuestFolder, Ingredients) {
    let mut inputs = inputs(place);
    let agent = fs::read(&inputs.agent).unwrap();
    inputs.agent_record = Some(write_record(&inputs.agent, &crate::agent_record::tests::record(&agent)).unwrap());
    let guest = build(&inputs, &place.join("guest")).unwrap();
    let ingredients = Ingredients {
        kernel: Some(inputs.kernel),
        agent: Some(inputs.agent),
        agent_record: inputs.agent_record,
        firmware: [("bios-256k.bin", inputs.bios), ("pvh.bin", inputs.pvh_rom)]
            .map(|(name, file)| (name.to_owned(), file.path))
            .into(),
    };
    (guest, ingredients)
}

fn again(ingredients: &Ingredients, rebuilt: &Rebuilt, place: &Path) -> PathBuf {
    let output = tempfile::tempdir_in(place).unwrap().keep();
    rebuild(ingredients, rebuilt, &output).unwrap();
    output
}

/// The names of what is not the same, and whether each differs.
fn not_same(comparison: &Comparison) -> Vec<(&str, bool)> {
    let found = comparison.found.iter();
    let other = found.filter(|found| !matches!(found.verdict, Verdict::Same { .. }));
    other.map(|found| (found.name.as_str(), matches!(found.verdict, Verdict::Differs { .. }))).collect()
}

#[test]
fn the_same_ingredients_give_the_same_guest() {
    let place = tempfile::tempdir().unwrap();
    let (guest, ingredients) = guest(place.path());
    let output = again(&ingredients, &Rebuilt::default(), place.path());
    let comparison = compare(guest.manifest(), None, &output).unwrap();
    assert!(comparison.is_same(), "{comparison:?}");
    let names: Vec<_> = comparison.found.iter().map(|found| found.name.as_str()).collect();
    for name in
        ["agent", "agent.json", "initrd.img", "vmlinuz", "vmlinux", "cmdline.snp", "launch digests of emulated-snp (2)"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn a_changed_byte_in_any_part_is_found() {
    let place = tempfile::tempdir().unwrap();
    let (guest, ingredients) = guest(place.path());
    let output = again(&ingredients, &Rebuilt::default(), place.path());
    let measured = ["bios-256k.bin", "cmdline.emulated-snp", "initrd.img", "pvh.bin", "vmlinux"];
    for name in guest.manifest().parts.keys() {
        let path = output.join(name);
        let before = fs::read(&path).unwrap();
        let mut changed = before.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&path, &changed).unwrap();
        let comparison = compare(guest.manifest(), Some(guest.path()), &output).unwrap();
        assert!(!comparison.is_same(), "{name}");
        let mut expected = vec![(name.as_str(), true)];
        if measured.contains(&name.as_str()) {
            expected.push(("launch digest of emulated-snp, EPYC-v4 with 1 processors", true));
            expected.push(("launch digest of emulated-snp, EPYC-v4 with 2 processors", true));
        }
        assert_eq!(not_same(&comparison), expected);
        let digests = comparison.found.iter().find_map(|found| match &found.verdict {
            Verdict::Differs { recorded, rebuilt, .. } => Some((recorded.clone(), rebuilt.clone())),
            _ => None,
        });
        assert_eq!(digests, Some((Sha256::of(&before).to_string(), Sha256::of(&changed).to_string())));
        fs::write(&path, before).unwrap();
    }
}

#[test]
fn another_agent_is_named_within_the_initrd() {
    let place = tempfile::tempdir().unwrap();
    let (guest, mut ingredients) = guest(place.path());
    let mut other = fs::read(ingredients.agent.as_ref().unwrap()).unwrap();
    other.push(0);
    let path = place.path().join("other");
    fs::write(&path, &other).unwrap();
    ingredients.agent_record = Some(write_record(&path, &crate::agent_record::tests::record(&other)).unwrap());
    ingredients.agent = Some(path);
    let output = again(&ingredients, &Rebuilt::default(), place.path());
    // With the first guest at hand, and with its description alone.
    for original in [Some(guest.path()), None] {
        let comparison = compare(guest.manifest(), original, &output).unwrap();
        let differing: Vec<_> = not_same(&comparison).into_iter().map(|(name, _)| name).collect();
        assert_eq!(differing[..3], ["agent", "agent.json", "initrd.img"]);
        let initrd = comparison.found.iter().find(|found| found.name == "initrd.img").unwrap();
        let Verdict::Differs { inside, .. } = &initrd.verdict else { panic!("{initrd:?}") };
        let expected = Inside {
            file: "init".to_owned(),
            recorded: Some(guest.manifest().agent.sha256.to_string()),
            rebuilt: Some(Sha256::of(&other).to_string()),
        };
        assert_eq!(inside.as_slice(), [expected]);
    }
}

#[test]
fn what_is_missing_is_said_and_is_no_success() {
    let place = tempfile::tempdir().unwrap();
    let (guest, ingredients) = guest(place.path());
    let without = |change: &dyn Fn(&mut Ingredients), name: &str| {
        let mut some = ingredients.clone();
        change(&mut some);
        let missing = [(name.to_owned(), "not to be had".to_owned())].into();
        let output = again(&some, &Rebuilt { missing, ..Rebuilt::default() }, place.path());
        let comparison = compare(guest.manifest(), None, &output).unwrap();
        assert!(!comparison.is_same());
        let lacking: Vec<_> =
            not_same(&comparison).into_iter().map(|(name, differs)| (name.to_owned(), differs)).collect();
        let first = comparison.found.iter().find_map(|found| match &found.verdict {
            Verdict::NotRebuilt { reason } => Some(reason.clone()),
            _ => None,
        });
        (lacking, first.unwrap())
    };
    let launch = "launch digests of emulated-snp (2)";
    let lacking = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), false)).collect::<Vec<_>>();
    let (agent, reason) = without(&|some| some.agent = None, "agent");
    assert_eq!(agent, lacking(&["agent", "agent.json", "initrd.img", launch]));
    assert_eq!(reason, "not to be had");
    let (kernel, reason) = without(&|some| some.kernel = None, "kernel");
    assert_eq!(kernel, lacking(&["initrd.img", "vmlinux", "vmlinuz", launch]));
    assert_eq!(reason, "kernel: not to be had");
    let (rom, reason) = without(&|some| drop(some.firmware.remove("pvh.bin")), "pvh.bin");
    assert_eq!(rom, lacking(&["pvh.bin", launch]));
    assert_eq!(reason, "not to be had");
}

#[test]
fn a_part_that_nobody_makes_is_not_taken_for_the_same() {
    let place = tempfile::tempdir().unwrap();
    let (guest, ingredients) = guest(place.path());
    let output = again(&ingredients, &Rebuilt::default(), place.path());
    let mut manifest = guest.manifest().clone();
    manifest.parts.insert("more.bin".to_owned(), part(b"more"));
    let comparison = compare(&manifest, None, &output).unwrap();
    assert_eq!(not_same(&comparison), [("more.bin", false)]);
}

#[test]
fn a_tee_that_starts_from_other_parts_is_not_the_same() {
    let place = tempfile::tempdir().unwrap();
    let (guest, ingredients) = guest(place.path());
    let output = again(&ingredients, &Rebuilt::default(), place.path());
    let mut manifest = guest.manifest().clone();
    let info = manifest.tees.get_mut(&Tee::EmulatedSnp).unwrap();
    info.cmdline = Tee::Snp.cmdline_file().to_owned();
    let comparison = compare(&manifest, None, &output).unwrap();
    assert_eq!(not_same(&comparison), [("launch digests of emulated-snp (2)", false)]);
}
