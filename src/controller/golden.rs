//! Golden sets that stand before the first stage of rollouts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::domain::{Golden, Name, Refusal, State};
use crate::store::Replays;
use crate::tasks::{BoxError, Stop};

use super::{actor::Controller, handle::View, managed::Managed};

/// How often what came of golden sets is read without anybody asking.
const READ_EVERY: Duration = Duration::from_secs(2);
/// How long that may take; then what was known before counts.
const READ_WAIT: Duration = Duration::from_secs(2);

/// What is required, and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Goldens {
    /// What each rollout requires before its first stage, if anything.
    pub required: BTreeMap<Name, Golden>,
    /// What came of golden sets so far.
    pub replays: Arc<Replays>,
}

impl Goldens {
    /// Reads what came of golden sets by now, where any is required.
    pub async fn read(&self) {
        if self.required.is_empty() {
            return;
        }
        let replays = Arc::clone(&self.replays);
        let read = spawn_blocking(move || replays.read());
        if let Ok(Ok(Err(error))) = timeout(READ_WAIT, read).await {
            tracing::warn!(%error, "what came of golden sets cannot be read");
        }
    }
}

impl Goldens {
    /// Reads it again and again until told to stop, for whoever looks at rollouts.
    ///
    /// # Errors
    /// None of its own.
    pub async fn watch(self, mut stop: Stop) -> Result<(), BoxError> {
        let again = async {
            while !self.required.is_empty() {
                sleep(READ_EVERY).await;
                self.read().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = again => {}
            () = stop.wait() => {}
        }
        Ok(())
    }
}

impl Controller {
    /// Why the golden set of a rollout keeps its first stage from beginning, if it does.
    pub(super) fn unproven(&self, managed: &Managed) -> Option<Refusal> {
        let rollout = &managed.rollout;
        let golden = self.goldens.required.get(rollout.name())?;
        let sides = [&rollout.plan().primary, &rollout.plan().candidate];
        let replayed = self.goldens.replays.of(&golden.set, sides);
        let identities = sides.map(|it| self.identities.get(it).copied().unwrap_or_default());
        let why = golden.obstacle(replayed.as_ref(), identities)?;
        Some(Refusal::Golden { file: golden.file.clone(), candidate: sides[1].clone(), why })
    }

    /// A rollout as people see it, who want to know what keeps it from being started.
    pub(super) fn picture(&self, managed: &Managed) -> View {
        let name = managed.rollout.name();
        let mut view = managed.view(self.clock.now(), self.book.is_durable(name));
        match managed.rollout.state() {
            State::Pending | State::RolledBack => {
                if let Some(refusal) = self.unproven(managed) {
                    let remedy = refusal.remedy(&managed.rollout);
                    view.message = format!("{}; before that: {refusal}; {remedy}", view.message);
                }
            }
            State::Running
            | State::Paused
            | State::AwaitingApproval
            | State::Succeeded
            | State::Baked => {}
        }
        view
    }
}
