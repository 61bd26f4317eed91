//! What QEMU has loaded for the guest to execute, held against what it was given.
//!
//! QEMU looks for a ROM in its own folder where the one of `-L` has none of that name, and chooses by the kernel's form which
//! one it needs. So what it has loaded is asked for, and anything that nobody measured ends the VM.

/// Beginning of the lines on tables that QEMU makes for the firmware (ACPI): data.
const TABLE: &str = "/rom@etc/";

/// What follows the kernel's name where QEMU has loaded parts of it by itself, as for PVH.
const SEGMENT: &str = " ELF program header segment ";

/// What QEMU was given to be executed.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    /// The argument of `-bios`.
    pub(super) bios: String,
    /// The argument of `-kernel`.
    pub(super) kernel: String,
    /// Names of the option ROMs in the folder of `-L`.
    pub(super) option_roms: Vec<&'a str>,
}

/// How QEMU's list (`info roms`) differs from what was given, in words; `None` where it does not.
pub(super) fn difference(listed: &str, given: &Given<'_>) -> Option<String> {
    let lines: Vec<&str> = listed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let loaded: Vec<&str> = lines.iter().filter(|line| !line.starts_with(TABLE)).map(|line| subject(line)).collect();
    let wanted: Vec<String> =
        given.option_roms.iter().map(|name| format!("genroms/{name}")).chain([given.bios.clone()]).collect();
    let is_given = |what: &&&str| {
        let is_kernel = what.strip_prefix(&given.kernel).is_some_and(|rest| rest.starts_with(SEGMENT));
        is_kernel || wanted.iter().any(|wanted| wanted == *what)
    };
    if let Some(other) = loaded.iter().find(|what| !is_given(what)) {
        return Some(format!("QEMU loaded {other}, which was not given to it"));
    }
    let missing = wanted.iter().find(|wanted| !loaded.contains(&wanted.as_str()))?;
    Some(format!("QEMU did not load {missing}, which was given to it"))
}

/// What a line is about: the place in the firmware's interface, else the name; the line itself where it has neither.
fn subject(line: &str) -> &str {
    if let Some((place, _)) = line.strip_prefix("fw=").and_then(|rest| rest.rsplit_once(" size=")) {
        return place;
    }
    let named = line.split_once(" name=\"").and_then(|(_, rest)| rest.strip_suffix('"'));
    named.filter(|_| line.contains(" mem=")).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "fw=genroms/pvh.bin size=0x000600 name=\"pvh.bin\"\r\n\
        addr=0000000000100000 size=0x000051 mem=ram name=\"/proc/self/fd/10 ELF program header segment 0\"\r\n\
        addr=00000000fffc0000 size=0x040000 mem=rom name=\"/proc/self/fd/15\"\r\n\
        /rom@etc/acpi/tables size=0x200000 name=\"etc/acpi/tables\"\r\n";

    fn given() -> Given<'static> {
        let number = |number| format!("/proc/self/fd/{number}");
        Given { bios: number(15), kernel: number(10), option_roms: vec!["pvh.bin"] }
    }

    #[test]
    fn what_was_given_is_what_was_loaded() {
        assert_eq!(difference(LISTED, &given()), None);
    }

    #[test]
    fn anything_else_is_told() {
        for line in [
            "fw=genroms/efi-virtio.rom size=0x02c600 name=\"efi-virtio.rom\"",
            "fw=vgaroms/vgabios.bin size=0x009c00 name=\"vgabios.bin\"",
            "addr=00000000000c8000 size=0x002400 mem=rom name=\"kvmvapic.bin\"",
            "addr=0000000000100000 size=0x000051 mem=ram name=\"/proc/self/fd/1 ELF program header segment 0\"",
            "addr=0000000000100000 size=0x000051 mem=ram name=\"/proc/self/fd/100 ELF program header segment 0\"",
            "something of another QEMU",
        ] {
            let said = difference(&format!("{LISTED}{line}\r\n"), &given());
            assert!(said.is_some_and(|said| said.contains("was not given to it")), "{line}");
        }
        let without: String = LISTED.lines().skip(1).map(|line| format!("{line}\n")).collect();
        let said = difference(&without, &given()).unwrap();
        assert_eq!(said, "QEMU did not load genroms/pvh.bin, which was given to it");
        assert!(difference("", &given()).is_some());
    }
}
