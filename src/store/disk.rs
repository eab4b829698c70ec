//! One folder of files, and all that the journal ever does to it.
//!
//! Every write waits for the disk before it says yes, with the handle it wrote by: a system
//! tells of a failed write once, to whoever holds the file at that time.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::files::{self, FileError};

/// What the journal asks of a folder. Names are plain file names in it.
pub(super) trait Disk: fmt::Debug + Send {
    /// The bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Every file, with its length in bytes.
    fn files(&self) -> io::Result<Vec<(String, u64)>>;
    /// Adds bytes at the end of a file and waits for the disk.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes a whole file anew and waits for the disk. Half of it may be there on an error.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file another name, in place of whatever has it.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Waits until the disk has every name.
    fn sync_names(&mut self) -> io::Result<()>;

    /// Puts a file in place of another, whole or not at all.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = format!("{name}.new");
        self.write(&fresh, bytes)?;
        self.rename(&fresh, name)?;
        self.sync_names()
    }
}

/// A folder of the file system, ours alone as long as this lives.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    #[expect(dead_code, reason = "the lock ends with it")]
    lock: File,
}

impl Folder {
    /// Takes the folder, which is made where there is none; none when another process has it.
    pub(super) fn take(dir: &Path, lock: &Path) -> Result<Option<Self>, FileError> {
        files::make_dir(dir)?;
        let lock = files::lock(lock)?;
        Ok(lock.map(|lock| Self { dir: dir.to_owned(), lock }))
    }
}

impl Disk for Folder {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.dir.join(name))
    }

    fn files(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // Ours are plain ASCII; whatever is not is not ours.
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::options().append(true).open(self.dir.join(name))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.dir.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}
