//! What a request brings, on its way to the disk: hashed as it comes, written, and journalled.
//!
//! A chunk whose hash was right is claimed as whole. Of one that is still coming, each MiB that is written is noted too, so that
//! a pull that is killed, or a connection that breaks, goes on behind it and asks only for what had not come. Such bytes prove
//! nothing by themselves: they are read back and hashed with the rest of their chunk, and when that is wrong the chunk is asked
//! for again from its beginning.

use std::{fs, os::unix::fs::FileExt as _};

use tokio::sync::SemaphorePermit;

use crate::{Error, journal::Claim, manifest::File, plan::Run};

const WRITE_AT_ONCE: usize = 1 << 20;

/// What is there of a chunk that has not come whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) bytes: u32,
    /// Written by a process before this one, so that a wrong hash may be a power cut's or the disk's and says nothing of the
    /// store.
    pub(crate) before: bool,
}

/// What a request brought.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) good: Vec<usize>,
    pub(crate) wrong: Vec<usize>,
    /// Bytes over the network.
    pub(crate) bytes: u64,
    /// Bytes of before that were right.
    pub(crate) kept: u32,
    /// The chunk in which it broke off, and what is there of it.
    pub(crate) begun: Option<(usize, Begun)>,
    /// There is more than before.
    pub(crate) gained: bool,
}

/// Hashes bytes as they come and writes them to where they belong.
pub(crate) struct Landing<'a> {
    file: &'a File,
    run: Run,
    part: &'a fs::File,
    /// The chunk that is coming, and what was there of it.
    chunk: usize,
    begun: Begun,
    hasher: blake3::Hasher,
    in_chunk: u32,
    /// Bytes that are hashed and written together, and where they belong.
    buffer: Vec<u8>,
    offset: u64,
    /// Bytes that are to come; given back as they are written.
    open: SemaphorePermit<'a>,
    written: &'a (dyn Fn(Claim) -> Result<(), Error> + Sync),
    came: Came,
}

impl<'a> Landing<'a> {
    /// For a run of which the beginning of the first chunk is there. `written` is called for what is on the disk. An error
    /// when that beginning cannot be read: then nothing is there.
    pub(crate) fn new(
        file: &'a File,
        run: Run,
        begun: Begun,
        part: &'a fs::File,
        open: SemaphorePermit<'a>,
        written: &'a (dyn Fn(Claim) -> Result<(), Error> + Sync),
    ) -> Result<Self, Came> {
        let longest = file.chunks[run.first..run.end].iter().map(|chunk| chunk.len as usize).max().unwrap_or(0);
        let mut buffer = Vec::with_capacity(longest.min(WRITE_AT_ONCE));
        let mut hasher = blake3::Hasher::new();
        let mut offset = file.chunks[run.first].offset;
        let end = offset + u64::from(begun.bytes);
        while offset < end {
            let now = usize::try_from(end - offset).unwrap_or(WRITE_AT_ONCE).min(WRITE_AT_ONCE);
            buffer.resize(now, 0);
            part.read_exact_at(&mut buffer, offset).map_err(|_| Came::default())?;
            hasher.update(&buffer);
            offset += now as u64;
        }
        buffer.clear();
        Ok(Self {
            file,
            run,
            part,
            chunk: run.first,
            begun,
            hasher,
            in_chunk: begun.bytes,
            buffer,
            offset,
            open,
            written,
            came: Came::default(),
        })
    }

    pub(crate) fn take(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        self.came.bytes += piece.len() as u64;
        while !piece.is_empty() && self.chunk < self.run.end {
            let chunk = self.file.chunks[self.chunk];
            let room = (WRITE_AT_ONCE - self.buffer.len()).min((chunk.len - self.in_chunk) as usize);
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.buffer.extend_from_slice(now);
            self.in_chunk += now.len() as u32;
            piece = later;
            let ended = self.in_chunk == chunk.len;
            if ended || self.buffer.len() == WRITE_AT_ONCE {
                self.flush()?;
            }
            if ended {
                self.judge()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.hasher.update(&self.buffer);
        self.part
            .write_all_at(&self.buffer, self.offset)
            .map_err(|e| Error::io("write", &self.file.path.to_path(), &e))?;
        self.offset += self.buffer.len() as u64;
        if self.in_chunk < self.file.chunks[self.chunk].len {
            (self.written)(Claim::up_to(self.run.file, self.offset))?;
        }
        drop(self.open.split(self.buffer.len()));
        self.buffer.clear();
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Error> {
        let chunk = self.file.chunks[self.chunk];
        if *self.hasher.finalize().as_bytes() == chunk.blake3 {
            (self.written)(Claim::whole(self.run.file, self.chunk))?;
            self.came.good.push(self.chunk);
            self.came.kept += if self.begun.before { self.begun.bytes } else { 0 };
        } else {
            if chunk.len as usize > WRITE_AT_ONCE {
                (self.written)(Claim::none_of(self.run.file, chunk.offset))?;
            }
            if !self.begun.before {
                self.came.wrong.push(self.chunk);
            }
        }
        self.hasher.reset();
        self.begun = Begun::default();
        self.in_chunk = 0;
        self.chunk += 1;
        Ok(())
    }

    pub(crate) fn end(mut self) -> Came {
        let bytes = self.in_chunk - self.buffer.len() as u32;
        if bytes > 0 {
            self.came.begun = Some((self.chunk, Begun { bytes, ..self.begun }));
        }
        self.came.gained = !self.came.good.is_empty() || bytes > self.begun.bytes;
        self.came
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{Manifest, cut::Chunker, journal, manifest::Chunk, store::conformance::Scratch};

    const LEN: usize = 3 << 20;

    /// What a journal says of the only chunk after these bytes have come behind what was there.
    fn land(manifest: &Manifest, part: &fs::File, begun: Begun, bytes: &[u8]) -> (Came, journal::Claimed, usize) {
        let (open, claims) = (Semaphore::new(LEN), Mutex::new(Vec::new()));
        let written = |claim| {
            claims.lock().unwrap().push(claim);
            Ok(())
        };
        let run = Run { file: 0, first: 0, end: 1 };
        let permit = open.try_acquire_many(LEN as u32 - begun.bytes).unwrap();
        let mut landing = Landing::new(&manifest.files[0], run, begun, part, permit, &written).unwrap();
        bytes.chunks(100_000).for_each(|piece| landing.take(piece).unwrap());
        let to_come = LEN - open.available_permits();
        let came = landing.end();
        let claimed = journal::claimed(&claims.into_inner().unwrap(), manifest);
        (came, claimed, to_come)
    }

    #[test]
    fn a_chunk_goes_on_behind_what_was_written_and_begins_anew_where_that_was_wrong() {
        let scratch = Scratch::new();
        fs::create_dir_all(&scratch.0).unwrap();
        let part = fs::File::options().read(true).write(true).create_new(true).open(scratch.0.join("part")).unwrap();
        let bytes: Vec<u8> = (0..LEN).map(|at| (at / 7) as u8).collect();
        let chunk = Chunk { offset: 0, len: LEN as u32, blake3: blake3::hash(&bytes).into() };
        let file = File {
            path: "f".parse().unwrap(),
            size: LEN as u64,
            sha256: [0; 32],
            chunker: Chunker::Fixed,
            chunks: vec![chunk],
        };
        let manifest = Manifest::new("a/b".parse().unwrap(), vec![file]).unwrap();

        let (came, (whole, begun), to_come) = land(&manifest, &part, Begun::default(), &bytes[..LEN - 1_000]);
        let there = (2 << 20) as u32;
        assert_eq!((whole, begun), (vec![vec![false]], [((0, 0), there)].into()));
        assert_eq!(came.begun, Some((0, Begun { bytes: there, before: false })));
        assert_eq!(to_come, LEN - there as usize, "what is on the disk is not to come");

        let before = Begun { bytes: there, before: true };
        let (came, (whole, _), _) = land(&manifest, &part, before, &bytes[there as usize..]);
        assert_eq!((came.good, came.kept, whole), (vec![0], there, vec![vec![true]]));

        part.write_all_at(b"not what was there", 1_000_000).unwrap();
        let (came, (whole, _), _) = land(&manifest, &part, before, &bytes[there as usize..]);
        assert_eq!((came.good, came.wrong), (vec![], vec![]), "that says nothing of the store");
        assert_eq!(whole, [[false]]);

        let mut other = bytes;
        other[5] ^= 1;
        let (came, (_, begun), _) = land(&manifest, &part, Begun::default(), &other);
        assert_eq!((came.wrong, begun), (vec![0], [].into()), "nobody goes on with what is wrong");
    }
}
