//! A server that answers as it is told, by path.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// What it does with a request.
pub(super) enum Act {
    Answer(u16, &'static str, Vec<u8>),
    /// As much of an answer, and then the end of the connection.
    Cut,
    /// Nothing, for longer than anybody waits.
    Hang,
}

pub(super) fn json_of(value: &Value) -> Act {
    Act::Answer(200, "application/json", value.to_string().into_bytes())
}

pub(super) fn not_found() -> Act {
    Act::Answer(404, "application/json", br#"{"detail":"Not Found"}"#.to_vec())
}

pub(super) fn html() -> Act {
    Act::Answer(200, "text/html", b"<html>It works!</html>".to_vec())
}

pub(super) fn models(names: &[&str]) -> Act {
    let data: Vec<Value> = names.iter().map(|id| json!({ "id": id, "object": "model", "owned_by": "x" })).collect();
    json_of(&json!({ "object": "list", "data": data }))
}

/// A request: its path, its head and its body.
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) head: String,
    pub(super) body: Value,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(super) fn start(act: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a listener");
        let (act, asked) = (Arc::new(act), Arc::<Mutex<Vec<Asked>>>::default());
        let keep = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, keep) = (act.clone(), keep.clone());
                thread::spawn(move || serve(stream, &*act, &keep));
            }
        });
        Self { address, asked }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that it was asked for, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panicked").iter().map(|asked| asked.path.clone()).collect()
    }

    /// The heads of the requests.
    pub(super) fn heads(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panicked").iter().map(|asked| asked.head.clone()).collect()
    }
}

fn serve(mut stream: TcpStream, act: &dyn Fn(&Asked) -> Act, keep: &Mutex<Vec<Asked>>) {
    let mut bytes = Vec::new();
    let mut piece = [0; 16_384];
    let (head, body) = loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
        }
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if bytes.len() >= end + 4 + length {
            break (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end + 4..].to_vec());
        }
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let asked = Asked { path, head, body: serde_json::from_slice(&body).unwrap_or_default() };
    let done = act(&asked);
    keep.lock().expect("no thread panicked").push(asked);
    match done {
        Act::Answer(status, kind, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            // Whoever has read enough may have gone.
            drop(stream.write_all(&[head.into_bytes(), body].concat()));
        }
        Act::Cut => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"object\":";
            drop(stream.write_all(head.as_bytes()));
        }
        Act::Hang => thread::sleep(Duration::from_mins(5)),
    }
}
