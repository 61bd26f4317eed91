//! What a group may do on the network: ports that others may connect to, addresses that it may connect to.
//!
//! As policies write it:
//!
//! ```text
//!   {"listen": [{"protocol": "tcp", "port": 80}],
//!    "connect": [{"to": "10.0.2.3/32", "protocol": "udp", "port": 53},
//!                {"to": "192.0.2.0/24", "protocol": "tcp", "port": 8000, "last_port": 8010},
//!                {"to": "fd00::/8"}]}
//! ```
//!
//! Refuses, with the value, what would allow nothing: a port 0, a range whose first port is above its last, a last port
//! without a first; and more than [`MAX_LISTENERS`] and [`MAX_DESTINATIONS`].

use core::{net::IpAddr, num::NonZero, ops::RangeInclusive};
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{GroupError, IpNetwork, limits};

/// Most entries of [`NetworkRules::listen`].
pub const MAX_LISTENERS: usize = 256;
/// Most entries of [`NetworkRules::connect`].
pub const MAX_DESTINATIONS: usize = 256;

/// What is allowed on the network; everything else is dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RulesText")]
pub struct NetworkRules {
    /// Where others may connect to.
    pub listen: Vec<Listener>,
    /// Where the guest may connect to. Resolvers are not implied.
    pub connect: Vec<Destination>,
}

/// As it is written; what is left out is empty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesText {
    #[serde(default)]
    listen: Vec<Listener>,
    #[serde(default)]
    connect: Vec<Destination>,
}

impl TryFrom<RulesText> for NetworkRules {
    type Error = GroupError;

    fn try_from(text: RulesText) -> Result<Self, GroupError> {
        limits::within("the number of listeners", text.listen.len(), MAX_LISTENERS)?;
        limits::within("the number of destinations", text.connect.len(), MAX_DESTINATIONS)?;
        Ok(Self { listen: text.listen, connect: text.connect })
    }
}

/// A port that others may connect to, from any address, by IPv4 and IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "ListenerText")]
pub struct Listener {
    /// Of this protocol.
    pub protocol: Protocol,
    /// Not 0.
    pub port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerText {
    protocol: Protocol,
    port: NonZero<u16>,
}

impl From<ListenerText> for Listener {
    fn from(text: ListenerText) -> Self {
        Self { protocol: text.protocol, port: text.port.get() }
    }
}

/// Addresses, and what at them, that the guest may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "DestinationText", into = "DestinationText")]
pub struct Destination {
    /// The addresses.
    pub network: IpNetwork,
    /// By this protocol. None: by TCP and UDP where `ports` is given, else by every protocol, ICMP's echo included.
    pub protocol: Option<Protocol>,
    /// The ports there, at least one. None: all.
    pub ports: Option<RangeInclusive<u16>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DestinationText {
    to: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_port: Option<u16>,
}

impl TryFrom<DestinationText> for Destination {
    type Error = GroupError;

    fn try_from(text: DestinationText) -> Result<Self, GroupError> {
        let ports = match (text.port, text.last_port) {
            (None, None) => None,
            (Some(port), None) if port > 0 => Some(port..=port),
            (Some(first), Some(last)) if first > 0 && first <= last => Some(first..=last),
            (first, last) => {
                let shown = [first, last].map(|port| port.map_or_else(String::new, |port| port.to_string())).join("-");
                let form = "a `port` from 1 to 65535 and, for a range, a `last_port` that is not below it";
                return Err(GroupError::invalid("range of ports", &shown, form));
            }
        };
        Ok(Self { network: text.to, protocol: text.protocol, ports })
    }
}

impl From<Destination> for DestinationText {
    fn from(destination: Destination) -> Self {
        let ports = destination.ports.map(RangeInclusive::into_inner);
        Self {
            to: destination.network,
            protocol: destination.protocol,
            port: ports.map(|(first, _)| first),
            last_port: ports.filter(|(first, last)| first != last).map(|(_, last)| last),
        }
    }
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl NetworkRules {
    /// A destination as a command line names it: `NETWORK[:PORT[-PORT]][/tcp|/udp]`, the network an address or one with a
    /// prefix, an IPv6 one in brackets where ports follow. Without a protocol, ports are TCP's.
    ///
    /// # Errors
    /// [`GroupError::Invalid`].
    pub fn destination(text: &str) -> Result<Destination, GroupError> {
        let bad = || {
            let form = "ADDRESS[/PREFIX][:PORT[-PORT]][/tcp|/udp], with an address and no name, an IPv6 network in \
                        brackets before a port";
            GroupError::invalid("destination", text, form)
        };
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, "tcp")) => (rest, Some(Protocol::Tcp)),
            Some((rest, "udp")) => (rest, Some(Protocol::Udp)),
            _ => (text, None),
        };
        let (network, ports) = match rest.strip_prefix('[').map(|inner| inner.split_once(']')) {
            Some(Some((network, ""))) => (network, None),
            Some(Some((network, ports))) => (network, Some(ports.strip_prefix(':').ok_or_else(bad)?)),
            Some(None) => return Err(bad()),
            None if rest.matches(':').count() > 1 => (rest, None),
            None => rest.split_once(':').map_or((rest, None), |(network, ports)| (network, Some(ports))),
        };
        let network = match network.parse::<IpAddr>() {
            Ok(address) => IpNetwork::host(address),
            Err(_) if network.contains('/') => IpNetwork::from_str(network)?,
            Err(_) => return Err(bad()),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text).ok_or_else(bad);
        let (first, last) = match ports.map(|ports| ports.split_once('-').unwrap_or((ports, ports))) {
            Some((first, last)) => (Some(port(first)?), Some(port(last)?)),
            None => (None, None),
        };
        // The web's usual one: a port alone is rarely meant for both.
        let protocol = protocol.or(first.map(|_| Protocol::Tcp));
        DestinationText { to: network, protocol, port: first, last_port: last }.try_into()
    }

    /// A listener as a command line names it: `PORT[/tcp|/udp]`, TCP where no protocol stands.
    ///
    /// # Errors
    /// [`GroupError::Invalid`].
    pub fn listener(text: &str) -> Result<Listener, GroupError> {
        let (port, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((port, "udp")) => (port, Protocol::Udp),
            Some(_) => ("", Protocol::Tcp),
        };
        let number = port.parse::<u16>().ok().filter(|number| *number > 0 && number.to_string() == port);
        let port = number
            .ok_or_else(|| GroupError::invalid("listener", text, "PORT[/tcp|/udp] with a port from 1 to 65535"))?;
        Ok(Listener { protocol, port })
    }

    /// What a resolver at `address` is asked by: port 53, by UDP, and by TCP for long answers.
    #[must_use]
    pub fn resolver(address: IpAddr) -> [Destination; 2] {
        [Protocol::Udp, Protocol::Tcp].map(|protocol| Destination {
            network: IpNetwork::host(address),
            protocol: Some(protocol),
            ports: Some(53..=53),
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} port {}", self.protocol, self.port)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.network)?;
        if let Some(protocol) = self.protocol {
            write!(formatter, " {protocol}")?;
        }
        match &self.ports {
            Some(ports) if ports.start() == ports.end() => write!(formatter, " port {}", ports.start()),
            Some(ports) => write!(formatter, " ports {}-{}", ports.start(), ports.end()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<NetworkRules, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        let text = r#"{"listen":[{"protocol":"tcp","port":80}],"connect":[{"to":"10.0.2.3/32","protocol":"udp","port":53},{"to":"192.0.2.0/24","port":8000,"last_port":8010},{"to":"fd00::/8"}]}"#;
        let rules = read(text).unwrap();
        assert_eq!(serde_json::to_string(&rules).unwrap(), text);
        let shown: Vec<_> = rules.connect.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.2.3/32 udp port 53", "192.0.2.0/24 ports 8000-8010", "fd00::/8"]);
        assert_eq!(rules.listen[0].to_string(), "tcp port 80");
        assert_eq!(read("{}").unwrap(), NetworkRules::default());
    }

    #[test]
    fn what_would_allow_nothing_or_something_else_is_refused() {
        for bad in [
            r#"{"listen":[{"protocol":"tcp","port":0}]}"#,
            r#"{"listen":[{"protocol":"sctp","port":80}]}"#,
            r#"{"listen":[{"port":80}]}"#,
            r#"{"listen":[{"protocol":"tcp","port":65536}]}"#,
            r#"{"listen":[{"protocol":"tcp","port":80,"from":"10.0.0.0/8"}]}"#,
            r#"{"connect":[{"protocol":"tcp","port":80}]}"#,
            r#"{"connect":[{"to":"10.0.0.1"}]}"#,
            r#"{"connect":[{"to":"10.0.0.1/8"}]}"#,
            r#"{"connect":[{"to":"example.org"}]}"#,
            r#"{"connect":[{"to":"10.0.0.0/8","port":0}]}"#,
            r#"{"connect":[{"to":"10.0.0.0/8","port":81,"last_port":80}]}"#,
            r#"{"connect":[{"to":"10.0.0.0/8","last_port":80}]}"#,
            r#"{"connect":[{"to":"10.0.0.0/8","ports":80}]}"#,
            r#"{"listeners":[]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many = |count| vec![r#"{"protocol":"tcp","port":80}"#; count].join(",");
        assert!(read(&format!("{{\"listen\":[{}]}}", many(MAX_LISTENERS))).is_ok());
        assert!(read(&format!("{{\"listen\":[{}]}}", many(MAX_LISTENERS + 1))).is_err());
        let many = |count| vec![r#"{"to":"::/0"}"#; count].join(",");
        assert!(read(&format!("{{\"connect\":[{}]}}", many(MAX_DESTINATIONS + 1))).is_err());
    }

    #[test]
    fn a_resolver_is_one_address_and_one_port() {
        let shown = NetworkRules::resolver("10.0.2.3".parse().unwrap()).map(|destination| destination.to_string());
        assert_eq!(shown, ["10.0.2.3/32 udp port 53", "10.0.2.3/32 tcp port 53"]);
        let ports = Destination { network: "10.0.0.0/8".parse().unwrap(), protocol: None, ports: Some(1..=9) };
        assert_eq!(ports.to_string(), "10.0.0.0/8 ports 1-9");
    }

    #[test]
    fn command_lines_name_destinations_and_listeners() {
        for (text, shown) in [
            ("10.0.2.3", "10.0.2.3/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:443", "10.0.0.0/8 tcp port 443"),
            ("192.0.2.1:53/udp", "192.0.2.1/32 udp port 53"),
            ("192.0.2.1/udp", "192.0.2.1/32 udp"),
            ("192.0.2.1:8000-8010", "192.0.2.1/32 tcp ports 8000-8010"),
            ("fd00::/8", "fd00::/8"),
            ("[fd00::1]:443/tcp", "fd00::1/128 tcp port 443"),
            ("[fd00::/8]", "fd00::/8"),
        ] {
            assert_eq!(NetworkRules::destination(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "example.org:443",
            "10.0.0.1/8",
            "10.0.0.1:0",
            "10.0.0.1:",
            "10.0.0.1:80-79",
            "10.0.0.1:+80",
            "10.0.0.1:80/sctp",
            "[fd00::1]443",
            "[fd00::1",
            "fd00::1:443:x",
            "10.0.0.1:65536",
        ] {
            assert!(NetworkRules::destination(bad).is_err(), "{bad}");
        }
        for (text, shown) in [("80", "tcp port 80"), ("80/tcp", "tcp port 80"), ("53/udp", "udp port 53")] {
            assert_eq!(NetworkRules::listener(text).unwrap().to_string(), shown);
        }
        for bad in ["", "0", "/udp", "80/", "80/sctp", "http", "65536", "080", "80/tcp/tcp"] {
            assert!(NetworkRules::listener(bad).is_err(), "{bad}");
        }
    }
}
