//! Why a connection ends: a code and a sentence, sent as QUIC's application close and logged by
//! both sides.

use std::fmt;

/// The longest sentence that travels, in bytes.
pub const MAX_DETAIL_BYTES: usize = 300;

/// The kind of reason; the number is the QUIC application error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum CloseCode {
    /// The sender is shutting down; it may come back.
    ShuttingDown = 1,
    /// Another connection of the same pair stays.
    Duplicate = 2,
    /// The peer is this node itself.
    SelfConnection = 3,
    /// Another network's magic.
    WrongNetwork = 4,
    /// Another genesis hash.
    WrongGenesis = 5,
    /// No common protocol version.
    WrongVersion = 6,
    /// The certificate's key is not the one pinned for this address, or is pinned for another.
    PinMismatch = 7,
    /// The address holds a live connection with another key.
    IpTaken = 8,
    /// The address is banned until a time.
    Banned = 9,
    /// No slot is free.
    Full = 10,
    /// The receiver takes no unpinned peers.
    UnpinnedRefused = 11,
    /// The peer broke the protocol.
    ProtocolViolation = 12,
    /// No application bytes came on any stream for a minute.
    Silent = 13,
    /// The operator asked for it.
    Operator = 14,
    /// A newer process of the same node has connected.
    NewerInstance = 15,
    /// Hello or Welcome did not come in time.
    HandshakeTimeout = 16,
    /// A code that this version does not know.
    Unknown = 0,
    /// The sender failed inside; its own log says how.
    Internal = 17,
    /// Never sent: no packet came for as long as the idle timeout.
    TransportLost = 1001,
    /// Never sent: a stateless reset; the peer has lost the connection's state.
    PeerRestarted = 1002,
    /// Never sent: one side refused the other in the TLS handshake.
    TlsRefused = 1003,
    /// Never sent: QUIC itself failed or refused the connection.
    TransportFailed = 1004,
    /// Never sent: this node closed the connection, for a reason that it told the peer.
    ClosedHere = 1005,
}

impl CloseCode {
    /// The codes that travel.
    const ALL: [CloseCode; 17] = [
        CloseCode::ShuttingDown,
        CloseCode::Duplicate,
        CloseCode::SelfConnection,
        CloseCode::WrongNetwork,
        CloseCode::WrongGenesis,
        CloseCode::WrongVersion,
        CloseCode::PinMismatch,
        CloseCode::IpTaken,
        CloseCode::Banned,
        CloseCode::Full,
        CloseCode::UnpinnedRefused,
        CloseCode::ProtocolViolation,
        CloseCode::Silent,
        CloseCode::Operator,
        CloseCode::NewerInstance,
        CloseCode::HandshakeTimeout,
        CloseCode::Internal,
    ];

    /// The code for a number; [`CloseCode::Unknown`] for one that this version does not know or
    /// that is never sent.
    pub fn from_number(number: u64) -> Self {
        Self::ALL
            .into_iter()
            .find(|code| u64::from(*code as u32) == number)
            .unwrap_or(CloseCode::Unknown)
    }

    /// The name in logs, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            CloseCode::ShuttingDown => "shutting_down",
            CloseCode::Duplicate => "duplicate",
            CloseCode::SelfConnection => "self",
            CloseCode::WrongNetwork => "wrong_network",
            CloseCode::WrongGenesis => "wrong_genesis",
            CloseCode::WrongVersion => "wrong_version",
            CloseCode::PinMismatch => "pin_mismatch",
            CloseCode::IpTaken => "ip_taken",
            CloseCode::Banned => "banned",
            CloseCode::Full => "full",
            CloseCode::UnpinnedRefused => "unpinned_refused",
            CloseCode::ProtocolViolation => "protocol_violation",
            CloseCode::Silent => "silent",
            CloseCode::Operator => "operator",
            CloseCode::NewerInstance => "newer_instance",
            CloseCode::HandshakeTimeout => "handshake_timeout",
            CloseCode::Unknown => "unknown",
            CloseCode::Internal => "internal",
            CloseCode::TransportLost => "transport_lost",
            CloseCode::PeerRestarted => "peer_restarted",
            CloseCode::TlsRefused => "tls_refused",
            CloseCode::TransportFailed => "transport_failed",
            CloseCode::ClosedHere => "closed_here",
        }
    }
}

/// A code and the sentence that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The kind of reason.
    pub code: CloseCode,
    /// What a person needs to know and do.
    pub detail: String,
}

impl CloseReason {
    /// A reason; the sentence is cut to [`MAX_DETAIL_BYTES`].
    pub fn new(code: CloseCode, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL_BYTES {
            detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
        }
        Self { code, detail }
    }

    /// A reason as it came from a peer: bytes of any kind become plain text.
    pub fn from_wire(code: u64, detail: &[u8]) -> Self {
        let detail = &detail[..detail.len().min(MAX_DETAIL_BYTES)];
        let text = String::from_utf8_lossy(detail)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>();
        Self::new(CloseCode::from_number(code), text)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            f.write_str(self.code.name())
        } else {
            write!(f, "{}: {}", self.code.name(), self.detail)
        }
    }
}
