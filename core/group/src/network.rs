//! Networks as policies write them: an address and the length of its prefix.

use core::net::{IpAddr, Ipv6Addr};
use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Addresses that share a prefix, as "10.0.0.0/8" or "fd00::/8". Beyond the prefix all bits are zero. No IPv4 address written as
/// IPv6 (`::ffff:0:0/96`), since no packet has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNetwork {
    address: IpAddr,
    prefix: u8,
}

/// Why a text or an address with a prefix is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The part before the slash.
    #[error("\"{0}\" does not begin with an IPv4 or IPv6 address: a network is written as 10.0.0.0/8 or fd00::/8")]
    Address(String),
    /// An address inside the network instead of the network.
    #[error(
        "{address}/{prefix} has bits beyond its prefix: the network is {network}, the address alone {address}/{width}"
    )]
    HostBits {
        /// The address.
        address: IpAddr,
        /// Its prefix.
        prefix: u8,
        /// What was probably meant.
        network: IpNetwork,
        /// Length of the whole address.
        width: u8,
    },
    /// An IPv4 address in IPv6's notation.
    #[error("{0} is an IPv4 address in IPv6's notation, which no packet has: write it as IPv4")]
    Mapped(IpAddr),
    /// No slash.
    #[error("\"{0}\" has no prefix: a network is written as 10.0.0.0/8, one address as 10.0.0.1/32 or fd00::1/128")]
    NoPrefix(String),
    /// The part after the slash.
    #[error(
        "\"{0}\" does not end with the length of a prefix: a number from 0 to {1}, without sign or leading zero, is expected"
    )]
    Prefix(String, u8),
}

impl IpNetwork {
    /// Every IPv6 address.
    pub const ALL_V6: Self = Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };
    /// Addresses that mean something on one link only (RFC 4291, 2.5.6).
    pub const LINK_LOCAL: Self = Self { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 };
    /// Groups of one link, neighbours who are looked for among them (RFC 4291, 2.7).
    pub const LINK_GROUPS: Self = Self { address: IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0)), prefix: 16 };

    /// The network with this prefix, in bits.
    ///
    /// # Errors
    /// Where the prefix is longer than the address, the address has bits beyond it, or is an IPv4 address in disguise.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, NetworkError> {
        let width = width(address);
        if prefix > width {
            return Err(NetworkError::Prefix(format!("{address}/{prefix}"), width));
        }
        if prefix >= 96 && address.to_canonical() != address {
            return Err(NetworkError::Mapped(address));
        }
        let network = Self { address: masked(address, prefix), prefix };
        if network.address != address {
            return Err(NetworkError::HostBits { address, prefix, network, width });
        }
        Ok(network)
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: width(address) }
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix, in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The prefix as an address: ones, then zeros.
    #[must_use]
    pub fn mask(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(mask_v4(self.prefix).into()),
            IpAddr::V6(_) => IpAddr::V6(mask_v6(self.prefix).into()),
        }
    }

    /// Whether the address is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        width(address) == width(self.address) && masked(address, self.prefix) == self.address
    }
}

/// Length of an address, in bits.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with zeros beyond the prefix.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & mask_v4(prefix)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & mask_v6(prefix)).into()),
    }
}

/// `prefix` ones, from the top.
fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0)
}

/// `prefix` ones, from the top.
fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(prefix.into())).unwrap_or(0)
}

impl FromStr for IpNetwork {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').ok_or_else(|| NetworkError::NoPrefix(shortened(text)))?;
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address(shortened(text)))?;
        // What the number prints as is the one way to write it: no sign, no leading zero.
        let number = prefix.parse::<u8>().ok().filter(|number| number.to_string() == prefix);
        Self::new(address, number.ok_or_else(|| NetworkError::Prefix(shortened(text), width(address)))?)
    }
}

impl Serialize for IpNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNetwork {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What an error says of a text that is no network: its beginning.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.0.2.3/32", "::/0", "fd00::/8", "2001:db8::1/128"] {
            assert_eq!(text.parse::<IpNetwork>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("", "has no prefix"),
            ("10.0.0.1", "has no prefix"),
            ("10.0.0/8", "does not begin with"),
            ("010.0.0.0/8", "does not begin with"),
            (" 10.0.0.0/8", "does not begin with"),
            ("example.org/8", "does not begin with"),
            ("fe80::1%eth0/128", "does not begin with"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/08", "from 0 to 32"),
            ("10.0.0.0/8 ", "from 0 to 32"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("10.0.0.0/8/8", "from 0 to 32"),
            ("fd00::/129", "from 0 to 128"),
            ("fd00::/256", "from 0 to 128"),
            ("10.1.0.0/8", "the network is 10.0.0.0/8, the address alone 10.1.0.0/32"),
            ("fd00::1/64", "the network is fd00::/64, the address alone fd00::1/128"),
            ("0.0.0.1/0", "the network is 0.0.0.0/0"),
            ("::ffff:10.0.0.1/128", "write it as IPv4"),
            ("::ffff:0:0/96", "write it as IPv4"),
        ] {
            let error = text.parse::<IpNetwork>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn constants_are_networks() {
        for (network, text) in
            [(IpNetwork::ALL_V6, "::/0"), (IpNetwork::LINK_LOCAL, "fe80::/10"), (IpNetwork::LINK_GROUPS, "ff02::/16")]
        {
            assert_eq!(text.parse(), Ok(network));
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_long_text() {
        let error = "1".repeat(100_000).parse::<IpNetwork>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        let network: IpNetwork = "10.0.0.0/9".parse().unwrap();
        for (address, inside) in [("10.0.0.0", true), ("10.127.255.255", true), ("10.128.0.0", false), ("a00::", false)]
        {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert_eq!(network.mask().to_string(), "255.128.0.0");
        assert_eq!(IpNetwork::host("::ffff:10.0.0.1".parse().unwrap()).to_string(), "10.0.0.1/32");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(address: IpAddr, prefix in 0u8..=128) {
            let prefix = prefix.min(width(address));
            let Ok(network) = IpNetwork::new(masked(address, prefix), prefix) else {
                prop_assert_ne!(masked(address, prefix).to_canonical(), masked(address, prefix));
                return Ok(());
            };
            prop_assert_eq!(network.to_string().parse::<IpNetwork>(), Ok(network));
            prop_assert!(network.contains(address));
        }

        #[test]
        fn what_is_read_prints_as_what_reads_the_same(text in "[0-9a-f.:]{0,20}/[0-9+]{0,4}|\\PC{0,40}") {
            if let Ok(network) = text.parse::<IpNetwork>() {
                prop_assert_eq!(network.to_string().parse::<IpNetwork>(), Ok(network));
            }
        }
    }
}
