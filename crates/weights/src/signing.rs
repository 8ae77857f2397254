//! Versions and directories, signed and checked against a signature: which file is read and written where.
//!
//! A version's signature is `.outrigger/model.sig` beside its manifest, in a store and in a pulled directory alike. A
//! directory that no manifest describes is signed as `model-signing` signs: into `model.sig` among its files. Either lies
//! elsewhere if the caller says so. Whoever signs a version has read all of it first: a signature says more than that there
//! was a manifest.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Digest, Error, Manifest, ModelName, OWN_FOLDER, Store, add, disk,
    sign::{self, PrivateKey, PublicKey, Signed},
    store::{self, Found, read_small},
    target,
    verify::{self, Problem},
};

const LONGEST_KEY: usize = 64 << 10;

const NOT_SIGNED: &str = "pull the version again, or publish it again with --repair";

/// Files that are signed or checked.
#[derive(Debug)]
pub struct Place {
    pub folder: PathBuf,
    /// `None` where no manifest describes them.
    pub version: Option<(Digest, Manifest)>,
    /// What a pulled directory says of itself.
    pub ready: Option<bool>,
}

impl Place {
    /// A directory: pulled, or any other.
    pub fn directory(dir: &Path) -> Result<Self, Error> {
        if !dir.join(OWN_FOLDER).join("manifest.json").exists() {
            if !dir.is_dir() {
                return Err(Error::usage(
                    format!("{} is not a directory", dir.display()),
                    "give the model's directory",
                ));
            }
            return Ok(Self { folder: dir.to_owned(), version: None, ready: None });
        }
        let (digest, manifest, ready) = target::manifest_of(dir)?;
        Ok(Self { folder: dir.to_owned(), version: Some((digest, manifest)), ready: Some(ready) })
    }

    /// A version where it lies in a store.
    pub fn in_store(root: &Path, model: &ModelName, found: Found) -> Self {
        let folder = add::version_folder(root, model, &found.digest);
        Self { folder, version: Some((found.digest, found.manifest)), ready: None }
    }

    fn own_signature(&self) -> PathBuf {
        match self.version {
            Some(_) => self.folder.join(OWN_FOLDER).join(sign::FILE),
            None => self.folder.join(sign::FILE),
        }
    }

    /// Where a signature lies if nobody says: ours, or the one that the model was published with.
    fn signature(&self) -> Result<PathBuf, Error> {
        let own = self.own_signature();
        let published = self.folder.join(sign::FILE);
        [own.clone(), published].into_iter().find(|path| path.exists()).ok_or_else(|| {
            Error::content(
                format!("{} is not there", own.display()),
                "`outrigger weights sign` makes it; --signature says where else one lies",
            )
        })
    }

    /// A path's name below the folder, where it is below it.
    fn name_of(&self, path: &Path) -> Option<String> {
        let path = fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?);
        let below = path.strip_prefix(fs::canonicalize(&self.folder).ok()?).ok()?.to_str()?.to_owned();
        Some(below)
    }
}

pub fn private_key(path: &Path) -> Result<PrivateKey, Error> {
    PrivateKey::parse(&small(path, "key", LONGEST_KEY)?).map_err(|fault| not_a_key(path, fault))
}

pub fn public_key(path: &Path) -> Result<PublicKey, Error> {
    PublicKey::parse(&small(path, "key", LONGEST_KEY)?).map_err(|fault| not_a_key(path, fault))
}

fn not_a_key(path: &Path, fault: sign::KeyFault) -> Error {
    Error::usage(
        format!("{}: {fault}", path.display()),
        "make a pair with `openssl ecparam -name prime256v1 -genkey -noout -out private.pem` and \
         `openssl ec -in private.pem -pubout -out public.pem`",
    )
}

fn small(path: &Path, what: &str, limit: usize) -> Result<Vec<u8>, Error> {
    read_small(path, limit)?
        .ok_or_else(|| Error::usage(format!("there is no {what} at {}", path.display()), "check the path"))
}

/// Signs what is there, having read all of it; where the signature lies.
pub fn sign(
    place: &Place,
    name: &str,
    key: &PrivateKey,
    to: Option<&Path>,
    on_bytes: &dyn Fn(u64),
) -> Result<PathBuf, Error> {
    let to = to.map_or_else(|| place.own_signature(), Path::to_owned);
    let beside = place.name_of(&to).filter(|name| !sign::is_left_out(&sign::left_out(None), name));
    let ignored = sign::left_out(beside.as_deref());
    let (files, manifest) = match &place.version {
        Some((digest, manifest)) => {
            if let Some(problem) = verify::verify(&place.folder, manifest, on_bytes)?.first() {
                return Err(Error::content(format!("nothing was signed: {problem}"), NOT_SIGNED));
            }
            let files = manifest.files.iter().map(|file| (file.path.clone(), file.sha256)).collect();
            (files, Some(*digest))
        }
        None => (verify::hashes(&place.folder, &ignored, on_bytes)?.into_iter().collect(), None),
    };
    let signed = Signed { name: name.to_owned(), files, ignored, manifest };
    let bytes = sign::sign(&signed, key).map_err(|fault| Error::usage(fault.to_string(), "give another key"))?;
    disk::write_atomically(&to, &bytes)?;
    Ok(to)
}

/// The same of a version in a store that is not a folder; the bytes of the signature.
pub async fn sign_stored(
    store: &Store,
    digest: &Digest,
    manifest: &Manifest,
    key: &PrivateKey,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>, Error> {
    if let Some(problem) = verify::verify_stored(store, manifest, digest, on_bytes).await?.first() {
        return Err(Error::content(format!("nothing was signed: {problem}"), NOT_SIGNED));
    }
    let files = manifest.files.iter().map(|file| (file.path.clone(), file.sha256)).collect();
    let ignored = sign::left_out(None);
    let signed = Signed { name: manifest.model.to_string(), files, ignored, manifest: Some(*digest) };
    sign::sign(&signed, key).map_err(|fault| Error::usage(fault.to_string(), "give another key"))
}

/// Puts a signature beside a version; the object's name.
pub async fn put_signature(
    store: &Store,
    model: &ModelName,
    digest: &Digest,
    signature: Vec<u8>,
) -> Result<String, Error> {
    let object = store::signature_object(model, digest);
    store.put(&object, &bytes::Bytes::from(signature), &store::When::Always).await?;
    Ok(object)
}

/// Reads a version where it lies in a store, and compares it with what the key has signed.
pub async fn check_stored(
    store: &Store,
    digest: &Digest,
    manifest: &Manifest,
    (key, signature): (&PublicKey, Option<&Path>),
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Problem>, Error> {
    let (bytes, what) = match signature {
        Some(path) => (small(path, "signature", sign::LONGEST)?, path.display().to_string()),
        None => {
            let object = store::signature_object(&manifest.model, digest);
            let there = store.whole(&object, sign::LONGEST).await?;
            (there.ok_or_else(|| not_signed(&manifest.model, digest))?.0, object)
        }
    };
    let signed = read(&bytes, &what, key)?;
    of_version(&signed, *digest, &what)?;
    let mut problems = verify::verify_stored(store, manifest, digest, on_bytes).await?;
    problems.extend(signed.compare(manifest.files.iter().map(|file| (&file.path, &file.sha256))));
    Ok(problems)
}

fn not_signed(model: &ModelName, digest: &Digest) -> Error {
    Error::content(format!("{model} {digest} is not signed"), "`outrigger weights sign` signs a version in its store")
}

/// Reads everything, and compares it with what the key has signed.
pub fn check(
    place: &Place,
    key: &PublicKey,
    signature: Option<&Path>,
    on_bytes: &dyn Fn(u64),
) -> Result<Vec<Problem>, Error> {
    let path = signature.map_or_else(|| place.signature(), |path| Ok(path.to_owned()))?;
    let mut signed = read(&small(&path, "signature", sign::LONGEST)?, &path.display().to_string(), key)?;
    let Some((digest, manifest)) = &place.version else {
        // As the other tool does: a signature does not sign itself.
        signed.ignored.extend(place.name_of(&path));
        signed.ignored.push(OWN_FOLDER.to_owned());
        let there = verify::hashes(&place.folder, &signed.ignored, on_bytes)?;
        return Ok(signed.compare(there.iter().map(|(path, sha256)| (path, sha256))));
    };
    of_version(&signed, *digest, &path.display().to_string())?;
    let mut problems = verify::verify(&place.folder, manifest, on_bytes)?;
    problems.extend(signed.compare(manifest.files.iter().map(|file| (&file.path, &file.sha256))));
    Ok(problems)
}

fn read(bytes: &[u8], what: &str, key: &PublicKey) -> Result<Signed, Error> {
    sign::open(bytes, key).map_err(|fault| {
        Error::content(
            format!("{what}: {fault}"),
            "find out who signs, and who writes there; do not use the model before",
        )
    })
}

/// Refuses a signature that names another manifest.
fn of_version(signed: &Signed, digest: Digest, what: &str) -> Result<(), Error> {
    match signed.manifest {
        Some(manifest) if manifest != digest => Err(Error::content(
            format!("{what} signs {manifest}, and this is {digest}"),
            "it was copied from another version: sign this one, or pull that one",
        )),
        _ => Ok(()),
    }
}

/// The signature of a version in a store, if the key has signed this manifest: to know before anything of it is fetched.
pub(crate) async fn vouched(
    store: &Store,
    model: &ModelName,
    key: &PublicKey,
    digest: Digest,
    manifest: &Manifest,
) -> Result<Vec<u8>, Error> {
    let object = store::signature_object(model, &digest);
    let there = store.whole(&object, sign::LONGEST).await?;
    let (bytes, _) = there.ok_or_else(|| not_signed(model, &digest))?;
    let signed = read(&bytes, &object, key)?;
    of_version(&signed, digest, &object)?;
    if signed.manifest.is_none() {
        return Err(Error::content(
            format!("{object} was made by another tool and does not name the manifest, by whose hashes a pull goes"),
            "pull without --key, then `outrigger weights verify DIR --key`; or sign with `outrigger weights sign`",
        ));
    }
    match signed.compare(manifest.files.iter().map(|file| (&file.path, &file.sha256))).first() {
        Some(problem) => {
            Err(Error::content(format!("{object}: {problem}"), "sign the version again with `outrigger weights sign`"))
        }
        None => Ok(bytes),
    }
}
