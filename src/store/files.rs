//! Files that are really there: folders made known to the disk, and locks.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Something the file system refused.
#[derive(Debug, thiserror::Error)]
#[error("could not {tried} `{}`", path.display())]
pub struct FileError {
    /// What was tried, as a verb.
    pub tried: &'static str,
    /// With which file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

/// Says what was tried with which file: for `map_err`.
pub(super) fn at(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |error| FileError { tried, path: path.to_owned(), error }
}

/// Makes a folder that is still there after a power loss.
pub(super) fn make_dir(dir: &Path) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(at("make the folder", dir))?;
    match dir.parent() {
        Some(parent) if parent != Path::new("") => sync_dir(parent),
        Some(_) | None => Ok(()),
    }
}

/// Makes names created, changed or removed in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|it| it.sync_all()).map_err(at("sync the folder", dir))
}

/// Takes the lock file for as long as the answer lives; none when another process has it.
pub(super) fn lock(path: &Path) -> Result<Option<File>, FileError> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let mut file = file.map_err(at("open the lock", path))?;
    match file.try_lock() {
        Ok(()) => {
            // Only for people; on a full disk the lock holds all the same.
            drop(file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())));
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
    }
}

/// The process that has a lock, if it said so.
pub(super) fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.parse().ok()
}

/// Bytes an ordinary process may still write where `dir` lies.
pub(super) fn free_bytes(dir: &Path) -> Result<u64, FileError> {
    let space = rustix::fs::statvfs(dir)
        .map_err(|error| at("measure the free space of", dir)(error.into()))?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}
