//! What is said of a known peer.

use super::{End, KnownRecord, Link};
use crate::net::{Direction, KnownPeer};

impl KnownRecord {
    /// For display, at a time of day.
    pub(crate) fn shown(&self, now_ms: u64) -> KnownPeer {
        let next_dial_ms = match self.link {
            Link::Waiting { next_dial_ms, .. } => Some(next_dial_ms),
            _ => None,
        };
        let last = self.newest();
        let told = |end: &End| (end.at_ms, end.direction, end.sentence());
        KnownPeer {
            ip: self.ip,
            port: self.port,
            name: self.name.clone(),
            connected: matches!(self.link, Link::Connected { .. }),
            next_dial_ms,
            failures: self.backoff.failures(),
            last_end: self.last_end.as_ref().map(told),
            last_refusal: self.last_refusal.as_ref().map(told),
            last_reason: last.map(|end| end.reason.to_string()),
            last_code: last.map(|end| end.reason.code.name()),
            last_by_us: last.map(|end| end.by_us),
            explanation: self.explain(now_ms),
        }
    }

    /// The newer of the last disconnect and the last refusal.
    fn newest(&self) -> Option<&End> {
        let both = [&self.last_end, &self.last_refusal].into_iter().flatten();
        both.max_by_key(|end| end.at_ms)
    }

    fn explain(&self, now_ms: u64) -> String {
        let seconds_to = |at_ms: u64| at_ms.saturating_sub(now_ms).div_ceil(1000);
        let last = match self.newest() {
            Some(end) => format!("; last: {}", end.sentence()),
            None => String::new(),
        };
        match self.link {
            Link::Connected {
                since_ms,
                direction,
                ..
            } => format!(
                "connected for {} s, {}",
                now_ms.saturating_sub(since_ms) / 1000,
                match direction {
                    Direction::Inbound => "it dialed",
                    Direction::Outbound => "this node dialed",
                }
            ),
            Link::Dialing => format!("being dialed now{last}"),
            Link::Waiting {
                next_dial_ms,
                grace: true,
            } => format!(
                "expected to dial this node, its address being higher; dialed in {} s if it does \
                 not{last}",
                seconds_to(next_dial_ms)
            ),
            Link::Waiting { next_dial_ms, .. } => {
                format!("next dialed in {} s{last}", seconds_to(next_dial_ms))
            }
            Link::Idle if self.dialed() => {
                format!("not dialed: its port is not known{last}")
            }
            Link::Idle => format!("not dialed: it is neither recorded nor configured{last}"),
        }
    }
}

impl End {
    fn sentence(&self) -> String {
        match self.lasted {
            Some(lasted) => format!("after {} s, {}", lasted.as_secs(), self.reason),
            None => self.reason.to_string(),
        }
    }
}
