//! The controller's hand on the journal: forward steps wait for the disk, backward ones do not.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time,
};

use crate::domain::{Name, Record};
use crate::store::{Journal, JournalError};

/// Writes records in order, one at a time, off the controller's own thread.
#[derive(Debug)]
pub(super) struct Book {
    hand: Hand,
    next_seq: u64,
    /// Steps back that are done but not on disk yet. Bounded: nothing goes forward meanwhile.
    backlog: VecDeque<Record>,
}

/// Who has the journal now.
#[derive(Debug)]
enum Hand {
    Free(Box<Journal>),
    Writing(JoinHandle<(Box<Journal>, Result<(), JournalError>)>),
    /// There is none, or its writer died: nothing can be written any more.
    Gone(String),
}

impl Book {
    pub(super) fn new(journal: Result<Journal, String>) -> Self {
        match journal {
            Ok(journal) => Self {
                next_seq: journal.next_seq(),
                hand: Hand::Free(Box::new(journal)),
                backlog: VecDeque::new(),
            },
            Err(why) => Self { hand: Hand::Gone(why), next_seq: 1, backlog: VecDeque::new() },
        }
    }

    /// Why nothing can go forward, if so.
    pub(super) fn problem(&self) -> Option<String> {
        match (&self.hand, self.backlog.len()) {
            (Hand::Gone(why), _) => Some(why.clone()),
            (Hand::Free(_) | Hand::Writing(_), 0) => None,
            (Hand::Free(_) | Hand::Writing(_), waiting) => {
                Some(format!("{waiting} rollbacks are done but not on disk yet; see the log"))
            }
        }
    }

    /// Whether everything about a rollout is on disk.
    pub(super) fn is_durable(&self, rollout: &Name) -> bool {
        self.backlog.iter().all(|it| it.rollout != *rollout)
    }

    /// Writes a step forward and waits until it is on disk. On an error it never happened.
    pub(super) async fn commit(&mut self, mut record: Record) -> Result<Record, String> {
        if let Some(problem) = self.problem() {
            return Err(problem);
        }
        record.seq = self.next_seq;
        self.write(&record);
        self.written().await?;
        self.next_seq += 1;
        Ok(record)
    }

    /// Takes note of a step back, to be written as soon as the disk allows.
    pub(super) fn note(&mut self, mut record: Record) -> Record {
        record.seq = self.next_seq;
        self.next_seq += 1;
        self.backlog.push_back(record.clone());
        record
    }

    /// Writes what was noted, for at most so long. What is left is tried again at the next call.
    pub(super) async fn settle(&mut self, wait: Duration) {
        // Bounded: every round writes a record or ends.
        while let Some(record) = self.backlog.front().cloned() {
            if matches!(self.hand, Hand::Free(_)) {
                self.write(&record);
            }
            match time::timeout(wait, self.written()).await {
                Ok(Ok(())) => {
                    self.backlog.pop_front();
                }
                Ok(Err(error)) => {
                    tracing::error!(rollout = %record.rollout, error, "a rollback is not on disk yet");
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let hand = std::mem::replace(&mut self.hand, Hand::Gone("the journal is lost".to_owned()));
        self.hand = match hand {
            Hand::Free(mut journal) => {
                let record = record.clone();
                Hand::Writing(spawn_blocking(move || {
                    let result = journal.append(&record);
                    (journal, result)
                }))
            }
            Hand::Writing(_) | Hand::Gone(_) => hand,
        };
    }

    /// Waits for the write under way. Safe to drop half-way: the write goes on.
    async fn written(&mut self) -> Result<(), String> {
        let Hand::Writing(writing) = &mut self.hand else {
            return Err(self.problem().unwrap_or_else(|| "nothing is being written".to_owned()));
        };
        match writing.await {
            Ok((journal, result)) => {
                self.hand = Hand::Free(journal);
                result.map_err(|error| format!("the journal cannot be written: {error}"))
            }
            Err(error) => {
                let why = format!("the journal's writer ended: {error}");
                self.hand = Hand::Gone(why.clone());
                Err(why)
            }
        }
    }
}
