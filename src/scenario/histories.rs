//! Random histories of a rollout with crashes between any two steps: what must hold, holds.
//!
//! `CROSSFADE_HISTORIES` says how many. A history that fails is told by its seed and by the
//! steps up to the one that fails; the same seed gives the same history.

use std::env;

use crate::domain::{
    Answer, Cause, Command, Consent, Event, Evidence, Input, Plan, Refusal, Rollout, Timestamp,
    Undecided,
    invariants::{self, Step},
    random::Random,
};

/// Histories on every run.
const HISTORIES: u64 = 1_000;
/// Steps of each.
const STEPS: u32 = 60;
const HOUR_MS: u64 = 3_600_000;

/// INV1 INV2 INV3 INV4 INV5 INV6 INV8 INV9 INV10 INV11 INV12 C1 C5 V20
#[test]
fn whatever_happens_in_whatever_order_the_invariants_hold() {
    let histories = env::var_os("CROSSFADE_HISTORIES");
    let histories = histories.map_or(HISTORIES, |it| it.to_str().unwrap().parse().unwrap());
    let mut counts = Counts::default();
    for seed in 0..histories {
        if play(seed, &mut counts, &mut |_| ()).is_err() {
            let mut steps = Vec::new();
            let broken = play(seed, &mut Counts::default(), &mut |it| steps.push(it)).unwrap_err();
            panic!("seed {seed}, step {}: {broken}\n{}", steps.len(), steps.join("\n"));
        }
    }
    println!("{histories} histories of {STEPS} steps: {counts:?}");
    // Histories that never get anywhere would hold everything.
    let Counts { rises, falls, crashes, successes, refusals, overrides, loosened, baked } = counts;
    let each = [rises, falls, crashes, successes, refusals, overrides, loosened, baked];
    assert!(each.iter().all(|it| histories / 50 <= *it), "{each:?}");
}

/// How often what matters happened.
#[derive(Debug, Default)]
struct Counts {
    rises: u64,
    falls: u64,
    crashes: u64,
    successes: u64,
    refusals: u64,
    overrides: u64,
    loosened: u64,
    baked: u64,
}

/// A node: what it runs by, what it has on disk, what it still has to write.
struct Node {
    origin: Rollout,
    live: Rollout,
    written: Vec<(Timestamp, Event)>,
    unwritten: Vec<(Timestamp, Event)>,
    /// What was written, applied.
    durable: Rollout,
    disk: Disk,
    now: Timestamp,
    /// Milliseconds that passed while its visit of the stage ran: of `live`, and of `durable`.
    ran_ms: [u64; 2],
    evidence: Evidence,
    last: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Well,
    Full,
}

/// Where a process ends in the middle of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Never,
    /// Nothing of it has happened.
    Decided,
    /// A rise is written and not in force; a fall is in force and not written.
    Halfway,
}

/// Plays one history; says which invariant breaks.
fn play(seed: u64, counts: &mut Counts, log: &mut dyn FnMut(String)) -> Result<(), String> {
    let mut dice = Random::new(seed);
    let mut node = Node::new(&dice.plan());
    log(format!("plan {:?}", node.live.plan()));
    for _ in 0..STEPS {
        match dice.below(12) {
            0 | 1 => node.pass(&mut dice, log),
            2 => node.evidence = dice.evidence(&node.live),
            3 if dice.one_in(3) => {
                log("restart".to_owned());
                node.restart()?;
            }
            4 if dice.one_in(3) => {
                node.disk = if node.disk == Disk::Well { Disk::Full } else { Disk::Well };
                log(format!("disk {:?}", node.disk));
                node.settle();
            }
            3..=7 => {
                if dice.one_in(2) {
                    node.evidence = dice.evidence(&node.live);
                }
                node.step(&Input::Tick, crash(&mut dice), counts, log)?;
            }
            8 if dice.one_in(3) => {
                let all =
                    [Input::Tripped, Input::Idle, Input::Idle, Input::Superseded, Input::Stopped];
                node.step(&dice.pick(&all), crash(&mut dice), counts, log)?;
            }
            _ => {
                let again = node.last.clone().filter(|_| dice.one_in(4));
                let command = again.unwrap_or_else(|| dice.command(&node.live));
                node.step(&Input::Command(&command), crash(&mut dice), counts, log)?;
                node.last = Some(command);
            }
        }
    }
    Ok(())
}

impl Node {
    fn new(plan: &Plan) -> Self {
        let origin = Rollout::new("chat".parse().unwrap(), plan.clone());
        Self {
            live: origin.clone(),
            durable: origin.clone(),
            origin,
            written: Vec::new(),
            unwritten: Vec::new(),
            disk: Disk::Well,
            now: Timestamp(1_767_571_200_000),
            ran_ms: [0; 2],
            evidence: Evidence::default(),
            last: None,
        }
    }

    /// Time passes; rarely backwards, as where another start of the process reads a clock that
    /// was set.
    fn pass(&mut self, dice: &mut Random, log: &mut dyn FnMut(String)) {
        let ms = dice.below(3 * HOUR_MS);
        log(format!("time passes: {ms} ms"));
        if dice.one_in(10) {
            self.now.0 -= ms / 4;
            return;
        }
        self.now.0 += ms;
        for (ran_ms, it) in self.ran_ms.iter_mut().zip([&self.live, &self.durable]) {
            *ran_ms += if invariants::runs(it) { ms } else { 0 };
        }
    }

    /// One input, decided and carried out like the controller does it, perhaps not to its end.
    fn step(
        &mut self,
        input: &Input<'_>,
        crash: Crash,
        counts: &mut Counts,
        log: &mut dyn FnMut(String),
    ) -> Result<(), String> {
        let before = self.live.clone();
        let decided = before.decide(self.now, input, &self.evidence);
        log(format!("{input:?}, {crash:?}, {} -> {decided:?}", brief(&self.evidence)));
        let (event, refused) = match decided {
            Ok(event) => (event, false),
            Err(refusal) => {
                remedies_lead_on(&before, (self.now, &self.evidence), refusal)?;
                (None, true)
            }
        };
        let mut after = before.clone();
        if let Some(event) = &event {
            after.apply(self.now, event);
        }
        let step = Step {
            before: &before,
            after: &after,
            input,
            evidence: &self.evidence,
            event: event.as_ref(),
            now: self.now,
            ran_ms: self.ran_ms[0],
        };
        invariants::check(&step)?;
        counts.refusals += u64::from(refused);
        counts.note(&step);
        let Some(event) = event else { return Ok(()) };
        let undurable = !self.unwritten.is_empty();
        self.carry_out(&event, crash);
        self.follow(&before, &event);
        invariants::inv4_a_rise_is_written_first(&self.live, &self.durable, &before)?;
        if crash != Crash::Decided {
            invariants::inv4_a_rollback_waits_for_nothing(&self.live, &event)?;
        }
        if crash != Crash::Never {
            counts.crashes += 1;
            self.restart()?;
            if !undurable {
                invariants::inv4_before_or_after(&self.live, &before, &after)?;
            }
        }
        Ok(())
    }

    /// Forward: write, then apply. Backward: apply, then write.
    fn carry_out(&mut self, event: &Event, crash: Crash) {
        let at = self.now;
        if crash == Crash::Decided {
            return;
        }
        if matches!(event, Event::RolledBack(_)) {
            self.live.apply(at, event);
            self.unwritten.push((at, event.clone()));
            if crash == Crash::Never {
                self.settle();
            }
            return;
        }
        self.settle();
        if self.disk == Disk::Full {
            return;
        }
        self.write(at, event.clone());
        if crash == Crash::Never {
            self.live.apply(at, event);
        }
    }

    /// Writes what went back and could not be written so far.
    fn settle(&mut self) {
        if self.disk == Disk::Full {
            return;
        }
        for (at, event) in std::mem::take(&mut self.unwritten) {
            self.write(at, event);
        }
    }

    fn write(&mut self, at: Timestamp, event: Event) {
        self.durable.apply(at, &event);
        if begins(&event) {
            self.ran_ms[1] = 0;
        }
        self.written.push((at, event));
    }

    /// Builds everything again from what was written. What went back and was not written is
    /// forgotten; its answer said that it was not durable.
    fn restart(&mut self) -> Result<(), String> {
        let before = self.live.clone();
        let mut again = self.origin.clone();
        for (at, event) in &self.written {
            again.apply(*at, event);
        }
        invariants::inv8_written_is_what_happened(&again, &self.durable, self.written.len())?;
        self.live = again;
        self.unwritten.clear();
        self.ran_ms[0] = self.ran_ms[1];
        if format!("{before:?}") != format!("{:?}", self.live) {
            self.evidence = Evidence::default();
        }
        Ok(())
    }

    /// Evidence and time belong to one visit of one stage on the same terms.
    fn follow(&mut self, before: &Rollout, event: &Event) {
        if self.live.revision() == before.revision() {
            return;
        }
        if begins(event) {
            self.ran_ms[0] = 0;
        }
        if begins(event) || before.since() != self.live.since() {
            self.evidence = Evidence::default();
        }
    }
}

/// Follows what refusals advise, each in the same state, until one is obeyed or only tells more:
/// never in a circle.
fn remedies_lead_on(
    rollout: &Rollout,
    (now, evidence): (Timestamp, &Evidence),
    mut refusal: Refusal,
) -> Result<(), String> {
    let mut advised = Vec::new();
    loop {
        let remedy = refusal.remedy(rollout);
        if advised.contains(&remedy) {
            return Err(format!("a circle of refusals: {advised:?}"));
        }
        let Some(command) = typed(&remedy) else { return Ok(()) };
        advised.push(remedy);
        match rollout.decide(now, &Input::Command(&command), evidence) {
            Ok(_) => return Ok(()),
            Err(next) => refusal = next,
        }
    }
}

/// The first command of a remedy that does something; none for those that only look, and where
/// the stage is the one that was asked for.
fn typed(remedy: &str) -> Option<Command> {
    let text = remedy.split("`crossfade ").nth(1)?.split('`').next()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |flag: &str| words.contains(&flag);
    let undecided = || {
        let skip = has("--override") || has("--override-undecided");
        if skip { Undecided::Skip } else { Undecided::Hold }
    };
    let consent = || if has("--approve") { Consent::Given } else { Consent::Withheld };
    Some(match (*words.first()?, *words.get(2).unwrap_or(&"")) {
        ("start", _) => Command::Start,
        ("resume", _) => Command::Resume,
        ("rollback", _) => Command::Rollback,
        ("complete", _) => Command::Complete { consent: consent() },
        ("approve", stage) => {
            let attempt = words.iter().skip_while(|it| **it != "--attempt").nth(1);
            let attempt = attempt.and_then(|it| it.parse().ok());
            Command::Approve { stage: stage.to_owned(), attempt, answer: Answer::Yes }
        }
        ("advance", _) => Command::Advance { from_stage: String::new(), undecided: undecided() },
        ("jump", stage) if stage != "STAGE" => {
            let (undecided, consent) = (undecided(), consent());
            Command::Jump { to_stage: stage.to_owned(), undecided, consent }
        }
        _ => return None,
    })
}

/// Whether time and evidence count anew from there.
fn begins(event: &Event) -> bool {
    matches!(event, Event::StageEntered { .. } | Event::Loosened(_) | Event::Succeeded(_))
}

impl Counts {
    fn note(&mut self, step: &Step<'_>) {
        let (before, after) = (invariants::served(step.before), invariants::served(step.after));
        self.rises += u64::from(before < after);
        self.falls += u64::from(after < before);
        match step.event {
            Some(Event::Succeeded(_)) => self.successes += 1,
            Some(Event::StageEntered { cause: Cause::Override, .. }) => self.overrides += 1,
            Some(Event::Loosened(_)) => self.loosened += 1,
            Some(Event::Baked) => self.baked += 1,
            Some(_) | None => {}
        }
    }
}

/// What the gates say, briefly.
fn brief(evidence: &Evidence) -> String {
    let gates = evidence.gates.iter().map(|it| format!("{:?}={:?}", it.metric, it.verdict));
    let gates: Vec<String> = gates.collect();
    format!("{} pairs {} {:?}", evidence.pairs, gates.join(" "), evidence.problem)
}

/// Rarely a crash, in one of the places that matter.
fn crash(dice: &mut Random) -> Crash {
    match dice.below(16) {
        0 => Crash::Decided,
        1 => Crash::Halfway,
        _ => Crash::Never,
    }
}
