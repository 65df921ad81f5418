//! What one connection may hold in memory: QUIC's windows and stream limits, and the bound on bulk.
//!
//! Windows are per connection and the stream window cannot change later, so they are chosen by the
//! address: recorded masternode addresses get room for block bodies, strangers little until they
//! are welcome, and never much. Two rules hold for each set, checked when this is compiled:
//!
//! 1. Readers that stall cannot take all of the receive window: it covers a full stream window for
//!    every stream that the peer may open and for this node's own requests, and the reserve.
//! 2. Bulk cannot take all of the send window: it covers the bound on bulk with what block bodies may have
//!    beside it, and the reserve. (The window is one per connection, and QUIC's priorities do not count there.)

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// The most sync requests of this node's that are open to one peer.
pub(super) const MAX_OWN_REQUESTS: u32 = 4;

/// The most sync requests of one peer that are answered at a time: an honest one has no more open.
pub(super) const MAX_SERVED: u32 = MAX_OWN_REQUESTS;

/// Windows and stream limits.
pub(super) struct Windows {
    /// Bytes that one stream may have unread.
    pub stream: u32,
    /// Unidirectional streams of the peer's that may be open.
    pub uni_streams: u32,
    /// Bidirectional streams of the peer's that may be open.
    pub bi_streams: u32,
    /// Bidirectional streams of this node's that may be open.
    pub own_requests: u32,
    /// Bytes that all streams may have unread.
    pub receive: u32,
    /// Bytes written that the peer has not acknowledged.
    pub send: u32,
    /// The most that the bound on bulk may become.
    pub bulk: u64,
    /// What is left in both windows for the lifelong streams.
    pub reserve: u32,
}

impl Windows {
    /// For recorded masternode addresses.
    pub(super) const RECORDED: Windows = Windows {
        stream: MIB,
        uni_streams: 8,
        bi_streams: 16,
        own_requests: MAX_OWN_REQUESTS,
        receive: 32 * MIB,
        send: 40 * MIB,
        bulk: 16 * MIB as u64,
        reserve: 4 * MIB,
    }
    .checked();

    /// For all other addresses, before the Welcome: no bulk, no requests.
    pub(super) const STRANGER: Windows = Windows {
        stream: 128 * KIB,
        uni_streams: 3,
        bi_streams: 2,
        own_requests: 0,
        receive: MIB,
        send: MIB,
        bulk: 0,
        reserve: 256 * KIB,
    }
    .checked();

    /// For all other addresses, after the Welcome. Never more.
    pub(super) const WELCOME: Windows = Windows {
        stream: Windows::STRANGER.stream,
        uni_streams: 8,
        bi_streams: 8,
        own_requests: MAX_OWN_REQUESTS,
        receive: 4 * MIB,
        send: 4 * MIB,
        bulk: 2 * MIB as u64,
        reserve: MIB,
    }
    .checked();

    /// What holds for an established connection.
    pub(super) const fn of_peer(recorded: bool) -> &'static Windows {
        match recorded {
            true => &Windows::RECORDED,
            false => &Windows::WELCOME,
        }
    }

    const fn checked(self) -> Self {
        let streams = self.uni_streams + self.bi_streams + self.own_requests;
        assert!(
            self.receive >= streams * self.stream + self.reserve,
            "stalled streams can take the whole receive window"
        );
        assert!(
            self.send as u64 >= self.bulk + self.bulk / 4 + self.reserve as u64,
            "bulk can take the whole send window"
        );
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bodies::{MAX_HELD, MAX_WAITING};
    use crate::net::queue::QueueLimits;
    use crate::wire::StreamKind;
    /// What one peer can make this node's network hold, in bytes: what is unread and unacknowledged
    /// in QUIC, what waits in queues, and the frames being assembled or written.
    fn most_memory(windows: &Windows, recorded: bool) -> u64 {
        let frame = |kind: StreamKind| kind.max_frame_bytes() as u64;
        let quic = u64::from(windows.receive) + u64::from(windows.send);
        // Of an answer: the frame being written, the next one in its channel, and the one before, which is
        // held whole until the end of it is acknowledged.
        let served = u64::from(MAX_SERVED.min(windows.bi_streams));
        let answers = (3 * served + u64::from(windows.own_requests)) * frame(StreamKind::Sync);
        let queue = match recorded {
            true => QueueLimits::TRANSACTIONS,
            false => QueueLimits::TRANSACTIONS_UNPINNED,
        };
        let transactions = queue.bytes as u64 + frame(StreamKind::Transactions);
        let mut all = quic + answers + transactions + frame(StreamKind::Keepalive);
        if recorded {
            let consensus = QueueLimits::CONSENSUS.bytes as u64 + frame(StreamKind::Consensus);
            // Those read, those waiting to be sent, and the one being sent.
            let bodies = (MAX_HELD + MAX_WAITING + 1) as u64 * frame(StreamKind::Proposal);
            all += consensus + bodies;
        }
        all
    }

    /// The figures of docs/architecture.md.
    #[test]
    fn what_one_peer_can_cost_is_what_the_documentation_says() {
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        let recorded = mib(most_memory(&Windows::RECORDED, true));
        let welcome = mib(most_memory(&Windows::WELCOME, false));
        let stranger = u64::from((Windows::STRANGER.receive + Windows::STRANGER.send) / MIB);
        let architecture = include_str!("../../docs/architecture.md");
        let said = format!(
            "{recorded} MiB for a pinned masternode, {welcome} MiB for any other peer and {stranger} MiB before its Welcome"
        );
        let words: Vec<&str> = architecture.split_whitespace().collect();
        assert!(words.join(" ").contains(&said), "{said}");
    }
}
