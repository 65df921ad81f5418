//! An IP network in memory on virtual time: links with delay, jitter, loss, duplication, reordering,
//! rate and queue; uplinks that several hosts share; cuts, firewalls, address translation, and hosts
//! that change their address. The simulation of whole nodes uses this file too.
//!
//! Each direction of each link has a seeded generator of its own, which draws the same numbers per
//! packet whatever happens to it: so what two pairs of hosts do at one instant may happen in either
//! order. One heap ordered by (time, from, to, sequence) and one task that delivers. An inbox
//! holds what its socket has not read, at most [`INBOX_PACKETS`]; more are lost, as in a kernel's
//! buffer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha20Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[path = "wire/socket.rs"]
mod socket;

pub use socket::Socket;

// What the parent imports: this file is part of two crates.
use super::Entropy;

/// Packets that wait for one socket, at most.
const INBOX_PACKETS: usize = 4_096;

/// How long a firewall or a translation remembers that its host has sent to somebody.
pub const MEMORY: Duration = Duration::from_secs(120);

/// What IPv4 and UDP add to each packet on a link, in bytes.
pub const HEADER_BYTES: usize = 28;

/// How one direction of a link treats packets. Chances are per 10,000 packets.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Added to the delay, uniform from zero to this; packets stay in order.
    pub jitter: Duration,
    pub loss: u32,
    pub duplication: u32,
    /// A packet that leaves the order: it arrives up to `reordering_delay` late, behind others.
    pub reordering: u32,
    pub reordering_delay: Duration,
    /// Without one, the link takes any number of bytes at once.
    pub rate: Option<Rate>,
}

impl Link {
    /// 20 ms one way and nothing else.
    pub const CLEAN: Link = Link {
        delay: Duration::from_millis(20),
        jitter: Duration::ZERO,
        loss: 0,
        duplication: 0,
        reordering: 0,
        reordering_delay: Duration::ZERO,
        rate: None,
    };

    /// A long path of the real Internet: 0.5 % loss, jitter, and now and then a packet twice or late.
    pub const INTERNET: Link = Link {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(10),
        loss: 50,
        duplication: 10,
        reordering: 20,
        reordering_delay: Duration::from_millis(40),
        rate: None,
    };
}

/// How fast packets leave a link's queue, and how many it holds: one more is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub bytes_per_s: u64,
    pub queue_packets: usize,
}

impl Rate {
    pub const fn mbit_per_s(mbit: u64, queue_packets: usize) -> Rate {
        Rate {
            bytes_per_s: mbit * 1_000_000 / 8,
            queue_packets,
        }
    }
}

/// A packet as it is sent: for whoever watches the network.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Where it really comes from, whatever a translation makes of it.
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Its payload.
    pub bytes: usize,
    /// Whether it is neither lost nor dropped.
    pub arrives: bool,
}

/// The network.
pub struct Wire {
    watcher: Box<dyn Fn(Sent) + Send + Sync>,
    sent: Notify,
    state: Mutex<State>,
}

struct State {
    entropy: Entropy,
    /// Ordered by (time, from, to, sequence).
    flying: BTreeMap<(Instant, SocketAddr, SocketAddr, u64), Packet>,
    inboxes: BTreeMap<SocketAddr, Arc<Mutex<Inbox>>>,
    /// What holds between hosts that have no link of their own.
    link: Link,
    links: BTreeMap<(SocketAddr, SocketAddr), Link>,
    ways: BTreeMap<(SocketAddr, SocketAddr), Way>,
    /// Queues that all packets of some hosts pass before their links, and which hosts they are.
    uplinks: Vec<Queue>,
    uplink_of: BTreeMap<SocketAddr, usize>,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Hosts that hear only whom they have written to, and when they last did.
    firewalls: BTreeMap<SocketAddr, BTreeMap<SocketAddr, Instant>>,
    translations: BTreeMap<SocketAddr, Translation>,
}

/// One direction of a link.
struct Way {
    random: ChaCha20Rng,
    sequence: u64,
    /// When the newest packet that is in order arrives.
    newest: Instant,
    queue: Option<Queue>,
}

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    packets: VecDeque<Packet>,
    reader: Option<Waker>,
}

impl Wire {
    /// A network whose links are all alike, with its delivery task. The watcher is told of each
    /// packet when it is sent.
    pub fn start(
        link: Link,
        entropy: Entropy,
        watcher: impl Fn(Sent) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let wire = Arc::new(Self {
            watcher: Box::new(watcher),
            sent: Notify::new(),
            state: Mutex::new(State {
                entropy,
                flying: BTreeMap::new(),
                inboxes: BTreeMap::new(),
                link,
                links: BTreeMap::new(),
                ways: BTreeMap::new(),
                uplinks: Vec::new(),
                uplink_of: BTreeMap::new(),
                cut: BTreeSet::new(),
                firewalls: BTreeMap::new(),
                translations: BTreeMap::new(),
            }),
        });
        tokio::spawn(wire.clone().deliver());
        wire
    }

    /// From now on this direction of this link is different. What its queue holds still arrives.
    pub fn set_link(&self, from: SocketAddr, to: SocketAddr, link: Link) {
        let mut state = self.state();
        state.links.insert((from, to), link);
        if let Some(way) = state.ways.get_mut(&(from, to)) {
            way.queue = link.rate.map(Queue::new);
        }
    }

    /// From now on everything that these hosts send passes one queue before it reaches its link.
    pub fn share_uplink(&self, hosts: &[SocketAddr], rate: Rate) {
        let mut state = self.state();
        let uplink = state.uplinks.len();
        state.uplinks.push(Queue::new(rate));
        let members = hosts.iter().map(|host| (*host, uplink));
        state.uplink_of.extend(members);
    }

    /// From now on nothing sent from one reaches the other.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.state().cut.insert((from, to));
    }

    /// From now on nothing passes between these hosts and those.
    pub fn part(&self, these: &[SocketAddr], those: &[SocketAddr]) {
        for one in these {
            for other in those {
                self.cut(*one, *other);
                self.cut(*other, *one);
            }
        }
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.state().cut.clear();
    }

    /// Whether packets pass, losses aside.
    pub fn passes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        !self.state().cut.contains(&(from, to))
    }

    /// From now on a host hears only those that it has written to within [`MEMORY`].
    pub fn firewall(&self, host: SocketAddr) {
        self.state().firewalls.insert(host, BTreeMap::new());
    }

    /// From now on others see a host's packets come from `outside`, from a port that is mapped anew
    /// after [`MEMORY`] of silence, and reach it there only where it has written to within that
    /// time.
    pub fn translate(&self, host: SocketAddr, outside: IpAddr) {
        let translation = Translation {
            outside,
            next_port: 30_000,
            mapped: None,
            heard: BTreeMap::new(),
        };
        self.state().translations.insert(host, translation);
    }

    /// A translation forgets its host's port, as a home router does when it starts again.
    pub fn forget_translation(&self, host: SocketAddr) {
        if let Some(translation) = self.state().translations.get_mut(&host) {
            translation.mapped = None;
            translation.heard.clear();
        }
    }

    /// A socket at this address; an older one there hears nothing any more.
    pub fn socket(self: &Arc<Self>, address: SocketAddr) -> Arc<Socket> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        self.state().inboxes.insert(address, inbox.clone());
        Arc::new(Socket {
            wire: self.clone(),
            address: Mutex::new(address),
            inbox,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Sends one packet, from whatever address it says.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state();
        let seen_from = state.leave(from, to);
        let arrivals = state.arrivals(from, to, bytes.len());
        (self.watcher)(Sent {
            from,
            to,
            bytes: bytes.len(),
            arrives: arrivals[0].is_some(),
        });
        for (at, sequence) in arrivals.into_iter().flatten() {
            let packet = Packet {
                from: seen_from,
                to,
                bytes: bytes.to_vec(),
            };
            state.flying.insert((at, from, to, sequence), packet);
        }
        drop(state);
        self.sent.notify_one();
    }

    async fn deliver(self: Arc<Self>) {
        loop {
            let next = self.state().flying.keys().next().copied();
            match next {
                None => self.sent.notified().await,
                // A packet sent meanwhile may be due earlier, over a shorter link.
                Some((at, ..)) if at > Instant::now() => tokio::select! {
                    biased;
                    () = self.sent.notified() => {}
                    () = sleep_until(at) => {}
                },
                Some(_) => self.deliver_first(),
            }
        }
    }

    fn deliver_first(&self) {
        let mut state = self.state();
        let Some((_, packet)) = state.flying.pop_first() else {
            return;
        };
        let Some(host) = state.arrive(packet.from, packet.to) else {
            return;
        };
        let Some(inbox) = state.inboxes.get(&host).cloned() else {
            return;
        };
        drop(state);
        let mut inbox = inbox.lock().unwrap();
        if inbox.packets.len() < INBOX_PACKETS {
            inbox.packets.push_back(packet);
        }
        inbox.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// When a packet arrives, and when its duplicate does, each with its number on this way.
    fn arrivals(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        length: usize,
    ) -> [Option<(Instant, u64)>; 2] {
        let now = Instant::now();
        let link = *self.links.get(&(from, to)).unwrap_or(&self.link);
        let entropy = &self.entropy;
        let way = self.ways.entry((from, to)).or_insert_with(|| Way {
            random: entropy.rng(&format!("way from {from} to {to}")),
            sequence: 0,
            newest: now,
            queue: link.rate.map(Queue::new),
        });
        let [lost, doubled, late]: [u32; 3] =
            std::array::from_fn(|_| way.random.random_range(0..10_000));
        let [jitter, lateness]: [f64; 2] = std::array::from_fn(|_| way.random.random());
        way.sequence += 2;
        let uplink = self.uplink_of.get(&from).map(|at| &mut self.uplinks[*at]);
        let queues = [uplink, way.queue.as_mut()].into_iter().flatten();
        let mut left = Some(now);
        for queue in queues {
            left = left.and_then(|at| queue.pass(at, length));
        }
        let Some(left) = left else {
            return [None, None];
        };
        if lost < link.loss || self.cut.contains(&(from, to)) {
            return [None, None];
        }
        let mut at = left + link.delay + link.jitter.mul_f64(jitter);
        if late < link.reordering {
            at += link.reordering_delay.mul_f64(lateness);
        } else {
            at = at.max(way.newest);
            way.newest = at;
        }
        let again = (doubled < link.duplication).then_some((at, way.sequence + 1));
        [Some((at, way.sequence)), again]
    }

    /// A packet leaves its host: where others see it come from.
    fn leave(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let now = Instant::now();
        if let Some(heard) = self.firewalls.get_mut(&from) {
            heard.insert(to, now);
        }
        let translation = self.translations.get_mut(&from);
        translation.map_or(from, |translation| translation.leave(to, now))
    }

    /// Which host a packet reaches, if any.
    fn arrive(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let recent = |heard: &BTreeMap<SocketAddr, Instant>| {
            (heard.get(&from)).is_some_and(|last| last.elapsed() < MEMORY)
        };
        let mut translations = self.translations.iter();
        let behind = translations.find(|(_, translation)| translation.outside == to.ip());
        if let Some((host, translation)) = behind {
            let mapped = translation
                .mapped
                .is_some_and(|(port, _)| port == to.port());
            return (mapped && recent(&translation.heard)).then_some(*host);
        }
        let passes = self.firewalls.get(&to).is_none_or(recent);
        // Nobody reaches a translated host by its inner address.
        (passes && !self.translations.contains_key(&to)).then_some(to)
    }
}

/// A drop-tail queue before a link of some rate.
struct Queue {
    rate: Rate,
    /// When each packet in it will have left, oldest first.
    leaving: VecDeque<Instant>,
}

impl Queue {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            leaving: VecDeque::new(),
        }
    }

    /// When a packet that comes at this time has left; a full queue drops it.
    fn pass(&mut self, at: Instant, length: usize) -> Option<Instant> {
        while self.leaving.front().is_some_and(|left| *left <= at) {
            self.leaving.pop_front();
        }
        if self.leaving.len() >= self.rate.queue_packets {
            return None;
        }
        let nanos = (length + HEADER_BYTES) as u64 * 1_000_000_000 / self.rate.bytes_per_s;
        let free = self.leaving.back().map_or(at, |last| *last);
        let left = free + Duration::from_nanos(nanos);
        self.leaving.push_back(left);
        Some(left)
    }
}

/// What a router does that stands between one host and the rest.
struct Translation {
    outside: IpAddr,
    next_port: u16,
    /// The host's port on the outside, and when it was last used.
    mapped: Option<(u16, Instant)>,
    /// Whom the host has written to, and when.
    heard: BTreeMap<SocketAddr, Instant>,
}

impl Translation {
    fn leave(&mut self, to: SocketAddr, now: Instant) -> SocketAddr {
        let fresh = self.mapped.filter(|(_, used)| used.elapsed() < MEMORY);
        let port = fresh.map_or_else(
            || {
                self.next_port += 1;
                self.next_port
            },
            |(port, _)| port,
        );
        self.mapped = Some((port, now));
        self.heard.insert(to, now);
        SocketAddr::new(self.outside, port)
    }
}
