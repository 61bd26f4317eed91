//! Both ends over a pair of sockets, and somebody between them.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
};

use aws_lc_rs::{rand::SystemRandom, signature};
use proptest::prelude::*;

use super::*;

fn owner_key() -> OwnerKey {
    let made = signature::Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    OwnerKey::from_der(made.as_ref()).unwrap()
}

/// Both ends of one channel.
fn channel(key: Option<OwnerKey>) -> (OwnerEnd<UnixStream>, GuestEnd<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = thread::spawn(move || GuestEnd::accept(&GuestIdentity::new().unwrap(), theirs).unwrap());
    (OwnerEnd::connect(key.as_ref(), ours).unwrap(), guest.join().unwrap())
}

#[test]
fn both_ends_export_the_same_for_a_nonce_and_carry_bytes() {
    let key = owner_key();
    let digest = key.digest();
    let (mut owner, mut guest) = channel(Some(key));
    assert_eq!(guest.peer(), Some(digest));
    assert_eq!(owner.exporter(b"nonce").unwrap(), guest.exporter(b"nonce").unwrap());
    assert_ne!(owner.exporter(b"nonce").unwrap(), owner.exporter(b"other").unwrap());
    let mut heard = [0; 5];
    owner.write_all(b"hello").unwrap();
    guest.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    guest.write_all(b"world").unwrap();
    guest.close();
    owner.read_exact(&mut heard).unwrap();
    assert_eq!((&heard, owner.read(&mut [0; 9]).unwrap()), (b"world", 0));
}

#[test]
fn who_shows_no_key_has_none() {
    let (owner, guest) = channel(None);
    assert_eq!(guest.peer(), None);
    assert_eq!(owner.exporter(b"").unwrap(), guest.exporter(b"").unwrap());
}

#[test]
fn whoever_stands_between_has_other_sessions() {
    let (victim, relay_in) = channel(Some(owner_key()));
    let (relay_out, guest) = channel(Some(owner_key()));
    let all = [victim.exporter(b"n"), relay_in.exporter(b"n"), relay_out.exporter(b"n"), guest.exporter(b"n")];
    let [victim, relay_in, relay_out, guest] = all.map(Result::unwrap);
    assert_eq!((victim, guest), (relay_in, relay_out));
    assert_ne!(victim, guest, "a report for the one session is worthless in the other");
}

#[test]
fn a_session_that_is_cut_is_an_error_and_no_end() {
    let (mut owner, guest) = channel(None);
    drop(guest);
    assert!(owner.read(&mut [0; 9]).is_err(), "without the word of the other side it was cut off");
}

#[test]
fn other_protocols_are_refused() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let refused = GuestEnd::accept(&GuestIdentity::new().unwrap(), theirs).unwrap_err();
    assert!(matches!(refused, ChannelError::Tls(_)), "{refused:?}");
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    let refused = GuestEnd::accept(&GuestIdentity::new().unwrap(), theirs).unwrap_err();
    assert!(matches!(refused, ChannelError::Stream(_)), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_the_guest_refuses_it(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&bytes).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        prop_assert!(GuestEnd::accept(&GuestIdentity::new().unwrap(), theirs).is_err());
    }

    #[test]
    fn whatever_is_no_key_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(OwnerKey::from_der(&bytes).is_err());
    }
}
