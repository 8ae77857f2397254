//! One HTTP/1 connection to a backend: it carries one request at a time, and whoever waits on that drives it.
//!
//! hyper leaves it to its user to poll a connection. A task of its own would wake for every piece of an answer only to
//! wake the task that waits for it, and would hand over pieces one by one that have come together. So a request drives
//! its connection while it waits for the head of its answer, and [`Inbound`] while it waits for the rest. An idle
//! connection is looked at when it is taken. The exception is a request whose body is still coming while its answer is
//! passed on: [`Alone::drive_apart`].

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::locked;
use crate::{body::Upload, net::BoxStream};

type Connection = http1::Connection<TokioIo<BoxStream>, Upload>;

/// Dropped, it closes.
pub(super) struct Alone {
    sender: SendRequest<Upload>,
    driver: Driver,
    apart: Option<AbortHandle>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(task) = &self.apart {
            task.abort();
        }
    }
}

impl Alone {
    pub(super) async fn start(stream: BoxStream) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Driver(Arc::new(Mutex::new(Some(Box::pin(connection))))), apart: None })
    }

    pub(super) async fn send(&mut self, request: Request<Upload>) -> hyper::Result<Response<Inbound>> {
        let driver = self.driver.clone();
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let response = driver.beside(sent).await?;
        Ok(response.map(|body| Inbound { body, driver: Some(driver) }))
    }

    /// Drives the connection in a task of its own from now on.
    pub(super) fn drive_apart(&mut self) {
        if let Some(connection) = locked(&self.driver.0).take() {
            self.apart = Some(tokio::spawn(async move { drop(connection.await) }).abort_handle());
        }
    }

    /// Whether it can still carry a request, as far as can be known without sending one.
    pub(super) fn is_usable(&self) -> bool {
        self.driver.poll(&mut Context::from_waker(Waker::noop()));
        !self.sender.is_closed()
    }
}

/// The connection until it is over, or is driven by a task of its own.
#[derive(Clone)]
struct Driver(Arc<Mutex<Option<Pin<Box<Connection>>>>>);

impl Driver {
    fn poll(&self, cx: &mut Context<'_>) {
        let mut connection = locked(&self.0);
        // What went wrong is told to whoever waits for an answer.
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
    }

    /// Does `work`, driving the connection while it waits.
    async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }
}

/// The body of a backend's answer, which drives its connection while it is waited for.
pub struct Inbound {
    body: Incoming,
    driver: Option<Driver>,
}

impl From<Incoming> for Inbound {
    /// Of a connection that is driven by others.
    fn from(body: Incoming) -> Self {
        Self { body, driver: None }
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Inbound").field(&self.body).finish()
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Self { body, driver } = self.get_mut();
        let mut body = Pin::new(body);
        let Some(driver) = driver else { return body.poll_frame(cx) };
        // Only the connection puts anything into the body, and it is polled here: whoever waits need not be woken by the one
        // for the other, as long as the connection is polled last with the waker that counts.
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = body.as_mut().poll_frame(&mut quiet) {
            return Poll::Ready(frame);
        }
        driver.poll(&mut quiet);
        if let Poll::Ready(frame) = body.as_mut().poll_frame(&mut quiet) {
            return Poll::Ready(frame);
        }
        driver.poll(cx);
        body.poll_frame(&mut quiet)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
