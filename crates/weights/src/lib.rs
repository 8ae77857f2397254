//! Model weights, moved between stores and disks.
//!
//! In the order in which a gigabyte passes: a directory is cut into chunks ([`cut`], at tensor boundaries where
//! [`safetensors`] finds them) and written down in a [`manifest`] whose digest is the identity of the version; [`add`]
//! puts both into a [`store`]; [`plan`] says which ranges are missing in a directory; [`transfer`] fetches them and
//! believes none that it has not hashed, with a [`journal`] in the [`target`] directory so that a killed process goes on
//! where it was; [`verify`] reads everything again.
//!
//! Glossary: a *version* is the set of files that one manifest names; a *ref* (`main` unless said otherwise) is a name
//! that points to a version and is moved last; a *chunk* is at most 16 MiB of one file with its own BLAKE3; a *run* is
//! neighbouring chunks that one request asks for.
//!
//! `manifest`, `cut`, `safetensors`, `path` and `plan` are plain functions of what they are given.

pub mod add;
pub mod budget;
pub mod cut;
pub mod diff;
mod disk;
pub mod error;
pub mod gc;
pub mod hub_cache;
pub mod journal;
mod landing;
pub mod manifest;
mod pace;
pub mod path;
pub mod plan;
pub mod preview;
pub mod publish;
pub mod refs;
pub mod replicate;
pub mod reuse;
pub mod safetensors;
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
pub use manifest::{Digest, Manifest};
pub use path::{ModelName, Wanted};
pub use store::Store;

/// The folder of ours in a version's directory, in stores and in pulled directories; no model may have a file in it.
pub const OWN_FOLDER: &str = ".outrigger";
