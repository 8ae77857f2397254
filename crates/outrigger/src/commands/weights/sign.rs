//! `outrigger weights sign`: a key vouches for a version or a directory.

use std::path::{Path, PathBuf};

use outrigger_weights::{
    Error, Store, Wanted,
    signing::{self, Place},
    store::Found,
};
use serde_json::json;

use super::{
    super::{Exit, write_out},
    failed,
    progress::Progress,
};

/// Sign a version or a directory, as OpenSSF model signing v1.0 does: `model-signing` reads the signature, and writes such.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A directory; with --from, ORG/MODEL[@REF].
    what: String,
    /// The store.
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// The private key: PEM, on P-256, P-384 or P-521.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Where the signature goes: .outrigger/model.sig of a version, model.sig in another directory, if nothing is said.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Exit {
    match in_bucket(&args.what, args.from.as_deref(), "sign").await {
        Ok(Some((store, found))) => return signed_there(&args, &store, found).await.unwrap_or_else(|e| failed(&e)),
        Ok(None) => {}
        Err(error) => return failed(&error),
    }
    let done = match place(&args.what, args.from.as_deref(), "sign").await {
        Ok((place, name)) => tokio::task::spawn_blocking(move || signed(&args, &place, &name))
            .await
            .unwrap_or_else(|e| Err(Error::environment(format!("a thread ended: {e}"), "try again"))),
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| failed(&error))
}

fn signed(args: &Args, place: &Place, name: &str) -> Result<Exit, Error> {
    let key = signing::private_key(&args.key)?;
    let progress = Progress::to_stderr(args.json);
    let signed = signing::sign(place, name, &key, args.signature.as_deref(), &|bytes| progress.add(bytes));
    progress.clear();
    let path = signed?.display().to_string();
    let digest = place.version.as_ref().map(|(digest, _)| digest.to_string());
    Ok(write_out(&if args.json {
        format!("{}\n", json!({"signature": path, "name": name, "digest": digest}))
    } else {
        let of = digest.map(|digest| format!(", {digest}")).unwrap_or_default();
        format!("{name}{of} is signed: {path}\n")
    }))
}

/// In a bucket, which is read over the network.
async fn signed_there(args: &Args, store: &Store, found: Found) -> Result<Exit, Error> {
    let key = signing::private_key(&args.key)?;
    let Found { digest, manifest, .. } = found;
    let progress = Progress::to_stderr(args.json);
    progress.total(manifest.total());
    let signed = signing::sign_stored(store, &digest, &manifest, &key, &|bytes| progress.add(bytes)).await;
    progress.clear();
    let signature = match &args.signature {
        None => signing::put_signature(store, &manifest.model, &digest, signed?).await?,
        Some(path) => {
            let written = std::fs::write(path, signed?);
            written.map_err(|e| Error::io("write", path, &e)).map(|()| path.display().to_string())?
        }
    };
    let name = manifest.model.to_string();
    Ok(write_out(&if args.json {
        format!("{}\n", json!({"signature": signature, "name": name, "digest": digest.to_string()}))
    } else {
        format!("{name}, {digest} is signed: {signature}\n")
    }))
}

/// The version that was meant, where its store is no folder.
pub(super) async fn in_bucket(what: &str, from: Option<&str>, doing: &str) -> Result<Option<(Store, Found)>, Error> {
    let Some(from) = from else { return Ok(None) };
    let store = Store::parse(from)?;
    match &store {
        Store::Folder(_) => return Ok(None),
        Store::Web(_) if doing == "sign" => return Err(store.read_only(doing)),
        _ => {}
    }
    let found = store.find(&wanted(what)?).await?;
    Ok(Some((store, found)))
}

fn wanted(what: &str) -> Result<Wanted, Error> {
    what.parse().map_err(|e| Error::usage(format!("{what:?}: {e}"), "give ORG/MODEL[@REF]"))
}

/// The files that were meant, and what they are called.
pub(super) async fn place(what: &str, from: Option<&str>, doing: &str) -> Result<(Place, String), Error> {
    let Some(from) = from else {
        let dir = Path::new(what);
        let place = Place::directory(dir)?;
        let name = match &place.version {
            Some((_, manifest)) => manifest.model.to_string(),
            None => std::fs::canonicalize(dir)
                .ok()
                .and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()))
                .unwrap_or_default(),
        };
        return Ok((place, name));
    };
    let wanted = wanted(what)?;
    let store = Store::parse(from)?;
    let root = store.folder(&format!("{doing} in place"))?.to_owned();
    let found = store.find(&wanted).await?;
    Ok((Place::in_store(&root, &wanted.model, found), wanted.model.to_string()))
}
