//! HTTP/2 with prior knowledge, one stream on a connection of its own.

use std::io;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};

use super::{Ask, Got, LEAVES_AFTER, has_seen_enough};
use crate::matrix::Behaviour;

pub(super) async fn send(ask: &Ask) -> io::Result<Got> {
    let socket = TcpStream::connect(ask.to).await?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let request = (Request::post(format!("http://lab{}", ask.path)).version(Version::HTTP_2))
        .header("authorization", format!("Bearer {}", ask.key))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(ask.body.clone())))
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request);
    let got = match ask.behaviour {
        Behaviour::Reads => read(answer.await, ask.behaviour).await,
        Behaviour::HangsUp => match timeout(LEAVES_AFTER, answer).await {
            Ok(answer) => read(answer, ask.behaviour).await,
            Err(_) => Got { left: true, ..Got::default() },
        },
    };
    driver.abort();
    Ok(got)
}

/// A stream that was reset without an answer is no answer.
async fn read(answer: hyper::Result<http::Response<hyper::body::Incoming>>, behaviour: Behaviour) -> Got {
    let Ok(answer) = answer else { return Got::default() };
    let (head, mut body) = answer.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let mut got = Got { status: head.status.as_u16(), headers, ..Got::default() };
    let mut bytes = Vec::new();
    loop {
        let frame = match behaviour {
            Behaviour::Reads => body.frame().await,
            Behaviour::HangsUp if has_seen_enough(&bytes) => {
                got.left = true;
                break;
            }
            Behaviour::HangsUp => match timeout(LEAVES_AFTER, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    got.left = true;
                    break;
                }
            },
        };
        match frame {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => break,
            None => {
                got.ended = true;
                break;
            }
        }
    }
    got.body = bytes.into();
    got
}
