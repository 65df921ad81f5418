//! Tells systemd when the node is ready and when it stops: `sd_notify(3)`, one datagram each.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Who started this process and wants to be told; nobody outside of a service.
pub(super) struct Supervisor(Option<(UnixDatagram, SocketAddr)>);

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names.
    pub(super) fn of_this_process() -> Self {
        match std::env::var_os("NOTIFY_SOCKET") {
            None => Self(None),
            Some(name) => Self::at(&name).unwrap_or_else(|error| {
                tracing::warn!(reason = %error, "NOTIFY_SOCKET cannot be used: systemd is not told");
                Self(None)
            }),
        }
    }

    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            #[cfg(target_os = "linux")]
            [b'@', abstract_name @ ..] => {
                use std::os::linux::net::SocketAddrExt;
                SocketAddr::from_abstract_name(abstract_name)?
            }
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // Never held up by who does not read.
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, address))))
    }

    /// Sends lines such as `READY=1`.
    pub(super) fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.0 else {
            return;
        };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(reason = %error, state, "systemd could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_an_abstract_name_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        Supervisor::at(path.as_os_str()).unwrap().tell("READY=1");
        let mut told = [0; 64];
        let length = listener.recv(&mut told).unwrap();
        assert_eq!(&told[..length], b"READY=1");
        // Nobody there: said in the log, and no more.
        drop(listener);
        Supervisor::at(path.as_os_str()).unwrap().tell("STOPPING=1");

        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("timed-notify-{}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            let name = format!("@{name}");
            Supervisor::at(OsStr::new(&name)).unwrap().tell("READY=1");
            assert_eq!(listener.recv(&mut told).unwrap(), 7);
        }
    }
}
