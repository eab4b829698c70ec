//! The recorder: one thread that writes pairs, behind a queue that never makes anybody wait.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

use super::{entry::Bodies, pairs::Pairs, pairs_error::PairsError};
use crate::domain::{Note, Pair, Score, Timestamp};

/// Pairs and scores written at once.
const BATCH_LEN_MAX: usize = 256;
/// How long a batch waits for more. It sleeps so long, because to wake it for each pair would cost
/// whoever brings them.
const BATCH_WAIT: Duration = Duration::from_millis(5);
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
    waiting_bytes: Arc<AtomicUsize>,
    pairs: Pairs,
}

/// The running thread. It ends, with everything on disk, when the last handle is dropped.
#[derive(Debug)]
pub struct RecorderThread(JoinHandle<()>);

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
        Ok((handle, RecorderThread(thread)))
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

    fn send(&self, item: Item) -> Offered {
        let (bytes, is_pair) = (item.bytes(), matches!(item, Item::Pair(_)));
        let waiting = self.waiting_bytes.fetch_add(bytes, Relaxed) + bytes;
        if waiting <= QUEUE_BYTES_MAX && self.queue.try_send(item).is_ok() {
            return Offered::Taken;
        }
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
        if is_pair {
            self.pairs.count_dropped();
        }
        Offered::Dropped
    }
}

impl RecorderThread {
    /// Waits until the thread has ended.
    ///
    /// # Errors
    /// When it panicked.
    pub fn join(self) -> thread::Result<()> {
        self.0.join()
    }

    /// Whether it has ended: before the last handle is dropped, it panicked.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Item {
    /// Bytes of bodies; the rest is small and bounded by the queue's length.
    fn bytes(&self) -> usize {
        match self {
            Self::Pair(pair) => pair.1.len(),
            Self::Score(_) | Self::Note(_) => 0,
        }
    }
}

struct Writer<C> {
    pairs: Pairs,
    queue: Receiver<Item>,
    waiting_bytes: Arc<AtomicUsize>,
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
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let handle = RecorderHandle {
        queue: sender,
        waiting_bytes: Arc::clone(&waiting_bytes),
        pairs: pairs.clone(),
    };
    (handle, Writer { pairs, queue, waiting_bytes, clock, disk: Disk::Works, notes: Vec::new() })
}

impl<C: Fn() -> Timestamp> Writer<C> {
    fn run(mut self) {
        let mut sweep_at = Instant::now();
        let mut flush_at = None;
        loop {
            let due = flush_at.map_or(sweep_at, |it: Instant| it.min(sweep_at));
            match self.queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(first) => {
                    self.write(first);
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
        let put = self.pairs.put_notes(notes);
        self.tell(put);
    }

    /// Writes an item and those that follow within a moment.
    fn write(&mut self, first: Item) {
        let (mut pairs, mut scores) = (Vec::new(), Vec::new());
        thread::sleep(BATCH_WAIT);
        let mut next = Some(first);
        while let Some(item) = next {
            self.waiting_bytes.fetch_sub(item.bytes(), Relaxed);
            match item {
                Item::Pair(pair) => pairs.push(*pair),
                Item::Score(score) => scores.push(score),
                Item::Note(note) => self.notes.push(note),
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
            self.tell(put);
        }
        for score in scores {
            let put = self.pairs.put_score(&score);
            self.tell(put);
        }
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
        let waiting = Arc::clone(&writer.waiting_bytes);
        writer.run();
        assert_eq!(pairs.list(&all()).unwrap().len(), 8);
        assert_eq!((pairs.counters().pairs, waiting.load(Relaxed)), (8, 0));
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
    fn everything_is_there_when_the_last_handle_is_gone() {
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
        drop(handle);
        thread.join().unwrap();
        let pairs = Pairs::open(dir.path(), limits).unwrap();
        let list = pairs.list(&all()).unwrap();
        assert_eq!(list.len(), 200);
        assert!(list.iter().all(|it| pairs.get(it.id).unwrap().unwrap().1.len() == 1));
    }
}
