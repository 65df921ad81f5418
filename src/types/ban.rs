//! A ban of one address: timed, with the reason that people are shown.

use serde::{Deserialize, Serialize};

use super::PeerIp;
use super::time::utc_time;

/// The longest reason of a ban, in bytes.
pub const MAX_BAN_REASON_BYTES: usize = 160;

/// Who banned an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BannedBy {
    /// A person, with `timed ban` or `setban`.
    Operator,
    /// This node, for bytes that cannot be honest.
    Fault,
}

/// No connection with an address until a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// The address.
    pub ip: PeerIp,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Until when, Unix milliseconds.
    pub until_ms: u64,
    /// Who banned it.
    pub by: BannedBy,
    /// Why, at most [`MAX_BAN_REASON_BYTES`].
    pub reason: String,
}

impl Ban {
    /// A ban from now on; a longer reason is cut, control characters become spaces.
    pub fn new(ip: PeerIp, (since_ms, until_ms): (u64, u64), by: BannedBy, reason: &str) -> Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut reason: String = reason.chars().map(plain).collect();
        reason.truncate(reason.floor_char_boundary(MAX_BAN_REASON_BYTES));
        Self {
            ip,
            since_ms,
            until_ms,
            by,
            reason,
        }
    }

    /// Whether it is in force.
    pub fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }

    /// What the banned peer and people are told.
    pub fn sentence(&self) -> String {
        let by = match self.by {
            BannedBy::Operator => "the operator",
            BannedBy::Fault => "the node",
        };
        let until = utc_time(self.until_ms);
        format!(
            "{} is banned until {until} by {by}: {}",
            self.ip, self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_is_one_bounded_line_that_says_until_when_and_why() {
        let ip = "10.0.0.1".parse().unwrap();
        let long = format!("a\n{}", "b".repeat(500));
        let ban = Ban::new(ip, (0, 60_000), BannedBy::Operator, &long);
        assert_eq!(ban.reason.len(), MAX_BAN_REASON_BYTES);
        let sentence = ban.sentence();
        assert!(sentence.starts_with(
            "10.0.0.1 is banned until 1970-01-01 00:01:00 UTC by the operator: a bbb"
        ));
        assert!(ban.holds(59_999) && !ban.holds(60_000));
    }
}
