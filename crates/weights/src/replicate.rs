//! A version, brought from one store into another: the same objects under the same names, each chunk hashed on its way.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Digest, Error, Manifest, Wanted,
    budget::{Budget, Meter},
    disk,
    path::{RefName, Version},
    publish::{self, Job, Published},
    sign,
    source::Source,
    store::{self, Found, Store},
    transfer::{Event, Watch},
};

/// What to bring where.
#[derive(Clone, Debug)]
pub struct Replicate {
    pub wanted: Wanted,
    /// The ref in the target; that of `wanted` when nothing is said.
    pub reference: Option<RefName>,
    /// Where the journal lies; see [`crate::uploads`].
    pub state: PathBuf,
    /// Whether to read what is in the target, and to send again what is wrong.
    pub repair: bool,
    /// What reading it may cost, with all that was asked for between these two stores before for this version.
    pub budget: Option<Budget>,
}

/// What was brought.
#[derive(Debug)]
pub struct Replicated {
    pub digest: Digest,
    pub manifest: Arc<Manifest>,
    pub reference: RefName,
    pub published: Published,
}

/// Brings a version, and points the target's ref to it.
pub async fn replicate(replicate: Replicate, from: &Store, to: &Store, watch: Watch) -> Result<Replicated, Error> {
    let Replicate { wanted, reference, state, repair, budget } = replicate;
    let reference = match (reference, &wanted.version) {
        (Some(name), _) => name,
        (None, Version::Ref(name)) => name.clone(),
        (None, Version::Digest(_)) => {
            return Err(Error::usage(
                "a version alone is deleted by the next gc",
                "give --ref, the ref that will point to it",
            ));
        }
    };
    let version = from.find(&wanted).await?;
    let digest = version.digest;
    watch(&Event::Found { digest, total: version.manifest.total(), files: version.manifest.files.len() });
    let manifest = Arc::new(version.manifest.clone());
    let folder = store::version_object(&wanted.model, &digest);
    let mut source = Source::stored(from.clone(), &folder, manifest.clone());
    source.meter = Meter::open(&ledger(&state, from, to, &version)?, budget)?;
    source.meter.note(store::control_bytes(&wanted, &version))?;
    let signature = from.whole(&store::signature_object(&wanted.model, &digest), sign::LONGEST).await?;
    let signature = signature.map(|(bytes, _)| Bytes::from(bytes));
    source.meter.note(signature.as_ref().map_or(0, |bytes| bytes.len() as u64))?;
    let job = Job {
        source,
        target: to.clone(),
        version,
        signature,
        reference: reference.clone(),
        state,
        proved: false,
        repair,
    };
    let published = publish::publish(job, watch).await?;
    Ok(Replicated { digest, manifest, reference, published })
}

/// The ledger of what this version costs on its way between two stores, beside the journal of uploads.
fn ledger(state: &Path, from: &Store, to: &Store, version: &Found) -> Result<PathBuf, Error> {
    let folder = state.join("egress");
    disk::make_folder(&folder)?;
    let name = blake3::hash(format!("{from}\n{to}\n{}", version.digest).as_bytes());
    Ok(folder.join(&name.to_hex()[..32]))
}
