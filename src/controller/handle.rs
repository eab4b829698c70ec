//! How the rest of the program talks to the controller.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time,
};

use crate::domain::{
    Command, Evidence, Flag, Foresight, Name, Plan, PlanFault, Record, Refusal, Requests, Rollout,
    Savings, Timestamp,
};
use crate::traffic::{Board, Purse};

use super::golden::Goldens;

/// How long a rollback's answer waits for the disk before it says "not durable yet".
const ROLLBACK_WAIT: Duration = Duration::from_millis(800);
/// How long any other command may take, disk included.
const COMMAND_WAIT: Duration = Duration::from_secs(30);

/// Talks to the controller. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) views: watch::Receiver<Arc<Views>>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) board: Arc<Board>,
    pub(super) goldens: Goldens,
    /// What there is to see since the controller has panicked.
    pub(super) lost: Arc<OnceLock<Arc<Views>>>,
}

/// Everything there is to see, as of the last change or tick.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// One for each rollout, newest first.
    pub rollouts: Vec<View>,
    /// The log, oldest first; older records than the limit are in the journal only.
    pub records: Arc<Vec<Arc<Record>>>,
    /// Why nothing can be controlled, if so.
    pub degraded: Option<String>,
    /// Who stopped everything, and why; none when nothing is stopped.
    pub stopped: Option<String>,
    /// When: which stop that is, as the revision of a rollout is for its state.
    pub stopped_at: Option<Timestamp>,
    /// Idempotency keys of stops.
    pub stops: Arc<Requests>,
    /// The flags in force, by name, each by the record that set it.
    pub flags: Vec<Arc<Record>>,
    /// Whether they are so on disk.
    pub flags_durable: bool,
}

/// One rollout as people see it.
#[derive(Clone, Debug)]
pub struct View {
    /// The rollout.
    pub rollout: Rollout,
    /// What is known in its stage (of the last stage, once it ended).
    pub evidence: Evidence,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Who took the last step.
    pub actor: String,
    /// What was said about it.
    pub comment: String,
    /// One sentence a person can act on: what it waits for, or why it ended.
    pub message: String,
    /// Whether the last step is on disk.
    pub durable: bool,
    /// What its plan is expected to take, while it is not at its end.
    pub foresight: Arc<Foresight>,
    /// What is known of the judge; empty where no gate asks one.
    pub judge: String,
    /// Copies made today (UTC).
    pub copies_today: u64,
    /// What pays for copies and scores.
    pub purse: Arc<Purse>,
    /// What its requests cost so far.
    pub savings: Savings,
    /// Time of the view.
    pub now: Timestamp,
}

/// A change, with the record that made it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The rollout after it.
    pub view: View,
    /// What happened.
    pub record: Arc<Record>,
}

/// Who asks, and how.
#[derive(Clone, Debug, Default)]
pub struct Requester {
    /// Who.
    pub actor: String,
    /// Said for the log.
    pub comment: String,
    /// The same key again changes nothing and answers the same; empty for none.
    pub request_id: String,
    /// The revision the caller has seen; another one is refused.
    pub revision: Option<u64>,
    /// What is done with a plan that cannot be expected to be proven in its time.
    pub slow: Slow,
}

/// What is done with a plan of which a gate is not expected to be proven before its stage is
/// overdue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// It is refused.
    #[default]
    Refused,
    /// It is taken all the same.
    Taken,
}

impl Requester {
    /// The controller itself.
    pub(super) fn controller() -> Self {
        Self { actor: "controller".to_owned(), ..Self::default() }
    }
}

/// Why something asked of the controller was not done.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// There is no such rollout.
    #[error("there is no rollout `{0}`; `crossfade list` shows those there are")]
    Unknown(Name),
    /// There is one already.
    #[error("there is a rollout `{0}` already")]
    Exists(Name),
    /// The state machine refused.
    #[error("`{rollout}`: {refusal}")]
    Refused {
        /// The rollout.
        rollout: Name,
        /// Why.
        refusal: Box<Refusal>,
        /// What would work instead.
        remedy: String,
    },
    /// The plan cannot be run.
    #[error("the plan has {} faults, the first: {}", .0.len(), .0.first().map_or(String::new(), ToString::to_string))]
    Plan(Vec<PlanFault>),
    /// Somebody else changed it first.
    #[error("`{rollout}` is at revision {now}, not {seen}; look again before changing it")]
    Stale {
        /// The rollout.
        rollout: Name,
        /// The revision the caller saw.
        seen: u64,
        /// The revision it has.
        now: u64,
    },
    /// Two rollouts would serve the same requests.
    #[error(
        "`{rollout}` would govern requests that `{other}` governs; narrow the slice of one of them, or start it to supersede `{other}`"
    )]
    Overlap {
        /// The rollout that was to begin.
        rollout: Name,
        /// The one that runs.
        other: Name,
    },
    /// The request id was used for something else.
    #[error("request id `{0}` was used for another command; use a new one")]
    ReusedRequestId(String),
    /// Nothing can be written, so nothing can go forward.
    #[error("not possible now: {0}")]
    Unavailable(String),
}

/// What the controller is asked. Made by [`Handle`] alone.
#[derive(Debug)]
pub(super) enum Ask {
    Step(Step),
    Stop { by: Requester, reply: Reply<Vec<View>> },
    Evaluate { name: Name, reply: Reply<Evaluation> },
}

/// A step somebody asks for, and an answer that shows what it was about.
#[derive(Debug)]
pub(super) struct Step {
    /// The rollout; [`Name::every`] for what is about the whole node.
    pub(super) name: Name,
    pub(super) wish: Wish,
    pub(super) by: Requester,
    pub(super) reply: Reply<Vec<View>>,
}

/// What a step is to do.
#[derive(Debug)]
pub(super) enum Wish {
    Create(Box<Plan>),
    Obey(Command),
    /// Begin the stage anew under the plan that holds.
    Renew,
    Delete,
    Lift,
    SetFlag(Box<Flag>),
    ClearFlag(Name),
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, Rejected>>;

/// What the controller would do now.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The rollout.
    pub view: View,
    /// What it would do.
    pub decision: Decision,
    /// Why, in plain language.
    pub explanation: String,
}

/// What the controller would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep watching.
    Hold,
    /// Go to the next stage, or ask for the approval to.
    Advance,
    /// Go back.
    RollBack,
}

impl Handle {
    /// Everything there is to see now.
    pub fn views(&self) -> Arc<Views> {
        self.lost.get().map_or_else(|| Arc::clone(&self.views.borrow()), Arc::clone)
    }

    /// Ends all control: there is no controller any more, and every rollout's traffic goes to the
    /// primary. Returns what is said of it from here on.
    pub fn lose(&self, why: &str) -> String {
        self.board.publish(Vec::new());
        let why = format!("{why}; the primary is served, nothing can be controlled");
        let views = Views { degraded: Some(why.clone()), ..Views::default() };
        // Nobody sets it twice.
        drop(self.lost.set(Arc::new(views)));
        why
    }

    /// One rollout.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn view(&self, name: &Name) -> Result<View, Rejected> {
        let views = self.views();
        let found = views.rollouts.iter().find(|it| it.rollout.name() == name);
        // Without a journal nobody knows which rollouts there are.
        let unknown = || match &views.degraded {
            Some(why) if views.rollouts.is_empty() => Rejected::Unavailable(why.clone()),
            Some(_) | None => Rejected::Unknown(name.clone()),
        };
        found.cloned().ok_or_else(unknown)
    }

    /// Changes from here on. A receiver that falls behind is told how many it missed.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Creates a rollout. No traffic moves before it is started.
    ///
    /// # Errors
    /// When the plan is faulty, the name is taken or nothing can be written.
    pub async fn create(&self, name: Name, plan: Plan, by: Requester) -> Result<View, Rejected> {
        self.step(COMMAND_WAIT, name, Wish::Create(Box::new(plan)), by).await
    }

    /// Obeys a command, or says why not.
    ///
    /// A rollback takes effect in the data path before anything else happens, is never
    /// refused, and its view says whether it is durable yet.
    ///
    /// # Errors
    /// See [`Rejected`]; a rollback of a rollout that exists has none.
    pub async fn command(
        &self,
        name: Name,
        command: Command,
        by: Requester,
    ) -> Result<View, Rejected> {
        if matches!(command, Command::Start | Command::Supersede) {
            self.goldens.read().await;
        }
        if command != Command::Rollback {
            return self.step(COMMAND_WAIT, name, Wish::Obey(command), by).await;
        }
        let before = self.view(&name)?;
        self.board.halt(&name);
        match self.step(ROLLBACK_WAIT, name, Wish::Obey(command), by).await {
            Ok(view) => Ok(view),
            // Done in the data path; only the writing of it takes longer.
            Err(_) => Ok(self.not_durable(before)),
        }
    }

    /// Sends every rollout back, and lets none start until [`Self::lift`]. Answers those that
    /// moved traffic; their views say whether that is durable yet. The same request id again
    /// answers the same ones, and after a lift changes nothing.
    ///
    /// # Errors
    /// When the controller does not answer in time; the data path has obeyed all the same. When
    /// nobody knows which rollouts there are.
    pub async fn stop(&self, by: Requester) -> Result<Vec<View>, Rejected> {
        let views = self.views();
        let mut moving = views.rollouts.clone();
        // One that was lifted since stops nothing again.
        let again = views.stopped.is_none() && views.stops.get(&by.request_id).is_some();
        moving.retain(|it| !again && it.rollout.stage().is_some());
        for view in &moving {
            self.board.halt(view.rollout.name());
        }
        let stopped = self.ask(ROLLBACK_WAIT, |reply| Ask::Stop { by, reply }).await;
        // Done; only the writing of it takes longer.
        if stopped.is_err() && self.views().stopped.is_some() {
            return Ok(moving.into_iter().map(|it| self.not_durable(it)).collect());
        }
        stopped
    }

    /// Lets rollouts start again: after any stop, or after the one of that time where the
    /// requester says a revision.
    ///
    /// # Errors
    /// When it cannot be written, everything is stopped again meanwhile, or the stop is another.
    pub async fn lift(&self, by: Requester) -> Result<(), Rejected> {
        let (name, wish) = (Name::every(), Wish::Lift);
        self.ask(COMMAND_WAIT, |reply| Ask::Step(Step { name, wish, by, reply })).await.map(drop)
    }

    /// Deletes a rollout that moves no traffic. The same request id again changes nothing.
    ///
    /// # Errors
    /// When there is none, it moves traffic, the configuration asks for it, somebody else changed it
    /// first, or nothing can be written.
    pub async fn delete(&self, name: Name, by: Requester) -> Result<(), Rejected> {
        let wish = Wish::Delete;
        self.ask(COMMAND_WAIT, |reply| Ask::Step(Step { name, wish, by, reply })).await.map(drop)
    }

    /// Puts a flag in force, in the place of the one of its name. Where it lowers what anybody sees
    /// it does so at once; where it raises that, once it is on disk. The views say whether it is.
    ///
    /// # Errors
    /// When there are too many, or it raises something and cannot be written.
    pub async fn set_flag(&self, flag: Flag, by: Requester) -> Result<(), Rejected> {
        let (name, wish) = (Name::every(), Wish::SetFlag(Box::new(flag)));
        self.ask(COMMAND_WAIT, |reply| Ask::Step(Step { name, wish, by, reply })).await.map(drop)
    }

    /// Clears the flag of that name, if there is one, as [`Self::set_flag`] sets it.
    ///
    /// # Errors
    /// When that raises something and cannot be written.
    pub async fn clear_flag(&self, flag: Name, by: Requester) -> Result<(), Rejected> {
        let (name, wish) = (Name::every(), Wish::ClearFlag(flag));
        self.ask(COMMAND_WAIT, |reply| Ask::Step(Step { name, wish, by, reply })).await.map(drop)
    }

    /// What the controller would do now, and why. Changes nothing.
    ///
    /// # Errors
    /// When there is no such rollout.
    pub async fn evaluate(&self, name: Name) -> Result<Evaluation, Rejected> {
        self.goldens.read().await;
        self.ask(COMMAND_WAIT, |reply| Ask::Evaluate { name, reply }).await
    }

    /// A rollout that went back, and nobody can say that it is on disk.
    fn not_durable(&self, before: View) -> View {
        let name = before.rollout.name().clone();
        View { durable: false, ..self.view(&name).unwrap_or(before) }
    }

    async fn step(
        &self,
        wait: Duration,
        name: Name,
        wish: Wish,
        by: Requester,
    ) -> Result<View, Rejected> {
        let asked = name.clone();
        let step = |reply| Ask::Step(Step { name, wish, by, reply });
        let shown = self.ask(wait, step).await?;
        shown.into_iter().next().map_or_else(|| self.view(&asked), Ok)
    }

    async fn ask<T>(
        &self,
        wait: Duration,
        ask: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Rejected> {
        let (reply, answer) = oneshot::channel();
        let gone = || {
            let lost = self.lost.get().and_then(|it| it.degraded.clone());
            Rejected::Unavailable(lost.unwrap_or_else(|| "the controller is stopping".to_owned()))
        };
        let round = async {
            self.asks.send(ask(reply)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        time::timeout(wait, round).await.unwrap_or_else(|_| {
            Err(Rejected::Unavailable("the controller did not answer in time".to_owned()))
        })
    }
}
