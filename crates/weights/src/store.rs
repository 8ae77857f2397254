//! Where versions lie: a folder, a bucket, or either of them behind a web server, which can be read only.
//!
//! ```text
//! refs/ORG/MODEL/main                                    {"digest":"sha256:…","schema":"outrigger.ref/v1"}
//! models/ORG/MODEL/0123456789ab/config.json              the files, whole, under the names that the hub gives them
//! models/ORG/MODEL/0123456789ab/.outrigger/manifest.json
//! ```
//!
//! A version's folder is called by the first twelve digits of its digest and never changes; a ref is moved last, so that
//! a reader sees a whole version or the one before. The folder alone is what engines' own loaders and other tools read. A
//! folder's name is only where to look: the manifest that lies there has to have the digest that was asked for.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER, Wanted,
    manifest::{self, Fault},
    path::{RefName, Version},
};

mod bucket;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod folder;
mod net;
mod objects;
mod probe;
mod provider;
mod s3;
pub(crate) mod trouble;
mod web;

pub use bucket::Bucket;
pub use folder::Folder;
pub use objects::{Meta, Part, Put, Tag, Unfinished, Upload, When};
pub use provider::Side;
pub use web::Base;

pub(crate) use folder::{fresh_id, read_small};

/// Of a version, in its folder.
pub(crate) const MANIFEST: &str = ".outrigger/manifest.json";

const REF_SCHEMA: &str = "outrigger.ref/v1";
const LONGEST_REF: usize = 4_096;

#[derive(Clone, Debug)]
pub enum Store {
    Folder(Folder),
    Bucket(Bucket),
    Web(Base),
}

#[derive(Serialize, Deserialize)]
struct RefText {
    /// It has to be there: what has lost it is no ref that was withdrawn.
    #[serde(deserialize_with = "Option::deserialize")]
    digest: Option<String>,
    schema: String,
}

/// A version that was found, with its manifest's own bytes.
#[derive(Debug)]
pub struct Found {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
}

/// A ref as it was read: where it points, and what a swap compares.
#[derive(Clone, Debug)]
pub(crate) struct Ref {
    /// `None` of one that was withdrawn, which is no ref to all but a swap.
    pub(crate) digest: Option<Digest>,
    pub(crate) tag: Tag,
}

/// A ref of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub model: ModelName,
    pub name: RefName,
    pub digest: Digest,
}

impl Store {
    /// The store at an address. Buckets take their credentials from the environment.
    pub fn parse(url: &str) -> Result<Self, Error> {
        Self::parse_as(Side::Only, url)
    }

    /// One of two stores, which may have variables of its own.
    pub fn parse_as(side: Side, url: &str) -> Result<Self, Error> {
        Self::parse_with(side, url, &provider::variables())
    }

    fn parse_with(side: Side, url: &str, variables: &[(String, String)]) -> Result<Self, Error> {
        let parsed = Self::parse_in(url, &|name| provider::of_side(side, name, variables));
        match parsed.map_err(|error| provider::by_its_names(side, url, error, variables))? {
            Self::Bucket(bucket) if provider::has_own(side, url, variables) => {
                Ok(Self::Bucket(bucket.called(|names| provider::own_names(side, url, names))))
            }
            store => Ok(store),
        }
    }

    fn parse_in(url: &str, environment: provider::Environment) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(Error::usage(
                    format!("{url} names another machine"),
                    "write file:// and an absolute path, as in file:///srv/weights",
                ));
            }
            return Ok(Self::Folder(Folder::new(Path::new(path))));
        }
        if url.starts_with("http://") || url.starts_with("https://") {
            return Base::parse(url).map(Self::Web);
        }
        if let Some(bucket) = provider::bucket(url, environment)? {
            return Ok(Self::Bucket(bucket));
        }
        Err(Error::usage(
            format!("{} is not the address of a store", shown(url)),
            "give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///PATH, or to read https://HOST/PATH",
        ))
    }

    /// A directory, as a store of its own files.
    pub(crate) fn of_directory(path: &Path) -> Self {
        Self::Folder(Folder::new(path))
    }

    /// The folder, for what works on files.
    pub fn folder(&self, doing: &str) -> Result<&Path, Error> {
        match self {
            Self::Folder(folder) => Ok(folder.root()),
            _ => Err(Error::usage(
                format!("{self} is not a folder and cannot be used to {doing}"),
                "use its file:// address",
            )),
        }
    }

    /// The version that was asked for. Its manifest has the digest that the ref or the caller named.
    pub async fn find(&self, wanted: &Wanted) -> Result<Found, Error> {
        self.find_before(wanted, 0).await
    }

    /// The same, while connections for so many requests more are being opened to a web server that has answered.
    pub(crate) async fn find_before(&self, wanted: &Wanted, requests: usize) -> Result<Found, Error> {
        let digest = match &wanted.version {
            Version::Digest(digest) => *digest,
            Version::Ref(name) => self.resolve(&wanted.model, name).await?.ok_or_else(|| absent(wanted))?,
        };
        if let Self::Web(base) = self {
            base.open_ahead(requests);
        }
        let object = manifest_object(&wanted.model, &digest);
        let bytes = self.whole(&object, manifest::LONGEST).await?.ok_or_else(|| absent(wanted))?.0;
        if Digest::of(&bytes) != digest {
            return Err(Error::content(
                format!("{object} is not the manifest of {digest}: it was changed, or another lies in its place"),
                "publish the version again with --repair, and find out who writes to the store",
            ));
        }
        let manifest = Manifest::parse(&bytes).map_err(|fault| refused(&object, &fault))?;
        if manifest.model != wanted.model {
            return Err(Error::content(
                format!("{object} is of the model {}, not of {}", manifest.model, wanted.model),
                "publish the version again under its own name",
            ));
        }
        Ok(Found { digest, bytes, manifest })
    }

    /// Where a ref points; `None` when there is none.
    pub async fn resolve(&self, model: &ModelName, name: &RefName) -> Result<Option<Digest>, Error> {
        Ok(self.reference(model, name).await?.and_then(|there| there.digest))
    }

    /// The same, with what a swap compares.
    pub(crate) async fn reference(&self, model: &ModelName, name: &RefName) -> Result<Option<Ref>, Error> {
        let object = ref_object(model, name);
        let Some((bytes, tag)) = self.whole(&object, LONGEST_REF).await? else { return Ok(None) };
        let digest = parse_ref(&object, &bytes)?;
        Ok(Some(Ref { digest, tag }))
    }

    /// All refs, by model and name.
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        if let Self::Folder(folder) = self
            && !folder.root().is_dir()
        {
            return Err(Error::usage(format!("{} is not a directory", folder.root().display()), "check the path"));
        }
        self.list_below("refs").await
    }

    /// The refs below a prefix. What has no ref's name is passed over, and a ref that is gone again. One that cannot be read
    /// is an error: to gc it would look as if nothing named its version.
    pub(crate) async fn list_below(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        for meta in self.objects(prefix).await? {
            let Some((model, name)) = meta.object.strip_prefix("refs/").and_then(|rest| rest.rsplit_once('/')) else {
                continue;
            };
            let (Ok(model), Ok(name)) = (model.parse::<ModelName>(), name.parse::<RefName>()) else { continue };
            let Some((bytes, _)) = self.whole(&meta.object, LONGEST_REF).await? else { continue };
            let digest = parse_ref(&meta.object, &bytes)?;
            listed.extend(digest.map(|digest| Listed { model, name, digest }));
        }
        Ok(listed)
    }
}

/// As it was given.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "file://{}", folder.root().display()),
            Self::Bucket(bucket) => f.write_str(bucket.url()),
            Self::Web(base) => f.write_str(base.url()),
        }
    }
}

fn absent(wanted: &Wanted) -> Error {
    Error::content(
        format!("the store has no {wanted}"),
        "check the name and the address; of a folder or a bucket `outrigger weights ls` shows what it has",
    )
}

fn not_a_ref(object: &str) -> Error {
    Error::content(
        format!("{object} is not a ref that this version can read"),
        "if a newer outrigger wrote it, use that; else delete it, and `outrigger weights rollback ORG/MODEL@REF --version sha256:…` writes it anew",
    )
}

/// An address without what may be a secret: the name and password before the host, and the query.
pub fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = bare.split_once("://").map_or(("", bare), |(scheme, rest)| (scheme, rest));
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit('@').next().unwrap_or_default();
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    match path {
        Some(path) => format!("{scheme}{host}/{path}"),
        None => format!("{scheme}{host}"),
    }
}

fn refused(object: &str, fault: &Fault) -> Error {
    Error::content(format!("{object}: {fault}"), "publish the version again with `outrigger weights add`")
}

/// Where a ref points; `None` of one that was withdrawn.
fn parse_ref(object: &str, bytes: &[u8]) -> Result<Option<Digest>, Error> {
    let text: RefText = serde_json::from_slice(bytes).map_err(|_| not_a_ref(object))?;
    if text.schema != REF_SCHEMA {
        return Err(not_a_ref(object));
    }
    text.digest.map(|digest| digest.parse().map_err(|_| not_a_ref(object))).transpose()
}

pub(crate) fn ref_text(digest: Option<&Digest>) -> Vec<u8> {
    let text = RefText { digest: digest.map(Digest::to_string), schema: REF_SCHEMA.to_owned() };
    let mut bytes = serde_json::to_vec(&text).expect("strings can be written");
    bytes.push(b'\n');
    bytes
}

/// The bytes that it takes to find a version: its manifest, and the ref that named it.
pub(crate) fn control_bytes(wanted: &Wanted, found: &Found) -> u64 {
    let reference = match wanted.version {
        Version::Ref(_) => ref_text(Some(&found.digest)).len(),
        Version::Digest(_) => 0,
    };
    (found.bytes.len() + reference) as u64
}

pub(crate) fn ref_object(model: &ModelName, name: &RefName) -> String {
    format!("refs/{model}/{name}")
}

/// The folder of a version.
pub(crate) fn version_object(model: &ModelName, digest: &Digest) -> String {
    format!("models/{model}/{}", digest.short())
}

pub(crate) fn signature_object(model: &ModelName, digest: &Digest) -> String {
    format!("{}/{OWN_FOLDER}/{}", version_object(model, digest), crate::sign::FILE)
}

pub(crate) fn manifest_object(model: &ModelName, digest: &Digest) -> String {
    format!("{}/{MANIFEST}", version_object(model, digest))
}
