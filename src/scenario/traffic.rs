//! Made-up traffic of a story: seeded, so that it is the same at every play.

use crate::analysis::{Observation, Sample, Scored};
use crate::domain::{Lot, Outcome, PairId, Side, Splitmix, Stage};

use super::words::{Read, count, duration_ms, share, sides, split};

/// Most requests of one command.
const LEN_MAX: u64 = 100_000;
/// How long a call lasts that hangs, in milliseconds: until it is given up.
pub(super) const HANGS_MS: u64 = 120_000;
/// Between two requests, unless the story says otherwise.
const PACE_MS: u64 = 100;

/// What a story says of some traffic.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    /// How many requests.
    pub(super) len: u64,
    /// How long all of them take together, in milliseconds.
    pub(super) over_ms: u64,
    /// Copies of which no outcome comes back, spread evenly.
    lost: u64,
    shape: Shape,
    dice: Dice,
    /// The chance of each outcome but a good one, of the primary and the candidate.
    outcomes: Vec<(Outcome, [f64; 2])>,
    latency_ms: [f64; 2],
    /// The chance that a call hangs.
    hang: [f64; 2],
    /// The chance that a call takes a hundred times as long.
    outliers: [f64; 2],
    score: Option<[f64; 2]>,
    /// The chance that a caller likes the answer, where callers say so.
    feedback: Option<[f64; 2]>,
    usd: Option<[f64; 2]>,
    tokens: Option<[f64; 2]>,
    /// How many conversations the requests belong to; every request is its own without.
    conversations: Option<u64>,
    /// The share that the candidate serves in truth, where it is not the stage's.
    serve: Option<f64>,
    /// The watched slice that all of it is in; empty for none.
    slice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Both sides of every request are seen.
    Pairs,
    /// The stage's shares draw which sides are.
    Requests,
    /// The primary is asked twice.
    Noise,
}

/// One request of it.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// What was seen of it, the scores of both answers where they were judged, and what the caller
    /// thought of the one it got.
    Known(Observation, Option<[f64; 2]>, Option<Scored>),
    /// The primary was asked twice.
    Noise(Observation),
    /// The candidate was asked, and what came of it was lost.
    Lost,
}

impl Traffic {
    /// Reads `500 pairs seed=1 over=10m errors=1%/5%`.
    pub(super) fn read(words: &[&str]) -> Read<Self> {
        let [len, shape, words @ ..] = words else {
            return Err("write it like `traffic 500 pairs errors=1%/5%`".to_owned());
        };
        let shape = match *shape {
            "pairs" => Shape::Pairs,
            "requests" => Shape::Requests,
            "noise" => Shape::Noise,
            other => return Err(format!("`{other}` is neither pairs nor requests nor noise")),
        };
        let len = count(len)?;
        if LEN_MAX < len {
            return Err(format!("there are at most {LEN_MAX} requests at a time"));
        }
        let mut traffic = Self {
            len,
            over_ms: len * PACE_MS,
            lost: 0,
            shape,
            dice: Dice::new(1),
            outcomes: Vec::new(),
            latency_ms: [800.0, 800.0],
            hang: [0.0, 0.0],
            outliers: [0.0, 0.0],
            score: None,
            feedback: None,
            usd: None,
            tokens: None,
            conversations: None,
            serve: None,
            slice: String::new(),
        };
        for word in words {
            traffic.word(word)?;
        }
        Ok(traffic)
    }

    fn word(&mut self, word: &str) -> Read<()> {
        let (key, value) = split(word);
        match key {
            "seed" => self.dice = Dice::new(count(value)?),
            "over" => self.over_ms = duration_ms(value)?,
            "lost" => self.lost = count(value)?,
            "latency" => self.latency_ms = sides(value)?,
            "hang" => self.hang = sides(value)?,
            "outliers" => self.outliers = sides(value)?,
            "score" => self.score = Some(sides(value)?),
            "feedback" => self.feedback = Some(sides(value)?),
            "usd" => self.usd = Some(sides(value)?),
            "tokens" => self.tokens = Some(sides(value)?),
            "conversations" => self.conversations = Some(count(value)?.max(1)),
            "serve" => self.serve = Some(f64::from(share(value)?.basis_points()) / 10_000.0),
            "slice" => value.clone_into(&mut self.slice),
            "errors" => self.outcomes.push((Outcome::ProviderError, sides(value)?)),
            name => {
                let outcome = Outcome::from_name(name)
                    .ok_or_else(|| format!("`{name}` is no word of traffic"))?;
                self.outcomes.push((outcome, sides(value)?));
            }
        }
        Ok(())
    }

    /// The next request, in this stage, and how long it took until all of it was known.
    pub(super) fn request(&mut self, index: u64, stage: Option<&Stage>) -> (Seen, u64) {
        let seen = self.seen(index, stage);
        let took_ms = match &seen {
            Seen::Known(seen, ..) | Seen::Noise(seen) => seen.lasted_ms(),
            Seen::Lost => 0,
        };
        (seen, took_ms)
    }

    fn seen(&mut self, index: u64, stage: Option<&Stage>) -> Seen {
        if index * self.lost / self.len != (index + 1) * self.lost / self.len {
            return Seen::Lost;
        }
        let samples = [self.sample(0), self.sample(1)];
        let mut near =
            |mean: f64| (mean + 0.1 * (self.dice.unit() - 0.5)).clamp(f64::MIN, mean.max(1.0));
        let score = self.score.map(|means| means.map(&mut near));
        let watched = self.slice.clone();
        match self.shape {
            Shape::Pairs => {
                let [primary, candidate] = samples.map(Some);
                Seen::Known(Observation { lot: None, primary, candidate, watched }, score, None)
            }
            Shape::Noise => {
                let [primary, candidate] = samples.map(Some);
                Seen::Noise(Observation { lot: None, primary, candidate, watched })
            }
            Shape::Requests => {
                let (lot, [serve, mirror]) = self.draw(index);
                let part = |share: crate::domain::Share| f64::from(share.basis_points()) / 10_000.0;
                let served = serve < self.serve.unwrap_or(stage.map_or(0.0, |it| part(it.serve)));
                let copied = mirror < stage.map_or(0.0, |it| part(it.mirror));
                let [primary, candidate] = samples;
                let seen = Observation {
                    lot: Some(lot),
                    primary: (!served || copied).then_some(primary),
                    candidate: (served || copied).then_some(candidate),
                    watched,
                };
                let side = if served { Side::Candidate } else { Side::Primary };
                let scored = self.scored(lot, side);
                Seen::Known(seen, score.filter(|_| copied), scored)
            }
        }
    }

    /// A thumb, up or down, where callers say what they think.
    fn scored(&mut self, lot: Lot, side: Side) -> Option<Scored> {
        let [primary, candidate] = self.feedback?;
        let liked = match side {
            Side::Primary => primary,
            Side::Candidate => candidate,
        };
        let request = PairId(self.dice.roll().into());
        let score = if self.dice.unit() < liked { 1.0 } else { 0.0 };
        Some(Scored { request, lot, side, score })
    }

    /// The lot of a request and where it falls, 0 to 1, for serving and for copying.
    fn draw(&mut self, index: u64) -> (Lot, [f64; 2]) {
        match self.conversations {
            None => (Lot::Once, [self.dice.unit(), self.dice.unit()]),
            Some(conversations) => {
                let mut own = Dice::new((index % conversations).wrapping_add(0x5eed));
                let key = own.roll();
                (Lot::Sticky(key), [own.unit(), own.unit()])
            }
        }
    }

    fn sample(&mut self, side: usize) -> Sample {
        let of = |both: [f64; 2]| both[side];
        let mut place = self.dice.unit();
        let mut outcome = Outcome::Ok;
        for (other, chances) in &self.outcomes {
            let chance = of(*chances);
            if outcome == Outcome::Ok && place < chance {
                outcome = *other;
            }
            place -= chance;
        }
        // Most answers are near the usual time, a few take several times as long.
        let slowness = 0.7 + 0.6 * self.dice.unit() + 0.02 / (0.01 + self.dice.unit());
        let outlier = self.dice.unit() < of(self.outliers);
        let total_ms = of(self.latency_ms) * slowness * if outlier { 100.0 } else { 1.0 };
        // No number is drawn for what no story asks for.
        let hangs = 0.0 < of(self.hang) && self.dice.unit() < of(self.hang);
        let (outcome, total_ms) =
            if hangs { (Outcome::Timeout, 120_000.0) } else { (outcome, total_ms) };
        let tokens = self.tokens.map(|it| of(it).max(0.0));
        Sample {
            outcome,
            total_ms,
            first_byte_ms: Some(total_ms / 4.0),
            output_tokens: tokens.and_then(|it| format!("{it:.0}").parse().ok()),
            usd: self.usd.map(of),
            checks: crate::domain::Checks::default(),
            answer_chars: None,
            rouge_l: None,
            input_tokens: None,
            estimated: false,
        }
    }
}

/// Seeded randomness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(Splitmix);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Splitmix(seed))
    }

    /// The next 64 bits.
    pub(super) fn roll(&mut self) -> u64 {
        self.0.roll()
    }

    /// A number from 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.roll() >> 32).unwrap_or(u32::MAX);
        f64::from(high) / 4_294_967_296.0
    }
}
