//! `caveau layer` as a shell sees it.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    process::{Command, Output, Stdio},
};

/// A tar without entries: its end mark alone.
const EMPTY: [u8; 1024] = [0; 1024];

fn layer(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_caveau")).arg("layer").args(arguments).output().expect("caveau starts")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip starts");
    gzip.stdin.take().expect("a pipe").write_all(content).expect("gzip reads");
    gzip.wait_with_output().expect("gzip ends").stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_systems_tools_accept_what_is_built() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (tar, image) = (path("x.tar"), path("x.img"));
    fs::create_dir_all(path("root/one/two")).expect("a folder");
    fs::write(path("root/one/large"), "not all of it the same\n".repeat(200_000)).expect("a file");
    fs::hard_link(path("root/one/large"), path("root/one/two/again")).expect("a link");
    std::os::unix::fs::symlink("../large", path("root/one/two/link")).expect("a link");
    let mut command = Command::new("tar");
    command.args(["--create", "--file"]).arg(&tar).arg("--directory").arg(path("root")).arg("one");
    assert!(command.status().expect("tar runs").success());
    let built =
        layer(&[OsStr::new("build"), OsStr::new("--json"), tar.as_os_str(), OsStr::new("-o"), image.as_os_str()]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let told: serde_json::Value = serde_json::from_slice(&built.stdout).expect("JSON");
    let (root, data_bytes) = (told["root"].as_str().expect("a root"), told["data_bytes"].as_u64().expect("a length"));
    assert!(data_bytes > 4 << 20, "{told}");
    crate::accepted::accepted(&image, root, data_bytes);
}

#[test]
fn each_good_tar_of_several_has_its_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let paths =
        [path("a.tar", &EMPTY), path("b.tar", b"no tar"), folder.path().join("none"), path("c.gz", &gzip(&EMPTY))];
    let mut arguments = vec![OsStr::new("hash")];
    arguments.extend(paths.iter().map(|path| path.as_os_str()));
    let output = layer(&arguments);
    assert_eq!(output.status.code(), Some(2));
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    let lines: Vec<(&str, &str)> = out.lines().filter_map(|line| line.split_once('\t')).collect();
    let [(first, a), (second, c)] = lines[..] else { panic!("{out}") };
    assert!(first == second && first.len() == 64 && a.ends_with("a.tar") && c.ends_with("c.gz"), "{out}");
    assert!(errors.contains("b.tar") && errors.contains("none") && errors.contains("2 of 4"), "{errors}");
}

#[test]
fn a_stream_that_is_damaged_behind_the_tars_end_is_no_layer() {
    let folder = tempfile::tempdir().expect("a folder");
    // So much behind the end mark that the converter does not meet the end by itself.
    let packed = gzip(&vec![0; 4 << 20]);
    let (last, middle) = (packed.len() - 1, packed.len() - 8);
    let mut wrong_length = packed.clone();
    wrong_length[last] ^= 1;
    let mut wrong_checksum = packed.clone();
    wrong_checksum[middle] ^= 1;
    let (tar, image) = (folder.path().join("x.tar.gz"), folder.path().join("image"));
    for (content, good) in
        [(&packed[..], true), (&packed[..last], false), (&wrong_length, false), (&wrong_checksum, false)]
    {
        fs::write(&tar, content).expect("a file");
        let hash = layer(&[OsStr::new("hash"), tar.as_os_str()]);
        assert_eq!((hash.status.success(), !hash.stdout.is_empty()), (good, good), "{}", text(&hash.stderr));
        let build = layer(&[OsStr::new("build"), tar.as_os_str(), OsStr::new("-o"), image.as_os_str()]);
        assert_eq!((build.status.success(), image.exists()), (good, good), "{}", text(&build.stderr));
        let _gone = fs::remove_file(&image);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "something was left behind");
}

#[test]
fn names_that_are_no_text_are_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let tar = folder.path().join(OsStr::from_bytes(b"\xff.tar"));
    fs::write(&tar, EMPTY).expect("a file");
    let output = layer(&[OsStr::new("hash"), OsStr::new("--json"), tar.as_os_str()]);
    assert!(output.status.success() && text(&output.stdout).contains(r#""root""#), "{}", text(&output.stderr));
}

#[test]
fn an_image_is_a_file_like_others_and_replaces_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("x.tar"), EMPTY).expect("a file");
    let build =
        |output: &Path| layer(&[OsStr::new("build"), path("x.tar").as_os_str(), OsStr::new("-o"), output.as_os_str()]);
    let socket = UnixListener::bind(path("socket")).expect("a socket");
    let output = build(&path("socket"));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("not a regular file"), "{}", text(&output.stderr));
    drop(socket);
    let mode = |name: &str| fs::metadata(path(name)).expect("a file").permissions().mode();
    for _ in 0..2 {
        assert!(build(&path("image")).status.success());
        assert_eq!(mode("image"), mode("x.tar"));
    }
}
