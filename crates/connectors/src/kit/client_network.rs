//! The network that a client counts as, wherever something is shared between clients by their addresses.

use std::net::{IpAddr, Ipv6Addr};

/// The bits of an IPv6 address that a client is given by its provider and cannot choose.
const IPV6_PREFIX: u32 = 64;

/// An IPv4 address as it is; of an IPv6 address the first 64 bits, because one client has all addresses below them. An IPv4 address that
/// is mapped to IPv6 is the IPv4 address.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> IPV6_PREFIX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_prefix() {
        for (address, network) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
            ("::1", "::"),
        ] {
            assert_eq!(client_network(address.parse().unwrap()).to_string(), network, "{address}");
        }
    }
}
