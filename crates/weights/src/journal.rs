//! What a pull says that it has written, so that the one after a kill knows where to look.
//!
//! The journal is a claim and no proof: whoever reads it hashes the chunks that it names before counting on them. So a torn
//! end, a lost write or a forged line cost at most a second fetch and can never make a bad byte pass.
//!
//! It is a head of 40 bytes (`outrjnl1`, and the 32 bytes of the version's digest) and records of 16: file and chunk as
//! little-endian `u32`, and the first eight bytes of the BLAKE3 of digest, file and chunk. The first record that does not
//! fit is where it ends.

use std::{
    fs, io,
    io::{Read as _, Seek as _},
    path::Path,
};

use crate::{Digest, disk};

const MAGIC: &[u8; 8] = b"outrjnl1";
const HEAD: usize = 40;
const RECORD: usize = 16;

/// A file's and a chunk's place in their lists.
pub type Claim = (u32, u32);

#[derive(Debug)]
pub struct Journal {
    file: fs::File,
    len: u64,
    digest: Digest,
}

impl Journal {
    /// Opens the journal of a version, with what it claims. Whatever is not of this version, or torn, is cut off.
    pub fn open(path: &Path, digest: Digest) -> io::Result<(Self, Vec<Claim>)> {
        let mut file = disk::open_to_write(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let claims = read(&bytes, digest);
        let end = match &claims {
            Some(claims) => HEAD + claims.len() * RECORD,
            None => 0,
        };
        file.set_len(end as u64)?;
        let mut len = file.seek(io::SeekFrom::End(0))?;
        if claims.is_none() {
            len = disk::append(&file, len, &head(digest))?;
        }
        Ok((Self { file, len, digest }, claims.unwrap_or_default()))
    }

    /// Claims chunks that have been hashed and written.
    pub fn append(&mut self, claims: &[Claim]) -> io::Result<()> {
        let records: Vec<u8> = claims.iter().flat_map(|claim| record(self.digest, *claim)).collect();
        self.len = disk::append(&self.file, self.len, &records)?;
        Ok(())
    }

    /// For a thread that syncs.
    pub fn handle(&self) -> io::Result<fs::File> {
        self.file.try_clone()
    }
}

fn head(digest: Digest) -> Vec<u8> {
    [&MAGIC[..], &digest.0].concat()
}

fn record(digest: Digest, (file, chunk): Claim) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&file.to_le_bytes());
    record[4..8].copy_from_slice(&chunk.to_le_bytes());
    let check = blake3::hash(&[&digest.0[..], &record[..8]].concat());
    record[8..].copy_from_slice(&check.as_bytes()[..8]);
    record
}

/// The claims of a journal's bytes; `None` when it is not this version's.
pub fn read(bytes: &[u8], digest: Digest) -> Option<Vec<Claim>> {
    let records = bytes.strip_prefix(&*head(digest))?;
    let (records, _torn) = records.as_chunks::<RECORD>();
    let claims = records.iter().map_while(|bytes| {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let claim = (word(0), word(4));
        (record(digest, claim) == *bytes).then_some(claim)
    });
    Some(claims.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: Digest = Digest([7; 32]);

    fn written(claims: &[Claim]) -> Vec<u8> {
        let records = claims.iter().flat_map(|claim| record(DIGEST, *claim));
        head(DIGEST).into_iter().chain(records).collect()
    }

    proptest! {
        /// Cut anywhere, it claims a prefix of what was claimed.
        #[test]
        fn a_torn_journal_claims_a_prefix(claims in proptest::collection::vec(any::<Claim>(), 0..20), cut in 0_usize..400) {
            let mut bytes = written(&claims);
            bytes.truncate(cut);
            match read(&bytes, DIGEST) {
                Some(read) => prop_assert!(claims.starts_with(&read) && read.len() == (bytes.len() - HEAD) / RECORD),
                None => prop_assert!(bytes.len() < HEAD),
            }
        }

        /// One byte changed: a prefix again.
        #[test]
        fn a_damaged_journal_claims_a_prefix(claims in proptest::collection::vec(any::<Claim>(), 1..20), at in 0_usize..400, bit in 0_u32..8) {
            let mut bytes = written(&claims);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            match read(&bytes, DIGEST) {
                Some(read) => prop_assert!(claims.starts_with(&read) && read.len() < claims.len()),
                None => prop_assert!(at < HEAD),
            }
        }
    }

    #[test]
    fn another_versions_journal_claims_nothing() {
        assert_eq!(read(&written(&[(0, 0)]), Digest([8; 32])), None);
    }
}
