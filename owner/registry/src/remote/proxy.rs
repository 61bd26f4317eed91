//! Which proxy a request goes through: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, upper or lower case.
//!
//! Requests go through a proxy by CONNECT, plain HTTP ones as well. Loopback addresses never use one.

use std::net::IpAddr;

/// Proxies by scheme, and the hosts that are reached without them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    exceptions: Vec<Exception>,
}

/// One part of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    Everything,
    /// A network: address and prefix length.
    Network(IpAddr, u8),
    /// A host and the hosts under it, maybe on one port only.
    Host {
        name: String,
        port: Option<u16>,
        only_under: bool,
    },
}

impl Proxies {
    /// What the environment's variables say.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// What the variables say that `variable` gives by their names.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_lowercase()));
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let all = either("ALL_PROXY");
        let exceptions = either("NO_PROXY").unwrap_or_default();
        Self {
            http: either("HTTP_PROXY").or_else(|| all.clone()),
            https: either("HTTPS_PROXY").or(all),
            exceptions: exceptions.split([',', ' ']).filter_map(Exception::parse).collect(),
        }
    }

    /// The proxy for a request to `host` (without brackets) and `port`, if it goes through one.
    pub(crate) fn choose(&self, https: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if https { self.https.as_deref() } else { self.http.as_deref() };
        let excepted = is_loopback(host) || self.exceptions.iter().any(|exception| exception.covers(host, port));
        proxy.filter(|_| !excepted)
    }
}

/// Whether `host` is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, length)) = text.split_once('/') {
            return Some(Self::Network(address.parse().ok()?, length.parse().ok()?));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self::Network(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let under = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        let only_under = under.is_some();
        Some(Self::Host { name: under.unwrap_or(name).to_lowercase(), port, only_under })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(network, length) => host.parse().is_ok_and(|address| in_network(address, *network, *length)),
            Self::Host { name, port: wanted, only_under } => {
                let host = host.to_lowercase();
                let under = host.strip_suffix(name.as_str()).is_some_and(|prefix| prefix.ends_with('.'));
                wanted.is_none_or(|wanted| wanted == port) && (under || (!only_under && host == *name))
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let (bits, address, network) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (32, u128::from(u32::from(a)), u128::from(u32::from(n))),
        (IpAddr::V6(a), IpAddr::V6(n)) => (128, u128::from(a), u128::from(n)),
        _ => return false,
    };
    match u32::from(length) {
        length if length > bits => false,
        0 => true,
        length => (address ^ network) >> (bits - length) == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_scheme_has_its_own() {
        let both = proxies(&[("HTTPS_PROXY", "http://s:1"), ("http_proxy", "http://p:2")]);
        assert_eq!(both.choose(true, "r.example", 443), Some("http://s:1"));
        assert_eq!(both.choose(false, "r.example", 80), Some("http://p:2"));
        let all = proxies(&[("ALL_PROXY", "http://a:3"), ("HTTP_PROXY", "")]);
        assert_eq!(all.choose(true, "r.example", 443), Some("http://a:3"));
        assert_eq!(all.choose(false, "r.example", 80), Some("http://a:3"));
        assert_eq!(proxies(&[]).choose(true, "r.example", 443), None);
    }

    #[test]
    fn exceptions_are_kept() {
        let list =
            "example.com, .under.example,*.star.example,10.0.0.0/8,192.168.1.5,port.example:5000,[fd00::]/8,fe80::1";
        let some = proxies(&[("HTTPS_PROXY", "http://s:1"), ("NO_PROXY", list)]);
        for (host, port) in [
            ("example.com", 443),
            ("Registry.Example.com", 443),
            ("a.under.example", 443),
            ("a.star.example", 443),
            ("10.200.3.4", 443),
            ("192.168.1.5", 443),
            ("port.example", 5000),
            ("fe80::1", 443),
            ("localhost", 443),
            ("127.0.0.5", 443),
            ("::1", 443),
        ] {
            assert_eq!(some.choose(true, host, port), None, "{host}");
        }
        for (host, port) in [
            ("notexample.com", 443),
            ("under.example", 443),
            ("11.0.0.1", 443),
            ("192.168.1.6", 443),
            ("port.example", 443),
            ("localhost.example", 443),
        ] {
            assert!(some.choose(true, host, port).is_some(), "{host}");
        }
        let none = proxies(&[("HTTPS_PROXY", "http://s:1"), ("no_proxy", "*")]);
        assert_eq!(none.choose(true, "r.example", 443), None);
    }
}
