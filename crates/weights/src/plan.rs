//! Which ranges to ask for, from what is missing.
//!
//! A run is never longer than the longest chunk: what has been asked for and not yet been hashed is what a kill loses, so
//! that a few requests of 16 MiB bound the loss whatever the network holds in its buffers.

use crate::{cut, manifest::Manifest};

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
        let chunks = &manifest.files[self.file].chunks[self.first..self.end];
        let from = chunks.first().map_or(0, |chunk| chunk.offset);
        let to = chunks.last().map_or(0, crate::manifest::Chunk::end);
        (from, to - from)
    }
}

/// The runs that bring every chunk that `missing(file, chunk)` says is missing, in the manifest's order.
pub fn runs(manifest: &Manifest, missing: impl Fn(usize, usize) -> bool) -> Vec<Run> {
    (0..manifest.files.len()).flat_map(|file| runs_of(manifest, file, |chunk| missing(file, chunk))).collect()
}

/// The same for one file.
pub fn runs_of(manifest: &Manifest, file: usize, missing: impl Fn(usize) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut len = 0;
    for (at, chunk) in manifest.files[file].chunks.iter().enumerate().filter(|(at, _)| missing(*at)) {
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
    use crate::{
        cut::Chunker,
        manifest::{Chunk, File},
    };

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

    proptest! {
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
