//! The controller's hand on the journal: one write at a time, and nobody waits inside the loop.
//!
//! At most one *step forward* is under way; *steps back* are noted and written behind it, in the
//! order they took effect. A step back is a rollback, a stop of the node, or what lowers the share
//! that the candidate serves: of one rollout or, as a flag, for whom it says. A write that hangs
//! therefore holds up writing and nothing else. What can come between the beginning of a forward write and its end, and what becomes of it:
//!
//! ```text
//! another step forward       waits its turn (`Ready::Busy`) and is decided anew then; with a
//!                            disk that is slow or in trouble it is refused (`Ready::No`)
//! a step back, other rollout takes effect now, is noted, is written next
//! a lower share, same one    waits its turn: it depends on what becomes of the step forward
//! a rollback, same rollout   takes effect now; the step forward is overtaken: its asker is
//!                            told so at once and it never takes effect. Is it on disk in the
//!                            end, the step back is written behind it; if not, in its place.
//!                            Replayed, both end in `RolledBack`
//! a start, then a rollback   nothing has moved yet; the rollback is noted all the same, so the
//!                            start is overtaken as above, also where it only waits its turn
//! a stop of the whole node   is a step back of its own, noted before the falls it brings; it
//!                            overtakes a start and a lift, also those that wait their turn
//! a start that supersedes    waits its turn, then sends the others back, then waits until that
//!                            is on disk
//! a lower flag               takes effect now; it overtakes what raises the same flag
//! the write is slow          a step up of the controller's own that would not be taken any more
//!                            when it ends is taken back before its share is seen
//! the write fails            the step never happened; steps back take the free position. What
//!                            the disk may hold of it is taken away as soon as the disk works,
//!                            and nothing goes forward before
//! kill -9, power cut         the step forward is there or not, as its asker was never told; a
//!                            step back that was not on disk said so (`durable`: false)
//! ```
//!
//! Positions are given when it is certain what stands before: a step back noted behind a forward
//! write gets its position, and is told to watchers, when that write has ended.

use std::{collections::VecDeque, future, time::Duration};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use crate::domain::{Event, Name, Record};
use crate::store::{Journal, JournalError};
use crate::tasks::describe;

/// A write that takes longer is trouble, and nothing goes forward behind it.
pub(super) const WRITE_WAIT: Duration = Duration::from_secs(1);
/// Between two tries to write what failed before.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Writes records in order, one at a time, off the controller's own thread.
#[derive(Debug)]
pub(super) struct Book {
    hand: Hand,
    /// The position of the next record that gets one.
    next_seq: u64,
    /// The step forward that is being written.
    forward: Option<Record>,
    /// Steps back that are done but not on disk yet. Bounded: nothing goes forward meanwhile.
    backlog: VecDeque<Noted>,
    /// Why the last write failed and since when, until one succeeds.
    trouble: Option<(String, Instant)>,
    /// Steps back that are on disk before anybody was told.
    untold: Vec<Record>,
}

/// Who has the journal now.
#[derive(Debug)]
enum Hand {
    Free(Box<Journal>),
    Writing {
        write: Write,
        errand: Errand,
        since: Instant,
    },
    /// There is none, or its writer died: nothing can be written any more.
    Gone(String),
}

type Write = JoinHandle<(Box<Journal>, Result<(), JournalError>)>;

/// What is being written.
#[derive(Clone, Copy, Debug)]
enum Errand {
    Forward,
    Back,
    /// Nothing new: what a failed write may have left is taken away.
    Settle,
}

/// A step back on its way to the disk.
#[derive(Debug)]
struct Noted {
    /// With position 0 until it has one.
    record: Record,
    told: bool,
}

/// Whether a step forward can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// Now.
    Yes,
    /// When the write under way has ended, which is soon.
    Busy,
    /// Not before somebody has repaired this.
    No(String),
}

/// A write that ended.
#[derive(Debug)]
pub(super) enum Written {
    /// A step forward. On an error it never happened.
    Forward(Result<Box<Record>, String>),
    /// A step back. On an error it is tried again.
    Back(Result<(), String>),
    /// The journal was brought in order, or not yet.
    Settled,
}

impl Book {
    pub(super) fn new(journal: Result<Journal, String>) -> Self {
        let next_seq = journal.as_ref().map_or(1, Journal::next_seq);
        Self {
            hand: journal.map_or_else(Hand::Gone, |it| Hand::Free(Box::new(it))),
            next_seq,
            forward: None,
            backlog: VecDeque::new(),
            trouble: None,
            untold: Vec::new(),
        }
    }

    /// Why nothing can go forward, if so.
    pub(super) fn problem(&self) -> Option<String> {
        let waiting = self.backlog.len();
        match (&self.hand, &self.trouble) {
            (Hand::Gone(why), _) => Some(why.clone()),
            (Hand::Free(_) | Hand::Writing { .. }, Some((why, _))) => Some(match waiting {
                0 => format!("nothing goes forward until the journal is in order again: {why}"),
                _ => format!("rollbacks that are done but not on disk yet: {waiting}; {why}"),
            }),
            (Hand::Writing { since, .. }, None) if WRITE_WAIT <= since.elapsed() => Some(format!(
                "a write of the journal has been waiting for the disk for {} s; rollbacks that \
                 are done but not on disk: {waiting}",
                since.elapsed().as_secs()
            )),
            (Hand::Free(_) | Hand::Writing { .. }, None) => None,
        }
    }

    /// Whether a step forward can be written.
    pub(super) fn ready(&self) -> Ready {
        match (self.problem(), &self.hand) {
            (Some(problem), _) => Ready::No(problem),
            (None, Hand::Writing { .. }) => Ready::Busy,
            // Steps back are written first, in the positions they have.
            (None, Hand::Free(_) | Hand::Gone(_)) if !self.backlog.is_empty() => Ready::Busy,
            (None, Hand::Free(_) | Hand::Gone(_)) => Ready::Yes,
        }
    }

    /// Whether everything that took effect of a rollout is on disk.
    pub(super) fn is_durable(&self, rollout: &Name) -> bool {
        self.backlog.iter().all(|it| it.record.rollout != *rollout)
    }

    /// The step forward that is being written.
    pub(super) fn under_way(&self) -> Option<&Event> {
        self.forward.as_ref().map(|it| &it.event)
    }

    /// Steps back that are not on disk yet.
    pub(super) fn backlog_len(&self) -> usize {
        self.backlog.len()
    }

    /// Whether a write is under way.
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.hand, Hand::Writing { .. })
    }

    /// Whether nothing will be written any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.hand, Hand::Gone(_))
    }

    /// All that is not on disk for certain, in its order.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> Vec<Record> {
        let back = self.backlog.iter().map(|it| &it.record);
        self.forward.iter().chain(back).cloned().collect()
    }

    /// Whether the write under way has ended, and nobody has heard of it yet.
    #[cfg(test)]
    pub(super) fn has_written(&self) -> bool {
        matches!(&self.hand, Hand::Writing { write, .. } if write.is_finished())
    }

    /// Begins to write a step forward. Only where [`Self::ready`] says yes.
    pub(super) fn forward(&mut self, mut record: Record) {
        record.seq = self.next_seq;
        self.forward = Some(record.clone());
        self.begin(Errand::Forward, move |journal| journal.append(&record));
    }

    /// Takes note of a step back, to be written as soon as the disk allows.
    pub(super) fn note(&mut self, record: Record) {
        self.backlog.push_back(Noted { record, told: false });
        self.go_on();
    }

    /// Writes the next step back, or brings the journal in order, unless a write is under way.
    pub(super) fn go_on(&mut self) {
        self.number();
        let Hand::Free(journal) = &self.hand else { return };
        if let Some(next) = self.backlog.front() {
            let record = next.record.clone();
            self.begin(Errand::Back, move |journal| journal.append(&record));
        } else if journal.is_suspect() {
            self.begin(Errand::Settle, Journal::settle);
        }
    }

    /// The same, some time after it failed.
    pub(super) fn try_again(&mut self) {
        if self.trouble.as_ref().is_none_or(|(_, since)| RETRY_PAUSE <= since.elapsed()) {
            self.go_on();
        }
    }

    /// Steps back that have a position and that nobody has been told of, in order.
    pub(super) fn news(&mut self) -> Vec<Record> {
        self.number();
        let mut news = std::mem::take(&mut self.untold);
        for noted in self.backlog.iter_mut().filter(|it| 0 < it.record.seq && !it.told) {
            noted.told = true;
            news.push(noted.record.clone());
        }
        news
    }

    /// Waits for the write under way; for ever if there is none. Safe to drop half-way.
    pub(super) async fn written(&mut self) -> Written {
        let Hand::Writing { write, errand, .. } = &mut self.hand else {
            return future::pending().await;
        };
        let (ended, errand) = (write.await, *errand);
        let mut suspect = true;
        let result = match ended {
            Ok((journal, result)) => {
                suspect = journal.is_suspect();
                self.hand = Hand::Free(journal);
                result.map_err(|it| format!("the journal cannot be written: {}", describe(&it)))
            }
            Err(error) => {
                let why = format!("the journal's writer ended: {error}; start the program again");
                self.hand = Hand::Gone(why.clone());
                Err(why)
            }
        };
        // A step forward that failed and left nothing behind is nobody's trouble any more.
        let failed = result.as_ref().err().filter(|_| suspect || !self.backlog.is_empty());
        self.trouble = failed.map(|why| (why.clone(), Instant::now()));
        match errand {
            Errand::Forward => Written::Forward(match (self.forward.take(), result) {
                (Some(record), Ok(())) => {
                    self.next_seq = record.seq + 1;
                    // Steps back that have overtaken it stand behind it: they go from where it
                    // led to, and its plan holds after them.
                    let mut from = record.to;
                    let behind = |it: &&mut Noted| it.record.rollout == record.rollout;
                    for Noted { record: back, .. } in self.backlog.iter_mut().filter(behind) {
                        back.plan_revision = record.plan_revision;
                        back.from = std::mem::replace(&mut from, back.to);
                    }
                    Ok(Box::new(record))
                }
                (_, result) => Err(result.err().unwrap_or_default()),
            }),
            Errand::Back => {
                if result.is_ok() {
                    let noted = self.backlog.pop_front();
                    self.untold.extend(noted.filter(|it| !it.told).map(|it| it.record));
                }
                Written::Back(result)
            }
            Errand::Settle => Written::Settled,
        }
    }

    /// Gives positions, unless it is still open what stands before.
    fn number(&mut self) {
        if self.forward.is_some() {
            return;
        }
        for noted in self.backlog.iter_mut().filter(|it| it.record.seq == 0) {
            noted.record.seq = self.next_seq;
            self.next_seq += 1;
        }
    }

    fn begin(
        &mut self,
        errand: Errand,
        work: impl FnOnce(&mut Journal) -> Result<(), JournalError> + Send + 'static,
    ) {
        let hand = std::mem::replace(&mut self.hand, Hand::Gone("the journal is lost".to_owned()));
        self.hand = match hand {
            Hand::Free(mut journal) => {
                let write = spawn_blocking(move || {
                    let result = work(&mut journal);
                    (journal, result)
                });
                Hand::Writing { write, errand, since: Instant::now() }
            }
            Hand::Writing { .. } | Hand::Gone(_) => hand,
        };
    }
}
