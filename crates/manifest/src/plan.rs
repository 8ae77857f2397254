//! Which ranges to ask for, from what is missing; and which of them lie on this machine in another version.
//!
//! A run is never longer than the longest chunk: what has been asked for and has not come is what a kill loses, so that a
//! few requests of 16 MiB bound the loss whatever the network holds in its buffers.

use std::collections::HashMap;

use crate::{
    cut,
    manifest::{Chunk, File, Manifest},
};

/// Neighbouring chunks of one file, asked for in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub file: usize,
    /// Places in the file's list of chunks: from the first to before the last.
    pub first: usize,
    pub end: usize,
}

impl Run {
    /// The range of bytes: from, and how many.
    pub fn range(&self, manifest: &Manifest) -> (u64, u64) {
        self.range_in(&manifest.files)
    }

    pub fn range_in(&self, files: &[File]) -> (u64, u64) {
        let chunks = &files[self.file].chunks[self.first..self.end];
        let from = chunks.first().map_or(0, |chunk| chunk.offset);
        let to = chunks.last().map_or(0, Chunk::end);
        (from, to - from)
    }
}

/// Neighbouring chunks that lie, in this order and without a gap, in a file of another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub run: Run,
    /// Which of the sources, which of its files, and the byte at which they begin there.
    pub source: usize,
    pub source_file: usize,
    pub offset: u64,
}

/// What of the missing chunks the sources say that they have, by their hashes: the first source that has one, and as long
/// together as they lie together, since a whole file can be shared by the file system where a part of one cannot.
pub fn copies(files: &[File], missing: impl Fn(usize, usize) -> bool, sources: &[&[File]]) -> Vec<Copy> {
    let mut places: HashMap<([u8; 32], u32), (usize, usize, u64)> = HashMap::new();
    for (source, its) in sources.iter().enumerate() {
        for (file, chunk) in its.iter().enumerate().flat_map(|(at, file)| file.chunks.iter().map(move |c| (at, c))) {
            places.entry((chunk.blake3, chunk.len)).or_insert((source, file, chunk.offset));
        }
    }
    let mut copies: Vec<Copy> = Vec::new();
    for (file, chunks) in files.iter().map(|file| &file.chunks).enumerate() {
        for (at, chunk) in chunks.iter().enumerate().filter(|(at, _)| missing(file, *at)) {
            // The same bytes may lie in several places: that behind the chunk before is the best.
            if let Some(last) = copies.last_mut()
                && (last.run.file, last.run.end) == (file, at)
                && has(sources[last.source], last.source_file, last.offset + last.run.range_in(files).1, chunk)
            {
                last.run.end = at + 1;
            } else if let Some(&(source, source_file, offset)) = places.get(&(chunk.blake3, chunk.len)) {
                copies.push(Copy { run: Run { file, first: at, end: at + 1 }, source, source_file, offset });
            }
        }
    }
    copies
}

/// Whether a file has these very bytes at a place.
fn has(files: &[File], file: usize, offset: u64, wanted: &Chunk) -> bool {
    let chunks = &files[file].chunks;
    let at = chunks.binary_search_by_key(&offset, |chunk| chunk.offset);
    at.is_ok_and(|at| (chunks[at].blake3, chunks[at].len) == (wanted.blake3, wanted.len))
}

/// The runs that bring every chunk that `missing(file, chunk)` says is missing, in the manifest's order.
pub fn runs(manifest: &Manifest, missing: impl Fn(usize, usize) -> bool) -> Vec<Run> {
    runs_in(&manifest.files, missing)
}

/// The same for files that have no manifest.
pub fn runs_in(files: &[File], missing: impl Fn(usize, usize) -> bool) -> Vec<Run> {
    (0..files.len()).flat_map(|file| runs_of_one(files, file, |chunk| missing(file, chunk))).collect()
}

/// The same for one file.
pub fn runs_of(manifest: &Manifest, file: usize, missing: impl Fn(usize) -> bool) -> Vec<Run> {
    runs_of_one(&manifest.files, file, missing)
}

fn runs_of_one(files: &[File], file: usize, missing: impl Fn(usize) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut len = 0;
    for (at, chunk) in files[file].chunks.iter().enumerate().filter(|(at, _)| missing(*at)) {
        match runs.last_mut() {
            Some(run) if run.end == at && len + chunk.len <= cut::LONGEST => {
                run.end = at + 1;
                len += chunk.len;
            }
            _ => {
                runs.push(Run { file, first: at, end: at + 1 });
                len = chunk.len;
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cut::Chunker;

    fn manifest(files: &[Vec<u32>]) -> Manifest {
        let files = files.iter().enumerate().map(|(at, lens)| {
            let mut size = 0;
            let chunks = lens.iter().map(|&len| {
                size += u64::from(len);
                Chunk { offset: size - u64::from(len), len, blake3: [0; 32] }
            });
            let chunks = chunks.collect();
            File { path: format!("f{at}").parse().unwrap(), size, sha256: [0; 32], chunker: Chunker::Fixed, chunks }
        });
        Manifest::new("a/b".parse().unwrap(), files.collect()).unwrap()
    }

    /// Each chunk has a hash of its own number.
    fn numbered(files: &[Vec<(u32, u8)>]) -> Manifest {
        let mut made =
            manifest(&files.iter().map(|file| file.iter().map(|(len, _)| *len).collect()).collect::<Vec<_>>());
        for (file, numbers) in made.files.iter_mut().zip(files) {
            file.chunks.iter_mut().zip(numbers).for_each(|(chunk, (_, number))| chunk.blake3 = [*number; 32]);
        }
        made
    }

    #[test]
    fn a_whole_file_is_one_copy_and_a_longer_header_moves_it() {
        let old = numbered(&[vec![(5, 9)], vec![(8, 0), (4, 1), (4, 2), (4, 3)]]);
        let new = numbered(&[vec![(8, 0), (4, 1), (4, 2), (4, 3)], vec![(9, 7), (4, 1), (4, 8), (4, 3)]]);
        let copies = copies(&new.files, |_, _| true, &[&old.files]);
        let found: Vec<_> =
            copies.iter().map(|c| (c.run.file, c.run.first, c.run.end, c.source_file, c.offset)).collect();
        assert_eq!(found, [(0, 0, 4, 1, 0), (1, 1, 2, 1, 8), (1, 3, 4, 1, 16)]);
    }

    #[test]
    fn a_hash_of_another_length_is_not_the_same_chunk() {
        let old = numbered(&[vec![(4, 1)]]);
        assert!(copies(&numbered(&[vec![(5, 1)]]).files, |_, _| true, &[&old.files]).is_empty());
    }

    proptest! {
        /// What is copied was missing, once, and is what lies at that place of the source; what is not, no source has.
        #[test]
        fn copies_are_right_and_leave_nothing(
            new in proptest::collection::vec(proptest::collection::vec((1_u32..3, 0_u8..6, any::<bool>()), 0..9), 0..4),
            old in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec((1_u32..3, 0_u8..6), 0..9), 0..4), 0..3),
        ) {
            let wanted = numbered(&new.iter().map(|f| f.iter().map(|(len, n, _)| (*len, *n)).collect()).collect::<Vec<_>>());
            let sources: Vec<Manifest> = old.iter().map(|files| numbered(files)).collect();
            let sources: Vec<&[File]> = sources.iter().map(|source| &source.files[..]).collect();
            let mut copied: Vec<Vec<bool>> = new.iter().map(|f| vec![false; f.len()]).collect();
            for copy in copies(&wanted.files, |file, chunk| new[file][chunk].2, &sources) {
                let mut offset = copy.offset;
                for chunk in copy.run.first..copy.run.end {
                    prop_assert!(new[copy.run.file][chunk].2 && !copied[copy.run.file][chunk]);
                    copied[copy.run.file][chunk] = true;
                    prop_assert!(has(sources[copy.source], copy.source_file, offset, &wanted.files[copy.run.file].chunks[chunk]));
                    offset += u64::from(wanted.files[copy.run.file].chunks[chunk].len);
                }
            }
            for (file, chunks) in wanted.files.iter().enumerate() {
                for (at, chunk) in chunks.chunks.iter().enumerate().filter(|(at, _)| new[file][*at].2 && !copied[file][*at]) {
                    let there = sources.iter().flat_map(|s| s.iter()).flat_map(|f| &f.chunks).any(|c| (c.blake3, c.len) == (chunk.blake3, chunk.len));
                    prop_assert!(!there, "{file} {at}");
                }
            }
        }

        #[test]
        fn runs_bring_what_is_missing_once_and_nothing_else(
            files in proptest::collection::vec(proptest::collection::vec((1..=cut::LONGEST, any::<bool>()), 0..12), 0..5),
        ) {
            let lens: Vec<Vec<u32>> = files.iter().map(|f| f.iter().map(|(len, _)| *len).collect()).collect();
            let manifest = manifest(&lens);
            let runs = runs(&manifest, |file, chunk| files[file][chunk].1);
            let mut asked: Vec<Vec<u32>> = lens.iter().map(|f| vec![0; f.len()]).collect();
            for run in &runs {
                prop_assert!(run.range(&manifest).1 <= u64::from(cut::LONGEST));
                asked[run.file][run.first..run.end].iter_mut().for_each(|n| *n += 1);
            }
            for (file, chunks) in files.iter().enumerate() {
                for (chunk, (_, missing)) in chunks.iter().enumerate() {
                    prop_assert_eq!(asked[file][chunk], u32::from(*missing));
                }
            }
        }
    }
}
