//! What a pull says that it has written, so that the one after a kill knows where to look.
//!
//! The journal is a claim and no proof: whoever reads it hashes the chunks that it names before counting on them. So a torn
//! end, a lost write or a forged line cost at most a second fetch and can never make a bad byte pass.
//!
//! It is a head of 40 bytes (`outrjnl1`, and the 32 bytes of the version's digest) and records of 16: two little-endian `u32`,
//! and the first eight bytes of the BLAKE3 of digest and those two. They are a file and its chunk that is whole; or, with
//! the file's highest bit set, the place in the file up to which a chunk that is still coming has been written, in units of
//! 4 KiB; less than one unit is nothing. The first record that does not fit is where it ends.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read as _, Seek as _},
    path::Path,
};

use crate::{Digest, Manifest, disk, manifest::Chunk};

const MAGIC: &[u8; 8] = b"outrjnl1";
const HEAD: usize = 40;
const RECORD: usize = 16;

const BEGUN: u32 = 1 << 31;
const UNIT: u64 = 4 << 10;

/// That something of a file has been written: the two words of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim(u32, u32);

impl Claim {
    /// A chunk, with the right hash; by their places in the lists of files and of the file's chunks.
    pub(crate) fn whole(file: usize, chunk: usize) -> Self {
        Self(file as u32, chunk as u32)
    }

    /// The chunk that is coming, from its beginning up to this byte of the file.
    pub(crate) fn up_to(file: usize, offset: u64) -> Self {
        Self(file as u32 | BEGUN, u32::try_from(offset / UNIT).unwrap_or_default())
    }

    /// What was written of the chunk that begins at this byte is not right. (It is longer than a unit.)
    pub(crate) fn none_of(file: usize, offset: u64) -> Self {
        Self::up_to(file, offset.next_multiple_of(UNIT))
    }

    pub(crate) fn file(self) -> usize {
        (self.0 & !BEGUN) as usize
    }
}

/// Chunks of each file; and bytes of those that are not whole, by file and chunk.
pub(crate) type Claimed = (Vec<Vec<bool>>, BTreeMap<(usize, usize), u32>);

/// Which chunks claims call whole, and what is there of those that are not: bytes from their beginning, by file and chunk.
/// What no chunk of the manifest can be meant by says nothing. Of a chunk that was begun anew the last claim counts.
pub(crate) fn claimed(claims: &[Claim], manifest: &Manifest) -> Claimed {
    let mut whole: Vec<Vec<bool>> = manifest.files.iter().map(|file| vec![false; file.chunks.len()]).collect();
    let mut begun = BTreeMap::new();
    for claim in claims {
        let Some(file) = manifest.files.get(claim.file()) else { continue };
        if claim.0 & BEGUN == 0 {
            if let Some(place) = whole[claim.file()].get_mut(claim.1 as usize) {
                *place = true;
                begun.remove(&(claim.file(), claim.1 as usize));
            }
            continue;
        }
        let offset = u64::from(claim.1) * UNIT;
        let Some(at) = file.chunks.partition_point(|chunk| chunk.offset <= offset).checked_sub(1) else { continue };
        let Chunk { offset: first, len, .. } = file.chunks[at];
        let bytes = u32::try_from(offset - first).unwrap_or(u32::MAX);
        if u64::from(bytes) < UNIT {
            begun.remove(&(claim.file(), at));
        } else if bytes < len && !whole[claim.file()][at] {
            begun.insert((claim.file(), at), bytes);
        }
    }
    (whole, begun)
}

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

    /// Claims what has been written.
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

fn record(digest: Digest, claim: Claim) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&claim.0.to_le_bytes());
    record[4..8].copy_from_slice(&claim.1.to_le_bytes());
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
        let claim = Claim(word(0), word(4));
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

    fn any_claim() -> impl Strategy<Value = Claim> {
        any::<(u32, u32)>().prop_map(|(one, other)| Claim(one, other))
    }

    /// A file of chunks of these lengths.
    fn manifest(lens: &[u32]) -> Manifest {
        let mut size = 0;
        let chunks = lens.iter().map(|&len| {
            size += u64::from(len);
            Chunk { offset: size - u64::from(len), len, blake3: [0; 32] }
        });
        let chunks = chunks.collect();
        let chunker = crate::cut::Chunker::Fixed;
        let file = crate::manifest::File { path: "f".parse().unwrap(), size, sha256: [0; 32], chunker, chunks };
        Manifest::new("a/b".parse().unwrap(), vec![file]).unwrap()
    }

    #[test]
    fn the_last_that_was_written_of_a_chunk_counts() {
        let manifest = manifest(&[5_000, 3 << 20, 16 << 20]);
        let mib = 1 << 20;
        let second = 5_000 + (3 << 20);
        let claims = [Claim::up_to(0, 5_000 + mib), Claim::up_to(0, second + 3 * mib), Claim::up_to(0, second + mib)];
        let (whole, begun) = claimed(&claims, &manifest);
        assert_eq!(whole, [[false; 3]]);
        // To the unit below.
        let below = |offset: u64, first: u64| (offset / UNIT * UNIT - first) as u32;
        let expected = [((0, 1), below(5_000 + mib, 5_000)), ((0, 2), below(second + mib, second))];
        assert_eq!(begun, expected.into());
        let none = Claim::none_of(0, second);
        assert_eq!(claimed(&[&claims[..], &[none]].concat(), &manifest).1, [expected[0]].into());
        let (whole, begun) = claimed(&[&claims[..], &[Claim::whole(0, 1), claims[0]]].concat(), &manifest);
        assert_eq!((whole, begun.len()), (vec![vec![false, true, false]], 1));
    }

    #[test]
    fn claims_of_what_no_manifest_has_say_nothing() {
        let claims =
            [Claim(7, 0), Claim(0, 7), Claim::up_to(9, 1 << 20), Claim::up_to(0, 1 << 40), Claim::up_to(0, 4_096)];
        assert_eq!(claimed(&claims, &manifest(&[4_096])), (vec![vec![false]], BTreeMap::new()));
    }

    proptest! {
        /// Cut anywhere, it claims a prefix of what was claimed.
        #[test]
        fn a_torn_journal_claims_a_prefix(claims in proptest::collection::vec(any_claim(), 0..20), cut in 0_usize..400) {
            let mut bytes = written(&claims);
            bytes.truncate(cut);
            match read(&bytes, DIGEST) {
                Some(read) => prop_assert!(claims.starts_with(&read) && read.len() == (bytes.len() - HEAD) / RECORD),
                None => prop_assert!(bytes.len() < HEAD),
            }
        }

        /// One byte changed: a prefix again.
        #[test]
        fn a_damaged_journal_claims_a_prefix(claims in proptest::collection::vec(any_claim(), 1..20), at in 0_usize..400, bit in 0_u32..8) {
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
        assert_eq!(read(&written(&[Claim(0, 0)]), Digest([8; 32])), None);
    }
}
