//! Connections, handshakes, and what each connection measures.

use std::fmt;

use super::Snapshot;
use super::families::{Distribution, Families, Labels};
use crate::net::{Direction, PeerInfo, RTT_BOUNDS_US, RttHistogram};
use crate::wire::StreamKind;

pub(super) fn describe(node: &Snapshot, to: &mut Families) -> fmt::Result {
    connections(node, to)?;
    handshakes(node, to)?;
    round_trips(&node.peers, to)?;
    traffic(&node.peers, to)?;
    queues(&node.peers, to)
}

fn connections(node: &Snapshot, to: &mut Families) -> fmt::Result {
    let directions = [Direction::Inbound, Direction::Outbound];
    let held = |direction| {
        let same = node.peers.iter().filter(|peer| peer.direction == direction);
        (vec![label(direction)], same.count() as f64)
    };
    to.gauges(
        "timed_connections",
        "Registered connections, by who dialed",
        directions.map(held),
    )?;
    let others = node.masternodes.iter().filter(|(_, own)| !own);
    let connected = others.map(|(name, _)| {
        let there = node
            .peers
            .iter()
            .any(|peer| peer.name.as_ref() == Some(name));
        (vec![("name", name.clone())], f64::from(u8::from(there)))
    });
    to.gauges(
        "timed_masternode_connected",
        "1 for each other masternode of genesis that is connected, 0 for each that is not",
        connected,
    )?;
    let established = directions.map(|direction| {
        let count = node.counts.established.get(&direction);
        (vec![label(direction)], count.copied().unwrap_or(0))
    });
    to.counters(
        "timed_connections_established",
        "Connections that were registered, by who dialed",
        established,
    )?;
    let ended = node.counts.ended.iter();
    to.counters(
        "timed_connections_ended",
        "Registered connections that ended, by why",
        ended.map(|(code, count)| (vec![("reason", code.name().to_owned())], *count)),
    )
}

fn handshakes(node: &Snapshot, to: &mut Families) -> fmt::Result {
    let refused = node
        .counts
        .refused
        .iter()
        .map(|((direction, code), count)| {
            let reason = ("reason", code.name().to_owned());
            (vec![label(*direction), reason], *count)
        });
    to.counters(
        "timed_handshakes_refused",
        "Handshakes that were refused or failed, whichever side refused, by why",
        refused,
    )?;
    to.counter(
        "timed_handshakes_unanswered",
        "Arrivals that never answered",
        node.counts.unanswered,
    )?;
    to.counter(
        "timed_arrivals_turned_away",
        "Arrivals refused because too many handshakes were in progress",
        node.counts.turned_away,
    )?;
    to.counter(
        "timed_arrivals_retried",
        "Arrivals asked to prove their address first",
        node.counts.retried,
    )?;
    to.gauge(
        "timed_handshakes_half_open",
        "Handshakes of arrivals in progress",
        node.half_open.now as f64,
    )
}

fn round_trips(peers: &[PeerInfo], to: &mut Families) -> fmt::Result {
    to.histograms(
        "timed_peer_rtt_seconds",
        "Round-trip times of application pings",
        peers
            .iter()
            .map(|peer| (labels(peer), distribution(&peer.rtt_histogram))),
    )?;
    to.gauges(
        "timed_peer_slow",
        "1 while a ping is, or the last one was, unanswered for too long",
        peers
            .iter()
            .map(|peer| (labels(peer), f64::from(u8::from(peer.slow)))),
    )?;
    to.gauges(
        "timed_peer_clock_offset_seconds",
        "The peer's clock less ours when it connected",
        peers
            .iter()
            .map(|peer| (labels(peer), peer.clock_offset_ms as f64 / 1_000.0)),
    )?;
    to.gauges(
        "timed_peer_tip_height",
        "The height that the peer tells",
        peers
            .iter()
            .map(|peer| (labels(peer), peer.tip_height.0 as f64)),
    )?;
    to.counters(
        "timed_peer_reconnects",
        "How often the pair has connected again since this process started",
        peers.iter().map(|peer| (labels(peer), peer.reconnects)),
    )
}

fn distribution(rtt: &RttHistogram) -> Distribution {
    let seconds = |us: u64| us as f64 / 1_000_000.0;
    let bounds = RTT_BOUNDS_US.iter().map(|bound| seconds(*bound));
    Distribution {
        buckets: bounds.chain([f64::INFINITY]).zip(rtt.buckets).collect(),
        sum: seconds(rtt.sum_us),
    }
}

fn traffic(peers: &[PeerInfo], to: &mut Families) -> fmt::Result {
    let by_stream = |pick: fn(&PeerInfo, usize) -> u64| {
        peers.iter().flat_map(move |peer| {
            let kinds = StreamKind::ALL.iter().enumerate();
            kinds.map(move |(at, kind)| (with_stream(peer, kind.name()), pick(peer, at)))
        })
    };
    to.counters(
        "timed_peer_sent_bytes",
        "Application bytes sent on a connection, by kind of stream",
        by_stream(|peer, at| peer.streams[at].sent),
    )?;
    to.counters(
        "timed_peer_received_bytes",
        "Application bytes received on a connection, by kind of stream",
        by_stream(|peer, at| peer.streams[at].received),
    )?;
    to.gauges(
        "timed_peer_credit_bytes",
        "How many bulk bytes may be unconfirmed; follows the delay that bulk causes on the path",
        peers
            .iter()
            .map(|peer| (labels(peer), peer.bulk_credit as f64)),
    )?;
    to.gauges(
        "timed_peer_bulk_delay_seconds",
        "The delay that bulk caused on the way there, over the last round trip with bulk",
        peers
            .iter()
            .map(|peer| (labels(peer), peer.bulk_delay_us as f64 / 1_000_000.0)),
    )?;
    to.gauges(
        "timed_peer_unconfirmed_bytes",
        "Bulk bytes written and not yet confirmed as consumed",
        peers
            .iter()
            .map(|peer| (labels(peer), peer.bulk_unconfirmed as f64)),
    )
}

fn queues(peers: &[PeerInfo], to: &mut Families) -> fmt::Result {
    let messages = peers.iter().flat_map(|peer| {
        let queues = &peer.queues;
        [
            (
                with_stream(peer, "consensus"),
                queues.consensus_messages as f64,
            ),
            (
                with_stream(peer, "transactions"),
                queues.transactions_messages as f64,
            ),
            (with_stream(peer, "proposal"), queues.bodies as f64),
        ]
    });
    to.gauges(
        "timed_peer_queue_messages",
        "Messages that wait to be sent, by kind of stream",
        messages,
    )?;
    let bytes = peers.iter().flat_map(|peer| {
        let queues = &peer.queues;
        [
            (
                with_stream(peer, "consensus"),
                queues.consensus_bytes as f64,
            ),
            (
                with_stream(peer, "transactions"),
                queues.transactions_bytes as f64,
            ),
        ]
    });
    to.gauges("timed_peer_queue_bytes", "Their bytes", bytes)?;
    to.counters(
        "timed_peer_dropped_messages",
        "Messages dropped because a queue was full",
        peers.iter().map(|peer| (labels(peer), peer.dropped)),
    )
}

fn labels(peer: &PeerInfo) -> Labels {
    let name = peer.name.clone().unwrap_or_default();
    vec![("peer", peer.ip.to_string()), ("name", name)]
}

fn with_stream(peer: &PeerInfo, stream: &str) -> Labels {
    let mut labels = labels(peer);
    labels.push(("stream", stream.to_owned()));
    labels
}

fn label(direction: Direction) -> (&'static str, String) {
    let name = match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    ("direction", name.into())
}
