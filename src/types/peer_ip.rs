//! A peer's identity on the network: its IP address, without a port.

use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A peer's IP address in canonical form: an IPv4-mapped IPv6 address is the IPv4 address, so that
/// one machine is one peer whichever socket it was seen on.
///
/// The order is `IPv4 < IPv6`, then by octets; the higher address of a pair is the preferred dialer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "IpAddr", into = "IpAddr")]
pub struct PeerIp(IpAddr);

impl PeerIp {
    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// Where to dial this peer.
    pub fn with_port(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.0, port)
    }

    /// Whether a peer can have this address at all: neither unspecified nor multicast.
    pub fn is_usable(self) -> bool {
        !self.0.is_unspecified() && !self.0.is_multicast()
    }
}

impl From<IpAddr> for PeerIp {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical())
    }
}

impl From<SocketAddr> for PeerIp {
    fn from(address: SocketAddr) -> Self {
        address.ip().into()
    }
}

impl From<PeerIp> for IpAddr {
    fn from(ip: PeerIp) -> Self {
        ip.0
    }
}

impl fmt::Display for PeerIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PeerIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PeerIp {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        text.parse::<IpAddr>().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        let mapped: PeerIp = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(mapped, "10.0.0.1".parse().unwrap());
        assert_eq!(mapped.to_string(), "10.0.0.1");
    }

    #[test]
    fn a_port_is_no_part_of_a_peers_key() {
        let one: SocketAddr = "10.0.0.1:24000".parse().unwrap();
        let other: SocketAddr = "10.0.0.1:51234".parse().unwrap();
        assert_eq!(PeerIp::from(one), PeerIp::from(other));
        assert!("10.0.0.1:24000".parse::<PeerIp>().is_err());
    }

    #[test]
    fn order_is_by_family_then_octets() {
        let ip = |text: &str| text.parse::<PeerIp>().unwrap();
        assert!(ip("9.0.0.0") < ip("10.0.0.0"));
        assert!(ip("255.255.255.255") < ip("::1"));
        assert!(ip("127.0.0.2") > ip("127.0.0.1"));
    }
}
