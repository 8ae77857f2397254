//! What every store has to do, asked of each of them in the same way.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use outrigger_fakes::{
    FakeStore, StoreOptions,
    store::{StoreFault, StoreFaultKind},
};

use super::{
    Bucket, Folder, Part, Put, Store, Upload, When,
    bucket::Parts,
    provider::{Side, of_side},
    trouble::Trouble,
};

/// S3 has no part but the last below 5 MiB.
const PART: usize = 5 << 20;

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn pattern(len: usize, seed: usize) -> Bytes {
    (0..len).map(|at| ((at * 31 + at / 251 + seed) % 256) as u8).collect()
}

async fn read(store: &Store, object: &str, range: (u64, u64), etag: &mut Option<String>) -> Result<Vec<u8>, Trouble> {
    let mut came = Vec::new();
    store
        .range(object, range, etag, &mut |piece| {
            came.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    Ok(came)
}

async fn text(store: &Store, object: &str) -> Option<String> {
    store.whole(object, 1 << 20).await.unwrap().map(|(bytes, _)| String::from_utf8(bytes).unwrap())
}

async fn names(store: &Store, prefix: &str) -> Vec<String> {
    store.objects(prefix).await.unwrap().into_iter().map(|meta| meta.object).collect()
}

fn done(put: Put) -> super::Tag {
    let Put::Done(tag) = put else { panic!("refused") };
    tag
}

async fn objects_are_what_was_put(store: &Store) {
    let object = "models/a/b/1/onnx/a b+c%, ü.bin";
    assert_eq!(text(store, object).await, None);
    assert_eq!(names(store, "models").await, Vec::<String>::new());
    done(store.put(object, &bytes("0123456789"), &When::Always).await.unwrap());
    assert_eq!(text(store, object).await.as_deref(), Some("0123456789"));
    assert!(store.whole(object, 9).await.unwrap_err().message.contains("is longer than 9 bytes"));
    assert_eq!(read(store, object, (2, 3), &mut None).await.unwrap(), b"234");
    assert_eq!(read(store, object, (9, 1), &mut None).await.unwrap(), b"9");
    let beyond = read(store, object, (8, 4), &mut None).await;
    assert!(beyond.is_err(), "{beyond:?}");
    assert!(matches!(read(store, "models/a/b/1/none", (0, 1), &mut None).await, Err(Trouble::Absent)));
    let listed = store.objects("models/a").await.unwrap();
    assert_eq!((listed.len(), listed[0].object.as_str(), listed[0].size), (1, object, 10));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(listed[0].modified.abs_diff(now) < 120, "{} {now}", listed[0].modified);
    store.put(object, &bytes(""), &When::Always).await.unwrap();
    assert_eq!(text(store, object).await.as_deref(), Some(""));
    // A folder's name is no prefix of another's.
    store.put("models/ab/x", &bytes("x"), &When::Always).await.unwrap();
    assert_eq!(names(store, "models/a").await, [object]);
    store.delete(object).await.unwrap();
    store.delete(object).await.unwrap();
    assert_eq!(names(store, "models").await, ["models/ab/x"]);
}

async fn conditions_hold(store: &Store) {
    let first = done(store.put("refs/a/b/main", &bytes("one"), &When::Absent).await.unwrap());
    assert_eq!(store.put("refs/a/b/main", &bytes("two"), &When::Absent).await.unwrap(), Put::Refused);
    assert_eq!(text(store, "refs/a/b/main").await.as_deref(), Some("one"));
    let (_, read) = store.whole("refs/a/b/main", 100).await.unwrap().unwrap();
    let second = done(store.put("refs/a/b/main", &bytes("two"), &When::Is(read)).await.unwrap());
    assert_ne!(first, second);
    assert_eq!(store.put("refs/a/b/main", &bytes("six"), &When::Is(first)).await.unwrap(), Put::Refused);
    assert_eq!(text(store, "refs/a/b/main").await.as_deref(), Some("two"));
    done(store.put("refs/a/b/main", &bytes("six"), &When::Is(second.clone())).await.unwrap());
    store.delete("refs/a/b/main").await.unwrap();
    assert_eq!(store.put("refs/a/b/main", &bytes("ten"), &When::Is(second)).await.unwrap(), Put::Refused);
    assert_eq!(text(store, "refs/a/b/main").await, None);
}

async fn of_many_writers_one_wins(store: &Store) {
    for round in 0..4 {
        let object = format!("refs/a/b/race{round}");
        let mut when = When::Absent;
        for step in 0..3 {
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..8 {
                let (store, object, when) = (store.clone(), object.clone(), when.clone());
                writers.spawn(async move {
                    let put = store.put(&object, &bytes(&format!("{step} {writer}")), &when).await.unwrap();
                    (writer, put)
                });
            }
            let ended = writers.join_all().await;
            let won: Vec<_> = ended.iter().filter(|(_, put)| *put != Put::Refused).collect();
            assert_eq!(won.len(), 1, "{ended:?}");
            let (bytes, tag) = store.whole(&object, 100).await.unwrap().unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("{step} {}", won[0].0));
            when = When::Is(tag);
        }
    }
}

async fn copies_are_whole_and_apart(store: &Store) {
    store.put("models/a/b/1/x", &bytes("first"), &When::Always).await.unwrap();
    assert!(store.copy("models/a/b/1/x", "models/a/b/2/y").await.unwrap());
    store.put("models/a/b/1/x", &bytes("other"), &When::Always).await.unwrap();
    assert_eq!(text(store, "models/a/b/2/y").await.as_deref(), Some("first"));
    assert!(!store.copy("models/a/b/1/none", "models/a/b/2/z").await.unwrap());
    assert_eq!(text(store, "models/a/b/2/z").await, None);
}

async fn parts_become_an_object(store: &Store) {
    let object = "models/a/b/3/large";
    let parts = [pattern(PART, 1), pattern(PART, 2), pattern(1_000, 3)];
    let upload = store.begin(object).await.unwrap();
    let mut named = vec![String::new(); 3];
    // In any order, one of them twice, and by somebody who knows nothing but the id.
    for number in [2, 0, 1, 0] {
        let upload = Upload { object: object.to_owned(), id: upload.id.clone() };
        let half = parts[number].len() / 2;
        let pieces = [parts[number].slice(..half), parts[number].slice(half..)];
        let (pieces, offset) = (&pieces, (number * PART) as u64);
        named[number] = store.part(&upload, Part { number, offset, pieces, sha256: None }).await.unwrap();
        assert_eq!(text(store, object).await, None, "seen before it was whole");
        assert!(!names(store, "models/a/b/3").await.contains(&object.to_owned()));
    }
    assert!(store.complete(&upload, &named).await.unwrap());
    let all = [&parts[0][..], &parts[1], &parts[2]].concat();
    assert!(read(store, object, (0, all.len() as u64), &mut None).await.unwrap() == all);
    assert_eq!(store.objects("models/a/b/3").await.unwrap()[0].size, all.len() as u64);
}

async fn an_aborted_upload_is_gone(store: &Store) {
    let upload = store.begin("models/a/b/4/large").await.unwrap();
    let pieces = [pattern(1_000, 4)];
    let name = store.part(&upload, Part { number: 0, offset: 0, pieces: &pieces, sha256: None }).await.unwrap();
    store.abort(&upload).await.unwrap();
    assert!(store.part(&upload, Part { number: 1, offset: 1_000, pieces: &pieces, sha256: None }).await.is_err());
    assert!(!store.complete(&upload, &[name]).await.unwrap_or(false));
    assert_eq!(names(store, "models/a/b/4").await, Vec::<String>::new());
}

/// Where a store has ETags, which a folder has not.
async fn another_object_is_noticed(store: &Store) {
    let object = "models/a/b/5/x";
    store.put(object, &pattern(1_000, 5), &When::Always).await.unwrap();
    let mut etag = None;
    read(store, object, (0, 10), &mut etag).await.unwrap();
    assert!(etag.is_some());
    read(store, object, (10, 10), &mut etag).await.unwrap();
    store.put(object, &pattern(1_000, 6), &When::Always).await.unwrap();
    let changed = read(store, object, (20, 10), &mut etag).await;
    assert!(matches!(changed, Err(Trouble::Changed)), "{changed:?}");
}

async fn all(store: &Store) {
    objects_are_what_was_put(store).await;
    conditions_hold(store).await;
    of_many_writers_one_wins(store).await;
    copies_are_whole_and_apart(store).await;
    parts_become_an_object(store).await;
    an_aborted_upload_is_gone(store).await;
}

pub(crate) fn memory() -> Store {
    of_provider(Arc::new(InMemory::new()))
}

/// One that lets others do something before each thing that it does.
pub(crate) fn memory_that_yields() -> Store {
    of_provider(Arc::new(Yielding(InMemory::new())))
}

fn of_provider(provider: Arc<dyn super::bucket::Provider>) -> Store {
    Store::Bucket(Bucket::new(Parts {
        provider,
        url: "memory://bucket/some/prefix".into(),
        name: "bucket".into(),
        prefix: "some/prefix".into(),
        variables: "nothing",
        longest_copy: u64::MAX,
        s3: None,
    }))
}

#[derive(Debug)]
struct Yielding(InMemory);

/// Comes back at the second call.
async fn turn() {
    let mut asked = false;
    std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut asked, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

impl std::fmt::Display for Yielding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

type Theirs<T> = object_store::Result<T>;

#[async_trait::async_trait]
impl ObjectStore for Yielding {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Theirs<PutResult> {
        turn().await;
        self.0.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Theirs<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Theirs<GetResult> {
        turn().await;
        self.0.get_opts(from, options).await
    }

    fn delete_stream(&self, all: BoxStream<'static, Theirs<Path>>) -> BoxStream<'static, Theirs<Path>> {
        let all = all.then(|path| async {
            turn().await;
            path
        });
        self.0.delete_stream(all.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Theirs<ObjectMeta>> {
        let (listed, store) = (prefix.cloned(), self.0.clone());
        let later = async move {
            turn().await;
            store.list(listed.as_ref())
        };
        stream::once(later).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Theirs<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Theirs<()> {
        turn().await;
        self.0.copy_opts(from, to, options).await
    }
}

#[async_trait::async_trait]
impl MultipartStore for Yielding {
    async fn create_multipart(&self, path: &Path) -> Theirs<MultipartId> {
        self.0.create_multipart(path).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, number: usize, data: PutPayload) -> Theirs<PartId> {
        self.0.put_part(path, id, number, data).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Theirs<PutResult> {
        self.0.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Theirs<()> {
        self.0.abort_multipart(path, id).await
    }
}

/// A folder that goes with the test.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let name = format!("outrigger-store-{}", super::folder::fresh_id().unwrap());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder() {
    let scratch = Scratch::new();
    let store = Store::Folder(Folder::new(&scratch.0));
    all(&store).await;
    let left = std::fs::read_dir(scratch.0.join(".outrigger/uploads")).unwrap().count();
    assert_eq!(left, 0, "uploads were left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_in_memory() {
    all(&memory()).await;
    another_object_is_noticed(&memory()).await;
}

/// Of a server that speaks S3 as far as weights need, with conditions that hold.
fn of_server(url: &str) -> Store {
    let variables = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_ENDPOINT_URL_S3", url)];
    let environment =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Store::parse_in("s3://bucket/some/prefix/", &environment).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_behind_a_server() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("bucket")).unwrap();
    let server = FakeStore::spawn(StoreOptions::new(&scratch.0)).await.unwrap();
    let store = of_server(&server.url());
    all(&store).await;
    another_object_is_noticed(&store).await;
    store.prove().await.unwrap();
}

/// Of a server that speaks Google's dialect, where conditions are made of generations.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_of_googles_dialect() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("bucket")).unwrap();
    let server = FakeStore::spawn(StoreOptions::new(&scratch.0)).await.unwrap();
    let environment = |name: &str| match name {
        "GOOGLE_OAUTH_ACCESS_TOKEN" => Some("token".to_owned()),
        "GOOGLE_STORAGE_ENDPOINT" => Some(server.url()),
        _ => None,
    };
    let store = Store::parse_in("gs://bucket/some/prefix/", &environment).unwrap();
    all(&store).await;
    another_object_is_noticed(&store).await;
    store.prove().await.unwrap();
    server.set_fault(StoreFault::new(StoreFaultKind::Lie));
    assert!(store.prove().await.unwrap_err().message.contains("it wrote an object twice"));
}

/// The same of any store that can be had, with its credentials in the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_elsewhere() {
    let Ok(url) = std::env::var("OUTRIGGER_CONFORMANCE_STORE") else { return };
    let store = Store::parse(&format!("{url}/{}", super::folder::fresh_id().unwrap())).unwrap();
    all(&store).await;
    another_object_is_noticed(&store).await;
    store.prove().await.unwrap();
}

fn only(kind: StoreFaultKind, operation: &str) -> StoreFault {
    StoreFault { operation: Some(operation.into()), ..StoreFault::new(kind) }
}

#[tokio::test]
async fn a_store_that_lies_about_conditions_is_found_out() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("bucket")).unwrap();
    let server = FakeStore::spawn(StoreOptions::new(&scratch.0)).await.unwrap();
    let store = of_server(&server.url());
    server.set_fault(StoreFault::new(StoreFaultKind::Lie));
    let refused = store.prove().await.unwrap_err();
    assert!(refused.message.contains("it wrote an object twice"), "{refused}");
    // One that keeps two creators apart, and not two who write over what they have read.
    server.heal();
    server.set_fault(StoreFault { skip: 3, every: Some(4), ..only(StoreFaultKind::Lie, "PutObject") });
    let refused = store.prove().await.unwrap_err();
    assert!(refused.message.contains("was not the one of the condition"), "{refused}");
    server.heal();
    let listed = store.objects(".outrigger").await.unwrap();
    assert_eq!(listed, [], "probes were left behind");
}

/// An answer that was lost is no lie, and what was written is found.
#[tokio::test]
async fn answers_that_are_lost_are_asked_for_again() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("bucket")).unwrap();
    let server = FakeStore::spawn(StoreOptions::new(&scratch.0)).await.unwrap();
    let store = of_server(&server.url());
    server.set_fault(StoreFault { times: Some(1), ..StoreFault::new(StoreFaultKind::LoseAnswer) });
    store.prove().await.unwrap();
    let busy = StoreFault { times: Some(2), status: Some(503), ..StoreFault::new(StoreFaultKind::Status) };
    server.set_fault(busy);
    store.put("x", &bytes("x"), &When::Always).await.unwrap();
    assert_eq!(text(&store, "x").await.as_deref(), Some("x"));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(&scratch.0).unwrap();
    let server = FakeStore::spawn(StoreOptions::new(&scratch.0)).await.unwrap();
    let store = of_server(&server.url());
    let absent = store.objects("refs").await.unwrap_err();
    assert!(absent.message.contains("there is no bucket bucket"), "{absent}");
    let absent = store.put("x", &bytes("x"), &When::Absent).await.unwrap_err();
    assert!(absent.message.contains("there is no bucket bucket"), "{absent}");
    std::fs::create_dir_all(scratch.0.join("bucket")).unwrap();
    store.put("x", &bytes("x"), &When::Absent).await.unwrap();
    server.set_fault(StoreFault { status: Some(403), ..StoreFault::new(StoreFaultKind::Status) });
    let refused = store.whole("x", 10).await.unwrap_err();
    assert!(refused.message.contains("may not read x in bucket"), "{refused}");
    assert!(refused.help.contains("AWS_ACCESS_KEY_ID"), "{refused}");
    drop(server);
    let gone = store.whole("x", 10).await.unwrap_err();
    assert!(gone.message.contains("cannot connect to 127.0.0.1"), "{gone}");
}

#[test]
fn credentials_that_are_missing_are_named() {
    let check = |url: &str, set: &[(&str, &str)], words: &[&str]| {
        let environment =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let error = Store::parse_in(url, &environment).unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "{url} {set:?}: {error}");
        }
    };
    check("s3://b/p", &[], &["AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set", "AWS_SESSION_TOKEN"]);
    check("s3://b/p", &[("AWS_ACCESS_KEY_ID", "k")], &["AWS_SECRET_ACCESS_KEY is not set"]);
    let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    check("s3://b/p", &[&keys[..], &[("AWS_ENDPOINT_URL", "minio:9000")]].concat(), &["AWS_ENDPOINT_URL=minio:9000"]);
    check("s3://", &keys, &["s3://BUCKET/PREFIX"]);
    check("s3://b/../c", &keys, &["is not the address of a bucket"]);
    check("gs://b", &[], &["GOOGLE_APPLICATION_CREDENTIALS is not set"]);
    check("az://c", &[], &["AZURE_STORAGE_ACCOUNT_NAME is not set"]);
    check("az://c", &[("AZURE_STORAGE_ACCOUNT_NAME", "a")], &["AZURE_STORAGE_ACCOUNT_KEY is not set"]);
    check("ftp://b", &[], &["is not the address of a store"]);
    check("https://user:pw@host/x", &[], &["are not sent"]);
}

#[tokio::test]
async fn a_side_is_told_its_own_variables() {
    let told = |side, url: &str, set: &[(&str, &str)]| {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Store::parse_with(side, url, &set).unwrap_err().to_string()
    };
    // Neither is set: either would do.
    let both = told(Side::From, "s3://b/p", &[("TO_AWS_ACCESS_KEY_ID", "k")]);
    assert!(both.contains(": AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"), "{both}");
    assert!(both.contains("or FROM_AWS_… for this side alone"), "{both}");
    assert!(!told(Side::Only, "s3://b/p", &[]).contains("FROM_"));
    // With one of its own, the plain ones are not looked at.
    let own = told(Side::From, "s3://b/p", &[("FROM_AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")]);
    assert!(own.contains(": FROM_AWS_SECRET_ACCESS_KEY is not set") && !own.contains(" AWS_"), "{own}");
    let own = told(Side::To, "gs://b/p", &[("TO_GOOGLE_STORAGE_ENDPOINT", "https://x")]);
    assert!(own.contains(": TO_GOOGLE_APPLICATION_CREDENTIALS is not set") && !own.contains(" GOOGLE_"), "{own}");
    let own = told(Side::To, "az://b/p", &[("TO_AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "k")]);
    assert!(own.contains(": TO_AZURE_STORAGE_ACCOUNT_KEY is not set"), "{own}");
    let keys = [("FROM_AWS_ACCESS_KEY_ID", "k"), ("FROM_AWS_SECRET_ACCESS_KEY", "s")];
    let own = told(Side::From, "s3://b/p", &[&keys[..], &[("FROM_AWS_ENDPOINT_URL", "minio:9000")]].concat());
    assert!(own.starts_with("FROM_AWS_ENDPOINT_URL=minio:9000"), "{own}");
    assert!(!told(Side::From, "s3://", &keys).contains("FROM_"), "an address that is wrong is no matter of variables");
    // And so is what a store refuses.
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("bucket")).unwrap();
    let server = FakeStore::spawn(StoreOptions::new(&scratch.0)).await.unwrap();
    server.set_fault(StoreFault { status: Some(403), ..StoreFault::new(StoreFaultKind::Status) });
    let set = [("TO_AWS_ACCESS_KEY_ID", "k"), ("TO_AWS_SECRET_ACCESS_KEY", "s")];
    let mut set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    set.push(("TO_AWS_ENDPOINT_URL".to_owned(), server.url()));
    let store = Store::parse_with(Side::To, "s3://bucket", &set).unwrap();
    let refused = store.put("x", &bytes("x"), &When::Always).await.unwrap_err();
    assert!(refused.help.contains("check TO_AWS_ACCESS_KEY_ID, TO_AWS_SECRET"), "{refused}");
}

#[test]
fn each_side_of_a_replication_may_have_its_own_account() {
    let set = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), format!("of {name}"))).collect::<Vec<_>>();
    let shared = ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"];
    let both = set(&[&shared[..], &["TO_AWS_ACCESS_KEY_ID"]].concat());
    let ask = |side, name, variables: &[(String, String)]| of_side(side, name, variables).unwrap_or_default();
    assert_eq!(ask(Side::From, "AWS_ACCESS_KEY_ID", &both), "of AWS_ACCESS_KEY_ID");
    assert_eq!(ask(Side::Only, "AWS_ACCESS_KEY_ID", &both), "of AWS_ACCESS_KEY_ID");
    assert_eq!(ask(Side::To, "AWS_ACCESS_KEY_ID", &both), "of TO_AWS_ACCESS_KEY_ID");
    // Nothing of the other account.
    assert_eq!(ask(Side::To, "AWS_SESSION_TOKEN", &both), "");
    assert_eq!(ask(Side::To, "GOOGLE_APPLICATION_CREDENTIALS", &both), "of GOOGLE_APPLICATION_CREDENTIALS");
    assert_eq!(of_side(Side::Only, "AWS_REGION", &[("AWS_REGION".into(), String::new())]), None);
}
