//! A proxy of hyper and nothing else: no routing, no retries, no limits. Connections to the backends are kept.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local};

struct Backends {
    addresses: Vec<SocketAddr>,
    idle: Vec<RefCell<Vec<SendRequest<Incoming>>>>,
    next: RefCell<usize>,
}

pub(crate) async fn run(listen: SocketAddr, to: Vec<SocketAddr>) -> anyhow::Result<()> {
    let listener = crate::message::listen(listen)?;
    let idle = to.iter().map(|_| RefCell::default()).collect();
    let backends = Rc::new(Backends { addresses: to, idle, next: RefCell::new(0) });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let backends = backends.clone();
        spawn_local(async move {
            let service = service_fn(move |request| pass(backends.clone(), request));
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn pass(backends: Rc<Backends>, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let nth = backends.next.replace_with(|nth| (*nth + 1) % backends.addresses.len());
    let idle = backends.idle[nth].borrow_mut().pop();
    let mut sender = match idle.filter(SendRequest::is_ready) {
        Some(sender) => sender,
        None => connect(backends.addresses[nth]).await?,
    };
    let response = sender.send_request(request).await?;
    // It is ready again when the answer has been read, and whoever takes it sees whether it is.
    spawn_local(async move {
        if sender.ready().await.is_ok() {
            backends.idle[nth].borrow_mut().push(sender);
        }
    });
    Ok(response)
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(async move { drop(connection.await) });
    Ok(sender)
}
