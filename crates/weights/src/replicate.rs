//! A version, brought from one store into another: the same objects under the same names, each chunk hashed on its way.

use std::{path::PathBuf, sync::Arc};

use crate::{
    Digest, Error, Manifest, Wanted,
    path::{RefName, Version},
    publish::{self, Job, Published},
    source::Source,
    store::{self, Store},
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
    let Replicate { wanted, reference, state } = replicate;
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
    let source = Source::stored(from.clone(), &folder, manifest.clone());
    let job = Job { source, target: to.clone(), version, reference: reference.clone(), state };
    let published = publish::publish(job, watch).await?;
    Ok(Replicated { digest, manifest, reference, published })
}
