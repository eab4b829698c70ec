//! Random histories of a rollout with crashes between any two steps: what must hold, holds.
//!
//! `CROSSFADE_HISTORIES` says how many. A history that fails is told by its seed and by the
//! steps up to the one that fails; the same seed gives the same history.

use std::env;

use crate::domain::{
    Answer, Approval, Cause, Command, Consent, Event, Evidence, Freeze, FreezeText, Gate,
    GateEvidence, Input, Margin, Metric, OnIdle, Plan, Risk, Role, Rollout, Share, Slice, Stage,
    State, Times, Timestamp, Undecided, Verdict,
};

use super::{
    invariants::{self, Step},
    traffic::Dice,
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
    // Seeds side by side would otherwise give the same numbers, one place on.
    let mut dice = Random(Dice(Dice(seed).roll()));
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
                node.step(&Input::Tick, dice.crash(), counts, log)?;
            }
            8 if dice.one_in(3) => {
                let all =
                    [Input::Tripped, Input::Idle, Input::Idle, Input::Superseded, Input::Stopped];
                node.step(&dice.pick(&all), dice.crash(), counts, log)?;
            }
            _ => {
                let again = node.last.clone().filter(|_| dice.one_in(4));
                let command = again.unwrap_or_else(|| dice.command(&node.live));
                node.step(&Input::Command(&command), dice.crash(), counts, log)?;
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
            Err(_) => (None, true),
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

/// Random plans, evidence and commands.
struct Random(Dice);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0.roll() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        let index = self.below(u64::try_from(all.len()).unwrap());
        all[usize::try_from(index).unwrap()].clone()
    }

    fn crash(&mut self) -> Crash {
        match self.below(16) {
            0 => Crash::Decided,
            1 => Crash::Halfway,
            _ => Crash::Never,
        }
    }

    fn plan(&mut self) -> Plan {
        let mut serve = 0;
        let stages = (0..=self.below(4)).map(|index| {
            serve = 10_000.min(serve + self.below(3_000));
            self.stage(&format!("s{index}"), serve)
        });
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            stages: stages.collect(),
            copies_per_day_max: 1_000,
            judge_share: Share::ALL,
            risk: Risk::default(),
            times: self.times(),
        }
    }

    fn times(&mut self) -> Times {
        let night = FreezeText {
            days: vec!["mon".to_owned(), "wed".to_owned()],
            from: "20:00".to_owned(),
            to: "06:00".to_owned(),
            zone: self.pick(&["UTC", "Europe/Berlin"]).to_owned(),
        };
        Times {
            freezes: if self.one_in(3) { vec![Freeze::read(&night).unwrap()] } else { vec![] },
            idle_ms_max: HOUR_MS,
            on_idle: self.pick(&[OnIdle::Pause, OnIdle::Rollback]),
            bake_ms: self.one_in(2).then_some(HOUR_MS),
        }
    }

    /// The plan with one thing changed, or another one.
    fn revision(&mut self, rollout: &Rollout) -> Plan {
        let mut plan = rollout.plan().clone();
        let last = u64::try_from(plan.stages.len()).unwrap();
        let near = u64::try_from(rollout.stage_index()).unwrap();
        let index = if self.one_in(2) { near } else { self.below(last) };
        let other = self.stage("other", 0);
        let Some(stage) = plan.stages.get_mut(usize::try_from(index).unwrap()) else {
            return self.plan();
        };
        match self.below(9) {
            0 => stage.samples_min = other.samples_min,
            1 => stage.duration_ms_min = other.duration_ms_min,
            2 => stage.approval = other.approval,
            3 => stage.gates = other.gates,
            4 => stage.serve = Share::from_basis_points(stage.serve.basis_points() / 2).unwrap(),
            5 => drop(plan.stages.pop()),
            7 => {
                let more = stage.serve.basis_points() + 500;
                stage.serve = Share::from_basis_points(more.min(10_000)).unwrap();
            }
            6 => plan.times = self.times(),
            _ => return self.plan(),
        }
        // Nobody can ask for a plan with faults.
        if plan.faults().is_empty() { plan } else { rollout.plan().clone() }
    }

    fn stage(&mut self, name: &str, serve: u64) -> Stage {
        let mut metrics = Metric::ALL.to_vec();
        let gates = (0..=self.below(3)).map(|index| {
            let place = self.below(u64::try_from(metrics.len()).unwrap());
            let metric = metrics.remove(usize::try_from(place).unwrap());
            let guards = 0 < index && self.one_in(2);
            let role = if guards { Role::Guard } else { Role::Prove };
            Gate { margin: Margin::default_of(metric), role }
        });
        let gates = gates.collect();
        Stage {
            name: name.to_owned(),
            serve: Share::from_basis_points(u16::try_from(serve).unwrap()).unwrap(),
            mirror: Share::ALL,
            slice: Slice::default(),
            duration_ms_min: self.below(2) * self.below(8 * HOUR_MS),
            duration_ms_max: self.one_in(2).then_some(3 * HOUR_MS),
            samples_min: 1 + self.below(500),
            gates,
            approval: if self.one_in(5) { Approval::Needed } else { Approval::NotNeeded },
        }
    }

    /// Evidence of the stage it is in: often good, and in every way that it can be bad.
    fn evidence(&mut self, rollout: &Rollout) -> Evidence {
        let Some(stage) = rollout.plan().stages.get(rollout.stage_index()) else {
            return Evidence::default();
        };
        let good = self.one_in(2);
        let mut evidence = Evidence { pairs: self.below(1_000), ..Evidence::default() };
        for gate in &stage.gates {
            let verdict = match self.below(8) {
                _ if good => Verdict::Pass,
                0 => continue,
                1 | 2 => Verdict::Undecided,
                3 => Verdict::Invalid,
                4 => Verdict::Breach,
                _ => Verdict::Pass,
            };
            evidence.gates.push(self.gate(gate.metric(), verdict));
        }
        if good {
            evidence.pairs = stage.samples_min.saturating_sub(1) + self.below(4);
        } else {
            match self.below(8) {
                0 => evidence.problem = Some("coverage is 90%".to_owned()),
                1 => evidence.outage = Some("the primary fails".to_owned()),
                _ => {}
            }
        }
        evidence
    }

    fn gate(&mut self, metric: Metric, verdict: Verdict) -> GateEvidence {
        let odd = [0.0, 1.0, -3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let [primary, candidate, difference, lower, upper] = [(); 5].map(|()| self.pick(&odd));
        GateEvidence {
            metric,
            verdict,
            alarm_from_percent: 70,
            problem: String::new(),
            samples: self.below(2_000),
            samples_needed: self.one_in(2).then_some(3),
            primary,
            candidate,
            difference,
            lower,
            upper,
            bound: 0.5,
            harm: 0.0,
            safe: 0.0,
        }
    }

    /// A stage by name: most often the current one, else any, else none that exists.
    fn name(&mut self, rollout: &Rollout) -> String {
        let names: Vec<String> = rollout.plan().stages.iter().map(|it| it.name.clone()).collect();
        match self.below(8) {
            0 => "elsewhere".to_owned(),
            1 | 2 => self.pick(&names),
            3 => String::new(),
            _ => rollout.stage().map_or_else(String::new, |it| it.name.clone()),
        }
    }

    fn command(&mut self, rollout: &Rollout) -> Command {
        let undecided = self.pick(&[Undecided::Hold, Undecided::Skip]);
        let consent = self.pick(&[Consent::Given, Consent::Withheld]);
        if rollout.state() == State::Paused && self.one_in(2) {
            return Command::Resume;
        }
        match self.below(16) {
            0..=2 => Command::Start,
            3 if self.one_in(2) => Command::Supersede,
            3..=6 => Command::Advance { from_stage: self.name(rollout), undecided },
            7 => Command::Jump { to_stage: self.name(rollout), undecided, consent },
            8 if self.one_in(2) => Command::Complete { consent },
            8 | 9 => Command::Pause,
            10 | 11 => Command::Resume,
            12 | 13 => {
                let answer = if self.one_in(4) { Answer::No } else { Answer::Yes };
                Command::Approve { stage: self.name(rollout), answer }
            }
            14 if self.one_in(2) => Command::Rollback,
            _ => Command::Revise(Box::new(self.revision(rollout))),
        }
    }
}
