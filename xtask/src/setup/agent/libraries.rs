//! What is in an agent and is no crate: libraries of the distribution, start-up code, the standard library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use caveau_guest_image::{LibraryInfo, PackageFile, RUST_TOOLCHAIN, Sha256};
use serde_json::Value;

/// The standard library's licence, as its crates state it.
const STANDARD_LIBRARY_LICENSE: &str = "MIT OR Apache-2.0";

/// Files outside the build's own folder that are in the program: by the linker's map, and by what build scripts had linked
/// statically, since the linker finds those within a crate. `sysroot` is that of the Rust toolchain, of this `version`.
pub(super) fn libraries(
    map: &str,
    messages: &[Value],
    target_folder: &Path,
    (sysroot, version): (&Path, &str),
    target: &str,
) -> Result<Vec<LibraryInfo>> {
    let mut paths = linked_files(map);
    paths.extend(static_libraries(messages));
    // What lies in the build's folder was compiled there, from crates.
    paths.retain(|path| !path.starts_with(target_folder) && path.is_file());
    let standard = sysroot.join("lib/rustlib").join(target).join("lib");
    paths.extend(standard_library(&standard)?);
    let mut by_name = BTreeMap::new();
    for path in paths {
        let info = library(&path, (sysroot, version))?;
        if let Some(other) = by_name.insert(info.file.clone(), info.clone()) {
            ensure!(other == info, "two libraries are called {}: {} is one", info.file, path.display());
        }
    }
    Ok(by_name.into_values().collect())
}

/// Archives and object files that a linker's map names, by what it took from them: `ARCHIVE(MEMBER)`, or `OBJECT:(SECTION)`.
fn linked_files(map: &str) -> BTreeSet<PathBuf> {
    let path = |line: &str| {
        let rest = line.get(line.find('/')?..)?;
        let ends = [(".a(", 2), (".rlib(", 5), (".o:(", 2)].into_iter();
        let end = ends.filter_map(|(mark, length)| Some(rest.find(mark)? + length)).min();
        let end = end.or_else(|| rest.ends_with(".o").then_some(rest.len()))?;
        Some(PathBuf::from(rest.get(..end)?))
    };
    map.lines().filter_map(path).collect()
}

/// The archives that build scripts asked to be linked in, as Cargo reports it (`build-script-executed`: `linked_libs` and
/// `linked_paths`), in the folders that they named.
fn static_libraries(messages: &[Value]) -> BTreeSet<PathBuf> {
    let executed = messages.iter().filter(|message| message["reason"] == "build-script-executed");
    let texts = |message: &Value, field: &str| -> Vec<String> {
        let list = message[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut found = BTreeSet::new();
    for message in executed {
        for library in texts(message, "linked_libs") {
            let Some(name) = library.strip_prefix("static").and_then(|rest| rest.split_once('=')) else { continue };
            let file = format!("lib{}.a", name.1);
            let folders = texts(message, "linked_paths");
            let folders = folders.iter().map(|folder| folder.split_once('=').map_or(folder.as_str(), |(_, path)| path));
            found.extend(folders.map(|folder| Path::new(folder).join(&file)).find(|path| path.is_file()));
        }
    }
    found
}

/// The standard library's main file. It is compiled together with the crates, so that no linker tells of it.
fn standard_library(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = folder.read_dir().with_context(|| format!("failed to read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    });
    ensure!(found.len() == 1, "{} does not hold exactly one libstd-*.rlib", folder.display());
    Ok(found.pop())
}

fn library(path: &Path, (sysroot, version): (&Path, &str)) -> Result<LibraryInfo> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = Sha256::of(&bytes);
    if path.starts_with(sysroot) {
        let license = Some(STANDARD_LIBRARY_LICENSE.to_owned());
        let version = version.to_owned();
        return Ok(LibraryInfo { file, sha256, package: RUST_TOOLCHAIN.to_owned(), version, license });
    }
    let package = PackageFile::of(path);
    let package = package.with_context(|| {
        format!(
            "{} is in the agent, and is of no installed package as that has it: what it is cannot be said",
            path.display()
        )
    })?;
    let license = license(Path::new("/usr/share/doc"), &package.name);
    Ok(LibraryInfo { file, sha256, package: package.name, version: package.version, license })
}

/// The licence of most of a package's files, where its copyright file is to be read by programs (Debian's machine-readable
/// copyright format 1.0: the paragraph `Files: *`).
fn license(documents: &Path, package: &str) -> Option<String> {
    let text = fs::read_to_string(documents.join(package).join("copyright")).ok()?;
    text.starts_with("Format: ").then_some(())?;
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let mut paragraphs = text.split("\n\n");
    let all = paragraphs.find(|paragraph| field(paragraph, "Files:").as_deref() == Some("*"))?;
    field(all, "License:").filter(|license| !license.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_both_linkers_are_read() {
        let map = "             VMA              LMA     Size Align Out     In      Symbol\n\
               210         0       20     1         /usr/lib/x86_64-linux-gnu/crt1.o:(.note.ABI-tag)\n\
               300         0       20     1         /usr/lib/x86_64-linux-gnu/libc.a(printf.o):(.text)\n\
               400         0       20     1         /b/liblibseccomp_sys-1.rlib(api.o):(.text)\n\
               500         0       20     1                 printf\n\
              .text          0x0000000000401000       0x26 /usr/lib/gcc/crtbeginT.o\n\
             LOAD /usr/lib/libm.a\n";
        let found: Vec<_> = linked_files(map).into_iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            found,
            [
                "/b/liblibseccomp_sys-1.rlib",
                "/usr/lib/gcc/crtbeginT.o",
                "/usr/lib/x86_64-linux-gnu/crt1.o",
                "/usr/lib/x86_64-linux-gnu/libc.a",
            ]
        );
    }

    #[test]
    fn what_build_scripts_link_is_found_where_they_say() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libx.a");
        fs::write(&library, b"archive").unwrap();
        let paths = [format!("native={}", folder.path().display())];
        let message = |libs: &[&str]| serde_json::json!({"reason": "build-script-executed", "linked_libs": libs, "linked_paths": paths});
        assert_eq!(static_libraries(&[message(&["static=x", "dylib=y"])]), [library.clone()].into());
        assert_eq!(static_libraries(&[message(&["static:+whole-archive=x"])]), [library].into());
        assert_eq!(static_libraries(&[message(&["static=missing", "x"])]), BTreeSet::new());
    }

    #[test]
    fn licences_are_those_of_most_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            fs::create_dir_all(folder.path().join("p")).unwrap();
            fs::write(folder.path().join("p/copyright"), text).unwrap();
            license(folder.path(), "p")
        };
        let text = "Format: https://…/1.0/\nUpstream-Name: p\n\nFiles: tests/*\nLicense: MIT\n\nFiles: *\nCopyright: me\n\
            License: LGPL-2.1\n\nLicense: LGPL-2.1\n This library\n";
        assert_eq!(write(text).as_deref(), Some("LGPL-2.1"));
        assert_eq!(write("It was packaged by me.\n\nFiles: *\nLicense: MIT\n"), None);
        assert_eq!(license(folder.path(), "missing"), None);
    }
}
