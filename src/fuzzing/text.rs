//! What people type and read: amounts, addresses, ids, times.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::types::ban::MAX_BAN_REASON_BYTES;
use crate::types::time::utc_time;
use crate::types::{Address, Amount, Ban, BannedBy, Network, PeerIp, Signature, TxId};

/// Whatever is read is shown so that it reads back; whatever is shown is one line.
pub fn text(input: &[u8]) {
    if let Some(time) = input.first_chunk() {
        assert!(utc_time(u64::from_le_bytes(*time)).ends_with(" UTC"));
    }
    let text = String::from_utf8_lossy(input);
    reads_back::<Amount>(&text);
    reads_back::<PeerIp>(&text);
    reads_back::<TxId>(&text);
    reads_back::<Signature>(&text);
    for network in [Network::Main, Network::Test, Network::Dev] {
        if let Ok(address) = Address::parse(&text, network) {
            let shown = address.to_text(network);
            assert_eq!(shown, text.to_lowercase());
            assert_eq!(Address::parse(&shown, network), Ok(address));
        }
    }
    let ip = "10.0.0.1".parse().expect("it is an address");
    let ban = Ban::new(ip, (0, 1), BannedBy::Operator, &text);
    assert!(ban.reason.len() <= MAX_BAN_REASON_BYTES);
    assert!(!ban.sentence().contains(char::is_control));
}

fn reads_back<T>(text: &str)
where
    T: FromStr + Display + PartialEq + Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let shown = value.to_string();
        assert_eq!(shown.parse::<T>().ok(), Some(value), "{shown}");
    }
}
