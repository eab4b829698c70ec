//! What a controller is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::domain::{Budget, Name, Plan, Seen};
use crate::store::{History, Journal, Pairs, RecorderHandle};
use crate::telemetry::Metrics;
use crate::traffic::{Barometer, Board, Fitness, Outbox, Pot};

use super::golden::Goldens;

/// What the controller is made of.
#[derive(Debug)]
pub struct Setup {
    /// Where it publishes.
    pub board: Arc<Board>,
    /// The clock.
    pub clock: Clock,
    /// The journal with what it remembers, or why there is none.
    pub journal: Result<(Journal, History), String>,
    /// Where the store comes from once another process has let go of it.
    pub takeover: mpsc::Receiver<Takeover>,
    /// The stored pairs, to rebuild evidence from, and to keep the day's count of copies in.
    pub pairs: Option<Pairs>,
    /// Every provider, with the data classes it is cleared for.
    pub providers: BTreeMap<Name, Vec<String>>,
    /// What is asked of each and where, as a number.
    pub identities: BTreeMap<Name, u64>,
    /// Providers of which prices are known.
    pub priced: BTreeSet<Name>,
    /// What may be spent on copies and scores.
    pub budgets: Budgets,
    /// What has to be known before rollouts begin.
    pub goldens: Goldens,
    /// Who serves.
    pub primary: Name,
    /// Whether a judge is configured.
    pub judge: Judged,
    /// The model that judges, where it may not judge its own kin.
    pub strict_judge: Option<String>,
    /// What is known of it.
    pub fitness: Arc<Fitness>,
    /// Rollouts the configuration asks for.
    pub wanted: Vec<Wanted>,
    /// What was seen of the traffic.
    pub seen: mpsc::Receiver<Seen>,
    /// The way into it, which has to go on where it stood before a restart.
    pub outbox: Outbox,
    /// What tells the primary's weather.
    pub barometer: Arc<Barometer>,
    /// Where what was seen and is no pair is kept, once the store is open.
    pub recorder: Arc<OnceLock<RecorderHandle>>,
    /// What we count.
    pub metrics: Arc<Metrics>,
}

/// What may be spent on copies and scores.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// By all rollouts together.
    pub all: Arc<Pot>,
    /// By those that have a budget of their own.
    pub own: BTreeMap<Name, Budget>,
}

/// A store that another process had when this one started.
#[derive(Debug)]
pub struct Takeover {
    /// The journal with what it remembers.
    pub journal: (Journal, History),
    /// The stored pairs, if they can be used.
    pub pairs: Option<Pairs>,
}

/// Whether pairs are judged at all.
#[derive(Clone, Debug)]
pub enum Judged {
    /// There is a judge, who should not judge between these providers, for these reasons.
    Yes(BTreeMap<Name, String>),
    /// There is none: no gate may need one.
    No,
}

/// A rollout that the configuration asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub name: Name,
    /// Its plan.
    pub plan: Plan,
    /// Whether to start it if it was never started.
    pub start: Start,
}

/// Whether a rollout starts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Once, if it never ran.
    Once,
    /// Only when somebody asks.
    WhenAsked,
}
