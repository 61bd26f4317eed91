//! `caveau owner cp`: files and folders into a container and out of it, unseen by the host. In the container `tar` reads and writes
//! them, so that they are what its processes see.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use caveau_protocol::Stream;
use tar::{Archive, Builder, EntryType, Header};

use super::{
    process::{Input, follow, start},
    program, session,
};
use crate::{
    args,
    channel::Channel,
    exit::{CodedError, NOT_FOUND, Outcome},
    ui,
};

/// Bytes of a piece on its way.
const PIECE: usize = 256 << 10;

/// Pieces that wait for whoever takes them.
const WAITING: usize = 4;

/// Most of what `tar` says on standard error that is told.
const MAX_SAID: usize = 4096;

/// Copies.
///
/// # Errors
/// Where neither or both of the places are the container's, one of them cannot be read or written, or the container has no `tar`.
pub(super) fn copy(command: &args::OwnerCopy, quiet: bool) -> Result<Outcome> {
    let way = Way::of(&command.source, &command.target)?;
    // What is wrong here is told before anybody is asked.
    if let Way::In { source, .. } = &way {
        fs::symlink_metadata(source).with_context(|| format!("failed to read {}", source.display()))?;
    }
    let Some(mut channel) = session(&command.session, quiet)? else { return Ok(Outcome::Refused) };
    match way {
        Way::In { source, folder, name } => copy_in(&mut channel, &source, &folder, &name)?,
        Way::Out { folder, name, target } => copy_out(&mut channel, &folder, &name, &target)?,
    }
    Ok(Outcome::Done)
}

/// What is copied where: of a place in the container its folder, and its name there.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    In { source: PathBuf, folder: String, name: String },
    Out { folder: String, name: String, target: PathBuf },
}

impl Way {
    fn of(source: &str, target: &str) -> Result<Self> {
        match (source.strip_prefix(':'), target.strip_prefix(':')) {
            (Some(inside), None) => {
                let (folder, name) = split(inside)?;
                let name = name.with_context(|| format!("{source} names no file or folder of its own to be copied"))?;
                Ok(Self::Out { folder, name, target: target.into() })
            }
            (None, Some(inside)) => {
                let (folder, name) = split(inside)?;
                let own = || Path::new(source).file_name()?.to_str().map(str::to_owned);
                let name = name.or_else(own).with_context(|| format!("{source} has no name: give one to {target}"))?;
                Ok(Self::In { source: source.into(), folder, name })
            }
            _ => bail!(
                "one of {source} and {target} must be in the container, as in :/etc/hosts, and the other one here"
            ),
        }
    }
}

/// The folder and the name there of an absolute path; no name where it ends with a slash, which means "in there".
fn split(path: &str) -> Result<(String, Option<String>)> {
    ensure!(path.starts_with('/'), "the path in the container must be absolute, as in :/etc/hosts, found :{path}");
    let plain = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    ensure!(plain, "the path in the container must have no `..` in it, found :{path}");
    let (folder, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or_default();
    if path.ends_with('/') {
        return Ok((path.to_owned(), None));
    }
    Ok((if folder.is_empty() { "/".to_owned() } else { folder.to_owned() }, Some(name.to_owned())))
}

/// From here into the container.
fn copy_in(channel: &mut Channel, source: &Path, folder: &str, name: &str) -> Result<()> {
    let (sender, receiver) = sync_channel(WAITING);
    let (path, called) = (source.to_path_buf(), name.to_owned());
    let packing = thread::Builder::new().name("pack".into()).spawn(move || pack(&path, &called, Pieces(sender)))?;
    let done = run_tar(channel, &["-C", folder, "-xf", "-"], Some(Input::of(receiver)), &mut |_| Ok(()));
    let packed = packing.join().map_err(|_| anyhow!("the archive was not made to its end"))?;
    // Where `tar` has ended early, that is why nobody took the rest.
    done?;
    packed.with_context(|| format!("failed to read {}", source.display()))
}

/// From the container to here. What comes is the container's word: regular files and folders are taken, below the name that was asked for,
/// and nothing else.
fn copy_out(channel: &mut Channel, folder: &str, name: &str, target: &Path) -> Result<()> {
    let target = if target.is_dir() { target.join(name) } else { target.to_path_buf() };
    ensure!(!target.is_dir(), "{} is there already", target.display());
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = tempfile::Builder::new().prefix(".caveau-cp-").tempdir_in(parent);
    let work = work.with_context(|| format!("failed to make a folder in {}", parent.display()))?;
    let (sender, receiver) = sync_channel(WAITING);
    let (into, called) = (work.path().to_path_buf(), name.to_owned());
    let unpacking =
        thread::Builder::new().name("unpack".into()).spawn(move || unpack(Source::of(receiver), &called, &into))?;
    let mut sender = Some(sender);
    let done = run_tar(channel, &["-C", folder, "-cf", "-", "--", name], None, &mut |bytes| {
        // Whoever unpacks has stopped: what it says is the reason.
        if sender.as_ref().is_some_and(|sender| sender.send(bytes.to_vec()).is_err()) {
            sender = None;
        }
        Ok(())
    });
    drop(sender);
    let left_out = unpacking.join().map_err(|_| anyhow!("the archive was not read to its end"))?;
    done?;
    for path in left_out.with_context(|| format!("failed to unpack what the container gave for :{folder}/{name}"))? {
        ui::note(false, &format!("left out, since it is neither a file nor a folder: {path}"));
    }
    fs::rename(work.path().join(name), &target).with_context(|| format!("failed to write {}", target.display()))
}

/// Runs `tar` in the container.
fn run_tar(
    channel: &mut Channel,
    arguments: &[&str],
    input: Option<Input>,
    output: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let args = ["tar"].iter().chain(arguments).map(|&word| word.to_owned()).collect();
    let spec = caveau_protocol::ProcessSpec { stdin: input.is_some(), ..program(args, Vec::new()) };
    let process = start(channel, spec).map_err(|error| match error.downcast_ref::<CodedError>() {
        Some(coded) if coded.code == NOT_FOUND => {
            anyhow!("the container has no `tar`, by which files are copied: caveau owner exec can run what it has")
        }
        _ => error,
    })?;
    let mut said = Vec::new();
    let code = follow(channel, &process, false, input, &mut |stream, bytes| match stream {
        Stream::Stdout => output(bytes),
        Stream::Stderr => {
            said.extend_from_slice(&bytes[..bytes.len().min(MAX_SAID.saturating_sub(said.len()))]);
            Ok(())
        }
    })?;
    ensure!(code == 0, "tar in the container ended with code {code}: {}", String::from_utf8_lossy(&said).trim());
    Ok(())
}

/// Writes an archive of a file or folder, under this name, owned by root.
fn pack(source: &Path, name: &str, to: impl Write) -> Result<()> {
    let mut archive = Builder::new(to);
    add(&mut archive, source, Path::new(name))?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn add(archive: &mut Builder<impl Write>, source: &Path, name: &Path) -> Result<()> {
    let about = fs::symlink_metadata(source).with_context(|| format!("failed to read {}", source.display()))?;
    let mut header = Header::new_gnu();
    header.set_metadata(&about);
    header.set_uid(0);
    header.set_gid(0);
    if about.is_dir() {
        header.set_size(0);
        archive.append_data(&mut header, name, io::empty())?;
        let mut entries = fs::read_dir(source)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        entries.iter().try_for_each(|entry| add(archive, &entry.path(), &name.join(entry.file_name())))
    } else if about.is_symlink() {
        header.set_size(0);
        archive.append_link(&mut header, name, fs::read_link(source)?)?;
        Ok(())
    } else if about.is_file() {
        let file = File::open(source).with_context(|| format!("failed to read {}", source.display()))?;
        // As long as it was: a file that grows meanwhile is cut there, and one that shrinks is an error.
        archive.append_data(&mut header, name, file.take(about.len()))?;
        Ok(())
    } else {
        bail!("{} is neither a file nor a folder nor a link", source.display())
    }
}

/// Unpacks regular files and folders below `name` into a folder that is empty; gives what was left out.
fn unpack(from: impl Read, name: &str, into: &Path) -> Result<Vec<String>> {
    let mut left_out = Vec::new();
    let mut archive = Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let shown = path.display().to_string();
        // `./` may come first; nothing but names may follow.
        let parts: Vec<_> = path.components().filter(|part| !matches!(part, Component::CurDir)).collect();
        let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            plain && parts.first().is_some_and(|part| part.as_os_str() == name),
            "{shown:?} is not below {name:?}, which was asked for"
        );
        let target = into.join(parts.iter().collect::<PathBuf>());
        match entry.header().entry_type() {
            EntryType::Directory => match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            },
            EntryType::Regular | EntryType::Continuous => {
                let mut file = File::create_new(&target).with_context(|| format!("failed to make {shown:?}"))?;
                let copied = io::copy(&mut entry, &mut file)?;
                ensure!(copied == entry.header().size()?, "{shown:?} is cut off");
                file.sync_all()?;
            }
            _ => left_out.push(shown),
        }
    }
    ensure!(into.join(name).exists(), "{name:?} is neither a file nor a folder");
    Ok(left_out)
}

/// Hands on what is written, in pieces.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        if !piece.is_empty() {
            self.0.send(piece.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what comes in pieces, to the last.
struct Source {
    pieces: Receiver<Vec<u8>>,
    piece: io::Cursor<Vec<u8>>,
}

impl Source {
    fn of(pieces: Receiver<Vec<u8>>) -> Self {
        Self { pieces, piece: io::Cursor::default() }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.pieces.recv() {
                Ok(piece) => self.piece = io::Cursor::new(piece),
                Err(_) => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_here_and_one_in_the_container() {
        let into =
            |folder: &str, name: &str| Way::In { source: "a/b".into(), folder: folder.into(), name: name.into() };
        assert_eq!(Way::of("a/b", ":/etc/x").unwrap(), into("/etc", "x"));
        assert_eq!(Way::of("a/b", ":/x").unwrap(), into("/", "x"));
        assert_eq!(Way::of("a/b", ":/etc/").unwrap(), into("/etc/", "b"));
        assert_eq!(Way::of("a/b", ":/").unwrap(), into("/", "b"));
        let out = Way::Out { folder: "/var/log".into(), name: "all".into(), target: "here".into() };
        assert_eq!(Way::of(":/var/log/all", "here").unwrap(), out);
        for (source, target, word) in [
            ("a", "b", "must be in the container"),
            (":/a", ":/b", "must be in the container"),
            ("a", ":etc", "must be absolute"),
            (":/a/../b", "x", "`..`"),
            (":/", "x", "names no file"),
            ("..", ":/", "has no name"),
        ] {
            let error = Way::of(source, target).unwrap_err().to_string();
            assert!(error.contains(word), "{source} {target}: {error}");
        }
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        fs::write(source.join("deep/file"), vec![7; 300_000]).unwrap();
        fs::write(source.join("empty"), b"").unwrap();
        std::os::unix::fs::symlink("empty", source.join("link")).unwrap();
        let (sender, receiver) = sync_channel(2);
        let packing = thread::spawn({
            let source = source.clone();
            move || pack(&source, "named", Pieces(sender))
        });
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        let left_out = unpack(Source::of(receiver), "named", &into).unwrap();
        packing.join().unwrap().unwrap();
        assert_eq!(left_out, ["named/link"]);
        assert_eq!(fs::read(into.join("named/deep/file")).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::read(into.join("named/empty")).unwrap(), b"");
        assert!(into.join("named/deep/er").is_dir());
    }

    #[test]
    fn nothing_is_written_but_what_was_asked_for() {
        let entry = |name: &str, kind: EntryType, link: Option<&str>| {
            let mut archive = Builder::new(Vec::new());
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(if kind == EntryType::Regular { 2 } else { 0 });
            header.set_mode(0o644);
            if let Some(link) = link {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            archive.append(&header, if kind == EntryType::Regular { &b"hi"[..] } else { b"" }).unwrap();
            archive.into_inner().unwrap()
        };
        let regular = EntryType::Regular;
        for bytes in [
            entry("../x", regular, None),
            entry("/x", regular, None),
            entry("asked/../../x", regular, None),
            entry("other", regular, None),
            entry("asked", EntryType::Symlink, Some("/etc")),
            entry("asked", EntryType::Char, None),
            Vec::new(),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let into = folder.path().join("into");
            fs::create_dir(&into).unwrap();
            assert!(unpack(bytes.as_slice(), "asked", &into).is_err());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
        }
        // The same file twice, and one that is cut off.
        let folder = tempfile::tempdir().unwrap();
        let once = entry("asked", regular, None);
        let twice = [&once[..1024], &once].concat();
        assert!(unpack(twice.as_slice(), "asked", folder.path()).is_err());
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack(&once[..513], "asked", folder.path()).is_err());
    }
}
