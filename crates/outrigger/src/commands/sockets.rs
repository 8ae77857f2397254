//! The sockets that are listened on: opened here, or handed over by whoever started the process.
//!
//! Handed over as systemd does it (`LISTEN_FDS`, sd_listen_fds(3)): the first for clients, the second for operators. Two
//! processes with the same socket take connections from one queue, so that one can replace the other without a
//! connection being refused or lost in between.

use std::net::SocketAddr;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

use super::Exit;

/// What kept a socket from being used, and the exit code that says whose fault it is.
type Refusal = (Exit, String);

/// Sockets that were handed over, by their place.
pub(super) struct Sockets(ListenFd);

/// Where something listens, and how it comes to.
#[derive(Debug)]
pub(super) enum Place {
    Given(TcpListener, SocketAddr),
    Open(SocketAddr),
}

impl Sockets {
    pub(super) fn from_env() -> Self {
        Self(ListenFd::from_env())
    }

    /// The `nth` that was handed over, or else one to be opened at `address`.
    pub(super) fn place(&mut self, nth: usize, address: SocketAddr) -> Result<Place, Refusal> {
        let unusable =
            |e| (Exit::Environment, format!("error: the socket handed over in LISTEN_FDS cannot be used: {e}"));
        let Some(given) = self.0.take_tcp_listener(nth).map_err(unusable)? else { return Ok(Place::Open(address)) };
        given.set_nonblocking(true).map_err(unusable)?;
        let at = given.local_addr().map_err(unusable)?;
        Ok(Place::Given(TcpListener::from_std(given).map_err(unusable)?, at))
    }
}

impl Place {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Given(_, address) | Self::Open(address) => *address,
        }
    }

    /// `flag` is what another address is given with.
    pub(super) fn listener(self, flag: &str) -> Result<TcpListener, Refusal> {
        match self {
            Self::Given(listener, _) => Ok(listener),
            Self::Open(address) => listen(address).map_err(|e| {
                (Exit::Environment, format!("error: cannot listen on {address}: {e}; choose another with {flag}"))
            }),
        }
    }
}

/// Connections that may wait to be taken, as far as the kernel's own bound (`net.core.somaxconn`) lets them. With the 128
/// that are usual, a burst of clients loses handshakes, each of which costs a second.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
