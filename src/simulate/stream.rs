//! A stream of what was seen, one JSON object a line, and a decision for each tick of it.

use std::io::{self, BufRead, Write};

use serde::Serialize;

use crate::analysis::{Chances, Climate, Marks, News, Observation, Said, Sample};
use crate::domain::{Cause, Event, Lot, Name, Plan, State, Timestamp};

use super::{
    Numbers, Simulation,
    line::{Kind, Line, Part},
};

/// Longest line read.
const LINE_BYTES_MAX: usize = 1 << 16;
/// Latest time, in seconds: what is beyond is no time but a slip.
const SECONDS_MAX: f64 = 1e12;

/// Numbers of gates that hold a stage are told so often.
const NUMBERS_MS: u64 = 60_000;

/// Why a stream could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The input or the output broke.
    #[error("the stream broke after line {line}")]
    Io {
        /// Lines read so far.
        line: u64,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A line is not JSON of a form that is known.
    #[error("line {line} is not one of stage, obs, score and tick")]
    Form {
        /// Which, from 1.
        line: u64,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
    /// A line says something that cannot be.
    #[error("line {line} makes no sense: {problem}")]
    Sense {
        /// Which, from 1.
        line: u64,
        /// What cannot be.
        problem: String,
    },
}

/// The answer to a tick.
#[derive(Debug, Serialize)]
struct Answer {
    d: &'static str,
    why: String,
}

/// Plays a stream through one attempt of a rollout, and answers each of its ticks.
///
/// Lines are `stage`, `obs`, `score` and `tick` as `design/STATISTICS` has them. Whoever sends
/// them routes by the answers: it says which stage begins, and with which chances each side is
/// seen in it. What was seen of the primary before the first stage tells its weather.
/// An observation has its own time, a score that of the line before it. Both may name the slice
/// of the plan that they are in; what names none, or one that is not watched, counts in all
/// traffic alone.
/// Why it holds is told with the numbers of the gate once a minute, else by the gates' names.
///
/// # Errors
/// When a line cannot be read or makes no sense, with its number; when a stream breaks.
pub fn stream(
    (name, plan): (Name, Plan),
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), StreamError> {
    let simulation = Simulation::new(name, plan);
    let (climate, now) = (Climate::default(), Timestamp(0));
    let mut player =
        Player { simulation, climate, chances: Chances::default(), now, told: now, lines: 0 };
    let mut text = Vec::new();
    loop {
        text.clear();
        let broke = |line: u64| move |error: io::Error| StreamError::Io { line, error };
        let mut bounded = io::Read::take(&mut *input, limit());
        let len = bounded.read_until(b'\n', &mut text).map_err(broke(player.lines))?;
        if len == 0 {
            return Ok(());
        }
        player.lines += 1;
        if LINE_BYTES_MAX < text.len() {
            return Err(player.nonsense(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if let Some(answer) = player.take(&text)? {
            let mut json = serde_json::to_vec(&answer)
                .map_err(|error| StreamError::Form { line: player.lines, error })?;
            json.push(b'\n');
            let written = output.write_all(&json).and_then(|()| output.flush());
            written.map_err(broke(player.lines))?;
        }
    }
}

fn limit() -> u64 {
    u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX)
}

struct Player {
    simulation: Simulation,
    /// The primary's, also from before the first stage.
    climate: Climate,
    /// Of the stage that was told last; they stay while it is guarded.
    chances: Chances,
    now: Timestamp,
    /// When numbers were told last.
    told: Timestamp,
    lines: u64,
}

impl Player {
    fn take(&mut self, text: &[u8]) -> Result<Option<Answer>, StreamError> {
        let line: Line = serde_json::from_slice(text)
            .map_err(|error| StreamError::Form { line: self.lines, error })?;
        match line.e {
            Kind::Stage => self.enter(&line).map(|()| None),
            Kind::Obs => self.observe(line).map(|()| None),
            Kind::Score => self.score(&line).map(|()| None),
            Kind::Tick => self.tick(&line).map(Some),
        }
    }

    fn enter(&mut self, line: &Line) -> Result<(), StreamError> {
        let at = self.pass(line)?;
        let stages = self.simulation.rollout().plan().stages.len();
        let Some(index) = line.index.filter(|it| *it < stages) else {
            return Err(self.nonsense(format!("`index` is 0 to {}", stages.saturating_sub(1))));
        };
        let chance = |it: Option<f64>| it.filter(|it| (0.0..=1.0).contains(it));
        let (Some(primary), Some(candidate)) = (chance(line.rho_p), chance(line.rho_c)) else {
            return Err(self.nonsense("`rho_p` and `rho_c` are chances, 0 to 1".to_owned()));
        };
        let chances = Chances { primary, candidate, ..Chances::default() };
        self.chances = chances;
        let attempt = self.simulation.rollout().attempt();
        match self.simulation.rollout().state() {
            State::Pending if index == 0 => {
                let refused = self.simulation.start(at, chances);
                refused.map_err(|error| self.nonsense(error.to_string()))?;
            }
            State::Running => {
                let event =
                    Event::StageEntered { attempt, stage: index, cause: Cause::GatesPassed };
                self.simulation.apply(at, &event, chances);
            }
            State::RolledBack => {}
            state @ (State::Pending
            | State::Paused
            | State::AwaitingApproval
            | State::Succeeded
            | State::Baked) => {
                let state = state.as_str();
                let problem = format!("stage {index} cannot begin: the rollout is {state}");
                return Err(self.nonsense(problem));
            }
        }
        self.simulation.tell_weather(&self.climate.weather());
        Ok(())
    }

    fn observe(&mut self, line: Line) -> Result<(), StreamError> {
        let at = self.pass(&line)?;
        let (primary, candidate) = (self.sample(line.p)?, self.sample(line.c)?);
        if let Some(call) = &primary {
            self.climate.see(at, call);
        }
        let (lot, watched) = (Some(Lot::Once), line.slice);
        let said = Said::Request(Observation { lot, primary, candidate, watched });
        self.simulation.hear(&News { at, made: at, said });
        Ok(())
    }

    fn score(&mut self, line: &Line) -> Result<(), StreamError> {
        let (Part::Score(primary), Part::Score(candidate)) = (line.p, line.c) else {
            return Err(self.nonsense("`p` and `c` are scores, 0 to 1".to_owned()));
        };
        let said =
            Said::Score { watched: line.slice.clone(), marks: Marks::unplaced(primary, candidate) };
        self.simulation.hear(&News { at: self.now, made: self.now, said });
        Ok(())
    }

    fn tick(&mut self, line: &Line) -> Result<Answer, StreamError> {
        let at = self.pass(line)?;
        let hold = |why: &str| Answer { d: "hold", why: why.to_owned() };
        Ok(match self.simulation.rollout().state() {
            State::RolledBack => Answer { d: "rollback", why: self.simulation.epitaph() },
            State::Succeeded => hold("succeeded; the gates of the last stage guard it"),
            State::Baked => hold("guarded for long enough; nothing is copied any more"),
            State::Pending => hold("no stage has begun"),
            State::Running | State::Paused | State::AwaitingApproval => self.decide(at),
        })
    }

    /// What to do at a stage. The last one's success is taken at once, because nobody has to
    /// route anything anew for it; any other step waits until its stage is told to begin.
    fn decide(&mut self, at: Timestamp) -> Answer {
        let told = NUMBERS_MS <= at.millis_since(self.told);
        let numbers = if told { Numbers::Told } else { Numbers::Spared };
        if told {
            self.told = at;
        }
        match self.simulation.decide(at, numbers) {
            Ok(event) => {
                if matches!(event, Event::Succeeded(_)) {
                    self.simulation.apply(at, &event, self.chances);
                }
                Answer { d: "advance", why: "every gate is proven".to_owned() }
            }
            Err(why) => Answer { d: "hold", why },
        }
    }

    /// The time of a line. It does not go back.
    fn pass(&mut self, line: &Line) -> Result<Timestamp, StreamError> {
        let seconds = line.t.filter(|it| (0.0..=SECONDS_MAX).contains(it));
        let Some(seconds) = seconds else {
            return Err(self.nonsense("`t` is a time in seconds, 0 or more".to_owned()));
        };
        self.now = self.now.max(Timestamp(millis(seconds)));
        Ok(self.now)
    }

    fn sample(&self, part: Part) -> Result<Option<Sample>, StreamError> {
        match part {
            Part::None => Ok(None),
            Part::Call(call) => Ok(Some(call.sample())),
            Part::Score(_) => Err(self.nonsense("`p` and `c` are calls or null".to_owned())),
        }
    }

    fn nonsense(&self, problem: String) -> StreamError {
        StreamError::Sense { line: self.lines, problem }
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "std has no other way; the caller has checked the range"
)]
fn millis(seconds: f64) -> u64 {
    (seconds * 1_000.0) as u64
}
