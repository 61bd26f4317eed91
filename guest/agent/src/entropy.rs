//! Random numbers that the host cannot know.
//!
//! The kernel mixes in what RDSEED or RDRAND give, which an AMD processor answers itself, and what the host's virtio-rng
//! gives. Of the former it credits 512 bits, before any driver runs (`random_init_early`, as long as the command line does
//! not say `random.trust_cpu=0`): that makes the pool ready. It credits virtio-rng in full, too (1024 of 1024: the driver
//! says nothing of its quality), but credit only decides when the pool is ready, and by then it is. What the host gave does
//! no harm when it is mixed in; it must not be all there is.
//!
//! So nothing starts before more words of RDRAND are stirred in here, and count: bytes written to the pool are drawn from it
//! only when the generator takes its next key, which may be a minute later. It is told to take it at once. No credit is
//! asked for the words, since a pool that is ready needs none.

use std::{
    fs::{File, OpenOptions},
    io,
    io::Write as _,
    path::Path,
};

use rustix::{
    ioctl::{NoArg, Opcode, ioctl, opcode},
    rand::{GetRandomFlags, getrandom},
};

/// 64-bit words from RDRAND: four times the pool's 256 bits.
const WORDS: usize = 16;

/// How often an RDRAND that has nothing is asked again (Intel SDM volume 1, 7.3.17.1, says 10 times).
const TRIES: usize = 10;

/// `RNDRESEEDCRNG` (kernel: include/uapi/linux/random.h): the generator takes a new key from the pool.
const RESEED: Opcode = opcode::none(b'R', 7);

/// Stirs in what the processor gives, waits until the pool is ready, and has every number from now on depend on it.
pub(crate) fn gather(devices: &Path) -> io::Result<()> {
    let mut pool = OpenOptions::new().write(true).open(devices.join("urandom"))?;
    stir(&mut pool)?;
    let mut byte = [0u8; 1];
    getrandom(&mut byte, GetRandomFlags::empty())?;
    reseed(&pool)
}

/// Writes the processor's words into the pool.
fn stir(pool: &mut File) -> io::Result<()> {
    hardware_words()?.iter().try_for_each(|word| pool.write_all(&word.to_ne_bytes()))
}

/// Has the generator take a new key from the pool, which must be ready.
fn reseed(pool: &File) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the command has no safe name")]
    // SAFETY: it takes no argument, and changes nothing of this process.
    let taken = unsafe { ioctl(pool, NoArg::<RESEED>::new()) };
    Ok(taken?)
}

/// Words from RDRAND; every machine that can be a TEE has it.
fn hardware_words() -> io::Result<Vec<u64>> {
    if !std::arch::is_x86_feature_detected!("rdrand") {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the processor has no RDRAND"));
    }
    let words: Option<Vec<u64>> = (0..WORDS).map(|_| hardware_word()).collect();
    let words = words.ok_or_else(|| io::Error::other("RDRAND gives nothing"))?;
    // A broken one repeats itself (AMD families 15h and 16h did after resume).
    if words.windows(2).all(|pair| pair.first() == pair.last()) {
        return Err(io::Error::other("RDRAND repeats itself"));
    }
    Ok(words)
}

fn hardware_word() -> Option<u64> {
    let mut word = 0;
    #[expect(unsafe_code, reason = "the instruction has no safe name")]
    // SAFETY: the caller has seen that the processor has the instruction.
    let mut draw = || unsafe { std::arch::x86_64::_rdrand64_step(&mut word) };
    (0..TRIES).any(|_| draw() == 1).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_gets_the_processors_words() {
        let mut pool = tempfile::tempfile().unwrap();
        stir(&mut pool).unwrap();
        assert_eq!(pool.metadata().unwrap().len(), WORDS as u64 * 8);
    }

    #[test]
    fn the_generator_takes_a_new_key_when_told() {
        // The kernel knows the command, and allows it to root; another command would be EINVAL.
        let pool = OpenOptions::new().write(true).open("/dev/urandom").unwrap();
        let root = rustix::process::geteuid().is_root();
        match reseed(&pool) {
            Ok(()) => assert!(root, "anybody may"),
            Err(error) => assert_eq!((root, error.kind()), (false, io::ErrorKind::PermissionDenied)),
        }
    }

    #[test]
    fn what_is_no_pool_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("urandom"), b"").unwrap();
        assert!(gather(folder.path()).is_err(), "a file of that name was taken for the pool");
    }
}
