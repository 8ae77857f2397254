//! Where versions lie: a folder, or the same folder behind a web server, which can be read only.
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

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER, Wanted, disk,
    manifest::{self, Fault},
    path::{RefName, Version},
    web,
};

const REF_SCHEMA: &str = "outrigger.ref/v1";
const LONGEST_REF: usize = 4_096;

#[derive(Clone, Debug)]
pub enum Store {
    Folder(PathBuf),
    Web(web::Base),
}

#[derive(Serialize, Deserialize)]
struct RefText {
    digest: String,
    schema: String,
}

/// A version that was found, with its manifest's own bytes.
#[derive(Debug)]
pub struct Found {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub manifest: Manifest,
}

/// A ref of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub model: ModelName,
    pub name: RefName,
    pub digest: Digest,
}

impl Store {
    pub fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(Error::usage(
                    format!("{url} names another machine"),
                    "write file:// and an absolute path, as in file:///srv/weights",
                ));
            }
            return Ok(Self::Folder(PathBuf::from(path)));
        }
        if url.starts_with("http://") {
            return web::Base::parse(url).map(Self::Web);
        }
        Err(Error::usage(
            format!("{url} is not a store that this version can use"),
            "give file:///PATH, or to pull http://HOST/PATH; s3://, gs://, az:// and https:// are not built yet",
        ))
    }

    /// The folder, for what needs to write or to list.
    pub fn folder(&self, doing: &str) -> Result<&PathBuf, Error> {
        match self {
            Self::Folder(folder) => Ok(folder),
            Self::Web(_) => {
                Err(Error::usage(format!("a store over http cannot be used to {doing}"), "use its file:// address"))
            }
        }
    }

    /// The version that was asked for. Its manifest has the digest that the ref or the caller named.
    pub async fn find(&self, wanted: &Wanted) -> Result<Found, Error> {
        let digest = match &wanted.version {
            Version::Digest(digest) => *digest,
            Version::Ref(name) => self.resolve(&wanted.model, name).await?.ok_or_else(|| absent(wanted))?,
        };
        let object = manifest_object(&wanted.model, &digest);
        let bytes = self.small(&object, manifest::LONGEST).await?.ok_or_else(|| absent(wanted))?;
        if Digest::of(&bytes) != digest {
            return Err(Error::content(
                format!("{object} is not the manifest of {digest}: it was changed, or another lies in its place"),
                "publish the version again, and find out who writes to the store",
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
        let object = ref_object(model, name);
        let Some(bytes) = self.small(&object, LONGEST_REF).await? else { return Ok(None) };
        parse_ref(&bytes).map(Some).ok_or_else(|| {
            Error::content(
                format!("{object} is not a ref"),
                "publish the version again; `outrigger weights add` writes refs",
            )
        })
    }

    pub(crate) async fn small(&self, object: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Folder(folder) => read_small(&folder.join(object), limit),
            Self::Web(base) => web::small(base, object, limit).await,
        }
    }

    /// A part of an object, as it lies there: for whoever checks it himself.
    pub(crate) async fn range(&self, object: &str, from: u64, len: u64) -> Result<Vec<u8>, Error> {
        let mut reader = crate::transfer::Reader::new(self);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut bytes = Vec::new();
            let mut sink = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok(())
            };
            match reader.read(object, (from, len), &mut sink).await {
                Ok(()) => return Ok(bytes),
                Err(web::Trouble::Stop(error)) => return Err(error),
                Err(web::Trouble::Absent) => {
                    return Err(Error::content(format!("the store has no {object}"), "publish the version again"));
                }
                Err(web::Trouble::Again { why, .. }) if tries == web::TRIES => return Err(web::gave_up(tries, &why)),
                Err(web::Trouble::Again { after, .. }) => {
                    tokio::time::sleep(after.unwrap_or_else(|| web::pause(tries))).await;
                }
            }
        }
    }

    /// All refs, by model and name.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let root = self.folder("list models")?;
        if !root.is_dir() {
            return Err(Error::usage(format!("{} is not a directory", root.display()), "check the path"));
        }
        let refs = root.join("refs");
        let mut listed = Vec::new();
        let folders = |path: &PathBuf| if path.is_dir() { disk::names(path) } else { Ok(Vec::new()) };
        for org in folders(&refs)? {
            for model in folders(&refs.join(&org))? {
                let Ok(model) = format!("{org}/{model}").parse::<ModelName>() else { continue };
                for name in folders(&refs.join(model.as_str()))? {
                    let Ok(name) = name.parse::<RefName>() else { continue };
                    let bytes = read_small(&root.join(ref_object(&model, &name)), LONGEST_REF)?;
                    let Some(digest) = bytes.as_deref().and_then(parse_ref) else { continue };
                    listed.push(Listed { model: model.clone(), name, digest });
                }
            }
        }
        Ok(listed)
    }
}

fn absent(wanted: &Wanted) -> Error {
    Error::content(format!("the store has no {wanted}"), "`outrigger weights ls --from file://…` shows what it has")
}

fn refused(object: &str, fault: &Fault) -> Error {
    Error::content(format!("{object}: {fault}"), "publish the version again with `outrigger weights add`")
}

fn parse_ref(bytes: &[u8]) -> Option<Digest> {
    let text: RefText = serde_json::from_slice(bytes).ok()?;
    if text.schema == REF_SCHEMA { text.digest.parse().ok() } else { None }
}

pub(crate) fn ref_text(digest: &Digest) -> Vec<u8> {
    let text = RefText { digest: digest.to_string(), schema: REF_SCHEMA.to_owned() };
    let mut bytes = serde_json::to_vec(&text).expect("strings can be written");
    bytes.push(b'\n');
    bytes
}

pub(crate) fn ref_object(model: &ModelName, name: &RefName) -> String {
    format!("refs/{model}/{name}")
}

/// The folder of a version.
pub(crate) fn version_object(model: &ModelName, digest: &Digest) -> String {
    format!("models/{model}/{}", digest.short())
}

pub(crate) fn manifest_object(model: &ModelName, digest: &Digest) -> String {
    format!("{}/{OWN_FOLDER}/manifest.json", version_object(model, digest))
}

pub(crate) fn signature_object(model: &ModelName, digest: &Digest) -> String {
    format!("{}/{OWN_FOLDER}/{}", version_object(model, digest), crate::sign::FILE)
}

/// A whole file of at most `limit` bytes; `None` when it is not there.
pub(crate) fn read_small(path: &std::path::Path, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes));
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, &e)),
        Ok(n) if n > limit => {
            Err(Error::content(format!("{} is longer than {limit} bytes", path.display()), "it is not one of ours"))
        }
        Ok(_) => Ok(Some(bytes)),
    }
}
