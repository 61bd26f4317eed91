//! Two initial RAM disks, file by file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use cpio::newc::Reader;
use serde::Serialize;

use crate::{Manifest, Sha256};

/// A file of an archive that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inside {
    /// Its name; of the archive itself where all files are the same and only their order or their attributes are not.
    pub file: String,
    /// What was recorded, where there was one: the SHA-256 of its contents, and with another mode that as well.
    pub recorded: Option<String>,
    /// What was built again, where there is one.
    pub rebuilt: Option<String>,
}

/// A file as it is compared: contents, type and permissions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    sha256: Sha256,
    mode: u32,
}

/// Files by name; an archive that breaks off has those before.
fn entries(archive: &[u8]) -> BTreeMap<String, Entry> {
    let mut files = BTreeMap::new();
    let mut rest = archive;
    while let Ok(mut reader) = Reader::new(rest) {
        if reader.entry().is_trailer() {
            break;
        }
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        let mut contents = Vec::new();
        if reader.read_to_end(&mut contents).is_err() {
            break;
        }
        files.insert(name, Entry { sha256: Sha256::of(&contents), mode });
        match reader.finish() {
            Ok(after) => rest = after,
            Err(_) => break,
        }
    }
    files
}

/// What differs between the first archive and the second, of which it is known that they are not equal.
pub(super) fn differences(first: &[u8], second: &[u8]) -> Vec<Inside> {
    let (first, second) = (entries(first), entries(second));
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let differ = names.into_iter().filter(|name| first.get(*name) != second.get(*name));
    let inside = differ.map(|name| {
        let (one, two) = (first.get(name), second.get(name));
        // Equal contents with another mode would look the same.
        let modes = matches!((one, two), (Some(one), Some(two)) if one.mode != two.mode);
        let text = |entry: &Entry| {
            if modes { format!("{} (mode {:o})", entry.sha256, entry.mode) } else { entry.sha256.to_string() }
        };
        Inside { file: name.clone(), recorded: one.map(text), rebuilt: two.map(text) }
    });
    or_archive(inside.collect())
}

/// What differs from what guest.json says of the agent and the modules, where the first archive is not at hand.
pub(super) fn differences_from(manifest: &Manifest, second: &[u8]) -> Vec<Inside> {
    let second = entries(second);
    let modules = manifest.modules.iter().enumerate();
    let modules = modules.map(|(number, module)| (format!("modules/{number:02}-{}.ko", module.name), module.sha256));
    let recorded: BTreeMap<String, Sha256> = modules.chain([("init".to_owned(), manifest.agent.sha256)]).collect();
    let of_kind = |name: &String| name.ends_with(".ko") || name == "init";
    let names: BTreeSet<&String> = recorded.keys().chain(second.keys().filter(|name| of_kind(name))).collect();
    let inside = names.into_iter().filter_map(|name| {
        let (one, two) = (recorded.get(name).copied(), second.get(name).map(|entry| entry.sha256));
        let text = |digest: Sha256| digest.to_string();
        (one != two).then(|| Inside { file: name.clone(), recorded: one.map(text), rebuilt: two.map(text) })
    });
    or_archive(inside.collect())
}

/// The archive itself where no file in it differs.
fn or_archive(inside: Vec<Inside>) -> Vec<Inside> {
    if !inside.is_empty() {
        return inside;
    }
    vec![Inside {
        file: "the archive itself: other files, their order or their attributes".to_owned(),
        recorded: None,
        rebuilt: None,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tee;
    use crate::initrd;
    use crate::modules::Module;

    fn module(name: &str, tee: Option<Tee>, bytes: &[u8]) -> Module {
        Module { name: name.to_owned(), tee, bytes: bytes.to_vec() }
    }

    #[test]
    fn the_file_that_differs_is_named() {
        let first = initrd::archive(b"agent", &[module("a", None, b"one")]).unwrap();
        let second = initrd::archive(b"agent", &[module("a", None, b"two")]).unwrap();
        let expected = Inside {
            file: "modules/00-a.ko".to_owned(),
            recorded: Some(Sha256::of(b"one").to_string()),
            rebuilt: Some(Sha256::of(b"two").to_string()),
        };
        assert_eq!(differences(&first, &second), [expected]);
        let fewer = initrd::archive(b"agent", &[]).unwrap();
        let names: Vec<_> =
            differences(&first, &fewer).into_iter().map(|inside| (inside.file, inside.rebuilt)).collect();
        assert_eq!(names[0], ("modules/00-a.ko".to_owned(), None));
        assert_eq!(names[1].0, "modules/order");
    }

    #[test]
    fn modes_and_what_is_beside_the_files_count() {
        let first = initrd::archive(b"agent", &[]).unwrap();
        let mut mode = first.clone();
        let at = first.windows(8).position(|window| window == b"000081ed").unwrap();
        mode[at + 7] = b'c';
        let [inside] = differences(&first, &mode).try_into().unwrap();
        assert_eq!(inside.file, "init");
        assert!(
            inside.recorded.unwrap().ends_with(" (mode 100755)") && inside.rebuilt.unwrap().ends_with("(mode 100754)")
        );
        let mut owner = first.clone();
        owner[6 + 8 * 2 + 7] = b'1';
        let [inside] = differences(&first, &owner).try_into().unwrap();
        assert!(inside.file.starts_with("the archive itself"), "{inside:?}");
        assert!(differences(&first, &first[..100]).iter().any(|inside| inside.file == "init"));
    }
}
