//! First packets from many addresses, at a rate, from a thread of its own: none of them is ever
//! answered further.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{sync::Arc, thread};

use anyhow::{Context, Result, ensure};
use quinn_proto::{Endpoint, EndpointConfig};
use rand::RngExt;
use tokio::time::Instant;

use crate::stranger::client_config;

/// Different packets, each of a connection of its own; sent again and again.
const PACKETS: usize = 4_096;
/// Addresses that they come from.
const ADDRESSES: usize = 256;
/// Between two bursts.
const TICK: Duration = Duration::from_millis(1);

/// The packets and where they come from.
pub struct Initials {
    packets: Vec<Vec<u8>>,
    sockets: Vec<UdpSocket>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub packets: u64,
    pub seconds: f64,
}

impl Initials {
    /// Makes them; a few come from each of the addresses `forged`, whose nodes use other ports.
    pub fn new(to: SocketAddr, forged: &[Ipv4Addr]) -> Result<Self> {
        let mut random = rand::rng();
        let strangers = (forged.len()..ADDRESSES)
            .map(|_| Ipv4Addr::new(127, random.random_range(200..=250), random.random(), 9));
        let addresses = forged.iter().copied().chain(strangers);
        let sockets = addresses.map(|ip| UdpSocket::bind((ip, 0)));
        let sockets = sockets.collect::<std::io::Result<_>>()?;
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let config = client_config(Ipv4Addr::LOCALHOST)?;
        let mut packets = Vec::with_capacity(PACKETS);
        for _ in 0..PACKETS {
            let now = Instant::now().into_std();
            let (_, mut connection) = endpoint.connect(now, config.clone(), to, "timed")?;
            let mut packet = Vec::new();
            let first = connection.poll_transmit(now, 1, &mut packet);
            ensure!(
                first.is_some(),
                "a client's first packet can be sent at once"
            );
            packets.push(packet);
        }
        Ok(Self { packets, sockets })
    }

    /// Sends so many a second until it is told to stop, and then says how many there were.
    pub fn send(
        self,
        to: SocketAddr,
        per_second: u64,
        stop: Arc<AtomicBool>,
    ) -> JoinHandle<std::io::Result<Sent>> {
        thread::spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * per_second as f64) as u64;
                // A thread that was held up catches up in bursts of 20 ms, not in one.
                let due = due.min(sent + (per_second / 50).max(1));
                while sent < due {
                    let socket = &self.sockets[sent as usize % self.sockets.len()];
                    let packet = &self.packets[sent as usize % self.packets.len()];
                    socket.send_to(packet, to)?;
                    sent += 1;
                }
                thread::sleep(TICK);
            }
            Ok(Sent {
                packets: sent,
                seconds: start.elapsed().as_secs_f64(),
            })
        })
    }
}

/// Packets that the kernel has dropped because the socket at an address was full.
pub fn dropped_by_kernel(address: SocketAddr) -> Result<u64> {
    let SocketAddr::V4(address) = address else {
        anyhow::bail!("{address} is no IPv4 address");
    };
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(address.ip().octets()),
        address.port()
    );
    let table = std::fs::read_to_string("/proc/net/udp")?;
    let mut rows = table.lines().map(|line| line.split_whitespace());
    let row = rows.find(|row| row.clone().nth(1) == Some(wanted.as_str()));
    let drops = row.and_then(|row| row.last());
    Ok(drops
        .context("the socket is not in /proc/net/udp")?
        .parse()?)
}
