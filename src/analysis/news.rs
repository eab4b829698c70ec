//! What the evidence is told, in the form in which it counts: the same live, after a restart and
//! where it is played again.

use crate::domain::{Seen, Timestamp, Told, Weather};

use super::{Compared, Ledger, Marks, Observation, Scored, score::Score};

/// One thing that was told of a rollout's traffic.
#[derive(Clone, Debug)]
pub struct News {
    /// When it was told.
    pub at: Timestamp,
    /// When that was asked which it is about, as far as it is known: it belongs to the visit of
    /// that time.
    pub made: Timestamp,
    /// What it says.
    pub said: Said,
}

/// What news say.
#[derive(Clone, Debug)]
pub enum Said {
    /// How the sides of a request did that were seen.
    Request(Observation),
    /// How the primary did that was asked the same twice.
    Noise(Observation),
    /// How the answers of a pair were judged.
    Score {
        /// The watched slice it is in; empty for none.
        watched: String,
        /// How.
        marks: Marks,
    },
    /// What somebody thinks of an answer that a caller got.
    Opinion {
        /// The watched slice of its request; empty for none.
        watched: String,
        /// The answer, and its score.
        scored: Scored,
    },
    /// Somebody has compared the answers of a pair.
    Comparison {
        /// The watched slice it is in; empty for none.
        watched: String,
        /// What came of it; none where that is no evidence.
        compared: Option<Compared>,
    },
    /// A pair was to be judged and could not be.
    ScoreLost,
    /// The judge was found unfit.
    JudgeFailed,
    /// A copy was sent, and how it ended was lost.
    CopyLost,
    /// The bets of a stage began in this weather. That they began the journal says too, and it
    /// is what counts.
    Entered(Vec<Weather>),
    /// The guard after success began.
    Guarded,
}

impl News {
    /// What was told, as it counts.
    pub fn of(seen: &Seen) -> Self {
        let at = seen.order().at;
        let before = |ms: u32| Timestamp(at.0.saturating_sub(u64::from(ms)));
        let (made, said) = match seen {
            Seen::Pair(pair) => (pair.at, Said::Request(Observation::of(pair))),
            Seen::Score(score) => {
                let watched = score.watched.clone();
                (score.pair.at(), Said::Score { watched, marks: Marks::of(score) })
            }
            Seen::Review(review) => {
                let (watched, compared) = (review.watched.clone(), Compared::of(review));
                (review.pair.at(), Said::Comparison { watched, compared })
            }
            Seen::Note(note) => match &note.told {
                Told::Solo { lot, side, call, watched } => {
                    let seen = Observation::solo(*lot, *side, call, watched);
                    (before(call.total_ms), Said::Request(seen))
                }
                Told::Noise { served, again, watched } => {
                    let seen = Observation::noise(served, again, watched);
                    (before(served.total_ms.max(again.total_ms)), Said::Noise(seen))
                }
                Told::Feedback { request, lot, side, score_millionths, watched, .. } => {
                    let scored = Scored::new(*request, (*lot, *side), *score_millionths);
                    (request.at(), Said::Opinion { watched: watched.clone(), scored })
                }
                Told::CopyLost => (at, Said::CopyLost),
                Told::ScoreLost => (at, Said::ScoreLost),
                Told::JudgeFailed => (at, Said::JudgeFailed),
                Told::Entered(weather) => (at, Said::Entered(weather.clone())),
                Told::Guarded => (at, Said::Guarded),
            },
        };
        Self { at, made, said }
    }

    /// Whether it is no sign that the candidate is asked now: it is of the primary alone, or what
    /// somebody thinks of an answer of some time ago.
    pub fn is_aside(&self) -> bool {
        use Said::{Comparison, JudgeFailed, Noise, Opinion};
        matches!(self.said, Noise(_) | Opinion { .. } | Comparison { .. } | JudgeFailed)
    }

    /// The same where nobody knows by which shares the request was drawn: a pair is still a pair, and
    /// one side alone says nothing.
    #[must_use]
    pub fn undrawn(self) -> Option<Self> {
        let Said::Request(seen) = self.said else { return Some(self) };
        let whole = seen.lot.is_none() || (seen.primary.is_some() && seen.candidate.is_some());
        let said = Said::Request(Observation { lot: None, ..seen });
        whole.then_some(Self { said, ..self })
    }

    /// Whether it only says that a visit of a stage began.
    pub fn is_begin(&self) -> bool {
        matches!(self.said, Said::Entered(_) | Said::Guarded)
    }
}

impl Ledger {
    /// Takes what was told. Of what was asked when the stage had only just begun only the number
    /// is known.
    pub fn hear(&mut self, news: &News) {
        let (at, early) = (news.at, self.is_early(news.made));
        match &news.said {
            Said::Request(_) if early => self.leave_out(at),
            Said::Noise(_)
            | Said::Score { .. }
            | Said::Opinion { .. }
            | Said::Comparison { .. }
            | Said::ScoreLost
            | Said::CopyLost
                if early => {}
            Said::Request(seen) => self.observe(at, seen),
            Said::Noise(seen) => self.observe_noise(at, seen),
            Said::Score { watched, marks } => self.score(at, watched, marks),
            Said::Opinion { watched, scored } => self.opinion(at, watched, *scored),
            Said::Comparison { watched, compared } => {
                if let Some(compared) = compared {
                    self.compare(at, watched, *compared);
                }
            }
            Said::ScoreLost => self.score_lost(),
            Said::JudgeFailed => self.judge_failed(at),
            Said::CopyLost => self.copy_lost(at),
            Said::Entered(weather) => self.tell_weather(weather),
            Said::Guarded => {}
        }
    }

    /// Forgets what a judge said that was found unfit, as where another one judges: it proves
    /// neither safety nor harm once it does well again.
    fn judge_failed(&mut self, at: Timestamp) {
        self.pass(at);
        for instrument in &mut self.state.instruments {
            instrument.judge(Score::disown);
        }
    }
}
