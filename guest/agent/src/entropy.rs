//! Random numbers that the host cannot know.
//!
//! The kernel gathers from RDRAND and from the host's virtio-rng. The host knows what the latter gave, which does no harm
//! when it is mixed in; it must not be all there is. So RDRAND, which an AMD processor answers itself, is stirred in here
//! once more, and nothing starts before the kernel calls its pool ready.

use std::{fs::OpenOptions, io, io::Write as _, path::Path};

use rustix::rand::{GetRandomFlags, getrandom};

/// 64-bit words from RDRAND: four times the pool's 256 bits.
const WORDS: usize = 16;

/// How often an RDRAND that has nothing is asked again (Intel SDM volume 1, 7.3.17.1, says 10 times).
const TRIES: usize = 10;

/// Stirs in what the processor gives and waits until the pool is ready.
pub(crate) fn gather(devices: &Path) -> io::Result<()> {
    let mut pool = OpenOptions::new().write(true).open(devices.join("urandom"))?;
    for word in hardware_words()? {
        pool.write_all(&word.to_ne_bytes())?;
    }
    let mut byte = [0u8; 1];
    getrandom(&mut byte, GetRandomFlags::empty())?;
    Ok(())
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
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("urandom"), b"").unwrap();
        gather(folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("urandom")).unwrap().len(), WORDS * 8);
    }
}
