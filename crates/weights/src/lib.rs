//! Model weights, moved between stores and disks.
//!
//! In the order in which a gigabyte passes: a directory is cut into chunks and written down in a [`manifest`] whose digest is
//! the identity of the version; [`add`] puts both into a [`store`]; [`plan`] says which ranges are missing in a directory;
//! [`transfer`] fetches them and believes none that it has not hashed, with a [`journal`] in the [`target`] directory so that
//! a killed process goes on where it was; [`verify`] reads everything again.
//!
//! Glossary: a *version* is the set of files that one manifest names; a *ref* (`main` unless said otherwise) is a name
//! that points to a version and is moved last; a *chunk* is at most 16 MiB of one file with its own BLAKE3; a *run* is
//! neighbouring chunks that one request asks for.

pub mod add;
pub mod budget;
pub mod diff;
mod disk;
pub mod error;
pub mod gc;
pub mod hub_cache;
pub mod journal;
mod landing;
mod pace;
pub mod preview;
pub mod publish;
pub mod refs;
pub mod replicate;
pub mod reuse;
pub mod sign;
pub mod signing;
mod source;
pub mod store;
pub mod target;
pub mod transfer;
pub mod uploads;
pub mod verify;
mod window;

pub use error::{Error, Kind};
pub use outrigger_manifest::{Digest, Manifest, OWN_FOLDER, cut, hash, manifest, path, plan, safetensors};
pub use path::{ModelName, Wanted};
pub use store::Store;
