//! What of a version has been sent already, so that the push after a kill goes on there.
//!
//! One file for each store and version, `STATE/uploads/HASH.jsonl`, where `STATE` is `--state`, or `outrigger` in
//! `$XDG_STATE_HOME`, or in `~/.local/state`. Its lines are JSON: first what it is of, then for each upload the id that the
//! store gave it, and for each part that the store acknowledged the name that it has there. No provider can be asked for all of
//! that, so the journal is the only place. A torn or forged line costs a second upload: the store refuses parts that it does
//! not have, and then the file is begun again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, ModelName, Store, disk, store::Upload};

const SCHEMA: &str = "outrigger.uploads/v1";
/// A model of 2 TB in parts of 16 MiB has a journal of 20 MB.
const LONGEST: u64 = 256 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    schema: String,
    store: String,
    model: String,
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Begun { object: String, id: String, part_size: u64 },
    Part { object: String, number: usize, name: String },
    Gone { object: String },
}

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) upload: Upload,
    pub(crate) part_size: u64,
    /// What the store calls the parts that it has.
    pub(crate) parts: BTreeMap<usize, String>,
}

/// The journal of one version on its way into one store, held by one process.
#[derive(Debug)]
pub(crate) struct Uploads {
    path: PathBuf,
    /// And how long it is.
    file: Mutex<(fs::File, u64)>,
    begun: Mutex<BTreeMap<String, Begun>>,
}

/// The folder for journals, as the environment has it.
pub fn state_folder(environment: impl Fn(&str) -> Option<String>) -> Result<PathBuf, Error> {
    let home = || environment("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = environment("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    base.filter(|base| base.is_absolute()).map(|base| base.join("outrigger")).ok_or_else(|| {
        Error::usage("there is no place for the journal: neither XDG_STATE_HOME nor HOME is set", "give --state DIR")
    })
}

/// Whether a journal could be written there, to know it before anything else is done.
pub(crate) fn try_out(state: &Path) -> Result<(), Error> {
    let folder = state.join("uploads");
    disk::make_folder(&folder).map_err(elsewhere)?;
    let path = folder.join(format!(".{}.tmp", std::process::id()));
    let tried = disk::open_to_write(&path).and_then(|file| disk::append(&file, 0, b"\n"));
    fs::remove_file(&path).ok();
    tried.map(|_| ()).map_err(|e| elsewhere(Error::io("write", &path, &e)))
}

impl Uploads {
    /// Opens the journal and takes it. Whatever is not of this version, or torn, is cut off.
    pub(crate) fn open(state: &Path, store: &Store, model: &ModelName, digest: &Digest) -> Result<Self, Error> {
        let head = Head {
            schema: SCHEMA.to_owned(),
            store: store.to_string(),
            model: model.to_string(),
            digest: digest.to_string(),
        };
        let text = serde_json::to_string(&head).expect("strings can be written") + "\n";
        let folder = state.join("uploads");
        disk::make_folder(&folder).map_err(elsewhere)?;
        let path = folder.join(format!("{}.jsonl", &blake3::hash(text.as_bytes()).to_hex()[..32]));
        let mut file = disk::open_to_write(&path).map_err(|e| elsewhere(Error::io("write", &path, &e)))?;
        disk::take(&file, &path, &format!("{model} on its way to {store}"))?;
        let (known, begun, end) = read(&mut file, &path)?;
        let end = if known.as_ref() == Some(&head) { end } else { 0 };
        let cut = file.set_len(end).and_then(|()| file.seek(std::io::SeekFrom::End(0)));
        let written = cut.and_then(|len| if end == 0 { disk::append(&file, len, text.as_bytes()) } else { Ok(len) });
        let len = written.map_err(|e| Error::io("write", &path, &e))?;
        let begun = if end == 0 { BTreeMap::new() } else { begun };
        Ok(Self { path, file: Mutex::new((file, len)), begun: Mutex::new(begun) })
    }

    pub(crate) fn resume(&self, object: &str) -> Option<Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).get(object).cloned()
    }

    pub(crate) fn begin(&self, upload: &Upload, part_size: u64) -> Result<(), Error> {
        self.append(Line::Begun { object: upload.object.clone(), id: upload.id.clone(), part_size })
    }

    pub(crate) fn part(&self, upload: &Upload, number: usize, name: &str) -> Result<(), Error> {
        self.append(Line::Part { object: upload.object.clone(), number, name: name.to_owned() })
    }

    /// The upload became an object, or is no more.
    pub(crate) fn gone(&self, object: &str) -> Result<(), Error> {
        self.append(Line::Gone { object: object.to_owned() })
    }

    fn append(&self, line: Line) -> Result<(), Error> {
        let text = serde_json::to_string(&line).expect("strings can be written") + "\n";
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, len) = &mut *held;
        *len = disk::append(file, *len, text.as_bytes()).map_err(|e| Error::io("write", &self.path, &e))?;
        drop(held);
        take_in(line, &mut self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// What is begun and has not become an object.
    pub(crate) fn all(&self) -> Vec<Upload> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.values().map(|begun| begun.upload.clone()).collect()
    }

    /// Whether there is nothing that another call could go on with.
    pub(crate) fn is_empty(&self) -> bool {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// There is nothing left to go on with.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, &e))
    }
}

/// Where there is no journal yet, nothing is lost by having it in another place.
fn elsewhere(error: Error) -> Error {
    Error { help: format!("{}; --state DIR puts the journal elsewhere", error.help), ..error }
}

/// What is begun in a journal, and where it ends.
type Told = (Option<Head>, BTreeMap<String, Begun>, u64);

fn read(file: &mut fs::File, path: &Path) -> Result<Told, Error> {
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).map_err(|e| Error::io("read", path, &e))?;
    let mut lines = text.split_inclusive(|b| *b == b'\n').take_while(|line| line.ends_with(b"\n"));
    let Some(first) = lines.next() else { return Ok((None, BTreeMap::new(), 0)) };
    let head = serde_json::from_slice(first).ok();
    let mut begun = BTreeMap::new();
    let mut end = first.len() as u64;
    for line in lines {
        let Ok(told) = serde_json::from_slice(line) else { break };
        take_in(told, &mut begun);
        end += line.len() as u64;
    }
    Ok((head, begun, end))
}

fn take_in(line: Line, begun: &mut BTreeMap<String, Begun>) {
    match line {
        Line::Begun { object, id, part_size } => {
            let upload = Upload { object: object.clone(), id };
            begun.insert(object, Begun { upload, part_size, parts: BTreeMap::new() });
        }
        Line::Part { object, number, name } => {
            if let Some(begun) = begun.get_mut(&object) {
                begun.parts.insert(number, name);
            }
        }
        Line::Gone { object } => {
            begun.remove(&object);
        }
    }
}

/// A journal that a push has left.
#[derive(Debug)]
pub(crate) struct Left {
    path: PathBuf,
    /// Held, so that no push takes it up meanwhile.
    _file: fs::File,
    pub(crate) begun: Vec<Begun>,
    /// When it was written to last, in seconds since 1970.
    pub(crate) modified: u64,
}

impl Left {
    pub(crate) fn remove(self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", &self.path, &e))
    }
}

/// The ids of all uploads that a journal of this machine names, also of pushes that are at work.
pub(crate) fn known(state: &Path) -> Result<BTreeSet<String>, Error> {
    let folder = state.join("uploads");
    let names = if folder.is_dir() { disk::names(&folder)? } else { Vec::new() };
    let mut known = BTreeSet::new();
    for path in names.iter().map(|name| folder.join(name)).filter(|path| path.extension() == Some("jsonl".as_ref())) {
        // One that has just been removed names none.
        let Ok(mut file) = disk::open(&path) else { continue };
        let (_, begun, _) = read(&mut file, &path)?;
        known.extend(begun.into_values().map(|begun| begun.upload.id));
    }
    Ok(known)
}

/// The journals of pushes into a store that nobody is at work on.
pub(crate) fn left(state: &Path, store: &Store) -> Result<Vec<Left>, Error> {
    let folder = state.join("uploads");
    let names = if folder.is_dir() { disk::names(&folder)? } else { Vec::new() };
    let mut all = Vec::new();
    let journals = names.iter().map(|name| folder.join(name)).filter(|path| path.extension() == Some("jsonl".as_ref()));
    for path in journals {
        let Ok(mut file) = disk::open_to_write(&path) else { continue };
        if disk::take(&file, &path, "").is_err() {
            continue;
        }
        let (Some(head), begun, _) = read(&mut file, &path)? else { continue };
        if head.schema != SCHEMA || head.store != store.to_string() {
            continue;
        }
        let modified = file.metadata().and_then(|meta| meta.modified()).ok();
        let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |at| at.as_secs());
        all.push(Left { path, _file: file, begun: begun.into_values().collect(), modified });
    }
    Ok(all)
}
