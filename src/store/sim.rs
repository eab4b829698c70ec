//! A simulated disk that fails, hangs and loses power where a test asks for it.
//!
//! Every operation is a row of *steps* (create, write, sync, rename, …), counted from 1. What was
//! written is on the platter for certain only when a sync of it said yes. A sync that failed
//! leaves it open for ever what is there of the bytes it was for, also after a later sync that
//! says yes: so Linux does. A power cut keeps what is certain, and of the rest anything legal.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{
    History, Journal, JournalError,
    disk::Disk,
    journal::{Bounds, FILE_NAME},
};

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which step, from 1.
    pub(crate) step: u64,
    /// What the system says.
    pub(crate) error: Errno,
    /// For how long.
    pub(crate) lasts: Lasts,
}

/// Errors of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errno {
    /// It is broken.
    Io,
    /// It is full.
    Full,
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasts {
    Once,
    ForEver,
}

/// A disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sim(Arc<(Mutex<State>, Condvar)>);

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// Names that are on the platter for certain.
    names_safe: BTreeMap<String, usize>,
    /// Changes of names since.
    moves: Vec<Move>,
    step: u64,
    faults: Vec<Fault>,
    /// The first step that waits, if any does.
    hang_from: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    changes: Vec<(Change, Fate)>,
}

#[derive(Clone, Debug)]
enum Change {
    Truncate,
    Write { at: usize, bytes: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Certain,
    /// Waits for a sync.
    Open,
    /// Its sync failed.
    Doubtful,
}

#[derive(Clone, Debug)]
enum Move {
    Link { name: String, file: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

/// What a step comes to.
enum Step {
    Works,
    Fails(io::Error),
}

impl Errno {
    fn error(self) -> io::Error {
        // EIO and ENOSPC, as Linux numbers them.
        io::Error::from_raw_os_error(match self {
            Self::Io => 5,
            Self::Full => 28,
        })
    }
}

impl Sim {
    /// A disk with such files on it.
    pub(crate) fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let sim = Self::default();
        let mut disk: Box<dyn Disk> = Box::new(sim.clone());
        for (name, bytes) in files {
            disk.write(name, bytes).unwrap();
        }
        disk.sync_names().unwrap();
        sim.state().step = 0;
        sim
    }

    /// Opens the journal on it.
    pub(in crate::store) fn journal(
        &self,
        bounds: Bounds,
    ) -> Result<(Journal, History), JournalError> {
        Journal::on(Box::new(self.clone()), Path::new("sim"), bounds)
    }

    /// Opens the journal on it, with bounds that are never reached.
    pub(crate) fn endless_journal(&self) -> Result<(Journal, History), JournalError> {
        self.journal(Bounds {
            records_max: usize::MAX,
            bytes_max: usize::MAX,
            records_kept: 0,
            bytes_kept: 0,
            archives_bytes_max: u64::MAX,
        })
    }

    /// Opens the journal on it, with bounds that a few steps reach.
    pub(crate) fn short_journal(&self) -> Result<(Journal, History), JournalError> {
        self.journal(Bounds {
            records_max: 6,
            bytes_max: usize::MAX,
            records_kept: 2,
            bytes_kept: usize::MAX,
            archives_bytes_max: u64::MAX,
        })
    }

    /// Steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.state().step
    }

    /// Makes something fail from now on, or nothing.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        self.state().faults = fault.into_iter().collect();
    }

    /// Makes something else fail too.
    pub(crate) fn fail_again(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Makes every step from now on wait.
    pub(crate) fn hang(&self) {
        self.hang_from(0);
    }

    /// Makes every step from this one on wait.
    pub(crate) fn hang_from(&self, step: u64) {
        self.state().hang_from = Some(step);
    }

    /// Lets what waits go on.
    pub(crate) fn go_on(&self) {
        self.state().hang_from = None;
        self.0.1.notify_all();
    }

    /// The files as the running system sees them: what a kill -9 leaves.
    pub(crate) fn seen(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].seen())).collect()
    }

    /// Everything that `name` may hold after a power cut now; none where it may be missing.
    pub(crate) fn after_power_cut(&self, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        let state = self.state();
        let mut images = BTreeSet::new();
        for chosen in subsets(state.moves.len()) {
            let mut names = state.names_safe.clone();
            let moves = state.moves.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
            moves.for_each(|(it, _)| it.make(&mut names));
            match names.get(name) {
                Some(file) => images.extend(state.files[*file].images().into_iter().map(Some)),
                None => drop(images.insert(None)),
            }
        }
        images
    }

    /// What a crash now may leave of the disk with the journal: first what a kill -9 does, then
    /// what power cuts may.
    pub(crate) fn crashed(&self) -> Vec<Self> {
        let images = self.after_power_cut(FILE_NAME).into_iter().flatten();
        let images = images.map(|it| [(FILE_NAME.to_owned(), it)].into());
        [self.seen()].into_iter().chain(images).map(|it| Self::with(&it)).collect()
    }

    /// Whether a step waits.
    pub(crate) fn hangs(&self) -> bool {
        let state = self.state();
        state.hang_from.is_some_and(|it| it <= state.step)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a step; waits where the disk hangs.
    fn step(&self) -> (MutexGuard<'_, State>, Step) {
        let mut state = self.state();
        state.step += 1;
        let step = state.step;
        while state.hang_from.is_some_and(|it| it <= step) {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let failed = state.faults.iter().find(|it| match it.lasts {
            Lasts::Once => it.step == step,
            Lasts::ForEver => it.step <= step,
        });
        let what = failed.map_or(Step::Works, |it| Step::Fails(it.error.error()));
        (state, what)
    }

    /// Adds bytes to a file; half of them where it fails.
    fn add(&self, file: usize, bytes: &[u8]) -> io::Result<()> {
        let (mut state, step) = self.step();
        let inode = &mut state.files[file];
        let at = inode.seen().len();
        let (bytes, result) = match step {
            Step::Works => (bytes, Ok(())),
            Step::Fails(error) => (&bytes[..bytes.len() / 2], Err(error)),
        };
        inode.changes.push((Change::Write { at, bytes: bytes.to_vec() }, Fate::Open));
        result
    }

    fn sync(&self, file: usize) -> io::Result<()> {
        let (mut state, step) = self.step();
        let (fate, result) = match step {
            Step::Works => (Fate::Certain, Ok(())),
            Step::Fails(error) => (Fate::Doubtful, Err(error)),
        };
        let open = state.files[file].changes.iter_mut().filter(|it| it.1 == Fate::Open);
        open.for_each(|it| it.1 = fate);
        result
    }

    fn change_names(&self, change: Move) -> io::Result<()> {
        let (mut state, step) = self.step();
        match step {
            Step::Works => {
                change.make(&mut state.names);
                state.moves.push(change);
                Ok(())
            }
            Step::Fails(error) => Err(error),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.state().names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Sim {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.find(name)?;
        match self.step() {
            (state, Step::Works) => Ok(state.files[file].seen()),
            (_, Step::Fails(error)) => Err(error),
        }
    }

    fn files(&self) -> io::Result<Vec<(String, u64)>> {
        let seen = self.seen();
        Ok(seen
            .into_iter()
            .map(|(name, bytes)| (name, u64::try_from(bytes.len()).unwrap()))
            .collect())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.find(name)?;
        self.add(file, bytes)?;
        self.sync(file)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = if let Ok(file) = self.find(name) {
            let (mut state, step) = self.step();
            if let Step::Fails(error) = step {
                return Err(error);
            }
            state.files[file].changes.push((Change::Truncate, Fate::Open));
            file
        } else {
            let file = self.state().files.len();
            self.state().files.push(Inode::default());
            self.change_names(Move::Link { name: name.to_owned(), file })?;
            file
        };
        self.add(file, bytes)?;
        self.sync(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.find(from)?;
        self.change_names(Move::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.change_names(Move::Remove { name: name.to_owned() })
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let (mut state, step) = self.step();
        if let Step::Fails(error) = step {
            return Err(error);
        }
        state.names_safe = state.names.clone();
        state.moves.clear();
        Ok(())
    }
}

impl Move {
    fn make(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link { name, file } => drop(names.insert(name.clone(), *file)),
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove { name } => drop(names.remove(name)),
        }
    }
}

impl Inode {
    fn seen(&self) -> Vec<u8> {
        content(self.changes.iter().map(|it| &it.0))
    }

    /// Every content that a power cut may leave: of changes that are not certain any may be
    /// missing, and a write may be there in part, with zeros or nothing for the rest.
    fn images(&self) -> Vec<Vec<u8>> {
        let open = self.changes.iter().filter(|it| it.1 != Fate::Certain).count();
        let mut images = Vec::new();
        for chosen in subsets(open) {
            let mut chosen = chosen.iter();
            let mut there = |fate: Fate| fate == Fate::Certain || *chosen.next().unwrap();
            let kept: Vec<_> = self.changes.iter().filter(|it| there(it.1)).collect();
            images.push(content(kept.iter().map(|it| &it.0)));
            let last = kept.last().filter(|it| it.1 != Fate::Certain);
            if let Some((Change::Write { at, bytes }, _)) = last {
                for half in halves(*at, bytes) {
                    let before = kept[..kept.len() - 1].iter().map(|it| &it.0);
                    images.push(content(before.chain(half.iter())));
                }
            }
        }
        images
    }
}

/// A write in part: cut at telling places, or with zeros where bytes should be.
fn halves(at: usize, bytes: &[u8]) -> Vec<Vec<Change>> {
    let cuts: BTreeSet<usize> =
        [1, 4, 7, 8, 9, bytes.len() / 2, bytes.len().saturating_sub(1)].into();
    let cuts = cuts.into_iter().filter(|it| 0 < *it && *it < bytes.len());
    let mut halves = Vec::new();
    for cut in cuts {
        let head = Change::Write { at, bytes: bytes[..cut].to_vec() };
        let tail = Change::Write { at: at + cut, bytes: bytes[cut..].to_vec() };
        let zeros = Change::Write { at: at + cut, bytes: vec![0; bytes.len() - cut] };
        halves.extend([vec![head.clone()], vec![tail], vec![head, zeros]]);
    }
    halves
}

fn content<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<u8> {
    let mut content = Vec::new();
    for change in changes {
        match change {
            Change::Truncate => content.clear(),
            Change::Write { at, bytes } => {
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
        }
    }
    content
}

/// Every choice among so many things.
fn subsets(len: usize) -> impl Iterator<Item = Vec<bool>> {
    assert!(len <= 12, "{len} open changes are too many to try all");
    (0_u32..1 << len).map(move |bits| (0..len).map(|it| bits & (1 << it) != 0).collect())
}
