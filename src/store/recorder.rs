//! The recorder: one thread that writes pairs, behind a queue that never makes anybody wait.

use std::{
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

use super::{bodies::Bodies, pairs::Pairs, pairs_error::PairsError};
use crate::domain::{Note, Pair, Score, Timestamp};

/// Pairs and scores written at once.
const BATCH_LEN_MAX: usize = 256;
/// How long a batch waits for more. It sleeps so long, because to wake it for each pair would cost
/// whoever brings them, and because pairs that are written together take less room.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Notes written at once at most; fewer are when the disk's turn comes.
const NOTES_LEN_MAX: usize = 1_024;
/// How long a stored pair may wait for the disk.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// How often old pairs are taken away.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// Bytes of bodies that may wait, whatever their number.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Makes the thread that writes pairs.
#[derive(Clone, Copy, Debug)]
pub struct Recorder;

/// Where pairs and scores are handed over. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecorderHandle {
    queue: SyncSender<Item>,
    backlog: Arc<Backlog>,
    pairs: Pairs,
}

/// The running thread. It ends, with everything on disk, when it is joined.
#[derive(Debug)]
pub struct RecorderThread {
    thread: JoinHandle<()>,
    queue: SyncSender<Item>,
    backlog: Arc<Backlog>,
}

/// What was handed over and is not written yet.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Pairs, scores and notes.
    items: AtomicUsize,
    /// Bytes of bodies that are in the queue.
    bytes: AtomicUsize,
    /// Nobody writes any more.
    has_ended: AtomicBool,
}

/// What became of what was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Offered {
    /// It will be written.
    Taken,
    /// The queue was full, or the thread has ended. It is counted.
    Dropped,
}

#[derive(Debug)]
enum Item {
    Pair(Box<(Pair, Bodies)>),
    Score(Score),
    Note(Note),
    /// Nothing that follows is written.
    End,
}

impl Recorder {
    /// Starts the thread. `clock` says what time it is, for the age of pairs.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        pairs: Pairs,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> io::Result<(RecorderHandle, RecorderThread)> {
        let (handle, writer) = channel(pairs, clock);
        let thread = thread::Builder::new().name("recorder".to_owned());
        let thread = thread.spawn(move || writer.run())?;
        let (queue, backlog) = (handle.queue.clone(), Arc::clone(&handle.backlog));
        Ok((handle, RecorderThread { thread, queue, backlog }))
    }
}

impl RecorderHandle {
    /// Hands over a pair. Never waits.
    pub fn offer(&self, pair: Pair, bodies: Bodies) -> Offered {
        self.send(Item::Pair(Box::new((pair, bodies.cut()))))
    }

    /// Hands over a score. Never waits.
    pub fn offer_score(&self, score: Score) -> Offered {
        self.send(Item::Score(score))
    }

    /// Hands over a note. Never waits.
    pub fn offer_note(&self, note: Note) -> Offered {
        self.send(Item::Note(note))
    }

    /// Whether the thread has ended: before it is joined, it panicked.
    pub fn has_ended(&self) -> bool {
        self.backlog.has_ended.load(Relaxed)
    }

    fn send(&self, item: Item) -> Offered {
        let (bytes, is_pair) = (item.bytes(), matches!(item, Item::Pair(_)));
        let waiting = self.backlog.bytes.fetch_add(bytes, Relaxed) + bytes;
        self.backlog.items.fetch_add(1, Relaxed);
        if waiting <= QUEUE_BYTES_MAX && self.queue.try_send(item).is_ok() {
            return Offered::Taken;
        }
        self.backlog.bytes.fetch_sub(bytes, Relaxed);
        self.backlog.items.fetch_sub(1, Relaxed);
        if is_pair {
            self.pairs.count_dropped();
        }
        Offered::Dropped
    }
}

impl RecorderThread {
    /// Lets the thread write what it was handed so far, and waits until it has.
    ///
    /// # Errors
    /// When it panicked.
    pub fn join(self) -> thread::Result<()> {
        // Where it has ended already nobody takes this.
        drop(self.queue.send(Item::End));
        self.thread.join()
    }

    /// What is not written yet, also while it is joined.
    pub fn backlog(&self) -> Arc<Backlog> {
        Arc::clone(&self.backlog)
    }
}

impl Backlog {
    /// Pairs, scores and notes that were handed over and are not written.
    pub fn len(&self) -> usize {
        self.items.load(Relaxed)
    }

    /// Whether all that was handed over is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Item {
    /// Bytes of bodies; the rest is small and bounded by the queue's length.
    fn bytes(&self) -> usize {
        match self {
            Self::Pair(pair) => pair.1.len(),
            Self::Score(_) | Self::Note(_) | Self::End => 0,
        }
    }
}

struct Writer<C> {
    pairs: Pairs,
    queue: Receiver<Item>,
    backlog: Arc<Backlog>,
    clock: C,
    disk: Disk,
    /// Small and many, so they are written together.
    notes: Vec<Note>,
}

/// How the last write went; only changes are logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Works,
    Fails,
}

fn channel<C: Fn() -> Timestamp>(pairs: Pairs, clock: C) -> (RecorderHandle, Writer<C>) {
    let (sender, queue) = sync_channel(pairs.limits().queue_len_max);
    let backlog = Arc::new(Backlog::default());
    let handle =
        RecorderHandle { queue: sender, backlog: Arc::clone(&backlog), pairs: pairs.clone() };
    (handle, Writer { pairs, queue, backlog, clock, disk: Disk::Works, notes: Vec::new() })
}

/// Also by a panic.
impl<C> Drop for Writer<C> {
    fn drop(&mut self) {
        self.backlog.has_ended.store(true, Relaxed);
    }
}

impl<C: Fn() -> Timestamp> Writer<C> {
    fn run(mut self) {
        let mut sweep_at = Instant::now();
        let mut flush_at = None;
        loop {
            let due = flush_at.map_or(sweep_at, |it: Instant| it.min(sweep_at));
            match self.queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    if self.write(first).is_break() {
                        break;
                    }
                    flush_at = flush_at.or_else(|| Some(Instant::now() + FLUSH_EVERY));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if flush_at.is_some_and(|it| it <= Instant::now()) {
                flush_at = None;
                self.write_notes();
                let flushed = self.pairs.flush();
                self.tell(flushed);
            }
            if sweep_at <= Instant::now() {
                sweep_at = Instant::now() + SWEEP_EVERY;
                let swept = self.pairs.sweep((self.clock)());
                self.tell(swept.map(drop));
            }
        }
        self.write_notes();
        let flushed = self.pairs.flush();
        self.tell(flushed);
    }

    fn write_notes(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        let len = notes.len();
        let put = self.pairs.put_notes(notes);
        self.backlog.items.fetch_sub(len, Relaxed);
        self.tell(put);
    }

    /// Writes an item and those that follow within a moment; breaks where nothing more is written.
    fn write(&mut self, first: Item) -> ControlFlow<()> {
        let (mut pairs, mut scores) = (Vec::new(), Vec::new());
        let full = BATCH_LEN_MAX.min(self.pairs.limits().queue_len_max / 2);
        if self.backlog.len() < self.notes.len() + full {
            thread::sleep(BATCH_WAIT);
        }
        let (mut next, mut goes) = (Some(first), ControlFlow::Continue(()));
        while let Some(item) = next {
            self.backlog.bytes.fetch_sub(item.bytes(), Relaxed);
            match item {
                Item::Pair(pair) => pairs.push(*pair),
                Item::Score(score) => scores.push(score),
                Item::Note(note) => self.notes.push(note),
                Item::End => {
                    goes = ControlFlow::Break(());
                    break;
                }
            }
            if NOTES_LEN_MAX <= self.notes.len() {
                self.write_notes();
            }
            if BATCH_LEN_MAX <= pairs.len() + scores.len() {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        if !pairs.is_empty() {
            let put = self.pairs.put_batch(&pairs);
            self.backlog.items.fetch_sub(pairs.len(), Relaxed);
            self.tell(put);
        }
        for score in scores {
            let put = self.pairs.put_score(&score);
            self.backlog.items.fetch_sub(1, Relaxed);
            self.tell(put);
        }
        goes
    }

    fn tell(&mut self, result: Result<(), PairsError>) {
        let before = self.disk;
        self.disk = if result.is_ok() { Disk::Works } else { Disk::Fails };
        match (before, result) {
            (Disk::Works, Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "pairs are being lost");
            }
            (Disk::Fails, Ok(())) => tracing::info!("pairs are stored again"),
            (Disk::Works, Ok(())) | (Disk::Fails, Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, Query, samples};

    fn clock() -> Timestamp {
        Timestamp(5_000)
    }

    fn all() -> Query {
        Query { len_max: 1_000, ..Query::default() }
    }

    #[test]
    fn a_full_queue_drops_and_counts_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
        let (handle, writer) = channel(pairs.clone(), clock);
        let offered: Vec<Offered> = (0..13)
            .map(|n| handle.offer(samples::pair("chat", 1_000 + n, n), samples::bodies("x")))
            .collect();
        assert_eq!(offered.iter().filter(|it| **it == Offered::Taken).count(), 8);
        assert_eq!(offered[8..], [Offered::Dropped; 5]);
        assert_eq!(pairs.counters().dropped, 5);
        drop(handle);
        let backlog = Arc::clone(&writer.backlog);
        assert_eq!(backlog.len(), 8);
        writer.run();
        assert_eq!(pairs.list(&all()).unwrap().len(), 8);
        assert_eq!((pairs.counters().pairs, backlog.bytes.load(Relaxed)), (8, 0));
        assert!(backlog.is_empty());
    }

    #[test]
    fn large_bodies_fill_the_queue_by_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { queue_len_max: 1_000, ..samples::LIMITS };
        let pairs = Pairs::open(dir.path(), limits).unwrap();
        let (handle, _writer) = channel(pairs.clone(), clock);
        let large = vec![b'x'; 8 << 20];
        let taken = (0..300)
            .map(|n| {
                let bodies = Bodies { request: large.clone().into(), ..Bodies::default() };
                handle.offer(samples::pair("chat", 1_000, n), bodies)
            })
            .filter(|it| *it == Offered::Taken)
            .count();
        assert_eq!(taken, QUEUE_BYTES_MAX / (256 << 10));
        assert_eq!(pairs.counters().dropped, 300 - 256);
    }

    #[test]
    fn it_shows_that_its_thread_has_panicked() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
        let broken = || -> Timestamp { panic!("the clock is broken") };
        let (handle, recorder) = Recorder::start(pairs, broken).unwrap();
        let ends = Instant::now() + Duration::from_mins(2);
        while !handle.has_ended() {
            assert!(Instant::now() < ends, "it writes on without a clock");
            thread::yield_now();
        }
        assert!(recorder.join().is_err());
        let offered = handle.offer(samples::pair("chat", 1_000, 1), samples::bodies("x"));
        assert_eq!(offered, Offered::Dropped);
    }

    #[test]
    fn everything_is_there_once_it_is_joined_though_others_could_hand_over_more() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { queue_len_max: 1_000, ..samples::LIMITS };
        let pairs = Pairs::open(dir.path(), limits).unwrap();
        let (handle, thread) = Recorder::start(pairs, clock).unwrap();
        for n in 0..200 {
            let pair = samples::pair("chat", 1_000 + n, n);
            let score = samples::score(&pair, "judge:a@1");
            assert_eq!(handle.clone().offer(pair, samples::bodies("x")), Offered::Taken);
            assert_eq!(handle.offer_score(score), Offered::Taken);
        }
        let backlog = thread.backlog();
        thread.join().unwrap();
        assert!(backlog.is_empty() && handle.has_ended());
        drop(handle);
        let pairs = Pairs::open(dir.path(), limits).unwrap();
        let list = pairs.list(&all()).unwrap();
        assert_eq!(list.len(), 200);
        assert!(list.iter().all(|it| pairs.get(it.id).unwrap().unwrap().1.len() == 1));
    }
}
