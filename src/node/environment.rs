//! What a node takes from outside: sockets, clock, randomness, storage. The real machine's here;
//! a simulation brings its own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::{NodeError, NodeFiles};
use crate::env::{DurableFile, Entropy, FileOnDisk, Offload, SystemClock, WallClock};
use crate::net::{AsyncUdpSocket, NetTiming, Runtime, TokioRuntime, bind_udp};
use crate::rpc::RpcEnvironment;
use crate::store::{Backend, StoreThreads};

/// The outside of one node.
pub struct NodeEnvironment {
    /// The bound P2P socket.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Timers and tasks of QUIC.
    pub runtime: Arc<dyn Runtime>,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// Randomness.
    pub entropy: Entropy,
    /// Where the database lives.
    pub store: Backend,
    /// Where storage work runs.
    pub store_threads: StoreThreads,
    /// Where long computations run.
    pub offload: Offload,
    /// `pins.toml`.
    pub pins: Arc<dyn DurableFile>,
    /// `consensus.state`.
    pub consensus_state: Arc<dyn DurableFile>,
    /// The RPC's socket and cookie; `None` for a node without RPC.
    pub rpc: Option<RpcEnvironment>,
    /// The durations of the network.
    pub timing: NetTiming,
    /// Sign although `consensus.state` is missing or ahead.
    pub unsafe_sign: bool,
}

impl NodeEnvironment {
    /// The real machine: binds the sockets of `timed.toml` and keeps everything in the data
    /// directory. Must be called on a tokio runtime.
    pub fn real(files: &NodeFiles) -> Result<Self, NodeError> {
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let listen = files.config.listen_addr();
        let socket = bind_udp(listen, &*runtime)
            .map_err(|error| explain("UDP", listen, "listen_ip", "listen_port", error))?;
        let rpc_addr = files.config.rpc_addr();
        let listener = bind_rpc(rpc_addr)
            .map_err(|error| explain("TCP", rpc_addr, "rpc_ip", "rpc_port", error))?;
        Ok(Self {
            socket,
            runtime,
            clock: Arc::new(SystemClock),
            entropy: Entropy::from_os().map_err(NodeError::Randomness)?,
            store: Backend::File(files.dir.database()),
            store_threads: StoreThreads::Own,
            offload: Offload::Threads,
            pins: Arc::new(FileOnDisk(files.dir.pins())),
            consensus_state: Arc::new(FileOnDisk(files.dir.consensus_state())),
            rpc: Some(RpcEnvironment {
                listener,
                cookie: Arc::new(FileOnDisk(files.dir.rpc_cookie())),
                log: None,
            }),
            timing: NetTiming::RECOMMENDED,
            unsafe_sign: false,
        })
    }
}

fn bind_rpc(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn explain(
    protocol: &'static str,
    address: SocketAddr,
    ip_key: &'static str,
    port_key: &'static str,
    source: io::Error,
) -> NodeError {
    match source.kind() {
        io::ErrorKind::AddrInUse => NodeError::PortInUse {
            protocol,
            ip: address.ip(),
            port: address.port(),
            key: port_key,
        },
        io::ErrorKind::AddrNotAvailable => NodeError::NotOurAddress {
            ip: address.ip(),
            key: ip_key,
        },
        _ => NodeError::Socket {
            protocol,
            address,
            source,
        },
    }
}
