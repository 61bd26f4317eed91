//! What the system's own tools say of an image: a file of its own, since tests of other crates use it as well.

use std::{ffi::OsStr, path::Path, process::Command};

/// A tool of the system; where it is absent this says so.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let folders = ["/usr/sbin", "/sbin", "/usr/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no {name}, which the set-up installs");
    }
    found.map(Command::new)
}

/// Has `e2fsck` check the file system in a file, and `veritysetup` the hash tree behind its `data_bytes`.
pub(crate) fn accepted(image: &Path, root: &str, data_bytes: u64) {
    if let Some(mut veritysetup) = tool("veritysetup") {
        let offset = format!("--hash-offset={data_bytes}");
        let arguments = [OsStr::new("verify"), image.as_os_str(), image.as_os_str(), root.as_ref(), offset.as_ref()];
        let output = veritysetup.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}: {}", image.display(), String::from_utf8_lossy(&output.stderr));
    }
    if let Some(mut e2fsck) = tool("e2fsck") {
        let output = e2fsck.arg("-fn").arg(image).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // The reference leaves the unused end of its inode bitmaps zero, and byte for byte so do we: e2fsck remarks on
        // that, and on nothing else.
        let usual = |line: &&str| {
            line.starts_with("Pass ")
                || line.starts_with("Padding at end of inode bitmap is not set.")
                || line.contains("WARNING: Filesystem still has errors")
                || line.contains(" files (0.0% non-contiguous), ")
                || line.is_empty()
        };
        let complaints: Vec<_> = text.lines().filter(|line| !usual(line)).collect();
        assert!(complaints.is_empty() && matches!(output.status.code(), Some(0 | 4)), "{}: {text}", image.display());
        assert!(text.contains("Pass 5: Checking group summary information"), "{}: {text}", image.display());
    }
}
