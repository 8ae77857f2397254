//! The fake over HTTP/2 in clear text: the same answers, and each fault in the form that it has there.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::{Method, Request};
use outrigger_fakes::{Fake, Fault, FaultKind, Outcome, Profile};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    faults::{eventually, faulty, outcomes},
    wire::{CHAT, chat, content, events, fake, patient, two_seconds},
};

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    Reset(Reason),
    /// Disowned by a GOAWAY.
    Away(Reason),
    /// The connection ended.
    Gone,
    /// It was broken by what came on it.
    Broken(Reason),
    /// Nothing came; see [`patient`].
    Silence,
}

impl From<h2::Error> for End {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() && error.is_remote() => Self::Reset(reason),
            Some(reason) if error.is_go_away() && error.is_remote() => Self::Away(reason),
            Some(reason) => Self::Broken(reason),
            None => Self::Gone,
        }
    }
}

struct Answer {
    status: u16,
    text: String,
    end: End,
}

struct Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Client {
    async fn to(fake: &Fake) -> Self {
        let tcp = TcpStream::connect(fake.listen_addr()).await.expect("the fake accepts");
        let (requests, connection) = h2::client::handshake(tcp).await.expect("the fake speaks HTTP/2");
        Self { requests, connection: tokio::spawn(async move { drop(connection.await) }) }
    }

    /// A status of 0: no answer came.
    async fn post(&self, body: &str) -> Answer {
        let none = |end| Answer { status: 0, text: String::new(), end };
        let head = Request::builder().method(Method::POST).uri(format!("http://fake{CHAT}")).body(()).unwrap();
        let mut requests = match self.requests.clone().ready().await {
            Ok(requests) => requests,
            Err(error) => return none(error.into()),
        };
        let (response, mut to) = match requests.send_request(head, false) {
            Ok(sent) => sent,
            Err(error) => return none(error.into()),
        };
        // A refused body is told by the answer as well.
        drop(to.send_data(Bytes::copy_from_slice(body.as_bytes()), true));
        match patient(response).await {
            None => none(End::Silence),
            Some(Err(error)) => none(error.into()),
            Some(Ok(response)) => {
                let status = response.status().as_u16();
                let (text, end) = read(response.into_body()).await;
                Answer { status, text, end }
            }
        }
    }

    async fn chat(&self, stream: bool) -> Answer {
        self.post(&chat(stream, 10)).await
    }

    /// Whether the connection ends. None lasts for less than five idle seconds by itself.
    async fn ends(&mut self) -> bool {
        timeout(Duration::from_secs(4), &mut self.connection).await.is_ok()
    }
}

async fn read(mut body: h2::RecvStream) -> (String, End) {
    let mut text = String::new();
    loop {
        match patient(body.data()).await {
            None => return (text, End::Silence),
            Some(None) => return (text, End::Whole),
            Some(Some(Err(error))) => return (text, error.into()),
            Some(Some(Ok(piece))) => text.push_str(std::str::from_utf8(&piece).expect("ASCII")),
        }
    }
}

#[tokio::test]
async fn answers_are_those_of_http_1_and_a_connection_is_reused() {
    let fake = fake(Profile::instant()).await;
    let client = Client::to(&fake).await;
    let stream = client.chat(true).await;
    assert_eq!((stream.status, stream.end), (200, End::Whole));
    assert_eq!(content(&events(&stream.text)), " t0 t1 t2 t3 t4 t5 t6 t7 t8 t9");
    assert!(stream.text.ends_with("data: [DONE]\n\n"));
    let whole = client.chat(false).await;
    assert!(whole.text.contains("\"content\":\" t0 t1") && whole.end == End::Whole, "{}", whole.text);
    let other = Client::to(&fake).await;
    other.chat(false).await;
    let seen: Vec<(u64, bool)> = fake.requests_after(0).iter().map(|r| (r.connection, r.http2)).collect();
    assert_eq!(seen, [(1, true), (1, true), (2, true)]);
    assert_eq!(fake.stats().connections, 2);
    drop((client, other));
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Ok; 3]);
}

#[tokio::test]
async fn reset_and_cut_reset_the_stream_and_leave_the_connection() {
    let fake = faulty(Fault::new(FaultKind::Reset)).await;
    let client = Client::to(&fake).await;
    let broken = client.chat(true).await;
    assert_eq!((broken.status, broken.end), (0, End::Reset(Reason::INTERNAL_ERROR)));
    fake.heal().await;
    fake.set_fault(Fault::new(FaultKind::Cut).after_tokens(2)).await;
    let broken = client.chat(true).await;
    assert_eq!((broken.status, broken.end), (200, End::Reset(Reason::INTERNAL_ERROR)));
    assert_eq!(content(&events(&broken.text)), " t0 t1");
    let broken = client.chat(false).await;
    assert_eq!((broken.status, broken.end), (200, End::Reset(Reason::INTERNAL_ERROR)));
    assert!(broken.text.starts_with('{') && !broken.text.ends_with('}'));
    fake.heal().await;
    assert_eq!(client.chat(true).await.end, End::Whole);
    assert_eq!(outcomes(&fake, 1).await, [Outcome::Fault, Outcome::Fault, Outcome::Fault, Outcome::Ok]);
    assert!(fake.requests_after(0).iter().all(|r| r.connection == 1));
}

#[tokio::test]
async fn a_connection_that_a_fault_takes_is_gone_with_all_its_streams() {
    for kind in [FaultKind::Close, FaultKind::CutEnd, FaultKind::CloseReused] {
        let fake = fake(two_seconds()).await;
        let mut client = Client::to(&fake).await;
        let body = chat(true, 100);
        let bystander = async {
            let answer = client.post(&body).await;
            (answer.text.contains(" t0"), answer.end)
        };
        let struck = async {
            eventually(&fake, |stats| stats.tokens > 4).await;
            fake.set_fault(Fault::new(kind)).await;
            client.chat(true).await
        };
        let (bystander, struck) = tokio::join!(bystander, struck);
        assert_eq!((bystander, struck.end), ((true, End::Gone), End::Gone), "{kind:?}");
        let (status, text) = if kind == FaultKind::CutEnd { (200, " t0 t1 t2") } else { (0, "") };
        assert_eq!((struck.status, content(&events(&struck.text)).as_str()), (status, text), "{kind:?}");
        assert!(client.ends().await);
        assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault; 2], "{kind:?}");
    }
}

#[tokio::test]
async fn goaway_disowns_the_request_before_any_byte_of_an_answer() {
    let fake = faulty(Fault::new(FaultKind::Goaway)).await;
    let mut client = Client::to(&fake).await;
    let refused = client.chat(true).await;
    assert_eq!((refused.status, refused.end), (0, End::Away(Reason::NO_ERROR)));
    assert!(client.ends().await);
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault]);
}

#[tokio::test]
async fn goaway_late_finishes_the_stream_and_takes_nothing_new() {
    let fake = fake(two_seconds()).await;
    fake.set_fault(Fault::new(FaultKind::GoawayLate)).await;
    let mut client = Client::to(&fake).await;
    let body = chat(true, 20);
    let late = async {
        eventually(&fake, |stats| stats.tokens > 4).await;
        client.chat(true).await
    };
    let (running, late) = tokio::join!(client.post(&body), late);
    assert_eq!((running.end, running.text.ends_with("data: [DONE]\n\n")), (End::Whole, true), "{}", running.text);
    assert_ne!((late.status, late.end), (200, End::Whole));
    assert!(client.ends().await);
    let whole = Client::to(&fake).await.chat(false).await;
    assert_eq!((whole.status, whole.end), (200, End::Whole));
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Ok; 2]);
}

#[tokio::test]
async fn bad_http_is_a_frame_that_no_client_takes() {
    let fake = faulty(Fault::new(FaultKind::BadHttp)).await;
    let broken = Client::to(&fake).await.chat(true).await;
    assert_eq!((broken.status, broken.end), (0, End::Broken(Reason::FRAME_SIZE_ERROR)));
}

#[tokio::test]
async fn what_comes_slowly_or_not_at_all_is_as_over_http_1() {
    for (kind, status, text) in
        [(FaultKind::Hang, 0, ""), (FaultKind::HeadersStall, 200, ""), (FaultKind::Stall, 200, " t0 t1 t2")]
    {
        let fake = faulty(Fault::new(kind)).await;
        let client = Client::to(&fake).await;
        let silent = client.chat(true).await;
        assert_eq!((silent.status, silent.end), (status, End::Silence), "{kind:?}");
        assert_eq!(content(&events(&silent.text)), text);
        // What read it has let go of its stream by now.
        assert_eq!(outcomes(&fake, 1).await, [Outcome::Aborted]);
    }
    for (status, end) in [(500, End::Whole), (307, End::Whole), (502, End::Whole)] {
        let answer = Client::to(&faulty(Fault::with_status(status)).await).await.chat(true).await;
        assert_eq!((answer.status, answer.end), (status, end));
    }
}

#[tokio::test]
async fn refuse_resets_the_connection_and_a_black_hole_silences_it() {
    let fake = fake(two_seconds()).await;
    let mut client = Client::to(&fake).await;
    let body = chat(true, 100);
    let refuse = async {
        eventually(&fake, |stats| stats.tokens > 4).await;
        fake.set_fault(Fault::new(FaultKind::Refuse)).await;
    };
    let (cut, ()) = tokio::join!(client.post(&body), refuse);
    assert_eq!((cut.status, cut.end), (200, End::Gone));
    assert!(client.ends().await);
    assert_eq!(outcomes(&fake, 0).await, [Outcome::Fault]);
    fake.heal().await;
    let client = Client::to(&fake).await;
    let silence = async {
        let before = fake.stats().tokens;
        eventually(&fake, |stats| stats.tokens > before + 4).await;
        fake.set_fault(Fault::new(FaultKind::Blackhole)).await;
    };
    let (silent, ()) = tokio::join!(client.post(&body), silence);
    assert_eq!((silent.status, silent.end), (200, End::Silence));
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_five_seconds() {
    let fake = fake(Profile::instant()).await;
    let mut client = Client::to(&fake).await;
    client.chat(false).await;
    let start = Instant::now();
    timeout(Duration::from_secs(20), &mut client.connection).await.expect("it ends").unwrap();
    let idle = start.elapsed();
    assert!((4_900..9_000).contains(&idle.as_millis()), "{idle:?}");
}

#[tokio::test]
async fn a_preface_may_come_in_pieces() {
    let fake = fake(Profile::instant()).await;
    let mut tcp = TcpStream::connect(fake.listen_addr()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    for piece in ["P", "RI * HTT", "P/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\u{4}\0\0\0\0\0"] {
        tcp.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut head = [0; 9];
    tcp.read_exact(&mut head).await.unwrap();
    assert_eq!((head[3], &head[5..]), (4, &[0; 4][..]), "settings come first");
}
