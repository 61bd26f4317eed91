//! Who can be connected, and who can connect.

use std::{io::ErrorKind, net::UdpSocket};

use caveau_firewall::{Protocol::*, Rules, enforce};

use crate::{
    namespace::{Echo, GUEST, LISTED, LONG, OTHER, SHORT, at, connect, datagrams, isolated, talk},
    rules,
};

#[test]
fn without_rules_everything_is_reachable() {
    isolated("connections::without_rules_everything_is_reachable", |peer| {
        for (own, other) in GUEST.into_iter().zip(OTHER) {
            let (_here, _there) = (Echo::new(at(own, 81)), peer.serves(at(other, 81)));
            talk(&connect(at(other, 81)).unwrap()).unwrap();
            talk(&peer.run(move || connect(at(own, 81))).unwrap()).unwrap();
        }
    });
}

#[test]
fn listed_ports_are_reachable_and_others_are_not() {
    isolated("connections::listed_ports_are_reachable_and_others_are_not", |peer| {
        let echoes = GUEST.map(|own| (own, Echo::new(at(own, 80)), Echo::new(at(own, 81))));
        let sockets = GUEST.map(|own| (own, datagrams(at(own, 80)), datagrams(at(own, 81))));
        let _table = enforce(&rules(&[(Tcp, 80), (Udp, 81)], &[])).unwrap();
        for (own, allowed, forbidden) in echoes {
            talk(&peer.run(move || connect(at(own, 80))).unwrap()).unwrap();
            assert!(allowed.had_a_client(), "{own}");
            assert_eq!(peer.run(move || connect(at(own, 81))).unwrap_err().kind(), ErrorKind::TimedOut, "{own}");
            assert!(!forbidden.had_a_client(), "{own}");
        }
        for ((own, forbidden, allowed), from) in sockets.into_iter().zip(LISTED) {
            let client = peer.datagrams(at(from, 0));
            client.send_to(b"hello", at(own, 80)).unwrap();
            assert_eq!(forbidden.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock, "{own}");
            client.send_to(b"hello", at(own, 81)).unwrap();
            let (length, sender) = allowed.recv_from(&mut [0; 9]).unwrap();
            assert_eq!((length, sender), (5, client.local_addr().unwrap()), "{own}");
            // The answer passes, though its destination is not listed. A word of the other socket does not.
            allowed.send_to(b"hi", sender).unwrap();
            assert_eq!(client.recv(&mut [0; 9]).unwrap(), 2, "{own}");
            assert_eq!(forbidden.send_to(b"hi", sender).unwrap_err().kind(), ErrorKind::PermissionDenied, "{own}");
        }
    });
}

#[test]
fn listed_destinations_can_be_connected_and_others_cannot() {
    isolated("connections::listed_destinations_can_be_connected_and_others_cannot", |peer| {
        let ports = Some(80..=82);
        let rules = rules(&[], &[("10.9.0.2/32", Some(Tcp), ports.clone()), ("fd09::2/127", Some(Tcp), ports)]);
        let _table = enforce(&rules).unwrap();
        for (listed, other) in LISTED.into_iter().zip(["10.9.0.3", "fd09::1:3"]) {
            for (port, allowed) in [(79, false), (80, true), (81, true), (82, true), (83, false)] {
                let echo = peer.serves(at(listed, port));
                let result = connect(at(listed, port)).and_then(|stream| talk(&stream));
                assert_eq!(result.is_ok(), allowed, "{listed} {port}: {result:?}");
                assert_eq!(echo.had_a_client(), allowed, "{listed} {port}");
            }
            connect(at(other, 80)).unwrap_err();
            let socket = datagrams(at(if listed.contains(':') { "::" } else { "0.0.0.0" }, 0));
            assert_eq!(socket.send_to(b"x", at(listed, 80)).unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        let echo = peer.serves(at(OTHER[0], 80));
        connect(at(OTHER[0], 80)).unwrap_err();
        assert!(!echo.had_a_client());
        // Beyond the prefix's last address, which is the peer's other one: fd09::2/127 has it.
        let _echo = peer.serves(at(OTHER[1], 80));
        talk(&connect(at(OTHER[1], 80)).unwrap()).unwrap();
    });
}

#[test]
fn no_rules_are_no_network_but_loopback() {
    isolated("connections::no_rules_are_no_network_but_loopback", |peer| {
        let own = Echo::new(at(GUEST[0], 80));
        let _table = enforce(&Rules::default()).unwrap();
        for address in ["127.0.0.1", "::1", GUEST[0], GUEST[1]] {
            let _echo = Echo::new(at(address, 90));
            talk(&connect(at(address, 90)).unwrap()).unwrap();
            let (one, two) = (datagrams(at(address, 0)), datagrams(at(address, 0)));
            one.send_to(b"x", two.local_addr().unwrap()).unwrap();
            assert_eq!(two.recv(&mut [0; 9]).unwrap(), 1);
        }
        peer.run(|| connect(at(GUEST[0], 80))).unwrap_err();
        assert!(!own.had_a_client());
        for listed in LISTED {
            let echo = peer.serves(at(listed, 80));
            connect(at(listed, 80)).unwrap_err();
            assert!(!echo.had_a_client());
        }
    });
}

#[test]
fn connections_go_on_where_the_rules_allow_them() {
    isolated("connections::connections_go_on_where_the_rules_allow_them", |peer| {
        let echoes = GUEST.map(|own| [80, 81].map(|port| Echo::new(at(own, port))));
        let outgoing = [LISTED, OTHER].map(|to| {
            to.map(|address| {
                let echo = peer.serves(at(address, 80));
                (connect(at(address, 80)).unwrap(), echo)
            })
        });
        let incoming = [80, 81].map(|port| GUEST.map(|own| peer.run(move || connect(at(own, port))).unwrap()));
        let every = || outgoing.iter().flatten().map(|(stream, _)| stream).chain(incoming.iter().flatten());
        every().for_each(|stream| talk(stream).unwrap());
        let table = enforce(&rules(&[(Tcp, 80)], &[("10.9.0.2/32", None, None), ("fd09::2/128", None, None)])).unwrap();
        let [listed, other] = &outgoing;
        for (stream, _) in listed {
            talk(stream).unwrap();
        }
        for (stream, _) in other {
            stream.set_read_timeout(Some(SHORT)).unwrap();
            talk(stream).unwrap_err();
        }
        let [allowed, forbidden] = &incoming;
        allowed.iter().for_each(|stream| talk(stream).unwrap());
        for stream in forbidden {
            stream.set_read_timeout(Some(SHORT)).unwrap();
            talk(stream).unwrap_err();
        }
        drop((table, echoes));
    });
}

#[test]
fn errors_about_connections_pass() {
    isolated("connections::errors_about_connections_pass", |peer| {
        let rules = rules(&[(Udp, 80)], &[("10.9.0.2/32", Some(Udp), None), ("fd09::2/128", Some(Udp), None)]);
        let _table = enforce(&rules).unwrap();
        // Nobody is there: the system says so by ICMP, and the socket hears it.
        let refused = |socket: UdpSocket| {
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket.send(b"x").unwrap();
            assert_eq!(socket.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        };
        for (own, listed) in GUEST.into_iter().zip(LISTED) {
            let socket = datagrams(at(own, 0));
            socket.connect(at(listed, 9)).unwrap();
            refused(socket);
            let socket = peer.datagrams(at(listed, 0));
            socket.connect(at(own, 80)).unwrap();
            refused(socket);
        }
    });
}
