//! One UDP packet that any QUIC server answers, whoever asks: a packet of a version that nobody
//! speaks (RFC 9000 section 6.1, RFC 8999). It makes no connection and shows no identity.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use timed::env::Entropy;

/// A version of the form that is reserved for forcing an answer.
const UNSPOKEN_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];

/// Servers answer packets of at least this size only.
const PACKET_BYTES: usize = 1_200;

/// How often one packet is sent, since any may be lost.
const ATTEMPTS: usize = 3;

/// How long each waits for its answer.
const WAIT: Duration = Duration::from_millis(700);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A QUIC server answered.
    Quic,
    /// The system of that address said that nobody listens on the port.
    Refused,
    /// Nothing came.
    Silence,
    /// The packet could not be sent.
    NotSent(String),
}

/// Asks whether a QUIC server is reached at an address.
pub(super) fn ask(address: SocketAddr) -> Answer {
    match try_ask(address) {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Answer::Refused,
        Err(error) => Answer::NotSent(error.to_string()),
    }
}

fn try_ask(address: SocketAddr) -> io::Result<Answer> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(WAIT))?;
    let seed = Entropy::from_os()?.derive("doctor probe");
    let own: [u8; 8] = seed[..8].try_into().expect("a seed is longer");
    let packet = packet(seed[8..16].try_into().expect("a seed is longer"), own);
    for _ in 0..ATTEMPTS {
        socket.send(&packet)?;
        let mut answer = [0; 2_048];
        match socket.recv(&mut answer) {
            Ok(length) if is_negotiation(&answer[..length], own) => return Ok(Answer::Quic),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Answer::Silence)
}

/// A long header, the version, both connection ids with their lengths, and padding.
fn packet(theirs: [u8; 8], own: [u8; 8]) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend(UNSPOKEN_VERSION);
    packet.push(8);
    packet.extend(theirs);
    packet.push(8);
    packet.extend(own);
    packet.resize(PACKET_BYTES, 0);
    packet
}

/// A long header of version 0, sent to our connection id.
fn is_negotiation(answer: &[u8], own: [u8; 8]) -> bool {
    let Some((head, rest)) = answer.split_at_checked(6) else {
        return false;
    };
    head[0] & 0x80 != 0 && head[1..5] == [0; 4] && head[5] == 8 && rest.starts_with(&own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_a_closed_port_and_strange_answers_are_told_apart() {
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(ask(mute.local_addr().unwrap()), Answer::Silence);
        let closed = mute.local_addr().unwrap();
        drop(mute);
        assert_eq!(ask(closed), Answer::Refused);
        assert!(!is_negotiation(b"", [1; 8]));
        assert!(!is_negotiation(
            &[0x80, 0, 0, 0, 0, 8, 2, 2, 2, 2, 2, 2, 2, 2],
            [1; 8]
        ));
        assert!(is_negotiation(
            &[0x80, 0, 0, 0, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1, 9],
            [1; 8]
        ));
    }
}
