//! What came of golden sets, as another process leaves it in the store's folder.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    files::{FileError, at, make_dir, sync_dir},
    json::{self, float},
};
use crate::domain::{Name, Replayed};

/// The folder of the store that answers to golden sets, and what came of them, are kept in.
pub const GOLDEN_FOLDER: &str = "golden";
/// The version of what is kept.
const VERSION: u32 = 1;
/// Most files that are read, and the largest, in bytes.
const FILES_MAX: usize = 1_024;
const BYTES_MAX: u64 = 1 << 20;

/// What came of golden sets, as far as it was read.
#[derive(Debug, Default)]
pub struct Replays {
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Replayed>>,
}

#[derive(Serialize, Deserialize)]
struct ReplayedJson {
    v: u32,
    digest: u64,
    identities: [u64; 2],
    missing: u64,
    cases: u64,
    #[serde(with = "float")]
    lower: f64,
    #[serde(with = "float")]
    upper: f64,
    tasks: Vec<TaskJson>,
}

#[derive(Serialize, Deserialize)]
struct TaskJson {
    name: String,
    #[serde(with = "float")]
    upper: f64,
}

impl Replays {
    /// What is left in the folder of this store; nothing is read yet.
    pub fn new(store: &Path) -> Self {
        Self { folder: store.join(GOLDEN_FOLDER), known: Mutex::default() }
    }

    /// Reads what is there now. What cannot be read is not known.
    ///
    /// # Errors
    /// When the folder cannot be listed, though it is there.
    pub fn read(&self) -> Result<(), FileError> {
        let mut known = BTreeMap::new();
        match fs::read_dir(&self.folder) {
            Ok(entries) => {
                let names = entries.filter_map(|it| it.ok()?.file_name().into_string().ok());
                for name in names
                    .filter(|it| Path::new(it).extension().is_some_and(|it| it == "json"))
                    .take(FILES_MAX)
                {
                    if let Some(replayed) = replayed(&self.folder.join(&name)) {
                        known.insert(name, replayed);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("list", &self.folder)(error)),
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// What came of a set, when it was read last.
    pub fn of(&self, set: &str, sides: [&Name; 2]) -> Option<Replayed> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&file(set, sides)).cloned()
    }

    /// Keeps what came of a set in a folder, in place of what came of it before; it is on disk when
    /// this returns.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn keep(
        folder: &Path,
        (set, sides): (&str, [&Name; 2]),
        replayed: &Replayed,
    ) -> Result<(), FileError> {
        make_dir(folder)?;
        let path = folder.join(file(set, sides));
        let fresh = path.with_extension("new");
        let [lower, upper] = replayed.interval;
        let task = |(name, upper): &(String, f64)| TaskJson { name: name.clone(), upper: *upper };
        let bytes = json::encode(&ReplayedJson {
            v: VERSION,
            digest: replayed.digest,
            identities: replayed.identities,
            missing: replayed.missing,
            cases: replayed.cases,
            lower,
            upper,
            tasks: replayed.tasks.iter().map(task).collect(),
        });
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(at("write", &path))?;
        sync_dir(folder)
    }
}

fn file(set: &str, [primary, candidate]: [&Name; 2]) -> String {
    format!("{set}.{primary}.{candidate}.json")
}

fn replayed(path: &Path) -> Option<Replayed> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let json: ReplayedJson = json::decode(&bytes).ok()?;
    Some(Replayed {
        digest: json.digest,
        identities: json.identities,
        missing: json.missing,
        cases: json.cases,
        interval: [json.lower, json.upper],
        tasks: json.tasks.into_iter().map(|it| (it.name, it.upper)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_kept_is_known_once_it_is_read_and_nonsense_is_not() {
        let dir = tempfile::TempDir::new().unwrap();
        let replays = Replays::new(dir.path());
        replays.read().unwrap();
        let [a, b]: [Name; 2] = ["a", "b"].map(|it| it.parse().unwrap());
        let tasks = vec![("mail".to_owned(), -0.25)];
        let replayed = Replayed {
            digest: u64::MAX,
            identities: [1, u64::MAX - 1],
            missing: 2,
            cases: 3,
            interval: [-0.1, 0.3],
            tasks,
        };
        let folder = dir.path().join(GOLDEN_FOLDER);
        for missing in [9, 2] {
            let replayed = Replayed { missing, ..replayed.clone() };
            Replays::keep(&folder, ("chat", [&a, &b]), &replayed).unwrap();
        }
        assert_eq!(replays.of("chat", [&a, &b]), None);
        fs::write(folder.join("chat.b.a.json"), "{").unwrap();
        replays.read().unwrap();
        assert_eq!(replays.of("chat", [&a, &b]), Some(replayed));
        assert_eq!(replays.of("chat", [&b, &a]), None);
        fs::remove_dir_all(&folder).unwrap();
        replays.read().unwrap();
        assert_eq!(replays.of("chat", [&a, &b]), None);
    }
}
