//! Turns the end of a QUIC connection into a code and a sentence for logs, tables and people.

use std::fmt;

use quinn::{ConnectionError, TransportErrorCode};

use crate::wire::{CloseCode, CloseReason};

/// QUIC error codes from here to [`LAST_TLS_ERROR`] carry a TLS alert (RFC 9001 section 4.8).
const FIRST_TLS_ERROR: u64 = 0x100;
const LAST_TLS_ERROR: u64 = 0x1ff;

/// How TLS wraps the sentence of a certificate's refusal.
const REFUSAL_PREFIX: &str = "invalid peer certificate: Other(OtherError(";
const REFUSAL_SUFFIX: &str = "))";

/// Why a connection ended or never came to be.
pub(super) fn explain(error: &ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            CloseReason::from_wire(close.error_code.into_inner(), &close.reason)
        }
        ConnectionError::ConnectionClosed(close) => {
            // The peer's text is foreign: made printable and short as any close reason.
            let text = CloseReason::from_wire(0, &close.reason).detail;
            transport(Finder::Peer, close.error_code, &text)
        }
        ConnectionError::TransportError(error) => {
            transport(Finder::ThisNode, error.code, &error.reason)
        }
        ConnectionError::TimedOut => CloseReason::new(
            CloseCode::TransportLost,
            "no packet came from the peer within the idle timeout: it is down or the path is cut",
        ),
        ConnectionError::Reset => CloseReason::new(
            CloseCode::PeerRestarted,
            "the peer no longer knows this connection: it has restarted",
        ),
        ConnectionError::VersionMismatch => CloseReason::new(
            CloseCode::WrongVersion,
            "the peer speaks no version of QUIC that this node speaks",
        ),
        ConnectionError::LocallyClosed => {
            CloseReason::new(CloseCode::ClosedHere, "this node closed the connection")
        }
        ConnectionError::CidsExhausted => CloseReason::new(
            CloseCode::TransportFailed,
            "this node has no connection id left for another connection",
        ),
    }
}

/// Whether the failure of an arrival's handshake shows that the peer is at its address: this node
/// has refused what only somebody can send who has read its answer.
pub(super) fn proves_address(error: &ConnectionError) -> bool {
    let ConnectionError::TransportError(error) = error else {
        return false;
    };
    let alert = u64::from(error.code).wrapping_sub(FIRST_TLS_ERROR);
    matches!(alert, 42..=46 | 48 | 49 | 51 | 116)
}

/// Who noticed the error and closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finder {
    ThisNode,
    Peer,
}

impl fmt::Display for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Finder::ThisNode => "this node",
            Finder::Peer => "the peer",
        })
    }
}

fn transport(finder: Finder, code: TransportErrorCode, text: &str) -> CloseReason {
    let number = u64::from(code);
    if (FIRST_TLS_ERROR..=LAST_TLS_ERROR).contains(&number) {
        return tls(finder, number - FIRST_TLS_ERROR, text);
    }
    let detail = match code {
        TransportErrorCode::CONNECTION_REFUSED => {
            format!("{finder} takes no connection now")
        }
        // What RFC 9000 has an endpoint send in place of an application's close during the
        // handshake, so that the reason does not travel unauthenticated.
        TransportErrorCode::APPLICATION_ERROR => {
            format!("{finder} closed the connection during the handshake")
        }
        code => format!("{finder} closed for a transport error: {code}"),
    };
    CloseReason::new(CloseCode::TransportFailed, with(detail, text))
}

/// The alerts that nodes meet, by their numbers in RFC 8446 section 6.
fn tls(finder: Finder, alert: u64, text: &str) -> CloseReason {
    let refusal = text
        .strip_prefix(REFUSAL_PREFIX)
        .and_then(|rest| rest.strip_suffix(REFUSAL_SUFFIX));
    if let Some(sentence) = refusal {
        let detail = format!("{finder} refused the other's certificate: {sentence}");
        return CloseReason::new(CloseCode::TlsRefused, detail);
    }
    let what = match alert {
        40 => "found no TLS parameters in common (nodes use Ed25519 and TLS 1.3)",
        42..=46 | 48 | 49 => "refused the other's certificate",
        51 => "refused the other's signature: it does not hold the key of its certificate",
        70 => "refused the other's TLS version (nodes use TLS 1.3)",
        116 => "refused the other because it showed no Ed25519 certificate",
        120 => "refused the other because it does not speak timed/1",
        _ => {
            let detail = format!("{finder} ended the TLS handshake with alert {alert}");
            return CloseReason::new(CloseCode::TlsRefused, with(detail, text));
        }
    };
    CloseReason::new(
        CloseCode::TlsRefused,
        with(format!("{finder} {what}"), text),
    )
}

fn with(detail: String, text: &str) -> String {
    if text.is_empty() {
        detail
    } else {
        format!("{detail} ({text})")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quinn::{ConnectionClose, TransportErrorCode};
    use quinn_proto::TransportError;

    use super::*;

    fn found_here(code: TransportErrorCode, reason: &str) -> CloseReason {
        explain(&ConnectionError::TransportError(TransportError {
            code,
            frame: None,
            reason: reason.into(),
        }))
    }

    fn found_by_peer(code: TransportErrorCode, reason: &'static [u8]) -> CloseReason {
        explain(&ConnectionError::ConnectionClosed(ConnectionClose {
            error_code: code,
            frame_type: None,
            reason: Bytes::from_static(reason),
        }))
    }

    #[test]
    fn every_end_has_a_code_and_a_sentence() {
        let cases = [
            (
                ConnectionError::TimedOut,
                CloseCode::TransportLost,
                "idle timeout",
            ),
            (
                ConnectionError::Reset,
                CloseCode::PeerRestarted,
                "restarted",
            ),
            (
                ConnectionError::VersionMismatch,
                CloseCode::WrongVersion,
                "QUIC",
            ),
            (
                ConnectionError::LocallyClosed,
                CloseCode::ClosedHere,
                "this node",
            ),
            (
                ConnectionError::CidsExhausted,
                CloseCode::TransportFailed,
                "id left",
            ),
        ];
        for (error, code, words) in cases {
            let reason = explain(&error);
            assert_eq!(reason.code, code);
            assert!(reason.detail.contains(words), "{reason}");
        }
    }

    #[test]
    fn every_tls_alert_has_a_sentence() {
        for alert in 0..=255 {
            let reason = found_by_peer(TransportErrorCode::crypto(alert), b"details");
            assert_eq!(reason.code, CloseCode::TlsRefused);
            assert!(reason.detail.starts_with("the peer "), "{reason}");
            assert!(reason.detail.ends_with("(details)"), "{reason}");
        }
        let reason = found_here(TransportErrorCode::crypto(80), "");
        assert_eq!(
            reason.detail,
            "this node ended the TLS handshake with alert 80"
        );
    }

    #[test]
    fn transport_errors_say_who_found_them() {
        let reason = found_here(TransportErrorCode::FLOW_CONTROL_ERROR, "too much");
        assert_eq!(reason.code, CloseCode::TransportFailed);
        assert!(reason.detail.starts_with("this node closed"), "{reason}");
        assert!(reason.detail.ends_with("(too much)"), "{reason}");
        let reason = found_by_peer(TransportErrorCode::APPLICATION_ERROR, b"");
        assert_eq!(
            reason.detail,
            "the peer closed the connection during the handshake"
        );
    }

    #[test]
    fn a_peers_text_is_made_plain_and_short() {
        const HOSTILE: &[u8] = b"\x1b[2Jgone\n\xff";
        let reason = found_by_peer(TransportErrorCode::INTERNAL_ERROR, HOSTILE);
        assert!(!reason.detail.contains(char::is_control), "{reason:?}");
        const LONG: &[u8] = &[b'a'; 5_000];
        let reason = found_by_peer(TransportErrorCode::INTERNAL_ERROR, LONG);
        assert!(reason.detail.len() <= crate::wire::close::MAX_DETAIL_BYTES);
    }

    #[test]
    fn a_peer_cannot_claim_a_reason_that_only_this_node_can_find() {
        let close = quinn::ApplicationClose {
            error_code: quinn::VarInt::from_u32(CloseCode::TransportLost as u32),
            reason: Bytes::from_static(b"lost"),
        };
        let reason = explain(&ConnectionError::ApplicationClosed(close));
        assert_eq!(reason.code, CloseCode::Unknown);
        assert_eq!(reason.detail, "lost");
    }
}
