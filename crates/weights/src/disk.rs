//! What is done to disks in more than one place: a file that is there whole or not at all, and a walk that follows no link.

use std::{
    fs, io,
    io::{Seek as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::Error;

/// Opens a file to read, never through a symbolic link in its last name.
pub(crate) fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

/// Opens a file to read and write, never through a symbolic link; makes it if it is not there.
pub(crate) fn open_to_write(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(no_follow()).open(path)
}

fn no_follow() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC).bits().cast_signed()
}

/// Copies bytes from file to file; less where the first one ends before.
///
/// The system copies by itself, and shares what lies on the same blocks where the file system can (XFS, btrfs): from then on
/// neither file sees what is written to the other. It is never a link, through which somebody else's write would come.
pub(crate) fn copy(from: &fs::File, mut offset: u64, to: &fs::File, mut at: u64, mut len: u64) -> io::Result<()> {
    while len > 0 {
        let now = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut offset), to, Some(&mut at), now) {
            Ok(0) => return Ok(()),
            Ok(copied) => len -= copied as u64,
            Err(rustix::io::Errno::INTR) => {}
            // Between file systems, and where it is not known at all.
            Err(
                rustix::io::Errno::XDEV
                | rustix::io::Errno::NOSYS
                | rustix::io::Errno::OPNOTSUPP
                | rustix::io::Errno::INVAL,
            ) => {
                return copy_by_hand(from, offset, to, at, len);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &fs::File, mut offset: u64, to: &fs::File, mut at: u64, mut len: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while len > 0 {
        let now = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
        let read = from.read_at(&mut buffer[..now], offset)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..read], at)?;
        (offset, at, len) = (offset + read as u64, at + read as u64, len - read as u64);
    }
    Ok(())
}

/// Writes behind the first `len` bytes of a file, or leaves it as long as it was: a disk that became full takes the beginning
/// of what it is given, and whoever writes next would do so behind half a line.
pub(crate) fn append(mut file: &fs::File, len: u64, bytes: &[u8]) -> io::Result<u64> {
    match file.write_all(bytes) {
        Ok(()) => Ok(len + bytes.len() as u64),
        Err(error) => {
            file.set_len(len).and_then(|()| file.seek(io::SeekFrom::Start(len))).ok();
            Err(error)
        }
    }
}

/// Refuses what would not fit on the disk of a directory, before any of it is written.
pub(crate) fn room_for(folder: &Path, bytes: u64, what: &dyn std::fmt::Display) -> Result<(), Error> {
    // A disk that does not say is asked by writing to it.
    let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    Err(Error::environment(
        format!("{bytes} bytes are missing in {what} and its disk has {free} free"),
        "make room, then run the same command again: what is there is kept",
    ))
}

/// Writes a file so that after a crash it is there whole, as it was before, or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    // With a dot before it, it is no name of a ref or of anything else that is looked for.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        fs::remove_file(&temporary).ok();
        return Err(Error::io("write", path, &error));
    }
    sync_folder_of(path)
}

/// Makes a rename in the folder of `path` last.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("sync", folder, &e))
}

pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::io("make the directory", path, &e))
}

/// The names in a folder, in order.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = list().map_err(|e| Error::io("read the directory", folder, &e))?;
    names.sort();
    Ok(names)
}

/// A held lock; it goes with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs::File,
}

/// Waits for its turn, which is short: for what is one step.
pub(crate) fn wait_for_lock(path: &Path) -> Result<Lock, Error> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    let file = open_to_write(path).map_err(|e| Error::io("write", path, &e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|e| Error::io("lock", path, &e.into()))?;
    Ok(Lock { _file: file })
}

/// One writer at a time.
pub(crate) fn lock(path: &Path, what: &str) -> Result<Lock, Error> {
    let file = open_to_write(path).map_err(|e| Error::io("write", path, &e))?;
    take(&file, path, what)?;
    Ok(Lock { _file: file })
}

/// Takes a file for this process, or says who has it.
pub(crate) fn take(file: &fs::File, path: &Path, what: &str) -> Result<(), Error> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|e| {
        if e == rustix::io::Errno::WOULDBLOCK {
            Error::environment(format!("{what} is being written by another outrigger"), "wait until it has ended")
        } else {
            Error::io("lock", path, &e.into())
        }
    })
}
