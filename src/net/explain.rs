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
