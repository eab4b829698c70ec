//! The store: opened at the start, or waited for while another process has it.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::{JoinError, spawn_blocking},
    time::{sleep, timeout},
};

use crate::clock::Clock;
use crate::config::Config;
use crate::controller::Takeover;
use crate::listeners::Gone;
use crate::operations::Operations;
use crate::store::{
    self, History, Journal, JournalError, Pairs, PairsError, Recorder, RecorderHandle,
    RecorderThread,
};
use crate::tasks::{BoxError, Stop, describe};

use super::Parts;

/// Free space on the disk below which no more pairs are stored, in bytes.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// How often a second process looks whether the first one has let go of the store.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);
/// How often it looks for the pairs, once it has the journal.
pub(super) const STORE_TRIES: u32 = 10;
/// How long the recorder may take to end at least, once everything else has.
const RECORDER_WAIT: Duration = Duration::from_secs(2);
/// How often the pairs are looked for at the start, where somebody may wait.
pub(super) const STORE_TRIES_ONCE: u32 = 1;

/// What it takes to open the stored pairs, and who waits for them.
pub(super) struct Stored {
    dir: PathBuf,
    limits: store::Limits,
    clock: Clock,
    recorder: Arc<OnceLock<RecorderHandle>>,
    operations: Arc<Operations>,
    predecessor: Gone,
    grace: Duration,
}

/// Why there is no journal.
pub(super) enum NoJournal {
    /// Another process has it, and may let go of it.
    Elsewhere(String),
    /// It cannot be used.
    Unusable(String),
}

/// Opens the journal; what is wrong is logged by who gives up on it.
pub(super) async fn open_journal(dir: PathBuf) -> Result<(Journal, History), NoJournal> {
    match spawn_blocking(move || Journal::open(&dir)).await {
        Ok(Ok(journal)) => Ok(journal),
        Ok(Err(error @ JournalError::Locked { .. })) => Err(NoJournal::Elsewhere(format!(
            "{error}: this one serves the primary, controls nothing, and takes over when that ends"
        ))),
        Ok(Err(error)) => Err(NoJournal::Unusable(describe(&error))),
        Err(error) => Err(NoJournal::Unusable(error.to_string())),
    }
}

/// Tries again and again to get the store that another process has; then hands it on.
pub(super) async fn stand_by(
    mut stored: Stored,
    takeover: mpsc::Sender<Takeover>,
    mut stop: Stop,
) -> Result<(), BoxError> {
    tokio::select! {
        () = stop.wait() => return Ok(()),
        () = stored.predecessor.wait() => {}
    }
    let journal = loop {
        let why = match open_journal(stored.dir.clone()).await {
            Ok(journal) => break journal,
            Err(NoJournal::Elsewhere(_)) => None,
            Err(NoJournal::Unusable(why)) => Some(why),
        };
        if stored.operations.lacks_store(why.clone())
            && let Some(why) = why
        {
            tracing::error!(why, "the journal is free and cannot be taken over; it is tried again");
        }
        tokio::select! {
            () = stop.wait() => return Ok(()),
            () = sleep(STANDBY_PAUSE) => {}
        }
    };
    stored.operations.lacks_store(None);
    let recorder = tokio::select! {
        () = stop.wait() => return Ok(()),
        recorder = stored.open(STORE_TRIES) => recorder,
    };
    let pairs = stored.operations.pairs.get().cloned();
    // The controller ends only with the program.
    drop(takeover.send(Takeover { journal, pairs }).await);
    stop.wait().await;
    finish(recorder, stored.grace).await;
    Ok(())
}

/// Waits until the last pairs are stored, for so long; what is not by then is logged.
pub(super) async fn finish(recorder: Option<RecorderThread>, grace: Duration) {
    let Some(recorder) = recorder else { return };
    let backlog = recorder.backlog();
    let join = spawn_blocking(move || recorder.join());
    let _ = timeout(grace.max(RECORDER_WAIT), join).await;
    if !backlog.is_empty() {
        tracing::error!(count = backlog.len(), "pairs, scores and notes were not written");
    }
}

impl Parts {
    pub(super) fn stored(&self, config: &Config, predecessor: Gone) -> Stored {
        let limits = config.limits;
        Stored {
            dir: config.store.clone(),
            limits: store::Limits {
                bytes_max: limits.store_bytes_max,
                age_ms_max: limits.store_age_ms_max,
                free_bytes_min: FREE_BYTES_MIN,
                queue_len_max: limits.recorder_queue_len_max,
            },
            clock: self.clock,
            recorder: Arc::clone(&self.recorder),
            operations: Arc::clone(&self.operations),
            predecessor,
            grace: Duration::from_millis(limits.grace_ms),
        }
    }
}

impl Stored {
    /// Opens the pairs and shows them to whoever waits for them.
    ///
    /// Where another process has them it is tried so often: one that ends lets go of the journal
    /// first, and stores its last pairs.
    pub(super) async fn open(&self, tries: u32) -> Option<RecorderThread> {
        let mut opened = self.try_open().await;
        for _ in 1..tries {
            if !matches!(&opened, Ok(Err(PairsError::Locked(_)))) {
                break;
            }
            sleep(STANDBY_PAUSE).await;
            opened = self.try_open().await;
        }
        let error = match opened {
            Ok(Ok(pairs)) => return self.show(&pairs),
            Ok(Err(error)) => describe(&error),
            Err(error) => error.to_string(),
        };
        tracing::error!(error, "pairs cannot be stored: they count as evidence and are not kept");
        let problem = "the store of pairs is not usable; see the log".to_owned();
        self.operations.lacks_store(Some(problem));
        None
    }

    async fn try_open(&self) -> Result<Result<Pairs, PairsError>, JoinError> {
        let (dir, limits) = (self.dir.clone(), self.limits);
        spawn_blocking(move || Pairs::open(&dir, limits)).await
    }

    fn show(&self, pairs: &Pairs) -> Option<RecorderThread> {
        drop(self.operations.pairs.set(pairs.clone()));
        let clock = self.clock;
        let started = Recorder::start(pairs.clone(), move || clock.now());
        let started =
            started.inspect_err(|error| tracing::error!(%error, "the recorder cannot start"));
        let (handle, thread) = started.ok()?;
        drop(self.recorder.set(handle));
        Some(thread)
    }
}
