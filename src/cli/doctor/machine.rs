//! What the machine allows: the port, socket buffers, disk, and the database while nobody uses it.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};
use timed::net::SOCKET_BUFFER_BYTES;
use timed::node::files::{DataDir, DataDirLock};
use timed::store::{Backend, Store, StoreThreads};

use super::files::Known;
use super::{Finding, output};

/// With less free space than this a node soon stops.
const FAULT_FREE_BYTES: u64 = 512 * 1024 * 1024;

/// With less free space than this somebody should look.
const WARNING_FREE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

pub(super) fn check(dir: &DataDir, known: &Known, in_use: bool, findings: &mut Vec<Finding>) {
    if let Some(config) = &known.config {
        findings.push(check_buffers(granted_buffers(config.listen_addr())));
        if !in_use {
            let (udp, tcp) = (config.listen_addr(), config.rpc_addr());
            findings.push(check_port(&UDP, udp, UdpSocket::bind(udp).err()));
            findings.push(check_port(&TCP, tcp, TcpListener::bind(tcp).err()));
        }
    }
    findings.extend(check_disk(dir.root()));
    check_database(dir, known, in_use, findings);
}

fn check_buffers(granted: io::Result<(usize, usize)>) -> Finding {
    let about = "socket buffers";
    match granted {
        Ok((receive, send)) => buffers(receive, send),
        Err(error) => Finding::note(about, format!("they could not be measured: {error}")),
    }
}

fn buffers(receive: usize, send: usize) -> Finding {
    let about = "socket buffers";
    let text = |bytes: usize| output::bytes(bytes as u64);
    let wanted = SOCKET_BUFFER_BYTES;
    if receive >= wanted && send >= wanted {
        return Finding::good(
            about,
            format!("the system grants {} each way", text(wanted)),
        );
    }
    let sentence = format!(
        "the system grants {} for receiving and {} for sending of the {} that the node asks for: bursts lose packets",
        text(receive),
        text(send),
        text(wanted)
    );
    let next = format!(
        "as root: sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}, and keep it in /etc/sysctl.d"
    );
    Finding::warning(about, sentence, next)
}

/// What a socket gets when it asks as the node's does.
fn granted_buffers(listen: SocketAddr) -> io::Result<(usize, usize)> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    // Linux reports twice what it grants, to account for its own bookkeeping.
    let factor = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok((
        socket.recv_buffer_size()? / factor,
        socket.send_buffer_size()? / factor,
    ))
}

/// A port that the node opens when it starts.
struct Port {
    about: &'static str,
    ip_key: &'static str,
    port_key: &'static str,
    /// What to do when the machine has no such address.
    address_step: &'static str,
}

/// For peers.
const UDP: Port = Port {
    about: "UDP port",
    ip_key: "listen_ip",
    port_key: "listen_port",
    address_step: "set listen_ip in timed.toml to one that it has, or to 0.0.0.0",
};

/// For the RPC.
const TCP: Port = Port {
    about: "TCP port",
    ip_key: "rpc_ip",
    port_key: "rpc_port",
    address_step: "set rpc_ip in timed.toml to one that it has, such as 127.0.0.1",
};

/// Whether the node could bind a port: what the system says to that.
fn check_port(port: &Port, address: SocketAddr, error: Option<io::Error>) -> Finding {
    let Port {
        about,
        ip_key,
        port_key,
        ..
    } = port;
    let Some(error) = error else {
        return Finding::good(about, format!("{address} is free"));
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => Finding::fault(
            about,
            format!(
                "another program has {about} {} of {}",
                address.port(),
                address.ip()
            ),
            format!("stop it, or change {port_key} in timed.toml"),
        ),
        io::ErrorKind::AddrNotAvailable => Finding::fault(
            about,
            format!("{} is not an address of this machine", address.ip()),
            port.address_step,
        ),
        _ => Finding::fault(
            about,
            format!("{address} cannot be opened: {error}"),
            format!("see what the system says, and change {ip_key} or {port_key} in timed.toml"),
        ),
    }
}

fn check_disk(folder: &Path) -> Option<Finding> {
    let about = "disk";
    match rustix::fs::statvfs(folder) {
        Ok(stat) => Some(disk(stat.f_bavail.saturating_mul(stat.f_frsize))),
        // A folder that is not there is the settings' fault, which was said.
        Err(error) if error == rustix::io::Errno::NOENT => None,
        Err(error) => Some(Finding::note(
            about,
            format!("free space could not be read: {error}"),
        )),
    }
}

fn disk(free: u64) -> Finding {
    let about = "disk";
    let sentence = format!("{} are free", output::bytes(free));
    let next = "make room, or move the data directory to a larger disk while the node is stopped";
    match free {
        ..FAULT_FREE_BYTES => Finding::fault(about, sentence, next),
        FAULT_FREE_BYTES..WARNING_FREE_BYTES => Finding::warning(about, sentence, next),
        _ => Finding::good(about, sentence),
    }
}

/// Opens the database as a start would; only while no process has it, and only if it exists.
fn check_database(dir: &DataDir, known: &Known, in_use: bool, findings: &mut Vec<Finding>) {
    let about = "database";
    let path = dir.database();
    let Ok(bytes) = std::fs::metadata(&path).map(|file| file.len()) else {
        return findings.push(Finding::note(
            about,
            "there is none yet: the first start makes it",
        ));
    };
    let size = output::bytes(bytes);
    if in_use {
        return findings.push(Finding::good(
            about,
            format!("in use by the running node, {size}"),
        ));
    }
    let Some(genesis) = known.genesis.clone() else {
        return;
    };
    let lock = match DataDirLock::take(dir) {
        Ok(lock) => lock,
        Err(error) => return findings.push(Finding::error(about, &error)),
    };
    let opened = Store::open(Backend::File(path), genesis, StoreThreads::Inline);
    findings.push(match opened {
        Ok(_) => Finding::good(about, format!("opens, belongs to this chain, {size}")),
        Err(error) => Finding::fault(
            about,
            error.to_string(),
            "put the genesis back that the chain began with, or move chain.redb away and let the node sync again",
        ),
    });
    drop(lock);
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn small_buffers_and_a_full_disk_are_said() {
        let wanted = SOCKET_BUFFER_BYTES;
        assert_eq!(buffers(wanted, wanted).level, Level::Good);
        let small = buffers(212_992, wanted);
        assert_eq!(small.level, Level::Warning);
        assert!(small.next.unwrap().contains("net.core.rmem_max=4194304"));
        assert_eq!(disk(u64::MAX).level, Level::Good);
        assert_eq!(disk(WARNING_FREE_BYTES - 1).level, Level::Warning);
        assert_eq!(disk(FAULT_FREE_BYTES - 1).level, Level::Fault);
    }

    #[test]
    fn what_the_system_does_not_tell_is_said_too() {
        let unmeasured = check_buffers(Err(io::Error::other("no such socket")));
        assert_eq!(unmeasured.level, Level::Note);
        assert!(
            unmeasured
                .sentence
                .contains("could not be measured: no such socket")
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let unread = check_disk(&file.join("below")).unwrap();
        assert!(
            unread.sentence.contains("free space could not be read"),
            "{unread:?}"
        );
        assert!(check_disk(&folder.path().join("missing")).is_none());
        for port in [&UDP, &TCP] {
            let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
            let foreign = check_port(port, address, Some(io::ErrorKind::AddrNotAvailable.into()));
            assert_eq!(
                foreign.sentence,
                "192.0.2.1 is not an address of this machine"
            );
            assert!(foreign.next.unwrap().contains(port.ip_key));
        }
        // A link's own address, without the link: no system opens it.
        let link: SocketAddr = "[fe80::1]:24200".parse().unwrap();
        let no_link = check_port(&UDP, link, UdpSocket::bind(link).err());
        assert_eq!(no_link.level, Level::Fault);
        assert!(no_link.sentence.contains("cannot be opened"), "{no_link:?}");
    }
}
