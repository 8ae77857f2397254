//! Refs, moved in one step, and only to what is whole.
//!
//! A publisher reads the ref before it begins and swaps it for that very state at the end, so that of two that publish at
//! once one wins and the other is told. `gc` is kept away from a version that a ref is moved to while it runs by a mark:
//!
//! | gc | whoever moves a ref |
//! |---|---|
//! | puts a mark of its own into the version's folder | swaps the ref |
//! | reads the refs, and takes its mark away again if one names the version | lists the version's folder |
//! | deletes the files, the marks last | takes the swap back if there is a mark or a file is missing |
//!
//! Both write before they read, so that at least one of them sees the other. Each gc has its own mark, so that one that
//! gives way does not take away what keeps publishers from another.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER, Wanted,
    path::{RefName, Version},
    store::{self, Meta, Put, Ref, Store, When},
};

/// In a version's folder: the gc of this name is about to delete it.
pub(crate) fn mark_object(folder: &str, name: &str) -> String {
    format!("{folder}/{OWN_FOLDER}/deleting-{name}")
}

/// The marks of a version, in a listing of it.
pub(crate) fn marks<'a>(there: &'a [Meta], folder: &str) -> impl Iterator<Item = &'a Meta> {
    let beginning = mark_object(folder, "");
    there.iter().filter(move |meta| meta.object.starts_with(&beginning))
}

pub(crate) fn is_doomed(there: &[Meta], folder: &str) -> bool {
    marks(there, folder).next().is_some()
}

pub(crate) fn not_doomed(there: &[Meta], folder: &str) -> Result<(), Error> {
    if !is_doomed(there, folder) {
        return Ok(());
    }
    Err(Error::content(
        format!("{folder} is being deleted by `outrigger weights gc`"),
        "wait until gc has ended, or run it again if it was killed, and then run this command again",
    ))
}

/// The files of a version that a listing does not have with their size, and its manifest.
pub(crate) fn missing<'a>(there: &[Meta], manifest: &'a Manifest, digest: &Digest) -> Vec<&'a str> {
    let sizes: BTreeMap<&str, u64> = there.iter().map(|meta| (meta.object.as_str(), meta.size)).collect();
    let folder = store::version_object(&manifest.model, digest);
    let files =
        manifest.files.iter().filter(|file| sizes.get(format!("{folder}/{}", file.path).as_str()) != Some(&file.size));
    let mut missing: Vec<&str> = files.map(|file| file.path.as_str()).collect();
    if !sizes.contains_key(store::manifest_object(&manifest.model, digest).as_str()) {
        missing.push(store::MANIFEST);
    }
    missing
}

/// Points a ref to a version that is whole, if the ref is as it was read before.
pub(crate) async fn point(
    store: &Store,
    manifest: &Manifest,
    digest: &Digest,
    name: &RefName,
    before: Option<Ref>,
) -> Result<(), Error> {
    let model = &manifest.model;
    if named_by(before.as_ref()) != Some(*digest) {
        swap(store, model, name, digest, before.as_ref()).await?;
    }
    let folder = store::version_object(model, digest);
    let there = store.objects(&folder).await?;
    let fault = match not_doomed(&there, &folder) {
        Err(fault) => fault,
        Ok(()) => match missing(&there, manifest, digest).first() {
            None => return Ok(()),
            Some(file) => Error::content(
                format!("{file} is not in the store any more: it was deleted while {model} was published"),
                "run the same command again",
            ),
        },
    };
    take_back(store, model, name, digest, named_by(before.as_ref())).await?;
    Err(fault)
}

async fn swap(
    store: &Store,
    model: &ModelName,
    name: &RefName,
    digest: &Digest,
    before: Option<&Ref>,
) -> Result<(), Error> {
    let object = store::ref_object(model, name);
    let when = before.map_or(When::Absent, |there| When::Is(there.tag.clone()));
    if store.put(&object, &Bytes::from(store::ref_text(Some(digest))), &when).await? != Put::Refused {
        return Ok(());
    }
    match named_by(store.reference(model, name).await?.as_ref()) {
        // By a try of ours whose answer was lost, or by one who publishes the same.
        Some(named) if named == *digest => Ok(()),
        now => {
            let now = now.map_or("deleted".to_owned(), |named| format!("moved to {named}"));
            Err(Error::content(
                format!("{model}@{name} was {now} by another publisher meanwhile, and was left there"),
                format!(
                    "{digest} is whole in the store: to have the ref point to it, `outrigger weights rollback {model}@{name} --to {store} --version {digest}`"
                ),
            ))
        }
    }
}

/// Undoes a swap, unless somebody has moved the ref on since. A ref that was not there before is withdrawn and not deleted:
/// a deletion under a condition is nothing that all stores have, and one without would take what another has written since.
async fn take_back(
    store: &Store,
    model: &ModelName,
    name: &RefName,
    digest: &Digest,
    before: Option<Digest>,
) -> Result<(), Error> {
    let there = store.reference(model, name).await?;
    let Some(Ref { tag, .. }) = there.filter(|there| there.digest == Some(*digest)) else { return Ok(()) };
    let text = Bytes::from(store::ref_text(before.as_ref()));
    store.put(&store::ref_object(model, name), &text, &When::Is(tag)).await.map(|_| ())
}

pub(crate) fn named_by(there: Option<&Ref>) -> Option<Digest> {
    there.and_then(|there| there.digest)
}

/// What a ref was moved from and to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub name: RefName,
    pub from: Option<Digest>,
    pub to: Digest,
}

/// Points a ref to another version that is in the store, whole.
pub async fn rollback(store: &Store, wanted: &Wanted, to: Digest) -> Result<Moved, Error> {
    let Version::Ref(name) = &wanted.version else {
        return Err(Error::usage(format!("{wanted} is a version and not a ref"), "give ORG/MODEL@REF"));
    };
    let before = store.reference(&wanted.model, name).await?;
    let version = Wanted { model: wanted.model.clone(), version: Version::Digest(to) };
    let found = store.find(&version).await?;
    let folder = store::version_object(&wanted.model, &to);
    let there = store.objects(&folder).await?;
    not_doomed(&there, &folder)?;
    if let Some(file) = missing(&there, &found.manifest, &to).first() {
        return Err(Error::content(
            format!("{version} is not whole in the store: {file} is missing"),
            "publish it again with `outrigger weights add`",
        ));
    }
    store.prove().await?;
    let from = named_by(before.as_ref());
    point(store, &found.manifest, &to, name, before).await?;
    Ok(Moved { name: name.clone(), from, to })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cut::Chunker,
        gc::{self, Rules, Why},
        manifest::{Chunk, File},
        store::conformance::{memory, memory_that_yields},
    };

    const MODEL: &str = "a/b";

    /// Puts a version of two files into a store, whole.
    async fn put_version(store: &Store, text: &'static str) -> (Manifest, Digest) {
        let file = |path: &str| {
            let bytes = text.as_bytes();
            let blake3 = *blake3::hash(bytes).as_bytes();
            let chunks = vec![Chunk { offset: 0, len: bytes.len() as u32, blake3 }];
            let sha256 = Digest::of(bytes).0;
            File { path: path.parse().unwrap(), size: bytes.len() as u64, sha256, chunker: Chunker::Fixed, chunks }
        };
        let manifest = Manifest::new(MODEL.parse().unwrap(), vec![file("x"), file("y/z")]).unwrap();
        let digest = manifest.digest();
        let folder = store::version_object(&manifest.model, &digest);
        for path in ["x", "y/z"] {
            let object = format!("{folder}/{path}");
            store.put(&object, &Bytes::from_static(text.as_bytes()), &When::Always).await.unwrap();
        }
        let object = store::manifest_object(&manifest.model, &digest);
        store.put(&object, &Bytes::from(manifest.to_bytes()), &When::Always).await.unwrap();
        (manifest, digest)
    }

    fn main_of(model: &ModelName) -> Wanted {
        Wanted { model: model.clone(), version: Version::Ref(RefName::default()) }
    }

    async fn is_whole(store: &Store, manifest: &Manifest, digest: &Digest) -> bool {
        let folder = store::version_object(&manifest.model, digest);
        let there = store.objects(&folder).await.unwrap();
        missing(&there, manifest, digest).is_empty() && !is_doomed(&there, &folder)
    }

    #[tokio::test]
    async fn a_ref_is_not_moved_to_what_gc_has_marked() {
        let store = memory();
        let (first, old) = put_version(&store, "old").await;
        rollback(&store, &main_of(&first.model), old).await.unwrap();
        let (second, new) = put_version(&store, "new").await;
        // The mark comes after whoever moves the ref has looked for the first time.
        let before = store.reference(&second.model, &RefName::default()).await.unwrap();
        let folder = store::version_object(&second.model, &new);
        store.put(&mark_object(&folder, "1"), &Bytes::new(), &When::Always).await.unwrap();
        let refused = point(&store, &second, &new, &RefName::default(), before).await.unwrap_err();
        assert!(refused.message.contains("is being deleted"), "{refused}");
        assert_eq!(store.resolve(&second.model, &RefName::default()).await.unwrap(), Some(old));
        // And a ref that was not there before is not there after.
        let canary = "canary".parse().unwrap();
        point(&store, &second, &new, &canary, None).await.unwrap_err();
        assert_eq!(store.resolve(&second.model, &canary).await.unwrap(), None);
    }

    #[tokio::test]
    async fn gc_leaves_what_a_ref_was_moved_to_since_it_listed() {
        let store = memory();
        let (manifest, digest) = put_version(&store, "new").await;
        let listed = gc::unnamed(&store, &std::collections::BTreeSet::new()).await.unwrap();
        let version = &listed[&manifest.model][0];
        rollback(&store, &main_of(&manifest.model), digest).await.unwrap();
        assert_eq!(gc::delete(&store, version, Why::Unnamed).await.unwrap().why, Why::NamedMeanwhile);
        assert!(is_whole(&store, &manifest, &digest).await);
        // Nor does it take away the mark of another gc, until that is old.
        let mark = mark_object(&version.folder, "other");
        store.put(&mark, &Bytes::new(), &When::Always).await.unwrap();
        assert_eq!(gc::delete(&store, version, Why::Unnamed).await.unwrap().why, Why::NamedMeanwhile);
        let rules = Rules { keep: 0, older_than: Duration::ZERO, dry_run: false, state: "/none".into() };
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        gc::collect(&store, &rules, now).await.unwrap();
        assert!(!is_whole(&store, &manifest, &digest).await, "a mark was taken away from under its gc");
        gc::collect(&store, &rules, now + 4_000).await.unwrap();
        assert!(is_whole(&store, &manifest, &digest).await, "the mark of a gc that was killed stays for ever");
    }

    /// Runs two pieces of work to their ends, a step of the one or the other at a time, as `seed` has it.
    fn between_each_other<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>, mut seed: u64) -> (A, B) {
        let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
        let (mut of_a, mut of_b) = (None, None);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let first = (seed >> 33).is_multiple_of(2);
            if of_a.is_none() && (first || of_b.is_some()) {
                if let std::task::Poll::Ready(done) = a.as_mut().poll(&mut cx) {
                    of_a = Some(done);
                }
            } else if of_b.is_none()
                && let std::task::Poll::Ready(done) = b.as_mut().poll(&mut cx)
            {
                of_b = Some(done);
            }
            if let (Some(_), Some(_)) = (&of_a, &of_b) {
                return (of_a.unwrap(), of_b.unwrap());
            }
        }
    }

    fn alone<T>(work: impl Future<Output = T>) -> T {
        between_each_other(work, std::future::ready(()), 0).0
    }

    /// A new ref of a version that is doomed is taken back while another publisher moves it to one that is whole.
    #[test]
    fn a_ref_that_is_taken_back_is_not_taken_from_another_publisher() {
        let (mut kept, mut refused) = (0, 0);
        for seed in 0..2_000 {
            let store = memory_that_yields();
            let (_, good) = alone(put_version(&store, "good"));
            let (doomed, bad) = alone(put_version(&store, "bad"));
            let mark = mark_object(&store::version_object(&doomed.model, &bad), "1");
            alone(store.put(&mark, &Bytes::new(), &When::Always)).unwrap();
            let canary: RefName = "canary".parse().unwrap();
            let wanted = Wanted { model: doomed.model.clone(), version: Version::Ref(canary.clone()) };
            let other = async {
                // Again until he has won or was told; as an operator does.
                rollback(&store, &wanted, good).await.is_ok() || rollback(&store, &wanted, good).await.is_ok()
            };
            let (ours, theirs) = between_each_other(point(&store, &doomed, &bad, &canary, None), other, seed);
            ours.unwrap_err();
            let named = alone(store.resolve(&doomed.model, &canary)).unwrap();
            assert_eq!(
                named,
                theirs.then_some(good),
                "seed {seed}: a ref was lost, or one is left that was taken back"
            );
            kept += u32::from(theirs);
            refused += u32::from(!theirs);
        }
        assert!(kept > 500, "they hardly met: {kept} {refused}");
        // What was withdrawn is no ref, and becomes one again.
        let store = memory();
        let (doomed, bad) = alone(put_version(&store, "bad"));
        let canary: RefName = "canary".parse().unwrap();
        let mark = mark_object(&store::version_object(&doomed.model, &bad), "1");
        alone(store.put(&mark, &Bytes::new(), &When::Always)).unwrap();
        alone(point(&store, &doomed, &bad, &canary, None)).unwrap_err();
        assert_eq!(alone(store.list()).unwrap(), []);
        alone(store.delete(&mark)).unwrap();
        let wanted = Wanted { model: doomed.model.clone(), version: Version::Ref(canary) };
        assert!(alone(store.find(&wanted)).unwrap_err().message.contains("the store has no"));
        assert_eq!(alone(rollback(&store, &wanted, bad)).unwrap().from, None);
        assert_eq!(alone(store.find(&wanted)).unwrap().digest, bad);
    }

    /// Whatever the steps of the two are between each other, what the ref names is whole when both have ended.
    #[test]
    fn gc_and_a_move_at_once_leave_the_ref_on_a_whole_version() {
        let rules = Rules { keep: 0, older_than: Duration::ZERO, dry_run: false, state: "/none".into() };
        let (mut moved, mut told, mut gave_way) = (0, 0, 0);
        for seed in 0..6_000 {
            let store = memory_that_yields();
            let (first, old) = alone(put_version(&store, "old"));
            let (second, new) = alone(put_version(&store, "new"));
            let wanted = main_of(&first.model);
            alone(rollback(&store, &wanted, old)).unwrap();
            let (gone, outcome) =
                between_each_other(gc::collect(&store, &rules, u64::MAX), rollback(&store, &wanted, new), seed);
            let gone = gone.unwrap().gone;
            let named = alone(store.resolve(&first.model, &RefName::default())).unwrap().unwrap();
            let manifest = if named == old { &first } else { &second };
            assert!(alone(is_whole(&store, manifest, &named)), "seed {seed}: {outcome:?} {gone:?}");
            assert_eq!(outcome.is_ok(), named == new, "seed {seed}: {outcome:?}");
            moved += u32::from(outcome.is_ok());
            told += u32::from(outcome.is_err());
            gave_way += u32::from(gone.iter().any(|gone| gone.why == Why::NamedMeanwhile));
        }
        assert!(moved > 100 && told > 100 && gave_way > 10, "they hardly met: {moved} {told} {gave_way}");
    }
}
