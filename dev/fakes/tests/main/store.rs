//! The object store and the long way to it as a raw socket sees them: every fault, a client that breaks off, and the delay. That
//! it speaks S3 is held against other people's clients by `./test heavy stores`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use outrigger_fakes::{
    FakeStore, Relay, RelayOptions, StoreOptions,
    store::{StoreFault, StoreFaultKind},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// More than sockets and hyper hold, so that what stops in the middle stops in the middle.
const LARGE: usize = 8 << 20;

struct Stage {
    store: FakeStore,
    root: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    Closed,
    Reset,
    Silent,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    end: End,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

impl Stage {
    async fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("outrigger-store-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("weights")).unwrap();
        Self { store: FakeStore::spawn(StoreOptions::new(&root)).await.unwrap(), root }
    }

    /// With an object of its own in it.
    async fn with_object(name: &str) -> (Self, Vec<u8>) {
        let stage = Self::new(name).await;
        let bytes: Vec<u8> = (0..LARGE).map(|at| (at * 7 % 251) as u8).collect();
        assert_eq!(stage.put("object", "", &bytes).await.status, 200);
        (stage, bytes)
    }

    fn address(&self) -> SocketAddr {
        self.store.url().trim_start_matches("http://").parse().unwrap()
    }

    async fn get(&self, headers: &str) -> Answer {
        ask(self.address(), &format!("GET /weights/object HTTP/1.1\r\nhost: x\r\n{headers}\r\n"), b"").await
    }

    async fn put(&self, key: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!("PUT /weights/{key} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        ask(self.address(), &head, body).await
    }

    fn fault(&self, kind: StoreFaultKind, change: impl FnOnce(&mut StoreFault)) {
        let mut fault = StoreFault::new(kind);
        change(&mut fault);
        self.store.set_fault(fault);
    }

    /// What the store's own folder holds of unfinished bodies, once nothing is in flight.
    async fn left_over(&self) -> usize {
        for _ in 0..400 {
            if self.store.totals().open == 0 {
                return fs::read_dir(self.root.join(".store/tmp")).unwrap().count();
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("a request is still open");
    }
}

/// Sends one request and reads what comes for as long as something comes.
async fn ask(at: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    // A store that breaks off in the middle does not read the rest.
    let _ = tcp.write_all(body).await;
    let (mut came, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    let end = loop {
        match timeout(Duration::from_millis(400), tcp.read(&mut piece)).await {
            Err(_) => break End::Silent,
            Ok(Err(_)) => break End::Reset,
            Ok(Ok(0)) => break End::Closed,
            Ok(Ok(n)) => came.extend_from_slice(&piece[..n]),
        }
        if whole(&came) {
            break End::Whole;
        }
    };
    let at = came.windows(4).position(|four| four == b"\r\n\r\n").map_or(came.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&came[..at]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head, body: came[at..].to_vec(), end }
}

fn whole(came: &[u8]) -> bool {
    let Some(at) = came.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&came[..at]).to_lowercase();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    came.len() >= at + 4 + len.unwrap_or(0)
}

fn differing(a: &[u8], b: &[u8]) -> Vec<usize> {
    assert_eq!(a.len(), b.len());
    (0..a.len()).filter(|at| a[*at] != b[*at]).collect()
}

#[tokio::test]
async fn flips_are_one_bit_at_the_place_or_in_the_middle_and_only_where_the_place_is_asked_for() {
    let (stage, bytes) = Stage::with_object("flip").await;
    stage.fault(StoreFaultKind::Flip, |f| (f.offset, f.times) = (Some(5_000_000), Some(2)));
    assert!(differing(&stage.get("range: bytes=0-4999999\r\n").await.body, &bytes[..5_000_000]).is_empty());
    assert_eq!(differing(&stage.get("range: bytes=5000000-5000009\r\n").await.body, &bytes[5_000_000..5_000_010]), [0]);
    assert_eq!(differing(&stage.get("").await.body, &bytes), [5_000_000]);
    assert!(differing(&stage.get("").await.body, &bytes).is_empty(), "it was to strike twice");
    stage.fault(StoreFaultKind::Flip, |f| (f.skip, f.every) = (1, Some(2)));
    let mut struck = Vec::new();
    for _ in 0..5 {
        struck.push(differing(&stage.get("range: bytes=100-199\r\n").await.body, &bytes[100..200]));
    }
    assert_eq!(struck, [vec![], vec![50], vec![], vec![50], vec![]]);
    // What comes is harmed as well, and the ETag is of what is stored.
    stage.store.heal();
    stage.fault(StoreFaultKind::Flip, |f| (f.operation, f.key) = (Some("PutObject".into()), Some("weights/o*".into())));
    let put = stage.put("other", "", &bytes).await;
    assert_eq!(differing(&fs::read(stage.root.join("weights/other")).unwrap(), &bytes), [LARGE / 2]);
    assert_ne!(put.header("etag"), stage.get("").await.header("etag"));
    assert_eq!(stage.put("else", "", &bytes).await.header("etag"), stage.get("").await.header("etag"));
}

#[tokio::test]
async fn bodies_are_cut_reset_and_stalled_where_it_was_said() {
    let (stage, bytes) = Stage::with_object("cut").await;
    for (kind, expected) in [
        (StoreFaultKind::Truncate, End::Closed),
        (StoreFaultKind::Reset, End::Reset),
        (StoreFaultKind::Stall, End::Silent),
    ] {
        stage.store.heal();
        stage.fault(kind, |f| (f.after, f.times) = (Some(3_000_000), Some(1)));
        let cut = stage.get("").await;
        assert_eq!((cut.status, &cut.end), (200, &expected), "{kind:?}");
        // A reset may overtake what was sent before it.
        let least = if kind == StoreFaultKind::Reset { 0 } else { 2_000_000 };
        assert!((least..=3_000_000).contains(&cut.body.len()), "{kind:?}: {}", cut.body.len());
        assert_eq!(cut.body, bytes[..cut.body.len()]);
        assert_eq!(stage.get("").await.body, bytes);
    }
    stage.store.heal();
    stage.fault(StoreFaultKind::Reset, |f| f.operation = Some("PutObject".into()));
    assert_eq!(stage.put("never", "", &bytes).await.status, 0);
    assert!(!stage.root.join("weights/never").exists());
    assert_eq!(stage.left_over().await, 0);
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_no_object_and_is_in_the_ledger() {
    let (stage, bytes) = Stage::with_object("killed").await;
    for length in ["content-length: 9000000\r\n", "transfer-encoding: chunked\r\n"] {
        let mut tcp = TcpStream::connect(stage.address()).await.unwrap();
        tcp.write_all(format!("PUT /weights/object HTTP/1.1\r\nhost: x\r\n{length}\r\n").as_bytes()).await.unwrap();
        if length.starts_with('t') {
            tcp.write_all(b"10000\r\n").await.unwrap();
        }
        tcp.write_all(&bytes[..40_000]).await.unwrap();
        while fs::read_dir(stage.root.join(".store/tmp")).unwrap().next().is_none() {
            sleep(Duration::from_millis(2)).await;
        }
        drop(tcp);
        assert_eq!(stage.left_over().await, 0);
        assert_eq!(fs::read(stage.root.join("weights/object")).unwrap(), bytes);
    }
    let ledger = fs::read_to_string(stage.root.join(".store/ledger.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(ledger.lines().last().unwrap()).unwrap();
    assert_eq!((&last["status"], &last["bytes_in"], &last["bytes_out"]), (&0.into(), &40_000.into(), &0.into()));
    // A framed body that ends before its end was said.
    let framed = "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\nx-amz-decoded-content-length: 3\r\n";
    assert_eq!(stage.put("framed", framed, b"3\r\nabc\r\n").await.status, 400);
    assert_eq!(stage.put("framed", framed, b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:x\r\n\r\n").await.status, 200);
    assert_eq!(fs::read(stage.root.join("weights/framed")).unwrap(), b"abc");
}

#[tokio::test]
async fn answers_fail_are_lost_or_lie_as_they_were_told() {
    let (stage, bytes) = Stage::with_object("lies").await;
    let etag = stage.get("").await.header("etag").unwrap().to_owned();
    stage.fault(StoreFaultKind::Status, |f| (f.retry_after_s, f.times) = (Some(7), Some(1)));
    let refused = stage.get("").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));

    stage.fault(StoreFaultKind::Etag, |f| f.skip = 1);
    let matching = format!("range: bytes=0-9\r\nif-match: {etag}\r\n");
    assert_eq!(stage.get(&matching).await.status, 206);
    assert_eq!(stage.get(&matching).await.status, 412);
    assert_ne!(stage.get("").await.header("etag"), Some(&*etag));
    stage.store.heal();

    assert_eq!(stage.put("object", "if-none-match: *\r\n", b"2").await.status, 412);
    assert_eq!(stage.put("object", "if-match: \"0\"\r\n", b"2").await.status, 412);
    stage.fault(StoreFaultKind::Lie, |_| {});
    assert_eq!(stage.put("object", "if-match: \"0\"\r\n", b"2").await.status, 200);
    assert_eq!(stage.put("object", "if-none-match: *\r\n", &bytes).await.status, 200);
    stage.store.heal();

    stage.fault(StoreFaultKind::LoseAnswer, |f| f.times = Some(1));
    let lost = stage.put("lost", "", b"kept").await;
    assert_eq!((lost.status, lost.end), (0, End::Reset));
    assert_eq!(fs::read(stage.root.join("weights/lost")).unwrap(), b"kept");

    stage.fault(StoreFaultKind::IgnoreRange, |f| f.times = Some(1));
    let whole = stage.get("range: bytes=0-9\r\n").await;
    assert_eq!((whole.status, whole.body.len()), (200, LARGE));
    stage.fault(StoreFaultKind::Slow, |f| f.bytes_per_second = Some(10_000_000));
    let began = Instant::now();
    assert_eq!(stage.get("range: bytes=0-2999999\r\n").await.body, bytes[..3_000_000]);
    assert!(began.elapsed() > Duration::from_millis(290), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_file_put_there_by_hand_is_an_object_and_a_key_stays_in_its_bucket() {
    let stage = Stage::new("hand").await;
    let sparse = fs::File::create(stage.root.join("weights/object")).unwrap();
    sparse.set_len(20 << 30).unwrap();
    let end = stage.get("range: bytes=-5\r\n").await;
    assert_eq!((end.status, &*end.body), (206, &[0; 5][..]));
    assert_eq!(end.header("content-range"), Some("bytes 21474836475-21474836479/21474836480"));
    assert!(end.header("etag").unwrap().ends_with("-1\""));
    for key in ["..%2f..%2fescaped", "a/../b", "a//b", "object/below"] {
        let refused = stage.put(key, "", b"x").await;
        assert!(matches!(refused.status, 400 | 409), "{key}: {}", refused.status);
    }
    assert!(!beside(&stage.root).exists());
}

fn beside(root: &Path) -> PathBuf {
    root.parent().unwrap().join("escaped")
}

#[tokio::test]
async fn the_long_way_delays_and_does_not_slow() {
    let mut times = Vec::new();
    // The best of a few: the machine may be busy with something else.
    while times.len() < 10 {
        let (first, rest) = over_the_long_way().await;
        assert!(first >= Duration::from_millis(400), "{first:?}");
        // By a stop-and-wait of a socket's buffer the rest would take seconds.
        if first < Duration::from_secs(1) && rest < Duration::from_secs(1) {
            return;
        }
        times.push((first, rest));
    }
    panic!("too slow: {times:?}");
}

/// How long the first byte of an answer took, and the rest of its 32 MiB.
async fn over_the_long_way() -> (Duration, Duration) {
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = RelayOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        to: far.local_addr().unwrap(),
        delay: Duration::from_millis(100),
        bytes_per_second: None,
    };
    let relay = Relay::spawn(options).await.unwrap();
    let echo = tokio::spawn(async move {
        let (mut tcp, _) = far.accept().await.unwrap();
        let mut one = [0];
        tcp.read_exact(&mut one).await.unwrap();
        tcp.write_all(&vec![one[0]; 32 << 20]).await.unwrap();
    });
    let mut near = TcpStream::connect(relay.listen_addr()).await.unwrap();
    // A handshake of one round trip, and then a question and its answer.
    let began = Instant::now();
    near.write_all(b"7").await.unwrap();
    let mut came = vec![0; 32 << 20];
    near.read_exact(&mut came[..1]).await.unwrap();
    let first = began.elapsed();
    near.read_exact(&mut came[1..]).await.unwrap();
    let rest = began.elapsed().saturating_sub(first);
    assert!(came.iter().all(|byte| *byte == b'7'));
    assert_eq!(near.read(&mut came).await.unwrap(), 0, "its end comes through as well");
    echo.await.unwrap();
    (first, rest)
}
