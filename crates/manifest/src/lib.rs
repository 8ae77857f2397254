//! What a version of a model is, as plain functions of bytes and names.
//!
//! A file is [cut] into chunks, at tensor boundaries where [`safetensors`] finds them, and known by its [hashes](hash); the
//! [`manifest`] writes that down, and its digest is the identity of the version. [`path`] has the names, which come from
//! outside and become paths on a disk; [`plan`] says which ranges to ask for from what is missing.

pub mod cut;
pub mod hash;
pub mod manifest;
pub mod path;
pub mod plan;
pub mod safetensors;

pub use manifest::{Digest, Manifest};

/// The folder of ours in a version's directory, in stores and in pulled directories; no model may have a file in it.
pub const OWN_FOLDER: &str = ".outrigger";
