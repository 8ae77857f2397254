//! Refs, moved in one step, and only to what is whole.
//!
//! A publisher reads the ref before it begins and swaps it for that very state at the end, so that of two that publish at
//! once one wins and the other is told. `gc` is kept away from a version that a ref is moved to while it runs by a mark:
//!
//! | gc | whoever moves a ref |
//! |---|---|
//! | puts the mark into the version's folder | swaps the ref |
//! | reads the refs, and takes the mark away again if one names the version | lists the version's folder |
//! | deletes the files, the mark last | takes the swap back if there is a mark or a file is missing |
//!
//! Both write before they read, so that at least one of them sees the other.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER, Wanted,
    path::{RefName, Version},
    store::{self, Meta, Put, Store, Tag, When},
};

/// In a version's folder: gc is about to delete it.
pub(crate) const MARK: &str = "deleting";

pub(crate) fn mark_object(folder: &str) -> String {
    format!("{folder}/{OWN_FOLDER}/{MARK}")
}

pub(crate) fn is_doomed(there: &[Meta], folder: &str) -> bool {
    let mark = mark_object(folder);
    there.iter().any(|meta| meta.object == mark)
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
    before: Option<(Digest, Tag)>,
) -> Result<(), Error> {
    let model = &manifest.model;
    if !before.as_ref().is_some_and(|(named, _)| named == digest) {
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
    take_back(store, model, name, digest, before).await?;
    Err(fault)
}

async fn swap(
    store: &Store,
    model: &ModelName,
    name: &RefName,
    digest: &Digest,
    before: Option<&(Digest, Tag)>,
) -> Result<(), Error> {
    let object = store::ref_object(model, name);
    let when = before.map_or(When::Absent, |(_, tag)| When::Is(tag.clone()));
    if store.put(&object, &Bytes::from(store::ref_text(digest)), &when).await? != Put::Refused {
        return Ok(());
    }
    match store.reference(model, name).await? {
        // By a try of ours whose answer was lost, or by one who publishes the same.
        Some((named, _)) if named == *digest => Ok(()),
        now => {
            let now = now.map_or("deleted".to_owned(), |(named, _)| format!("moved to {named}"));
            Err(Error::content(
                format!("{model}@{name} was {now} by another publisher meanwhile, and was left there"),
                format!(
                    "{digest} is whole in the store: to have the ref point to it, `outrigger weights rollback {model}@{name} --to {store} --version {digest}`"
                ),
            ))
        }
    }
}

/// Undoes a swap, unless somebody has moved the ref on since.
async fn take_back(
    store: &Store,
    model: &ModelName,
    name: &RefName,
    digest: &Digest,
    before: Option<(Digest, Tag)>,
) -> Result<(), Error> {
    let Some((named, tag)) = store.reference(model, name).await? else { return Ok(()) };
    let object = store::ref_object(model, name);
    match before {
        _ if named != *digest => Ok(()),
        Some((before, _)) => {
            store.put(&object, &Bytes::from(store::ref_text(&before)), &When::Is(tag)).await.map(|_| ())
        }
        None => store.delete(&object).await,
    }
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
    let from = before.as_ref().map(|(named, _)| *named);
    point(store, &found.manifest, &to, name, before).await?;
    Ok(Moved { name: name.clone(), from, to })
}
