//! Published ports: `[ADDRESS:]HOST:GUEST[/tcp|udp]`, forwarded by QEMU's user networking.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
}

/// One published port. The text form is what users write and what the plan holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortForward {
    /// Address on the host; 127.0.0.1 where none is given.
    pub address: Ipv4Addr,
    /// Port on the host, 1 to 65535.
    pub host: u16,
    /// Port in the guest, 1 to 65535.
    pub guest: u16,
    /// Transport.
    pub transport: Transport,
}

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The text is not of the form.
    #[error("invalid port {0:?}: expected [IPV4-ADDRESS:]HOST:GUEST[/tcp|/udp] with ports from 1 to 65535")]
    Form(String),
    /// Something else listens there.
    #[error("port {forward} cannot be published: {}", listening(.cause))]
    Taken {
        /// The port.
        forward: PortForward,
        /// What the kernel says.
        #[source]
        cause: io::Error,
    },
    /// The same host port twice in one plan.
    #[error("port {0} is published twice")]
    Twice(PortForward),
}

impl PortForward {
    /// Binds the host's port for a moment, so that the user reads a clear error instead of QEMU's.
    ///
    /// # Errors
    /// [`PortError::Taken`] where it cannot be bound.
    pub fn check_free(&self) -> Result<(), PortError> {
        let address = SocketAddr::new(IpAddr::V4(self.address), self.host);
        let bound = match self.transport {
            Transport::Tcp => TcpListener::bind(address).map(drop),
            Transport::Udp => UdpSocket::bind(address).map(drop),
        };
        bound.map_err(|cause| PortError::Taken { forward: *self, cause })
    }

    /// QEMU's `hostfwd=` value.
    pub(crate) fn hostfwd(&self) -> String {
        let Self { address, host, guest, transport } = self;
        format!("{transport}:{address}:{host}-{}:{guest}", caveau_protocol::network::GUEST)
    }
}

/// Checks that all of `ports` are different and free.
///
/// # Errors
/// [`PortError::Twice`] or [`PortError::Taken`] for the first one at fault.
pub fn check_free(ports: &[PortForward]) -> Result<(), PortError> {
    for (index, port) in ports.iter().enumerate() {
        let same = |other: &PortForward| {
            other.host == port.host && other.transport == port.transport && overlap(other.address, port.address)
        };
        if ports.iter().take(index).any(same) {
            return Err(PortError::Twice(*port));
        }
        port.check_free()?;
    }
    Ok(())
}

/// Whether listening on both addresses with one port would clash.
fn overlap(one: Ipv4Addr, other: Ipv4Addr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

/// The reason in a user's words.
fn listening(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "something on this machine listens there already; choose another host port".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::PermissionDenied => {
            "this user may not listen there; choose a host port from 1024 up, or lower net.ipv4.ip_unprivileged_port_start"
                .into()
        }
        _ => cause.to_string(),
    }
}

impl FromStr for PortForward {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        parse(text).ok_or_else(|| PortError::Form(text.chars().take(80).collect()))
    }
}

/// The form's grammar; `None` for whatever does not fit it.
fn parse(text: &str) -> Option<PortForward> {
    let (ports, transport) = match text.split_once('/') {
        None => (text, Transport::Tcp),
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some(_) => return None,
    };
    let (rest, guest) = ports.rsplit_once(':')?;
    let (address, host) = match rest.rsplit_once(':') {
        None => (Ipv4Addr::LOCALHOST, rest),
        Some((address, host)) => (address.parse().ok()?, host),
    };
    Some(PortForward { address, host: port_number(host)?, guest: port_number(guest)?, transport })
}

/// A port's number: digits only, not zero.
fn port_number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for PortForward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}/{}", self.address, self.host, self.guest, self.transport)
    }
}

impl Serialize for PortForward {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortForward {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_address_is_local_unless_given() {
        let port: PortForward = "8080:80".parse().unwrap();
        assert_eq!(port.to_string(), "127.0.0.1:8080:80/tcp");
        assert_eq!(port.hostfwd(), "tcp:127.0.0.1:8080-10.0.2.15:80");
        let port: PortForward = "0.0.0.0:53:5353/udp".parse().unwrap();
        assert_eq!(port.hostfwd(), "udp:0.0.0.0:53-10.0.2.15:5353");
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "", "80", ":80", "80:", "0:80", "80:0", "65536:80", "+1:2", "a:1:2", "1:2/sctp", "1:2/", "1:2,x", "::1:2:3",
        ] {
            assert!(bad.parse::<PortForward>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = holder.local_addr().unwrap().port();
        let port: PortForward = format!("{host}:80").parse().unwrap();
        let error = port.check_free().unwrap_err().to_string();
        assert!(error.contains(&host.to_string()) && error.contains("listens there already"), "{error}");
        drop(holder);
        port.check_free().unwrap();
    }

    #[test]
    fn a_port_published_twice_is_refused() {
        let ports: Vec<PortForward> =
            ["127.0.0.1:9:1", "0.0.0.0:9:2"].iter().map(|text| text.parse().unwrap()).collect();
        let [first, second] = ports[..] else { panic!() };
        assert!(overlap(first.address, second.address));
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let free = holder.local_addr().unwrap().port();
        let one: PortForward = format!("{free}:1/tcp").parse().unwrap();
        assert!(matches!(check_free(&[one, PortForward { guest: 2, ..one }]), Err(PortError::Twice(_))));
    }

    proptest! {
        #[test]
        fn text_round_trips(address in any::<u32>(), host in 1u16.., guest in 1u16.., udp: bool) {
            let transport = if udp { Transport::Udp } else { Transport::Tcp };
            let port = PortForward { address: address.into(), host, guest, transport };
            prop_assert_eq!(port.to_string().parse::<PortForward>().unwrap(), port);
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<PortForward>();
        }
    }
}
