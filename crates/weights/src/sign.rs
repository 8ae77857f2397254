//! Who published a version: a signature over the names and hashes of its files, by a key that a verifier has already.
//!
//! The format is that of OpenSSF model signing v1.0 in its key mode (sigstore/model-transparency, `docs/model_signing_format.md`
//! and what its PyPI package `model-signing` 1.1 reads and writes): an in-toto statement in a DSSE envelope in a Sigstore
//! bundle. Its files' SHA-256 are those of our manifest, so that one signature serves both tools and nothing is hashed for it
//! that was not hashed before. ECDSA on P-256, P-384 and P-521, each with the SHA-2 of its size; the arithmetic is
//! `aws-lc-rs`, which TLS brings already.
//!
//! A predicate may have more than v1.0 knows and verifiers ignore that: ours also names the manifest's digest. It ties the
//! chunks' BLAKE3, which a pull goes by, to the key; without it a store could put other chunks under the right SHA-256, and
//! only the reading of whole files would tell.
//!
//! Nothing of the statement is looked at before the signature over its bytes was right.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair as _, ParsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Digest, OWN_FOLDER,
    manifest::{hex, unhex},
    path::{FilePath, PathFault},
    verify::{Problem, What},
};

/// What a signature's file is called: below [`OWN_FOLDER`] in what is ours, since models are published with one of their own.
pub const FILE: &str = "model.sig";

/// A hundred thousand files have 30 MB.
pub const LONGEST: usize = 64 << 20;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// What `model-signing` leaves out unless told otherwise. It leaves them out in verifying too, so that a signature over one
/// of them would be refused by it; they say nothing that a model is loaded from.
const GIT: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

const CURVES: [(&EcdsaSigningAlgorithm, &EcdsaVerificationAlgorithm); 3] = [
    (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P256_SHA256_ASN1),
    (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_ASN1),
    (&signature::ECDSA_P521_SHA512_ASN1_SIGNING, &signature::ECDSA_P521_SHA512_ASN1),
];

/// What is wrong with a key's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("it holds no private key in PEM (`BEGIN PRIVATE KEY` or `BEGIN EC PRIVATE KEY`, without a password)")]
    NoPrivate,
    #[error("it holds no public key in PEM (`BEGIN PUBLIC KEY`)")]
    NoPublic,
    #[error("its key is not an elliptic one on P-256, P-384 or P-521")]
    Curve,
}

/// What is wrong with a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is not a Sigstore bundle with a DSSE envelope: {0}")]
    Bundle(String),
    #[error("its media type is {0:?}, and this version reads {BUNDLE:?}")]
    MediaType(String),
    #[error("it has {0} signatures where one is expected")]
    Count(usize),
    #[error("it was made by another key: it names the one whose SHA-256 is {named}, and the given one's is {given}")]
    OtherKey { named: String, given: String },
    #[error("it is not this key's signature over what it says: either was changed, or another key made it")]
    Signature,
    #[error("what is signed is not an in-toto statement: {0}")]
    Statement(String),
    #[error("what is signed is a {0:?}, and this version reads {PREDICATE:?}")]
    Predicate(String),
    #[error("what is signed has {0} subjects where one is expected")]
    Subjects(usize),
    #[error("what is signed contradicts itself: the hashes of the files do not add up to the subject's")]
    Root,
    #[error("it signs {0}, and this version reads whole files by SHA-256 without symbolic links")]
    Serialization(String),
    #[error("it signs a file whose path {0:?} {1}")]
    Path(String, PathFault),
    #[error("it signs {0} twice")]
    Twice(String),
    #[error("its hash of {0} is not a SHA-256 in 64 small hex digits")]
    Hash(String),
}

/// A private key, to sign with.
#[derive(Debug)]
pub struct PrivateKey(EcdsaKeyPair);

impl PrivateKey {
    /// From PEM: PKCS #8, or what `openssl ecparam -genkey` writes.
    pub fn parse(pem: &[u8]) -> Result<Self, KeyFault> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyFault::NoPrivate)?;
        let der = der.secret_der();
        let pair = CURVES.iter().find_map(|(curve, _)| EcdsaKeyPair::from_private_key_der(curve, der).ok());
        pair.map(Self).ok_or(KeyFault::Curve)
    }
}

/// A public key, to verify with.
#[derive(Debug)]
pub struct PublicKey(ParsedPublicKey);

impl PublicKey {
    /// From PEM, as `openssl ec -pubout` writes it.
    pub fn parse(pem: &[u8]) -> Result<Self, KeyFault> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| KeyFault::NoPublic)?;
        let key = CURVES.iter().find_map(|(_, curve)| ParsedPublicKey::new(*curve, &der).ok());
        key.map(Self).ok_or(KeyFault::Curve)
    }

    fn hint(&self) -> Result<String, KeyFault> {
        self.0.as_der().map(|der| hint(der.as_ref())).map_err(|_| KeyFault::Curve)
    }
}

/// How a bundle names a key: by the SHA-256 of its PEM, with a line for every 64 digits of base64.
fn hint(der: &[u8]) -> String {
    let digits = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in digits.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|digit| char::from(*digit)));
        pem.push('\n');
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    hex(&Sha256::digest(pem))
}

/// What a signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What the signer called it; nothing depends on it.
    pub name: String,
    pub files: BTreeMap<FilePath, [u8; 32]>,
    /// What the signer left out: files, and folders with all below them.
    pub ignored: Vec<String>,
    /// The manifest, where outrigger signed.
    pub manifest: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<KeyName>,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyName {
    hint: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Serialize, Deserialize)]
struct RawSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: RootDigest,
}

#[derive(Serialize, Deserialize)]
struct RootDigest {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    resources: Vec<Resource>,
    serialization: Serialization,
    #[serde(skip_serializing_if = "Option::is_none")]
    outrigger: Option<Ours>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    digest: String,
    algorithm: String,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Ours {
    manifest: String,
}

/// What is left out of a signature that is made here; `more` is the signature's own file, where it lies among the others.
pub fn left_out(more: Option<&str>) -> Vec<String> {
    let own = [".cache", OWN_FOLDER];
    GIT.into_iter().chain(own).chain(more).map(str::to_owned).collect()
}

/// Whether a list of what is left out has a path, or a folder above it.
pub fn is_left_out(ignored: &[String], path: &str) -> bool {
    ignored
        .iter()
        .any(|one| path.strip_prefix(one.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Signs files by their names and SHA-256, without those that are left out.
pub fn sign(signed: &Signed, key: &PrivateKey) -> Result<Vec<u8>, KeyFault> {
    let payload = serde_json::to_vec(&statement(signed)).expect("strings can be written");
    let sig = key.0.sign(&SystemRandom::new(), &envelope_text(&payload)).map_err(|_| KeyFault::Curve)?;
    let der = key.0.public_key().as_der().map_err(|_| KeyFault::Curve)?;
    let bundle = Bundle {
        media_type: BUNDLE.to_owned(),
        verification_material: Material {
            public_key: Some(KeyName { hint: Some(hint(der.as_ref())) }),
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: STANDARD.encode(&payload),
            payload_type: PAYLOAD.to_owned(),
            signatures: vec![RawSignature { sig: STANDARD.encode(sig), keyid: String::new() }],
        },
    };
    let mut bytes = serde_json::to_vec(&bundle).expect("strings can be written");
    bytes.push(b'\n');
    Ok(bytes)
}

fn statement(signed: &Signed) -> Statement {
    let mut files: Vec<(&FilePath, &[u8; 32])> =
        signed.files.iter().filter(|(path, _)| !is_left_out(&signed.ignored, path.as_str())).collect();
    // Name by name and not letter by letter: the order in which `model-signing` writes.
    files.sort_by(|(a, _), (b, _)| a.as_str().split('/').cmp(b.as_str().split('/')));
    let resource = |(path, sha256): (&FilePath, &[u8; 32])| Resource {
        name: path.to_string(),
        digest: hex(sha256),
        algorithm: "sha256".to_owned(),
    };
    let root = root(files.iter().map(|(_, sha256)| *sha256));
    Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![Subject { name: signed.name.clone(), digest: RootDigest { sha256: hex(&root) } }],
        predicate_type: PREDICATE.to_owned(),
        predicate: Predicate {
            resources: files.into_iter().map(resource).collect(),
            serialization: Serialization {
                method: "files".to_owned(),
                hash_type: "sha256".to_owned(),
                allow_symlinks: false,
                ignore_paths: signed.ignored.clone(),
            },
            outrigger: signed.manifest.map(|digest| Ours { manifest: digest.to_string() }),
        },
    }
}

fn root<'a>(hashes: impl Iterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut all = Sha256::new();
    hashes.for_each(|hash| all.update(hash));
    all.finalize().into()
}

/// What is signed over: DSSE v1's pre-authentication encoding.
fn envelope_text(payload: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len()).into_bytes();
    text.extend_from_slice(payload);
    text
}

/// What a signature says, if it is this key's.
pub fn open(bytes: &[u8], key: &PublicKey) -> Result<Signed, Fault> {
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(|e| Fault::Bundle(e.to_string()))?;
    if bundle.media_type != BUNDLE {
        return Err(Fault::MediaType(bundle.media_type));
    }
    let envelope = bundle.dsse_envelope;
    let [signature] = &envelope.signatures[..] else { return Err(Fault::Count(envelope.signatures.len())) };
    if envelope.payload_type != PAYLOAD {
        return Err(Fault::Statement(format!("its type is {:?}", envelope.payload_type)));
    }
    if let (Some(named), Ok(given)) = (bundle.verification_material.public_key.and_then(|name| name.hint), key.hint())
        && named != given
    {
        return Err(Fault::OtherKey { named, given });
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|e| Fault::Bundle(e.to_string()));
    let payload = decode(&envelope.payload)?;
    key.0.verify_sig(&envelope_text(&payload), &decode(&signature.sig)?).map_err(|_| Fault::Signature)?;
    read(&payload)
}

fn read(payload: &[u8]) -> Result<Signed, Fault> {
    let statement: Statement = serde_json::from_slice(payload).map_err(|e| Fault::Statement(e.to_string()))?;
    if statement.kind != STATEMENT {
        return Err(Fault::Statement(format!("it is a {:?}", statement.kind)));
    }
    if statement.predicate_type != PREDICATE {
        return Err(Fault::Predicate(statement.predicate_type));
    }
    let [subject] = &statement.subject[..] else { return Err(Fault::Subjects(statement.subject.len())) };
    let Predicate { resources, serialization: how, outrigger } = statement.predicate;
    if (how.method.as_str(), how.hash_type.as_str(), how.allow_symlinks) != ("files", "sha256", false) {
        let links = if how.allow_symlinks { " through symbolic links" } else { "" };
        return Err(Fault::Serialization(format!("{} by {}{links}", how.method, how.hash_type)));
    }
    let mut files = BTreeMap::new();
    let mut hashes = Vec::with_capacity(resources.len());
    for resource in resources {
        let path: FilePath = resource.name.parse().map_err(|fault| Fault::Path(resource.name.clone(), fault))?;
        let sha256 = Some(&resource.digest).filter(|_| resource.algorithm == "sha256").and_then(|text| unhex(text));
        let sha256 = sha256.ok_or_else(|| Fault::Hash(resource.name.clone()))?;
        hashes.push(sha256);
        if files.insert(path, sha256).is_some() {
            return Err(Fault::Twice(resource.name));
        }
    }
    if hex(&root(hashes.iter())) != subject.digest.sha256 {
        return Err(Fault::Root);
    }
    let manifest = outrigger.map(|ours| ours.manifest.parse()).transpose();
    let manifest = manifest.map_err(|fault: crate::manifest::DigestFault| Fault::Statement(fault.to_string()))?;
    Ok(Signed { name: subject.name.clone(), files, ignored: how.ignore_paths, manifest })
}

impl Signed {
    /// How files that are there differ from those that were signed.
    pub fn compare<'a>(&self, there: impl IntoIterator<Item = (&'a FilePath, &'a [u8; 32])>) -> Vec<Problem> {
        let mut seen = BTreeSet::new();
        let mut problems = Vec::new();
        for (path, sha256) in there {
            let what = match self.files.get(path) {
                Some(signed) if signed == sha256 => None,
                Some(_) => Some(What::NotAsSigned),
                None if is_left_out(&self.ignored, path.as_str()) => None,
                None => Some(What::NotSigned),
            };
            seen.insert(path);
            problems.extend(what.map(|what| Problem { path: path.to_string(), what }));
        }
        let missing = self.files.keys().filter(|path| !seen.contains(path));
        problems.extend(missing.map(|path| Problem { path: path.to_string(), what: What::Missing }));
        problems
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by `model-signing` 1.1.1 and openssl: `golden/make-signature.sh`.
    const THEIRS: &[u8] = include_bytes!("../golden/model.sig");
    const THEIR_KEY: &[u8] = include_bytes!("../golden/public.pem");

    fn pair(curve: usize) -> (PrivateKey, PublicKey) {
        let pair = EcdsaKeyPair::generate(CURVES[curve].0).unwrap();
        let der = pair.public_key().as_der().unwrap();
        let public = PublicKey(ParsedPublicKey::new(CURVES[curve].1, der.as_ref()).unwrap());
        (PrivateKey(pair), public)
    }

    fn signed() -> Signed {
        let files = [("a.txt", 1), ("a/b", 2), ("config.json", 3)];
        Signed {
            name: "acme/tiny".to_owned(),
            files: files.map(|(path, n)| (path.parse().unwrap(), [n; 32])).into(),
            ignored: left_out(None),
            manifest: Some(Digest([9; 32])),
        }
    }

    #[test]
    fn a_signature_of_the_other_tool_is_read() {
        let signed = open(THEIRS, &PublicKey::parse(THEIR_KEY).unwrap()).unwrap();
        let paths: Vec<&str> = signed.files.keys().map(FilePath::as_str).collect();
        assert_eq!(paths, ["config.json", "empty", "sub.txt", "sub/w.bin"]);
        assert_eq!(hex(&signed.files[&"empty".parse().unwrap()]), hex(&Sha256::digest(b"")));
        assert!(signed.ignored.iter().any(|path| path == OWN_FOLDER) && signed.manifest.is_none());
    }

    #[test]
    fn what_was_signed_is_read_again_on_every_curve() {
        for curve in 0..CURVES.len() {
            let (private, public) = pair(curve);
            assert_eq!(open(&sign(&signed(), &private).unwrap(), &public), Ok(signed()));
            let (_, other) = pair(curve);
            assert!(matches!(open(&sign(&signed(), &private).unwrap(), &other), Err(Fault::OtherKey { .. })));
        }
    }

    /// The hint is outside of what is signed: without it, the signature itself has to tell.
    #[test]
    fn another_keys_signature_is_refused_without_its_hint() {
        let (private, public) = pair(0);
        let (_, other) = pair(0);
        let text = String::from_utf8(sign(&signed(), &private).unwrap()).unwrap();
        let text = text.replace(&public.hint().unwrap(), &other.hint().unwrap());
        assert_eq!(open(text.as_bytes(), &other), Err(Fault::Signature));
    }

    #[test]
    fn git_files_are_left_out_as_the_other_tool_does() {
        let (private, public) = pair(0);
        let mut more = signed();
        more.files.insert(".gitattributes".parse().unwrap(), [4; 32]);
        more.files.insert(".github/x".parse().unwrap(), [4; 32]);
        more.files.insert(".gitter".parse().unwrap(), [5; 32]);
        let read = open(&sign(&more, &private).unwrap(), &public).unwrap();
        assert_eq!(read.files.len(), signed().files.len() + 1);
        assert!(read.compare(&more.files).is_empty());
    }

    #[test]
    fn differences_are_named() {
        let signed = signed();
        let mut there = signed.files.clone();
        there.insert("a/b".parse().unwrap(), [7; 32]);
        there.remove(&"a.txt".parse().unwrap());
        there.insert("evil.py".parse().unwrap(), [8; 32]);
        there.insert(".outriggers".parse().unwrap(), [8; 32]);
        let found: Vec<(String, &str)> = signed.compare(&there).into_iter().map(|p| (p.path, p.what.name())).collect();
        let expected =
            [(".outriggers", "not_signed"), ("a/b", "not_as_signed"), ("evil.py", "not_signed"), ("a.txt", "missing")];
        assert_eq!(found, expected.map(|(path, what)| (path.to_owned(), what)));
    }

    /// Statements that the key did sign, and that cannot be meant.
    #[test]
    fn a_statement_that_contradicts_itself_is_refused() {
        let text = String::from_utf8(serde_json::to_vec(&statement(&signed())).unwrap()).unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            read(text.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        assert_eq!(refused(&"02".repeat(32), &"03".repeat(32)), Fault::Root);
        assert_eq!(refused("\"a/b\"", "\"../b\""), Fault::Path("../b".to_owned(), PathFault::Traversal));
        assert_eq!(refused("\"a/b\"", "\"config.json\""), Fault::Twice("config.json".to_owned()));
        assert_eq!(refused("signature/v1.0", "signature/v2.0"), Fault::Predicate(PREDICATE.replace("1.0", "2.0")));
        assert!(matches!(refused("\"files\"", "\"shards\""), Fault::Serialization(_)));
        assert!(matches!(refused("Statement/v1", "Statement/v0"), Fault::Statement(_)));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_refused() {
        assert_eq!(PrivateKey::parse(b"no key").unwrap_err(), KeyFault::NoPrivate);
        assert_eq!(PublicKey::parse(b"no key").unwrap_err(), KeyFault::NoPublic);
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert_eq!(PublicKey::parse(ed25519.as_bytes()).unwrap_err(), KeyFault::Curve);
    }

    proptest! {
        #[test]
        fn no_bundle_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(open(&bytes, &PublicKey::parse(THEIR_KEY).unwrap()));
        }

        /// One byte of a good bundle changed: what is read is what was signed, or nothing.
        #[test]
        fn a_tampered_bundle_says_nothing_else(at in 0..THEIRS.len(), byte in any::<u8>()) {
            let key = PublicKey::parse(THEIR_KEY).unwrap();
            let mut bytes = THEIRS.to_vec();
            bytes[at] = byte;
            if let Ok(read) = open(&bytes, &key) {
                prop_assert_eq!(read, open(THEIRS, &key).unwrap());
            }
        }
    }
}
