//! What comes up behind the data port: the store, the controller, the API. A store that cannot be
//! used is no error: the primary is served, nothing is controlled, and `/readyz` says so.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use crate::api::{self, Pairs, Past};
use crate::config::Config;
use crate::controller::Controller;
use crate::domain::Seen;
use crate::listeners::{Gone, Listener};
use crate::store::RecorderThread;
use crate::tasks::{Stop, Tasks, caught};

use super::{
    Parts, defaults, setup,
    stored::{NoJournal, open_journal, stand_by},
};

/// How much longer than our own grace time a predecessor may take to end; then the API answers
/// without having the store.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(15);

/// What it takes to open the store, and to start who needs it.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) config: Config,
    pub(super) parts: Parts,
    pub(super) predecessor: Gone,
    /// How often the pairs are looked for.
    pub(super) tries: u32,
    pub(super) seen: mpsc::Receiver<Seen>,
}

impl Opening {
    /// Opens the store and starts the controller and the API, which takes the control port. It may
    /// be dropped at any time.
    pub(super) async fn open(
        self,
        tasks: &mut Tasks,
        (control, recorder): (&mut Option<Listener>, &mut Option<RecorderThread>),
    ) {
        let Self { config, parts, predecessor, tries, seen } = self;
        let journal = match open_journal(config.store.clone()).await {
            // It lets go of the journal first, or never had it; of the pairs when it ends.
            Ok(_) if predecessor.is_awaited() => Err(NoJournal::Elsewhere(
                "the process before this one is ending and may have the pairs: this one serves the \
                 primary, controls nothing, and takes over then"
                    .to_owned(),
            )),
            journal => journal,
        };
        let (takeover, takeover_here) = mpsc::channel(1);
        let stored = parts.stored(&config, predecessor.clone());
        if let Err(NoJournal::Elsewhere(_)) = &journal {
            // Its store is written to until the controller has ended.
            tasks.start_beside_last("standby", |stop| stand_by(stored, takeover, stop));
        } else {
            *recorder = stored.open(tries).await;
        }
        let setup = setup(&config, &parts, (journal, takeover_here), seen);
        let goldens = setup.goldens.clone();
        let (controller, handle) = Box::pin(Controller::new(setup)).await;
        tasks.start("golden sets", |stop| goldens.watch(stop));
        drop(parts.operations.controller.set(handle.clone()));
        let (lost, metrics) = (handle.clone(), Arc::clone(&parts.metrics));
        tasks.start_beside_last("controller", |stop| async move {
            let ended = caught("control", controller.run(stop)).await;
            ended.unwrap_or_else(|| {
                let why = lost.lose("the controller panicked");
                metrics.degraded(Some(&why));
                Err(why.into())
            })
        });
        let defaults = defaults(&config);
        let past = Past {
            pairs: Arc::clone(&parts.operations.pairs),
            trail: Arc::clone(&parts.trail),
            surveyor: Arc::clone(&parts.surveyor),
            outbox: parts.outbox.clone(),
            controller: handle.clone(),
            fitness: Arc::clone(&parts.fitness),
            metrics: Arc::clone(&parts.metrics),
        };
        let pairs = Arc::new(Pairs::new(past));
        drop(parts.operations.people.set(Arc::clone(&pairs)));
        let grace = Duration::from_millis(config.limits.grace_ms);
        let Some(control) = control.take() else { return };
        tasks.start_beside("api", |stop| async move {
            let control = alone(control, predecessor, (grace, stop.clone())).await;
            let Some(control) = control else { return Ok(()) };
            api::serve(control, handle, pairs, defaults, stop).await
        });
    }
}

/// Waits until nobody else answers on the control port; none when it is time to stop before.
async fn alone(
    control: Listener,
    mut predecessor: Gone,
    (grace, mut stop): (Duration, Stop),
) -> Option<Listener> {
    tokio::select! {
        () = stop.wait() => {
            if stop.has_left() {
                control.leave();
            }
            None
        }
        _ = timeout(grace + PREDECESSOR_WAIT, predecessor.wait()) => Some(control),
    }
}
