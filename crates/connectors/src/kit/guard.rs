//! Which addresses a URL may lead to that somebody else had a hand in.
//!
//! Public ones. Addresses of this machine, of private and link-local networks, of documentation and tests, multicast, and IPv6
//! addresses that stand for IPv4 ones (mapped, 6to4, NAT64, Teredo) are refused, unless they are allowed by name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Url;
use warren_engine::url_prefix;

/// A network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// What is allowed besides public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    networks: Vec<Network>,
    hosts: Vec<String>,
    urls: Vec<Url>,
}

const REFUSED_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Of IPv6 only 2000::/3 is in use; of that these are refused.
const REFUSED_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

impl Allowed {
    /// Reads a list of hosts, addresses, networks in CIDR form, and beginnings of URLs. What is none of the others is a host.
    pub fn new(list: &[String]) -> Allowed {
        let mut allowed = Allowed::default();
        for entry in list {
            match Network::parse(entry) {
                Some(network) => allowed.networks.push(network),
                // One that cannot be read allows nothing.
                None if entry.contains("://") => allowed.urls.extend(Url::parse(entry)),
                None => allowed.hosts.push(entry.trim_end_matches('.').to_ascii_lowercase()),
            }
        }
        allowed
    }

    /// Whether an entry is an address or a network in CIDR form.
    pub fn is_network(entry: &str) -> bool {
        Network::parse(entry).is_some()
    }

    /// What is wrong with an entry, as the end of a sentence about it.
    pub fn fault(entry: &str) -> Option<&'static str> {
        if Network::parse(entry).is_some() {
            return None;
        }
        if entry.contains("://") {
            return Allowed::prefix_fault(entry);
        }
        if entry.contains('/') {
            return Some("is no network");
        }
        // As a URL's host is read: what stands for an address is one.
        match url::Host::parse(entry) {
            Ok(url::Host::Domain(_)) => None,
            Ok(_) => Some("is an address in a form that is not compared; write it as usual"),
            Err(_) => Some("is no host"),
        }
    }

    /// What is wrong with a URL prefix, as the end of a sentence about it.
    pub fn prefix_fault(prefix: &str) -> Option<&'static str> {
        let good = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        };
        match Url::parse(prefix) {
            Ok(url) if good(&url) && url_prefix::may_ascend(url.path()) => {
                Some("has an encoded `..` or control character in its path")
            }
            Ok(url) if good(&url) => None,
            Ok(_) | Err(_) => {
                Some("is not a prefix of an http or https URL, without user, query or fragment")
            }
        }
    }

    /// Whether a host is allowed by name, wherever it leads.
    pub fn host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    /// Whether an address is one of those that are named.
    pub fn names(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.holds(address))
    }

    /// Whether all that a URL leads to is allowed: it is under one of the URLs that are named, however its path is encoded.
    pub fn url(&self, url: &Url) -> bool {
        self.urls.iter().any(|allowed| url_prefix::holds(allowed, url))
    }

    /// Whether an address may be connected to.
    pub fn address(&self, address: IpAddr) -> bool {
        is_public(address) || self.names(address)
    }
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = if let Some((address, bits)) = text.split_once('/') {
            (address.parse::<IpAddr>().ok()?, bits.parse().ok()?)
        } else {
            let address = text.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        };
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Network { address, bits })
    }

    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same(u128::from(network.to_bits()) << 96, u128::from(address.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same(network.to_bits(), address.to_bits(), self.bits)
            }
            _ => false,
        }
    }
}

/// Whether two addresses begin with the same bits.
fn same(one: u128, two: u128, bits: u8) -> bool {
    bits == 0 || (one ^ two) >> (128 - u32::from(bits)) == 0
}

/// Whether an address is one of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    let within = |(network, bits): (IpAddr, u8)| Network { address: network, bits }.holds(address);
    match address {
        IpAddr::V4(_) => !REFUSED_V4.iter().any(|(network, bits)| within((IpAddr::V4(*network), *bits))),
        IpAddr::V6(_) => {
            within((IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0)), 3))
                && !REFUSED_V6.iter().any(|(network, bits)| within((IpAddr::V6(*network), *bits)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_in_all_their_forms_are_refused() {
        for address in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "fd00:ec2::254",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_allowed_and_nothing_beside_it() {
        let allowed = Allowed::new(&[
            "10.0.0.0/8".into(),
            "127.0.0.1".into(),
            "fd00::/8".into(),
            "Stock.Internal".into(),
        ]);
        for (address, wanted) in [
            ("10.9.8.7", true),
            ("11.0.0.1", true),
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("fd01::1", true),
            ("fc01::1", false),
            ("192.168.0.1", false),
        ] {
            assert_eq!(allowed.address(address.parse().unwrap()), wanted, "{address}");
        }
        assert!(allowed.host("stock.internal.") && !allowed.host("x.stock.internal"));
        assert!(Allowed::new(&["0.0.0.0/0".into()]).address("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn entries_that_allow_nothing_are_told() {
        for good in [
            "10.0.0.0/8",
            "::1",
            "[::1]",
            "127.0.0.1",
            "host",
            "a.b.example",
            "http://10.0.0.1:80/x",
            "https://h",
        ] {
            assert_eq!(Allowed::fault(good), None, "{good}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "host/8",
            "ftp://host",
            "http://",
            "http://h?x=1",
            "a b",
            "127.1",
            "host:80",
            "http://h/a/..%2fb/",
        ] {
            assert!(Allowed::fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_allowed_by_how_it_begins() {
        let allowed = Allowed::new(&[
            "http://10.0.0.5:8080/hooks".into(),
            "https://Stock.internal/".into(),
            "http://[::1".into(),
        ]);
        for (url, wanted) in [
            ("http://10.0.0.5:8080/hooks", true),
            ("http://10.0.0.5:8080/hooks?x=1", true),
            ("http://10.0.0.5:8080/hooks/a", true),
            ("http://10.0.0.5:8080/hooks/../admin", false),
            ("http://10.0.0.5:8080/hooks/%2e%2e/admin", false),
            ("http://10.0.0.5:8080/hooks/..%2fadmin", false),
            ("http://10.0.0.5:8080/hooks/%2e%2e%5cadmin", false),
            ("http://10.0.0.5:8080/hooks/a%2fb", true),
            ("http://10.0.0.5:8080/hooksevil", false),
            ("http://10.0.0.5/hooks", false),
            ("https://10.0.0.5:8080/hooks", false),
            ("https://stock.internal:443/any", true),
            ("https://stock.internal.evil/any", false),
            ("https://stock.internal@evil/any", false),
        ] {
            assert_eq!(allowed.url(&Url::parse(url).unwrap()), wanted, "{url}");
        }
        assert!(!allowed.address("10.0.0.5".parse().unwrap()) && !allowed.host("stock.internal"));
    }
}
