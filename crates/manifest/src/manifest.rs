//! The manifest: which files a version of a model has, and the hashes by which every byte of them is known.
//!
//! It is canonical JSON (keys in order, no white space, whole numbers only, so that one version has one text), and its
//! SHA-256 is the version's identity: what is signed, pinned, and named by a ref. A file's SHA-256 is the same that the
//! hub's LFS, model-signing and OCI use; chunks have BLAKE3, which is four times cheaper and can be checked in any order.
//!
//! A text that is not exactly what [`Manifest::to_bytes`] writes is refused: two texts for one version would be two
//! identities. That also refuses repeated keys, unknown keys and numbers out of range, each of which a second reader might
//! read differently. Everything is checked before anything is believed, with the place of the fault.

use std::{collections::BTreeSet, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    cut::{self, Chunker},
    path::{FilePath, ModelName, NameFault, PathFault},
};

pub const SCHEMA: &str = "outrigger.manifest/v1";

/// A model of 2 TB in chunks of 16 MiB has a manifest of 6 MB.
pub const LONGEST: usize = 64 << 20;

/// A chunk in the text: a little-endian `u32` of its length, and its BLAKE3.
const ENTRY: usize = 4 + 32;

/// The identity of a version: the SHA-256 of its manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// What a version's folder in a store is called.
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 small hex digits")]
pub struct DigestFault;

impl FromStr for Digest {
    type Err = DigestFault;

    fn from_str(text: &str) -> Result<Self, DigestFault> {
        text.strip_prefix("sha256:").and_then(unhex).map(Self).ok_or(DigestFault)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub model: ModelName,
    /// By path, ascending.
    pub files: Vec<File>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: FilePath,
    pub size: u64,
    pub sha256: [u8; 32],
    pub chunker: Chunker,
    pub chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub len: u32,
    pub blake3: [u8; 32],
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is longer than 64 MiB")]
    Long,
    #[error("it is not a manifest: {0}")]
    Json(String),
    #[error("its schema is {0:?}, and this version reads {SCHEMA:?}")]
    Schema(String),
    #[error("its model {0:?} is not a name: {1}")]
    Model(String, NameFault),
    #[error("file {0}: its path {1:?} {2}")]
    Path(usize, String, PathFault),
    #[error("{0}: it is named twice, or not in order")]
    Order(String),
    #[error("{0}: it is a file, and also the folder of another")]
    FileAndFolder(String),
    #[error("{0}: its sha256 is not 64 small hex digits")]
    Sha256(String),
    #[error("{0}: its chunker is {1:?}, which this version does not know")]
    Chunker(String, String),
    #[error("{0}: its chunks are not base64 of entries of 36 bytes")]
    Chunks(String),
    #[error("{0}: a chunk is empty or longer than 16 MiB")]
    ChunkLength(String),
    #[error("{0}: its chunks do not add up to its size")]
    Size(String),
    #[error("its files do not add up to its total")]
    Total,
    #[error("it says what it says in another way than ours, so that its digest would not be the version's")]
    NotCanonical,
}

/// The text, with keys in order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    files: Vec<RawFile>,
    model: String,
    schema: String,
    total: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    chunker: String,
    chunks: String,
    path: String,
    sha256: String,
    size: u64,
}

impl Manifest {
    /// Brings files into order and refuses what [`Self::parse`] would refuse.
    pub fn new(model: ModelName, mut files: Vec<File>) -> Result<Self, Fault> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self { model, files };
        manifest.check_paths()?;
        if manifest.to_bytes().len() > LONGEST {
            return Err(Fault::Long);
        }
        Ok(manifest)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > LONGEST {
            return Err(Fault::Long);
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| Fault::Json(e.to_string()))?;
        if raw.schema != SCHEMA {
            return Err(Fault::Schema(raw.schema));
        }
        let model = raw.model.parse().map_err(|fault| Fault::Model(raw.model.clone(), fault))?;
        let files = raw.files.into_iter().enumerate().map(|(at, file)| file.parse(at)).collect::<Result<_, _>>()?;
        let manifest = Self { model, files };
        manifest.check_paths()?;
        if manifest.checked_total() != Some(raw.total) {
            return Err(Fault::Total);
        }
        if manifest.to_bytes() != bytes {
            return Err(Fault::NotCanonical);
        }
        Ok(manifest)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = Raw {
            files: self.files.iter().map(RawFile::of).collect(),
            model: self.model.to_string(),
            schema: SCHEMA.to_owned(),
            total: self.total(),
        };
        serde_json::to_vec(&raw).expect("strings and whole numbers can be written")
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The bytes of all files.
    pub fn total(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    fn checked_total(&self) -> Option<u64> {
        self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size))
    }

    pub fn chunks(&self) -> usize {
        self.files.iter().map(|file| file.chunks.len()).sum()
    }

    fn check_paths(&self) -> Result<(), Fault> {
        let mut folders = BTreeSet::new();
        for file in &self.files {
            folders.extend(file.path.folders());
        }
        let mut before: Option<&FilePath> = None;
        for file in &self.files {
            if before.is_some_and(|before| *before >= file.path) {
                return Err(Fault::Order(file.path.to_string()));
            }
            if folders.contains(file.path.as_str()) {
                return Err(Fault::FileAndFolder(file.path.to_string()));
            }
            before = Some(&file.path);
        }
        Ok(())
    }
}

impl RawFile {
    fn of(file: &File) -> Self {
        let entries: Vec<u8> = file.chunks.iter().flat_map(Chunk::entry).collect();
        Self {
            chunker: file.chunker.name().to_owned(),
            chunks: STANDARD.encode(entries),
            path: file.path.to_string(),
            sha256: hex(&file.sha256),
            size: file.size,
        }
    }

    fn parse(self, at: usize) -> Result<File, Fault> {
        let path: FilePath = self.path.parse().map_err(|fault| Fault::Path(at, self.path.clone(), fault))?;
        let sha256 = unhex(&self.sha256).ok_or_else(|| Fault::Sha256(self.path.clone()))?;
        let chunker = Chunker::ALL
            .into_iter()
            .find(|chunker| chunker.name() == self.chunker)
            .ok_or_else(|| Fault::Chunker(self.path.clone(), self.chunker))?;
        let entries = STANDARD.decode(&self.chunks).map_err(|_| Fault::Chunks(self.path.clone()))?;
        let (entries, []) = entries.as_chunks::<ENTRY>() else { return Err(Fault::Chunks(self.path)) };
        let mut chunks = Vec::with_capacity(entries.len());
        let mut offset = 0_u64;
        for entry in entries {
            let chunk = Chunk::from_entry(entry, offset);
            if !(1..=cut::LONGEST).contains(&chunk.len) {
                return Err(Fault::ChunkLength(self.path));
            }
            // At most a chunk's length for each of its 36 bytes in at most 64 MiB: far from the end of a u64.
            offset += u64::from(chunk.len);
            chunks.push(chunk);
        }
        if offset != self.size {
            return Err(Fault::Size(self.path));
        }
        Ok(File { path, size: self.size, sha256, chunker, chunks })
    }
}

impl Chunk {
    fn entry(&self) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..4].copy_from_slice(&self.len.to_le_bytes());
        entry[4..].copy_from_slice(&self.blake3);
        entry
    }

    fn from_entry(entry: &[u8; ENTRY], offset: u64) -> Self {
        let mut len = [0; 4];
        let mut blake3 = [0; 32];
        len.copy_from_slice(&entry[..4]);
        blake3.copy_from_slice(&entry[4..]);
        Self { offset, len: u32::from_le_bytes(len), blake3 }
    }

    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by another program from the description in docs/weights.md: `golden/make.py`.
    const GOLDEN: &[u8] = include_bytes!("../golden/manifest.json");
    const GOLDEN_DIGEST: &str = include_str!("../golden/manifest.sha256");

    fn golden_text() -> String {
        String::from_utf8(GOLDEN.to_vec()).unwrap()
    }

    #[test]
    fn the_golden_manifest_reads_and_writes_itself() {
        let manifest = Manifest::parse(GOLDEN).unwrap();
        assert_eq!(manifest.to_bytes(), GOLDEN);
        assert_eq!(manifest.digest().hex(), GOLDEN_DIGEST.trim());
        assert_eq!(
            manifest.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
            ["config.json", "empty", "sub/w.bin"]
        );
        assert_eq!(manifest.files[2].chunks.len(), 2);
        assert_eq!(manifest.files[2].chunks[1].offset, 16 << 20);
    }

    #[test]
    fn hostile_manifests_are_refused_with_the_reason() {
        let text = golden_text();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Manifest::parse(text.replace(from, to).as_bytes()).unwrap_err().to_string()
        };
        assert_eq!(refused("sub/w.bin", "../w.bin"), "file 2: its path \"../w.bin\" has `.` or `..` in it");
        assert_eq!(refused("sub/w.bin", "/etc/w"), "file 2: its path \"/etc/w\" is absolute");
        assert_eq!(
            refused("sub/w.bin", ".outrigger/w"),
            "file 2: its path \".outrigger/w\" is in the folder .outrigger, which is not the model's"
        );
        assert_eq!(refused("sub/w.bin", "empty"), "empty: it is named twice, or not in order");
        assert_eq!(refused("sub/w.bin", "a"), "a: it is named twice, or not in order");
        assert_eq!(refused("sub/w.bin", "empty/w"), "empty: it is a file, and also the folder of another");
        assert_eq!(
            refused("manifest/v1", "manifest/v2"),
            "its schema is \"outrigger.manifest/v2\", and this version reads \"outrigger.manifest/v1\""
        );
        assert_eq!(
            refused("acme/tiny", "acme/../x"),
            "its model \"acme/../x\" is not a name: a model is named ORG/MODEL, from letters, digits, `-`, `_` and `.`, at most 96 of them in each part"
        );
        assert_eq!(
            refused("fixed/1", "fixed/9"),
            "config.json: its chunker is \"fixed/9\", which this version does not know"
        );
        assert_eq!(refused("\"size\":0", "\"size\":1"), "empty: its chunks do not add up to its size");
        assert_eq!(refused("\"total\":", "\"total\":1"), "its files do not add up to its total");
        assert_eq!(
            refused("\"schema\"", " \"schema\""),
            "it says what it says in another way than ours, so that its digest would not be the version's"
        );
        assert!(refused("\"total\"", "\"more\":1,\"total\"").starts_with("it is not a manifest: unknown field"));
        assert!(refused("\"size\":0", "\"size\":0.0").starts_with("it is not a manifest: "));
        assert!(refused("\"size\":0", "\"size\":-1").starts_with("it is not a manifest: "));
        assert!(refused("\"size\":0", "\"size\":0,\"size\":0").starts_with("it is not a manifest: duplicate field"));
    }

    #[test]
    fn chunks_of_impossible_lengths_are_refused() {
        for len in [0, cut::LONGEST + 1, u32::MAX] {
            let mut manifest = Manifest::parse(GOLDEN).unwrap();
            manifest.files[0].chunks[0].len = len;
            manifest.files[0].size = u64::from(len);
            let fault = Manifest::parse(&manifest.to_bytes()).unwrap_err();
            assert_eq!(fault, Fault::ChunkLength("config.json".to_owned()), "{len}");
        }
        let mut torn = golden_text();
        torn = torn.replace("\"chunks\":\"\"", "\"chunks\":\"AAAA\"");
        assert_eq!(Manifest::parse(torn.as_bytes()), Err(Fault::Chunks("empty".to_owned())));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{{\"files\":{}", "[".repeat(1_000_000));
        assert!(matches!(Manifest::parse(deep.as_bytes()), Err(Fault::Json(_))));
    }

    fn files() -> impl Strategy<Value = Vec<File>> {
        let file = (
            "[a-z]{1,3}(/[a-z.é]{1,4}x)?",
            proptest::collection::vec((1..=cut::LONGEST, any::<[u8; 32]>()), 0..4),
            any::<[u8; 32]>(),
        );
        proptest::collection::vec(file, 0..6).prop_map(|files| {
            files
                .into_iter()
                .map(|(path, lens, sha256)| {
                    let mut size = 0;
                    let chunks = lens
                        .into_iter()
                        .map(|(len, blake3)| {
                            let offset = size;
                            size += u64::from(len);
                            Chunk { offset, len, blake3 }
                        })
                        .collect();
                    File { path: path.parse().unwrap(), size, sha256, chunker: Chunker::Safetensors, chunks }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(files in files()) {
            if let Ok(manifest) = Manifest::new("a/b".parse().unwrap(), files) {
                prop_assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest));
            }
        }

        /// No other text has the same meaning, and none panics.
        #[test]
        fn one_changed_byte_is_refused_or_another_version(at in 0..GOLDEN.len(), byte in any::<u8>()) {
            let mut bytes = GOLDEN.to_vec();
            let same = bytes[at] == byte;
            bytes[at] = byte;
            if let Ok(manifest) = Manifest::parse(&bytes) {
                prop_assert!(same || manifest.digest().hex() != GOLDEN_DIGEST.trim());
                prop_assert_eq!(manifest.to_bytes(), bytes);
            }
        }

        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::parse(&bytes).is_err());
        }
    }
}
