//! Where clients come in when the gateway stands between in-memory pipes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
};

use outrigger_gateway::net::{Accept, BoxStream};
use tokio::{
    io::duplex,
    sync::{Mutex, mpsc},
};

#[derive(Debug)]
pub(crate) struct Door {
    open: mpsc::UnboundedSender<BoxStream>,
    opened: Mutex<mpsc::UnboundedReceiver<BoxStream>>,
}

impl Door {
    pub(crate) fn new() -> Self {
        let (open, opened) = mpsc::unbounded_channel();
        Self { open, opened: Mutex::new(opened) }
    }

    pub(crate) fn open(&self) -> BoxStream {
        let (near, far) = duplex(64 << 10);
        self.open.send(Box::new(far)).unwrap_or_else(|_| panic!("the gateway is gone"));
        Box::new(near)
    }
}

impl Accept for Door {
    fn accept(&self) -> Pin<Box<dyn Future<Output = io::Result<(BoxStream, SocketAddr)>> + Send + '_>> {
        Box::pin(async move {
            let stream = self.opened.lock().await.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            Ok((stream, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }
}
