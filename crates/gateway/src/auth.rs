//! Who is asking: the client's key, compared by hash.
//!
//! Keys are random and at least 128 bits long, so that a plain SHA-256 is enough and a guess is hopeless. The comparison
//! still takes the same time for every key: hashes of one length, all of them, each to its last byte. A test counts the
//! comparisons; that one takes the same time wherever two hashes differ is `subtle`'s to keep, and no test here measures it.

use http::HeaderMap;
use outrigger_core::fleet::KeyId;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The hashes of all keys in force.
#[derive(Debug, Default)]
pub struct KeyRing {
    hashes: Vec<([u8; 32], KeyId)>,
    required: bool,
}

impl KeyRing {
    pub fn new(hashes: impl Iterator<Item = ([u8; 32], KeyId)>, required: bool) -> Self {
        Self { hashes: hashes.collect(), required }
    }

    /// The key of a request: `None` inside when the fleet has no keys and everyone may ask.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Option<KeyId>, AuthFault> {
        if !self.required {
            return Ok(None);
        }
        let presented = presented(headers).ok_or(AuthFault::Missing)?;
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        self.find(&hash, <[u8]>::ct_eq).map(Some).ok_or(AuthFault::Unknown)
    }

    /// Looks at all of them, also after one was equal.
    fn find(&self, hash: &[u8; 32], mut equal: impl FnMut(&[u8], &[u8]) -> Choice) -> Option<KeyId> {
        let mut found = None;
        for (known, id) in &self.hashes {
            if bool::from(equal(known, hash)) {
                found = Some(*id);
            }
        }
        found
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    #[error("no API key was given: send it as `Authorization: Bearer KEY`")]
    Missing,
    #[error("this API key is not known here")]
    Unknown,
}

/// The key as OpenAI's clients send it, or as Anthropic's and Azure's do.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
        let (scheme, key) = v.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| ["x-api-key", "api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(ring: &KeyRing, name: &'static str, value: &str) -> Result<Option<KeyId>, AuthFault> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        ring.identify(&headers)
    }

    #[test]
    fn a_key_is_known_by_its_hash_under_each_clients_header() {
        let ring = KeyRing::new([(Sha256::digest(b"sk-one").into(), KeyId(3))].into_iter(), true);
        assert_eq!(identify(&ring, "authorization", "Bearer sk-one"), Ok(Some(KeyId(3))));
        assert_eq!(identify(&ring, "authorization", "bearer sk-one"), Ok(Some(KeyId(3))));
        assert_eq!(identify(&ring, "x-api-key", "sk-one"), Ok(Some(KeyId(3))));
        assert_eq!(identify(&ring, "authorization", "Bearer sk-two"), Err(AuthFault::Unknown));
        assert_eq!(identify(&ring, "authorization", "Basic sk-one"), Err(AuthFault::Missing));
        assert_eq!(ring.identify(&HeaderMap::new()), Err(AuthFault::Missing));
    }

    #[test]
    fn every_hash_is_compared_whichever_key_was_given() {
        let keys: Vec<[u8; 32]> = (0..5).map(|n: u8| Sha256::digest([n]).into()).collect();
        let ring = KeyRing::new(keys.iter().zip(0..).map(|(hash, id)| (*hash, KeyId(id))), true);
        for (given, expect) in
            keys.iter().copied().zip((0..).map(|id| Some(KeyId(id)))).chain([(Sha256::digest(b"x").into(), None)])
        {
            let mut compared = Vec::new();
            let found = ring.find(&given, |known, hash| {
                compared.push(<[u8; 32]>::try_from(known).expect("a whole hash"));
                known.ct_eq(hash)
            });
            assert_eq!((found, &compared), (expect, &keys));
        }
    }

    /// Equality that stops at the first byte that differs is one `==` away.
    #[test]
    fn hashes_and_tokens_are_compared_by_nothing_else() {
        for source in [include_str!("auth.rs"), include_str!("admin/mod.rs")] {
            let code = source.split("#[cfg(test)]").next().expect("a first part");
            assert!(code.contains("ct_eq"));
            for line in code.lines().filter(|line| line.contains("==") || line.contains("!=") || line.contains(".eq("))
            {
                let about = ["hash", "known", "token", "presented", "key"];
                assert!(about.iter().all(|word| !line.contains(word)), "compared in another way: {line}");
            }
        }
    }

    #[test]
    fn a_fleet_whose_keys_have_no_hash_yet_lets_nobody_in() {
        let ring = KeyRing::new(std::iter::empty(), true);
        assert_eq!(identify(&ring, "authorization", "Bearer x"), Err(AuthFault::Unknown));
    }
}
