//! The world of a story: its clock, its disk, its rollouts, and what its commands do.

use std::collections::BTreeMap;

use crate::domain::{Answer, Command, Consent, Event, Input, Plan, Refusal, Timestamp, Undecided};

use super::{
    BadLine, evidence,
    managed::{Entry, Managed},
    plan, tell,
    traffic::{HANGS_MS, Traffic},
    words::{Read, count, duration_ms, since, split},
};

/// How often a controller looks while a story waits.
const LOOK_MS: u64 = 60_000;
/// Longest time of one command: 400 days.
const WAIT_MS_MAX: u64 = 400 * 86_400_000;
/// A Monday, 2026-01-05, at midnight UTC.
const BEGUN: Timestamp = Timestamp(1_767_571_200_000);

/// Everything a story is about.
#[derive(Debug)]
pub(super) struct World {
    begun: Timestamp,
    now: Timestamp,
    /// How far the wall clock is ahead of the time that the process goes by.
    ahead_ms: i64,
    name: String,
    rollouts: BTreeMap<String, Managed>,
    crash: Option<Crash>,
    /// Whether everything is stopped.
    stopped: bool,
}

/// Where the next step is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    BeforeWrite,
    AfterWrite,
}

impl World {
    /// A world at its beginning.
    pub(super) fn new() -> Self {
        let name = "chat".to_owned();
        let rollouts = BTreeMap::new();
        Self { begun: BEGUN, now: BEGUN, ahead_ms: 0, name, rollouts, crash: None, stopped: false }
    }

    /// Does what a block asks, which begins in that line, and answers.
    pub(super) fn run(&mut self, line: usize, block: &[&str]) -> Result<String, BadLine> {
        let at = |offset: usize| move |problem| BadLine { line: line + offset, problem };
        let head = block.first().copied().unwrap_or("");
        let words: Vec<&str> = head.split_whitespace().collect();
        let many = matches!(words.first(), Some(&"plan" | &"revise"));
        if !many && 1 < block.len() {
            return Err(at(1)("one command stands alone; leave a blank line after it".to_owned()));
        }
        let mut said = if many {
            let plan = plan::read(head, block.get(1..).unwrap_or(&[]));
            let plan = plan.map_err(|(offset, problem)| at(offset)(problem))?;
            self.take_plan(&words, plan).map_err(at(0))?
        } else {
            self.command(&words).map_err(at(0))?
        };
        said.push(self.status());
        Ok(said.join("\n"))
    }

    fn take_plan(&mut self, words: &[&str], plan: Plan) -> Read<Vec<String>> {
        let faults = plan.faults();
        if !faults.is_empty() {
            return Ok(faults.iter().map(|it| format!("refused: {it}")).collect());
        }
        if words.first() == Some(&"revise") {
            return self.order(&Command::Revise(Box::new(plan)));
        }
        if self.rollouts.contains_key(&self.name) {
            return Err(format!("`{}` has a plan already; `revise` gives it another", self.name));
        }
        let name = self.name.parse().map_err(|error| format!("{error}"))?;
        self.rollouts.insert(self.name.clone(), Managed::new(name, plan, self.now));
        Ok(Vec::new())
    }

    fn command(&mut self, words: &[&str]) -> Read<Vec<String>> {
        match words {
            ["date", date] => self.date(date),
            ["rollout", name] => {
                (*name).clone_into(&mut self.name);
                Ok(Vec::new())
            }
            ["status"] => Ok(Vec::new()),
            ["explain"] => Ok(tell::evidence(self.managed()?)),
            ["wait", time] => self.wait(time),
            ["down", time] => Ok(self.restart(wait_ms(time)?)),
            ["clock", jump] => self.clock(jump),
            ["restart"] => Ok(self.restart(0)),
            ["crash", "before", "write"] => Ok(self.cut(Crash::BeforeWrite)),
            ["crash", "after", "write"] => Ok(self.cut(Crash::AfterWrite)),
            ["evidence", words @ ..] => {
                let told = evidence::read(&self.managed()?.rollout, words.iter().copied())?;
                let now = self.now;
                self.managed()?.put(now, Entry::Told(told));
                Ok(self.look())
            }
            ["traffic", words @ ..] => self.traffic(Traffic::read(words)?),
            ["stop"] => Ok(self.stop()),
            ["stop", "lift"] => Ok(self.lift()),
            ["trip"] => {
                self.managed()?.trip();
                Ok(self.look())
            }
            words => self.order(&command(words)?),
        }
    }

    fn date(&mut self, date: &str) -> Read<Vec<String>> {
        let time = humantime::parse_rfc3339_weak(date).ok();
        let since = time.and_then(|it| it.duration_since(std::time::UNIX_EPOCH).ok());
        let ms = since.and_then(|it| u64::try_from(it.as_millis()).ok());
        let problem = || format!("`{date}` is not a time: write it like `2026-11-20T17:00:00Z`");
        self.now = Timestamp(ms.ok_or_else(problem)?);
        if self.rollouts.is_empty() {
            self.begun = self.now;
            return Ok(Vec::new());
        }
        Err("a story has its date before its first plan".to_owned())
    }

    fn clock(&mut self, jump: &str) -> Read<Vec<String>> {
        let (ahead, time) = match jump.split_at_checked(1) {
            Some(("+", time)) => (1, time),
            Some(("-", time)) => (-1, time),
            Some(_) | None => return Err(format!("`{jump}` is not like `+1d` or `-1h`")),
        };
        self.ahead_ms += ahead * i64::try_from(wait_ms(time)?).unwrap_or(0);
        Ok(self.look())
    }

    fn cut(&mut self, crash: Crash) -> Vec<String> {
        self.crash = Some(crash);
        Vec::new()
    }

    fn wait(&mut self, time: &str) -> Read<Vec<String>> {
        let end = self.now.0 + wait_ms(time)?;
        let mut said = Vec::new();
        while self.now.0 < end {
            self.now.0 = end.min(self.now.0 + LOOK_MS);
            said.extend(self.look());
        }
        Ok(said)
    }

    /// The process starts again some time after it ended, by the wall clock as it is then.
    fn restart(&mut self, down_ms: u64) -> Vec<String> {
        let ended = self.now;
        self.now = Timestamp((ended.0 + down_ms).saturating_add_signed(self.ahead_ms));
        self.ahead_ms = 0;
        let now = self.now;
        let mut said: Vec<String> =
            self.rollouts.values_mut().filter_map(|it| it.restart(ended, now)).collect();
        said.extend(self.look());
        said
    }

    fn traffic(&mut self, mut traffic: Traffic) -> Read<Vec<String>> {
        let begun = self.now;
        let mut said = Vec::new();
        for index in 0..traffic.len {
            self.now.0 = begun.0 + traffic.over_ms * (index + 1) / traffic.len;
            let now = self.now;
            let managed = self.managed()?;
            managed.settle(now);
            let (seen, took_ms) = traffic.request(index, managed.rollout.stage());
            if HANGS_MS <= took_ms {
                managed.hang(now, Timestamp(now.0 + took_ms), seen);
            } else {
                managed.answer(now, took_ms);
                managed.put(now, Entry::Seen(seen));
            }
            // A controller looks ten times a second; here once for ten requests, and at alarms.
            if managed.is_alarmed() || index % 10 == 9 || index + 1 == traffic.len {
                let after = |it| format!("{it} after {} requests", index + 1);
                said.extend(self.look().into_iter().map(after));
            }
        }
        Ok(said)
    }

    /// What a controller does at every tick, for every rollout.
    fn look(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let names: Vec<String> = self.rollouts.keys().cloned().collect();
        for name in names {
            let Some(managed) = self.rollouts.get_mut(&name) else { continue };
            managed.settle(self.now);
            managed.weigh(self.now);
            let input = managed.input(self.now);
            if let Ok(Some(event)) = managed.decide(self.now, &input) {
                said.extend(self.carry_out(&name, &event));
            }
        }
        said
    }

    /// What a controller does with a command.
    fn order(&mut self, command: &Command) -> Read<Vec<String>> {
        let (name, now, stopped) = (self.name.clone(), self.now, self.stopped);
        let managed = self.managed()?;
        managed.weigh(now);
        let refused = |refusal: &Refusal, managed: &Managed| {
            vec![format!("refused: {refusal}; {}", refusal.remedy(&managed.rollout))]
        };
        let event = match managed.decide(now, &Input::Command(command)) {
            Err(refusal) => return Ok(refused(&refusal, managed)),
            Ok(None) => return Ok(vec!["nothing to do".to_owned()]),
            Ok(Some(event)) => event,
        };
        let starts = matches!(command, Command::Start | Command::Supersede);
        if starts && stopped {
            return Ok(refused(&Refusal::Stopped { actor: "operator".to_owned() }, managed));
        }
        let rivals = if starts { self.rivals(&name) } else { Vec::new() };
        let mut said = Vec::new();
        if let (Some(other), Command::Start) = (rivals.first(), command) {
            return Ok(vec![format!("refused: `{other}` moves some of the same requests now")]);
        }
        for other in rivals {
            said.extend(self.send_back(&other, &Input::Superseded));
        }
        said.extend(self.carry_out(&name, &event));
        Ok(said)
    }

    /// Everything goes back, and nothing starts until the stop is lifted.
    fn stop(&mut self) -> Vec<String> {
        self.stopped = true;
        let names: Vec<String> = self.rollouts.keys().cloned().collect();
        names.iter().flat_map(|it| self.send_back(it, &Input::Stopped)).collect()
    }

    fn lift(&mut self) -> Vec<String> {
        self.stopped = false;
        Vec::new()
    }

    fn send_back(&mut self, name: &str, why: &Input<'_>) -> Vec<String> {
        let event = self.rollouts.get(name).map(|it| it.decide(self.now, why));
        match event {
            Some(Ok(Some(event))) => self.carry_out(name, &event),
            Some(Ok(None) | Err(_)) | None => Vec::new(),
        }
    }

    /// Other rollouts that move some of the same requests.
    fn rivals(&self, name: &str) -> Vec<String> {
        let Some(managed) = self.rollouts.get(name) else { return Vec::new() };
        let slice = &managed.rollout.plan().slice;
        let meets =
            |it: &Managed| it.rollout.stage().is_some() && it.rollout.plan().slice.overlaps(slice);
        let others = self.rollouts.iter().filter(|(other, it)| *other != name && meets(it));
        others.map(|(other, _)| other.clone()).collect()
    }

    /// Forward: write, then make it so. Backward: make it so, then write.
    fn carry_out(&mut self, name: &str, event: &Event) -> Vec<String> {
        let (at, many) = (self.now, 1 < self.rollouts.len());
        let time = since(self.begun, at);
        let Some(managed) = self.rollouts.get_mut(name) else { return Vec::new() };
        let told = tell::event(managed, event);
        let whose = if many { format!("`{name}`: ") } else { String::new() };
        let entry = Entry::Event(event.clone());
        let back = matches!(event, Event::RolledBack(_));
        let crash = self.crash.take();
        if back || crash.is_none() {
            managed.absorb(at, &entry);
        }
        let between = tell::serves(&managed.rollout);
        if crash != Some(Crash::BeforeWrite) {
            managed.write(at, entry);
        }
        let Some(crash) = crash else { return vec![format!("{time} {whose}{told}")] };
        let place = match crash {
            Crash::BeforeWrite => "before",
            Crash::AfterWrite => "after",
        };
        // Building again what was written is what differs from before here, and rightly so.
        drop(managed.restart(at, at));
        vec![format!("{time} {whose}crash {place} the write of: {told}; it served {between}")]
    }

    fn managed(&mut self) -> Read<&mut Managed> {
        let name = &self.name;
        let missing = || format!("`{name}` has no plan yet: begin with `plan`");
        self.rollouts.get_mut(name).ok_or_else(missing)
    }

    fn status(&mut self) -> String {
        let (time, now, many) = (since(self.begun, self.now), self.now, 1 < self.rollouts.len());
        let name = self.name.clone();
        let Ok(managed) = self.managed() else { return format!("{time} | nothing yet") };
        managed.weigh(now);
        let obstacle = managed.rollout.obstacle(now, &managed.evidence);
        let waits = obstacle.map_or_else(|| "every gate is proven".to_owned(), |it| it.to_string());
        let whose = if many { format!(" | {name}") } else { String::new() };
        format!("{time}{whose} | {}", tell::status(managed, &waits))
    }
}

/// A command of an operator.
fn command(words: &[&str]) -> Read<Command> {
    let advance = |from: &str, undecided| Command::Advance { from_stage: from.into(), undecided };
    let command = match words {
        ["start"] => Command::Start,
        ["supersede"] => Command::Supersede,
        ["pause"] => Command::Pause,
        ["resume"] => Command::Resume,
        ["rollback"] => Command::Rollback,
        ["advance"] => advance("", Undecided::Hold),
        ["advance", "override"] => advance("", Undecided::Skip),
        ["advance", stage] => advance(stage, Undecided::Hold),
        ["advance", stage, "override"] => advance(stage, Undecided::Skip),
        ["jump", stage, rest @ ..] => {
            let (undecided, consent) = leave(rest)?;
            Command::Jump { to_stage: (*stage).to_owned(), undecided, consent }
        }
        ["complete", rest @ ..] => Command::Complete { consent: leave(rest)?.1 },
        ["approve", stage, answer, rest @ ..] => approve(stage, answer, rest)?,
        words => return Err(format!("`{}` is not understood", words.join(" "))),
    };
    Ok(command)
}

/// What may be passed over: `override` what is not decided, `consent` what asks for approval.
fn leave(words: &[&str]) -> Read<(Undecided, Consent)> {
    let (mut undecided, mut consent) = (Undecided::Hold, Consent::Withheld);
    for word in words {
        match *word {
            "override" => undecided = Undecided::Skip,
            "consent" => consent = Consent::Given,
            other => return Err(format!("`{other}` is neither override nor consent")),
        }
    }
    Ok((undecided, consent))
}

/// `half yes`, or `half yes attempt=2` where one is meant.
fn approve(stage: &str, answer: &str, rest: &[&str]) -> Read<Command> {
    let answer = match answer {
        "yes" => Answer::Yes,
        "no" => Answer::No,
        other => return Err(format!("`{other}` is neither yes nor no")),
    };
    let attempt = match rest {
        [] => None,
        [word] if word.starts_with("attempt=") => Some(attempt(split(word).1)?),
        _ => return Err(format!("`{}` is not understood", rest.join(" "))),
    };
    Ok(Command::Approve { stage: stage.to_owned(), attempt, answer })
}

fn attempt(text: &str) -> Read<u32> {
    u32::try_from(count(text)?).map_err(|_| format!("`{text}` is no attempt"))
}

fn wait_ms(text: &str) -> Read<u64> {
    let ms = duration_ms(text)?;
    if WAIT_MS_MAX < ms {
        return Err(format!("`{text}` is too long: at most 400 days at a time"));
    }
    Ok(ms)
}
