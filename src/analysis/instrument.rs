//! The instrument of a metric: what it takes from a request, and what it shows.

use serde::{Deserialize, Serialize};

use crate::domain::{
    Check, Gate, GateEvidence, Kind, Limit, Margin, Metric, Outcome, Tier, Timestamp,
};

use super::{
    Climate, Sample, Timed,
    bet::{Standing, Wealth},
    chances::Chances,
    float,
    gate::{Shown, Stream, Terms},
    noise::Reach,
    odds::Alarm,
    opinion::Opinion,
    preference::Preference,
    quantile::{self, Quantile},
    rate::Rate,
    ratio::{self, Ratio},
    score::{Marks, Score},
    tiers::Tiers,
};

/// Millionths in one.
const MILLION: f64 = 1e6;

/// What measures a metric, by its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Instrument {
    Rate(Box<Rate>),
    Quantile(Box<Quantile>),
    Score(Score),
    Ratio(Ratio),
    Opinion(Box<Opinion>),
    Likeness(Score),
    Preference(Box<Preference>),
    Tiers(Box<Tiers>),
}

impl Instrument {
    pub(super) fn new(metric: Metric, terms: Terms) -> Self {
        match metric.kind() {
            Kind::Rate(_) => Self::Rate(Box::new(Rate::new(terms))),
            Kind::Quantile => Self::Quantile(Box::new(Quantile::new(terms))),
            Kind::Score => Self::Score(Score::new(terms)),
            Kind::Ratio => Self::Ratio(Ratio::new(terms)),
            Kind::Opinion => Self::Opinion(Box::new(Opinion::new(terms))),
            // What is like the primary to the margin is as good as it has to be.
            Kind::Likeness => Self::Likeness(Score::new(Terms { alarm: Alarm::AtMargin, ..terms })),
            Kind::Preference => Self::Preference(Box::new(Preference::new(terms))),
            Kind::Tiers => Self::Tiers(Box::new(Tiers::new(terms))),
        }
    }

    /// Whether it measures such a metric.
    pub(super) fn is_of(&self, metric: Metric) -> bool {
        match (self, metric.kind()) {
            (Self::Rate(_), Kind::Rate(_))
            | (Self::Quantile(_), Kind::Quantile)
            | (Self::Score(_), Kind::Score)
            | (Self::Ratio(_), Kind::Ratio)
            | (Self::Opinion(_), Kind::Opinion)
            | (Self::Likeness(_), Kind::Likeness)
            | (Self::Preference(_), Kind::Preference)
            | (Self::Tiers(_), Kind::Tiers) => true,
            (
                Self::Rate(_)
                | Self::Quantile(_)
                | Self::Score(_)
                | Self::Ratio(_)
                | Self::Opinion(_)
                | Self::Likeness(_)
                | Self::Preference(_)
                | Self::Tiers(_),
                _,
            ) => false,
        }
    }

    /// Begins a stage with a gate on it, or without.
    pub(super) fn enter(&mut self, at: Timestamp, margin: Option<Margin>, chances: Chances) {
        let limit = margin.map(Margin::limit);
        let beyond = |it: Margin| it.is_beyond_noise().then_some(Reach::UNKNOWN);
        let of_pair = margin.filter(|it| it.metric().is_of_pair());
        let noise = margin.and_then(beyond).or_else(|| of_pair.map(|_| Reach::NONE));
        // Only pairs say something of it, whatever lots there are.
        let chances = if of_pair.is_some() { Chances::PAIRS } else { chances };
        match self {
            Self::Rate(it) => {
                it.noise = noise;
                it.enter(at, limit.and_then(points), chances);
            }
            Self::Quantile(it) => {
                it.noise = noise;
                it.enter(at, limit.and_then(longer), chances);
            }
            Self::Score(it) | Self::Likeness(it) => it.enter(limit.and_then(part)),
            Self::Ratio(it) => it.enter(limit.and_then(amounts)),
            Self::Opinion(it) => it.enter(limit.and_then(part)),
            Self::Preference(it) => it.enter(limit.and_then(part)),
            Self::Tiers(it) => it.enter(limit.and_then(tiers)),
        }
    }

    /// Begins with what is known of the primary; says whether that is enough to bet by.
    pub(super) fn know(&mut self, metric: Metric, climate: &Climate) -> bool {
        match self {
            Self::Rate(it) => {
                if metric == Metric::ErrorRate {
                    it.past = climate.failed();
                }
                true
            }
            Self::Quantile(it) => it.know(climate.past(metric)),
            Self::Score(_)
            | Self::Ratio(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_)
            | Self::Tiers(_) => true,
        }
    }

    /// Takes a request.
    ///
    /// Where both sides were seen and one has nothing to say of this metric, the other's word
    /// is left out too: it would stand for a request that was not compared.
    pub(super) fn observe(
        &mut self,
        metric: Metric,
        stream: Stream,
        (primary, candidate): (Option<Sample>, Option<Sample>),
    ) {
        match self {
            Self::Rate(it) => {
                if let Some((primary, candidate)) = both(primary, candidate, |it| hit(metric, it)) {
                    it.observe(stream, primary, candidate);
                }
            }
            Self::Quantile(it) => {
                if let Some((primary, candidate)) = both(primary, candidate, |it| time(metric, it))
                {
                    it.observe(stream, primary, candidate);
                }
            }
            Self::Score(_) | Self::Opinion(_) | Self::Preference(_) => {}
            Self::Likeness(it) => {
                if let (Some(_), Some(like)) = (primary, candidate.and_then(|it| it.rouge_l)) {
                    it.observe(&Marks::unplaced(1.0, like));
                }
            }
            Self::Ratio(it) => weigh(it, metric, (primary, candidate)),
            Self::Tiers(it) => {
                for cost in it.costs() {
                    weigh(cost, Metric::Cost, (primary, candidate));
                }
            }
        }
    }

    /// Lets all that marks go into take them.
    pub(super) fn judge(&mut self, mut take: impl FnMut(&mut Score)) {
        match self {
            Self::Score(it) => take(it),
            Self::Tiers(it) => it.qualities().for_each(take),
            Self::Rate(_)
            | Self::Quantile(_)
            | Self::Ratio(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_) => {}
        }
    }

    /// Takes note of a candidate call that was made and whose end is not known, and which would
    /// have been judged with this chance.
    pub(super) fn lose(&mut self, judged: f64) {
        match self {
            Self::Rate(it) => it.lose(),
            Self::Quantile(it) => it.lose(),
            Self::Score(it) => it.lose_copy(judged),
            Self::Ratio(it) => it.lose(),
            Self::Likeness(it) => it.lose_copy(1.0),
            // A copy is nobody's answer, and people are shown two.
            Self::Opinion(_) | Self::Preference(_) => {}
            Self::Tiers(it) => {
                it.qualities().for_each(|it| it.lose_copy(judged));
                it.costs().for_each(Ratio::lose);
            }
        }
    }

    /// Plans the next bets from the past alone.
    pub(super) fn plan(&mut self, at: Timestamp) {
        match self {
            Self::Rate(it) => it.plan(at),
            Self::Quantile(it) => it.plan(at),
            Self::Score(_)
            | Self::Ratio(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_)
            | Self::Tiers(_) => {}
        }
    }

    /// Goes on by a clock that was set back by so much.
    pub(super) fn set_back(&mut self, ms: u64) {
        match self {
            Self::Rate(it) => it.weather.set_back(ms),
            Self::Quantile(it) => it.set_back(ms),
            Self::Score(_)
            | Self::Ratio(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_)
            | Self::Tiers(_) => {}
        }
    }

    /// Takes how unevenly the primary's hits are known to fall, in thousandths.
    pub(super) fn tell_weather(&mut self, variance_permille: u32) {
        match self {
            Self::Rate(it) => it.weather.tell(variance_permille),
            Self::Quantile(it) => it.weather.tell(variance_permille),
            Self::Score(_)
            | Self::Ratio(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_)
            | Self::Tiers(_) => {}
        }
    }

    /// Its wealth; tiers have that of their parts.
    pub(super) fn wealth(&self) -> Option<&Wealth> {
        Some(match self {
            Self::Rate(it) => &it.wealth,
            Self::Quantile(it) => &it.wealth,
            Self::Score(it) | Self::Likeness(it) => &it.wealth,
            Self::Ratio(it) => &it.wealth,
            Self::Opinion(it) => &it.score.wealth,
            Self::Preference(it) => &it.score.wealth,
            Self::Tiers(_) => return None,
        })
    }

    /// Whether harm was proven.
    pub(super) fn is_breached(&self) -> bool {
        match self {
            Self::Tiers(it) => it.is_breached(),
            it => it.wealth().is_some_and(Wealth::is_breached),
        }
    }

    /// What its bets say.
    pub(super) fn standing(&self) -> Standing {
        match (self, self.wealth()) {
            (Self::Tiers(it), _) => it.standing(),
            (_, wealth) => wealth.map_or(Standing::NOTHING, Wealth::standing),
        }
    }

    /// Whether what it is told can be believed: what a judge says who fails speaks neither for nor
    /// against.
    pub(super) fn is_believed(&self) -> bool {
        match self {
            Self::Score(it) => it.problem().is_none(),
            Self::Tiers(it) => it.is_believed(),
            Self::Rate(_)
            | Self::Quantile(_)
            | Self::Ratio(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_) => true,
        }
    }

    /// Does something to all wealth of it.
    pub(super) fn tend(&mut self, mut tend: impl FnMut(&mut Wealth)) {
        match self {
            Self::Rate(it) => tend(&mut it.wealth),
            Self::Quantile(it) => tend(&mut it.wealth),
            Self::Score(it) | Self::Likeness(it) => tend(&mut it.wealth),
            Self::Ratio(it) => tend(&mut it.wealth),
            Self::Opinion(it) => tend(&mut it.score.wealth),
            Self::Preference(it) => tend(&mut it.score.wealth),
            Self::Tiers(it) => {
                it.qualities().for_each(|it| tend(&mut it.wealth));
                it.costs().for_each(|it| tend(&mut it.wealth));
            }
        }
    }

    /// The evidence of a gate on it, as if it measured all traffic.
    pub(super) fn evidence(&self, gate: Gate, terms: Terms) -> GateEvidence {
        let shown = self.shown(gate.metric());
        let (basis, tiers) = match self {
            Self::Ratio(it) => (Some(it.basis()), Vec::new()),
            Self::Tiers(it) => (Some(it.basis()), it.found()),
            Self::Rate(_)
            | Self::Quantile(_)
            | Self::Score(_)
            | Self::Opinion(_)
            | Self::Likeness(_)
            | Self::Preference(_) => (None, Vec::new()),
        };
        let known = shown.evidence(gate, self.standing(), self.alarm(terms), self.is_believed());
        GateEvidence { basis, tiers, ..known }
    }

    /// What is known of a metric of its kind.
    pub(super) fn shown(&self, metric: Metric) -> Shown {
        match (self, metric.kind()) {
            (Self::Rate(it), Kind::Rate(better)) => it.shown(better),
            (
                Self::Rate(it),
                Kind::Quantile
                | Kind::Score
                | Kind::Ratio
                | Kind::Opinion
                | Kind::Likeness
                | Kind::Preference
                | Kind::Tiers,
            ) => it.shown(crate::domain::Better::Lower),
            (Self::Quantile(it), _) => it.shown(),
            (Self::Score(it), _) => it.shown(),
            (Self::Ratio(it), _) => it.shown(),
            (Self::Opinion(it), _) => it.shown(),
            // That all answers are alike is no fault of an instrument.
            (Self::Likeness(it), _) => Shown { problem: None, ..it.shown() },
            (Self::Preference(it), _) => it.shown(),
            (Self::Tiers(it), _) => it.shown(),
        }
    }

    /// Takes what is known of the primary's noise, if its margin counts from there on.
    pub(super) fn widen(&mut self, noise: &Self) {
        match (self, noise) {
            (Self::Rate(it), Self::Rate(noise)) => {
                it.noise = it.noise.map(|_| noise.reach());
            }
            (Self::Quantile(it), Self::Quantile(noise)) => {
                it.noise = it.noise.map(|_| noise.reach());
            }
            (
                Self::Rate(_)
                | Self::Quantile(_)
                | Self::Score(_)
                | Self::Ratio(_)
                | Self::Opinion(_)
                | Self::Likeness(_)
                | Self::Preference(_)
                | Self::Tiers(_),
                _,
            ) => {}
        }
    }

    /// Where harm is judged from.
    fn alarm(&self, terms: Terms) -> Alarm {
        let noise = match self {
            Self::Rate(it) => it.noise,
            Self::Quantile(it) => it.noise,
            Self::Likeness(_) | Self::Tiers(_) => Some(Reach::NONE),
            Self::Score(_) | Self::Ratio(_) | Self::Opinion(_) | Self::Preference(_) => None,
        };
        noise.map_or(terms.alarm, |_| Alarm::AtMargin)
    }
}

/// What each side that was seen says; none if one of them says nothing.
fn both<T>(
    primary: Option<Sample>,
    candidate: Option<Sample>,
    say: impl Fn(&Sample) -> Option<T>,
) -> Option<(Option<T>, Option<T>)> {
    let word = |side: Option<Sample>| match side {
        None => Some(None),
        Some(sample) => say(&sample).map(Some),
    };
    Some((word(primary)?, word(candidate)?))
}

/// Whether a call is what should not be; none when the metric does not apply to it.
fn hit(metric: Metric, sample: &Sample) -> Option<bool> {
    let is_broken = |check: Check| sample.checks.kept(check).map(|kept| !kept);
    if metric == Metric::ErrorRate {
        Some(sample.outcome.failed())
    } else if metric == Metric::TruncatedRate {
        Some(sample.outcome == Outcome::Truncated)
    } else if metric == Metric::RefusalRate {
        let declined = is_broken(Check::NotDeclined) == Some(true);
        Some(sample.outcome == Outcome::Refused || declined)
    } else {
        metric.check().and_then(is_broken)
    }
}

fn time(metric: Metric, sample: &Sample) -> Option<Timed> {
    if metric == Metric::TtftP99 { sample.first_byte() } else { sample.latency() }
}

/// A call as a sum of it is made: characters are counted also where tokens are estimated.
fn counted(metric: Metric, call: Sample) -> Sample {
    Sample { estimated: call.estimated && metric != Metric::LengthRatio, ..call }
}

/// Takes what a pair of calls came to, where both answered.
fn weigh(it: &mut Ratio, metric: Metric, (primary, candidate): (Option<Sample>, Option<Sample>)) {
    if let (Some(primary), Some(candidate)) = (primary, candidate)
        && [primary, candidate].iter().all(|it| !it.outcome.failed())
    {
        let sides = [primary, candidate].map(|it| counted(metric, it));
        let amounts = sides.each_ref().map(|it| amount(metric, it));
        it.observe(amounts[0], amounts[1]);
        it.rest_on(amounts, sides.each_ref());
    }
}

fn amount(metric: Metric, sample: &Sample) -> Option<f64> {
    if metric == Metric::Cost {
        sample.usd
    } else if metric == Metric::LengthRatio {
        sample.answer_chars.map(f64::from)
    } else {
        sample.output_tokens.map(float)
    }
}

fn points(limit: Limit) -> Option<f64> {
    match limit {
        Limit::Points { basis_points } => Some(f64::from(basis_points) / 10_000.0),
        Limit::Longer { .. } | Limit::Part { .. } | Limit::Ratio { .. } | Limit::Tiers { .. } => {
            None
        }
    }
}

fn longer(limit: Limit) -> Option<quantile::Margin> {
    match limit {
        Limit::Longer { ms, percent } => {
            Some(quantile::Margin { ms: f64::from(ms), part: f64::from(percent) / 100.0 })
        }
        Limit::Points { .. } | Limit::Part { .. } | Limit::Ratio { .. } | Limit::Tiers { .. } => {
            None
        }
    }
}

fn part(limit: Limit) -> Option<f64> {
    match limit {
        Limit::Part { percent } => Some(f64::from(percent) / 100.0),
        Limit::Points { .. } | Limit::Longer { .. } | Limit::Ratio { .. } | Limit::Tiers { .. } => {
            None
        }
    }
}

fn amounts(limit: Limit) -> Option<ratio::Margin> {
    match limit {
        Limit::Ratio { percent, expected, each_max, estimated_max } => {
            let each_max = float(each_max) / MILLION;
            let parts = [percent, expected, estimated_max].map(|it| f64::from(it) / 100.0);
            let [limit, expected, estimated_max] = parts;
            Some(ratio::Margin { limit, expected, each_max, loss_max: each_max, estimated_max })
        }
        Limit::Points { .. } | Limit::Longer { .. } | Limit::Part { .. } | Limit::Tiers { .. } => {
            None
        }
    }
}

/// What each tier asks of scores and of amounts.
fn tiers(limit: Limit) -> Option<[(f64, ratio::Margin); 2]> {
    let Limit::Tiers { tiers, each_max, estimated_max } = limit else { return None };
    let [first, second] = tiers.map(|Tier { quality, cost: percent }| {
        // Three quarters of what is allowed are hoped for.
        let expected = percent * 3 / 4;
        let cost = amounts(Limit::Ratio { percent, expected, each_max, estimated_max })?;
        Some((f64::from(quality) / 100.0, cost))
    });
    Some([first?, second?])
}

#[cfg(test)]
#[path = "instrument_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "alike_tests.rs"]
mod alike_tests;
