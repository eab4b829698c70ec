//! The judge: asks a model to mark both answers of a pair, blind, and in both orders.
//!
//! An answer that is not of the exact form is a judge error, never a score. A judge that does not do
//! well where the winner is known rests until it does: pairs wait for it as far as there is room.
//! What it is asked of a pair is paid from the budget of its rollout, each call by itself.

mod distinct;
mod line;
mod prompt;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};

use crate::clock::Clock;
use crate::config::{self, Asking, Calibration, Orders, Row};
use crate::domain::{Placed, Score, ScorePart, Seen, Share, Side, Told, Winner};
use crate::patterns::{Keys, Redactor};
use crate::store::{Offered, RecorderHandle};
use crate::tasks::{BoxError, Stop, spawn};
use crate::telemetry::{Loss, Metrics};
use crate::traffic::{Calibrated, Fitness, Job, Outbox, Reasons, Tried};

use distinct::Rule;
use line::{Failure, Line, Said};
use prompt::Asked;

/// How soon a judge that did not mark its calibration set, or that is another now, is tried again;
/// later and later while it does not.
const RETRY_EVERY: Duration = Duration::from_mins(1);
/// What part of the time between two runs one takes, so that it is spread out.
const SPREAD: u32 = 4;

/// The judge.
#[derive(Debug)]
pub struct Judge {
    line: Line,
    asking: Asking,
    calibration: Option<Calibration>,
    fitness: Arc<Fitness>,
    places: Arc<Semaphore>,
    outbox: Outbox,
    recorder: Arc<OnceLock<RecorderHandle>>,
    redactor: Redactor,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Where scores go.
#[derive(Debug)]
pub struct Outlets {
    /// To the controller.
    pub outbox: Outbox,
    /// To the store, once it is open.
    pub recorder: Arc<OnceLock<RecorderHandle>>,
    /// Takes out of its reasons what must not be kept.
    pub redactor: Redactor,
    /// What is known of it, for whoever believes it.
    pub fitness: Arc<Fitness>,
    /// What we count.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

/// What the judge thinks of two answers, the first of them the primary's.
struct Opinion {
    /// For each answer its marks by criterion, 0 to 1.
    marks: [Vec<f64>; 2],
    placed: Option<Placed>,
    reason: String,
    source: String,
}

impl Judge {
    /// A judge from its checked configuration.
    ///
    /// # Errors
    /// When its URL or key make no request.
    pub fn new(config: &config::Judge, outlets: Outlets) -> Result<Self, BoxError> {
        let told = (Arc::clone(&outlets.fitness), Arc::clone(&outlets.metrics), outlets.clock);
        Ok(Self {
            line: Line::new(config, outlets.redactor.clone(), told)?,
            asking: config.asking,
            calibration: config.calibration.clone(),
            fitness: outlets.fitness,
            places: Arc::new(Semaphore::new(config.concurrency_max)),
            outbox: outlets.outbox,
            recorder: outlets.recorder,
            redactor: outlets.redactor,
            metrics: outlets.metrics,
            clock: outlets.clock,
        })
    }

    /// Judges until told to stop.
    ///
    /// # Errors
    /// None of its own: a judge that fails costs scores and nothing else.
    pub async fn run(
        self: Arc<Self>,
        mut jobs: mpsc::Receiver<Job>,
        mut stop: Stop,
    ) -> Result<(), BoxError> {
        loop {
            let next = async {
                self.fitness.is_fit().await;
                let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
                Some((place, jobs.recv().await?))
            };
            let (place, job) = tokio::select! {
                next = next => match next {
                    Some(next) => next,
                    None => break,
                },
                () = stop.wait() => break,
            };
            let rule = Rule::of(&job);
            let judge = Arc::clone(&self);
            spawn("judge", async move {
                let _place = place;
                judge.judge(job, rule).await;
            });
        }
        stop.wait().await;
        Ok(())
    }

    /// Tries the judge on its calibration set until told to stop: at once, then now and then, and
    /// whenever another one speaks.
    ///
    /// # Errors
    /// None of its own.
    pub async fn calibrate(self: Arc<Self>, mut stop: Stop) -> Result<(), BoxError> {
        if let Some(set) = &self.calibration {
            tokio::select! {
                () = self.keep_trying(set) => {}
                () = stop.wait() => {}
            }
        }
        stop.wait().await;
        Ok(())
    }

    async fn keep_trying(&self, set: &Calibration) {
        let every = Duration::from_millis(set.every_ms);
        let rows = u32::try_from(set.rows.len()).unwrap_or(u32::MAX).max(1);
        let least = RETRY_EVERY.min(every);
        let (mut soon, mut pause) = (least, Duration::ZERO);
        loop {
            let run = self.try_on(&set.rows, pause).await;
            sleep(soon).await;
            pause = Duration::ZERO;
            if !run.is_whole() {
                soon = every.min(2 * soon);
                continue;
            }
            soon = least;
            tokio::select! {
                () = sleep(every.saturating_sub(least)) => pause = every / SPREAD / rows,
                () = self.fitness.is_other(&run.source) => {}
            }
        }
    }

    /// Asks it all rows, one at a time; what that came to. They are few, and no budget pays for
    /// them: a judge that nobody can try rests.
    async fn try_on(&self, rows: &[Row], pause: Duration) -> Calibrated {
        let mut opinions = Vec::with_capacity(rows.len());
        for (place, row) in rows.iter().enumerate() {
            let answers = row.answers.each_ref().map(String::as_str);
            let first = first(&place.to_string());
            let asked = Asked { question: &row.question, reference: row.reference.as_deref() };
            opinions.push(self.ask(asked, answers, first, None).await.ok());
            sleep(pause).await;
        }
        let named = opinions.iter().rev().flatten().next();
        let source = named.map_or_else(|| self.fitness.source(), |it| it.source.clone());
        let tried = rows.iter().zip(&opinions).map(|(row, opinion)| Tried {
            expected: row.better,
            // What another one said is none of its own.
            marks: opinion.as_ref().filter(|it| it.source == source).map(|it| self.means(it)),
        });
        let run = self.fitness.calibrate(&source, &tried.collect::<Vec<_>>());
        let problem = self.fitness.rests();
        self.metrics.judging.calibrated(run.kappa, run.drift, problem.as_deref());
        if let Some(problem) = problem {
            tracing::warn!(problem, "the judge rests");
        }
        run
    }

    async fn judge(&self, job: Job, rule: Option<Rule>) {
        let failures = self.fitness.failures();
        let mut score = match rule {
            Some(rule) => self.ruled(&job, rule),
            None => match self.scored(&job).await {
                // What it was asked while it did badly says as little as what it said before.
                Ok(_) if self.fitness.failures() != failures => {
                    return self.metrics.loss(Loss::JudgeFailed);
                }
                Ok(score) => score,
                Err(error) => return self.lost(&job, &error).await,
            },
        };
        score.order = self.outbox.send(Seen::Score(Box::new(score.clone()))).await;
        if score.order.is_some()
            && let Some(recorder) = self.recorder.get()
            && recorder.offer_score(score) == Offered::Dropped
        {
            self.metrics.loss(Loss::RecorderFull);
        }
    }

    async fn lost(&self, job: &Job, error: &Failure) {
        if let Failure::Unpaid(reason) = error {
            tracing::debug!(pair = %job.pair, reason, "a pair is not judged");
            self.metrics.loss(Loss::Budget);
        } else {
            tracing::warn!(pair = %job.pair, error = %error, "a pair could not be judged");
            self.metrics.loss(Loss::JudgeFailed);
        }
        let _ = self.outbox.send(Seen::note(&job.window, Told::ScoreLost)).await;
    }

    /// The lowest mark for the candidate, and the highest for the primary: nobody looked.
    fn ruled(&self, job: &Job, rule: Rule) -> Score {
        self.fitness.rule();
        self.metrics.judging.rule(rule.as_str());
        Score { rationale: rule.reason().to_owned(), ..self.score(job, rule.source(), [1.0, 0.0]) }
    }

    async fn scored(&self, job: &Job) -> Result<Score, Failure> {
        let answers = [job.primary.as_str(), job.candidate.as_str()];
        let first = first(&job.pair.to_string());
        let opinion = self.ask(Asked::open(&job.question), answers, first, Some(job)).await?;
        self.fitness.place(opinion.placed);
        if let Some(Placed::Both { flipped, .. }) = opinion.placed {
            self.metrics.judging.orders(flipped);
        }
        let [ours, theirs] = &opinion.marks;
        let marks = ours.iter().zip(theirs);
        let parts = self.line.wording().criteria().zip(marks).map(|(dimension, marks)| ScorePart {
            dimension: dimension.to_owned(),
            primary: *marks.0,
            candidate: *marks.1,
        });
        let rationale = match job.reasons {
            Reasons::Kept => self.redactor.text(&opinion.reason, &Keys::default()).into_owned(),
            Reasons::Withheld => String::new(),
        };
        let (parts, placed) = (parts.collect(), opinion.placed);
        let means = self.means(&opinion);
        Ok(Score { parts, rationale, placed, ..self.score(job, opinion.source, means) })
    }

    fn score(&self, job: &Job, source: String, [primary, candidate]: [f64; 2]) -> Score {
        Score {
            pair: job.pair,
            window: job.window.clone(),
            watched: job.watched.clone(),
            at: self.clock.now(),
            order: None,
            source,
            primary,
            candidate,
            parts: Vec::new(),
            rationale: String::new(),
            placed: None,
        }
    }

    fn means(&self, opinion: &Opinion) -> [f64; 2] {
        opinion.marks.each_ref().map(|it| self.line.wording().mean(it))
    }

    /// What it thinks of two answers; where it is shown them in one order, this one stands first.
    async fn ask(
        &self,
        asked: Asked<'_>,
        [ours, theirs]: [&str; 2],
        first: Side,
        payer: Option<&Job>,
    ) -> Result<Opinion, Failure> {
        let line = &self.line;
        match (self.asking, first) {
            (Asking::Pairwise(Orders::Both), _) => {
                let ahead =
                    Opinion::of(line.ask(asked, &[ours, theirs], payer).await?, Side::Primary)?;
                let behind = line.ask(asked, &[theirs, ours], payer).await?;
                self.both(ahead, Opinion::of(behind, Side::Candidate)?)
            }
            (Asking::Pairwise(Orders::One), Side::Primary) => {
                Opinion::of(line.ask(asked, &[ours, theirs], payer).await?, first)
            }
            (Asking::Pairwise(Orders::One), Side::Candidate) => {
                Opinion::of(line.ask(asked, &[theirs, ours], payer).await?, first)
            }
            (Asking::Pointwise, _) => {
                let ours = line.ask(asked, &[ours], payer).await?;
                Opinion::alone(ours, line.ask(asked, &[theirs], payer).await?)
            }
        }
    }

    /// The means of two orders, the primary's answer first in the former. A contradiction is
    /// counted, and the means stand: to call it a tie would hide what is left of a difference.
    fn both(&self, ahead: Opinion, behind: Opinion) -> Result<Opinion, Failure> {
        same(&ahead.source, &behind.source)?;
        let ([a, b], [c, d]) = (self.means(&ahead), self.means(&behind));
        let flipped = Winner::of(a, b).contradicts(Winner::of(c, d));
        let placed = Some(Placed::Both { lead: f64::midpoint(a - c, d - b), flipped });
        let halves = ahead.marks.into_iter().zip(behind.marks);
        let mut means = halves.map(|(one, other)| {
            one.iter().zip(other).map(|(one, other)| f64::midpoint(*one, other)).collect()
        });
        let marks = [means.next().unwrap_or_default(), means.next().unwrap_or_default()];
        let reason = format!("{}; in the other order: {}", ahead.reason, behind.reason);
        Ok(Opinion { marks, placed, reason, source: ahead.source })
    }
}

impl Opinion {
    /// Of a pair of which this side's answer stood first.
    fn of(said: Said, first: Side) -> Result<Self, Failure> {
        let [one, other] = marks(said.marked.marks)?;
        let marks = match first {
            Side::Primary => [one, other],
            Side::Candidate => [other, one],
        };
        let (reason, source) = (said.marked.reason, said.source);
        Ok(Self { marks, placed: Some(Placed::Once(first)), reason, source })
    }

    /// Of answers that were shown one at a time.
    fn alone(ours: Said, theirs: Said) -> Result<Self, Failure> {
        same(&ours.source, &theirs.source)?;
        let reason = format!("{}; of the candidate: {}", ours.marked.reason, theirs.marked.reason);
        let all = ours.marked.marks.into_iter().chain(theirs.marked.marks).collect();
        Ok(Self { marks: marks(all)?, placed: None, reason, source: ours.source })
    }
}

fn marks(all: Vec<Vec<f64>>) -> Result<[Vec<f64>; 2], Failure> {
    all.try_into().map_err(|_| Failure::Unreadable("the judge marked other answers".to_owned()))
}

/// Two judges are not mixed in one score.
fn same(one: &str, other: &str) -> Result<(), Failure> {
    let mixed = || Failure::Unreadable(format!("`{one}` and `{other}` judged one pair"));
    if one == other { Ok(()) } else { Err(mixed()) }
}

/// Whose answer stands first where one order is shown.
fn first(key: &str) -> Side {
    let half = Share::from_basis_points(5_000).unwrap_or(Share::NONE);
    if half.includes("judge-order", key) { Side::Primary } else { Side::Candidate }
}
