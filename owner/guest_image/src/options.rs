//! The kernel's options: those that the guest asks for, held against those that a build really has.
//!
//! The form is the kernel's own (kernel documentation, Kconfig: `.config`): `CONFIG_NAME=value`, or `# CONFIG_NAME is not set`.
//! Kconfig drops silently what depends on an option that is off, and adds what others select: so both are looked for.

use std::collections::BTreeMap;

/// What the guest's kernel is made with, over `tinyconfig`; each option with its reason.
pub const OPTIONS: &str = include_str!("../../../guest/kernel/options");

/// The options of a text, by name; `None` is one that is not set. Later lines win, as in Kconfig.
pub(crate) fn parse(text: &str) -> BTreeMap<&str, Option<&str>> {
    text.lines().filter_map(option).collect()
}

/// The option in one line.
fn option(line: &str) -> Option<(&str, Option<&str>)> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("# ") {
        return rest.strip_suffix(" is not set").filter(|name| name.starts_with("CONFIG_")).map(|name| (name, None));
    }
    let (name, value) = line.split_once('=').filter(|(name, _)| name.starts_with("CONFIG_"))?;
    Some((name, Some(value)))
}

/// What of `wanted` is otherwise in the configuration `made`: one sentence each.
pub(crate) fn differences(wanted: &str, made: &str) -> Vec<String> {
    let made = parse(made);
    let differs = |(name, wanted): (&str, Option<&str>)| {
        let found = made.get(name).copied().flatten();
        let shown = |value: Option<&str>| value.map_or_else(|| "off".to_owned(), |value| format!("`{value}`"));
        (found != wanted).then(|| format!("{name} is {}, expected {}", shown(found), shown(wanted)))
    };
    parse(wanted).into_iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_did_not_take_are_named() {
        let wanted = "# a comment\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_D=4\n";
        assert_eq!(differences(wanted, "CONFIG_A=y\nCONFIG_C=\"x\"\nCONFIG_D=4\nCONFIG_E=y\n"), Vec::<String>::new());
        let made = "CONFIG_B=y\nCONFIG_C=\"x\"\nCONFIG_D=8\n";
        let expected =
            ["CONFIG_A is off, expected `y`", "CONFIG_B is `y`, expected off", "CONFIG_D is `8`, expected `4`"];
        assert_eq!(differences(wanted, made), expected);
    }

    #[test]
    fn no_option_is_named_twice_and_each_block_has_a_reason() {
        let mut seen = std::collections::BTreeSet::new();
        let mut reason = false;
        for line in OPTIONS.lines() {
            match option(line) {
                Some((name, _)) => {
                    assert!(seen.insert(name), "{name} is there twice");
                    assert!(reason, "{name} has no comment above it");
                }
                None => reason = line.starts_with("# "),
            }
        }
        assert!(seen.len() > 100, "the options are there");
    }

    /// What the guest must never have.
    #[test]
    fn ways_into_the_kernel_are_off() {
        let options = parse(OPTIONS);
        for name in ["CONFIG_ACPI_TABLE_UPGRADE", "CONFIG_EFI_CUSTOM_SSDT_OVERLAYS", "CONFIG_MSDOS_PARTITION"] {
            assert_eq!(options.get(name), Some(&None), "{name}");
        }
        for name in [
            "CONFIG_MODULES",
            "CONFIG_KEXEC",
            "CONFIG_KEXEC_FILE",
            "CONFIG_DEBUG_FS",
            "CONFIG_DEVMEM",
            "CONFIG_KPROBES",
        ] {
            assert!(!options.get(name).is_some_and(Option::is_some), "{name}");
        }
    }
}
