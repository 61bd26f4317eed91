//! The initial RAM disk: a `newc` archive (kernel documentation: initramfs buffer format), the same bytes for the same parts.

use std::io::{self, Write as _};

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::Tee;
use crate::modules::Module;

/// Empty folders that the agent mounts on.
const FOLDERS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// The archive with the agent as `/init` and, below `/modules`, the modules with their orders of loading.
///
/// `/modules/order` lists the files that every guest loads, `/modules/order.TEE` those that only this TEE adds.
///
/// # Errors
/// Where a file is larger than the format's 4 GiB.
pub(crate) fn archive(agent: &[u8], modules: &[Module]) -> io::Result<Vec<u8>> {
    let mut archive = Archive { bytes: Vec::new(), inode: 0 };
    for folder in FOLDERS {
        archive.entry(folder, 0o755, ModeFileType::Directory, &[], (0, 0))?;
    }
    // The kernel opens it for PID 1 before anything is mounted.
    archive.entry("dev/console", 0o600, ModeFileType::Char, &[], (5, 1))?;
    archive.entry("init", 0o755, ModeFileType::Regular, agent, (0, 0))?;
    archive.entry("modules", 0o755, ModeFileType::Directory, &[], (0, 0))?;
    for (number, module) in modules.iter().enumerate() {
        archive.file(&format!("modules/{}", file_name(number, module)), &module.bytes)?;
    }
    archive.file("modules/order", order(modules, None).as_bytes())?;
    for tee in Tee::ALL {
        archive.file(&format!("modules/order.{tee}"), order(modules, Some(tee)).as_bytes())?;
    }
    trailer(archive.bytes)
}

fn file_name(number: usize, module: &Module) -> String {
    format!("{number:02}-{}.ko", module.name)
}

fn order(modules: &[Module], tee: Option<Tee>) -> String {
    let numbered = modules.iter().enumerate().filter(|(_, module)| module.tee == tee);
    numbered.map(|(number, module)| file_name(number, module) + "\n").collect()
}

struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn file(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.entry(name, 0o644, ModeFileType::Regular, contents, (0, 0))
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        kind: ModeFileType,
        contents: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        self.inode += 1;
        let length =
            u32::try_from(contents.len()).map_err(|_| io::Error::other(format!("{name} is 4 GiB or larger")))?;
        let header = Builder::new(name).ino(self.inode).mode(mode).set_mode_file_type(kind);
        let header = header.rdev_major(device.0).rdev_minor(device.1);
        let mut writer = header.write(std::mem::take(&mut self.bytes), length);
        writer.write_all(contents)?;
        self.bytes = writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use cpio::newc::Reader;

    use super::*;

    fn module(name: &str, tee: Option<Tee>) -> Module {
        Module { name: name.to_owned(), tee, bytes: name.as_bytes().to_vec() }
    }

    #[test]
    fn holds_the_agent_modules_and_orders() {
        let modules = [module("a", None), module("tsm", Some(Tee::Snp)), module("b", None)];
        let bytes = archive(b"agent", &modules).unwrap();
        assert_eq!(bytes, archive(b"agent", &modules).unwrap());
        let mut rest = bytes.as_slice();
        let mut files = std::collections::BTreeMap::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry().clone();
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            rest = reader.finish().unwrap();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime(), entry.nlink()), (0, 0, 0, 1));
            files.insert(entry.name().to_owned(), (entry.mode(), String::from_utf8(contents).unwrap()));
        }
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let expected = [
            "dev",
            "dev/console",
            "init",
            "modules",
            "modules/00-a.ko",
            "modules/01-tsm.ko",
            "modules/02-b.ko",
            "modules/order",
            "modules/order.emulated-snp",
            "modules/order.snp",
            "proc",
            "run",
            "sys",
            "tmp",
        ];
        assert_eq!(names, expected);
        assert_eq!(files["init"], (0o100_755, "agent".to_owned()));
        assert_eq!(files["dev/console"].0, 0o020_600);
        assert_eq!(files["modules/order"].1, "00-a.ko\n02-b.ko\n");
        assert_eq!(files["modules/order.snp"].1, "01-tsm.ko\n");
        assert_eq!(files["modules/order.emulated-snp"].1, "");
    }
}
