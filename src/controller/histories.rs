//! Random histories of the real controller, ended between any two steps: what must hold, holds.
//!
//! Commands, traffic, time, ticks, writes that end, faults of the disk, kills and power cuts come
//! in any order, for three rollouts. Only the disk and the time are simulated.
//! One in a hundred of `CROSSFADE_HISTORIES` is how many; the same seed gives the same history, and
//! `CROSSFADE_SEED` is the first one's: with a hundred of them it is played alone.

use std::{env, time::Duration};

use tokio::{sync::oneshot, task::yield_now, time::advance};

use super::Controller;
use crate::clock::Clock;
use crate::controller::{
    handle::{Ask, Rejected, Step, View, Wish},
    rig::{by, name, plan, setup_at, tell},
    setup::Setup,
};
use crate::domain::{
    Approval, Command, Margin, Metric, Name, OnIdle, Outcome, Plan, Rollout, Share, Timestamp,
    Window,
    invariants::{Checked, holds},
    random::Random,
};
use crate::store::{
    History, Pairs, samples,
    sim::{Errno, Fault, Lasts, Sim},
};
use crate::traffic::{Outbox, Waited};

use checks::Witness;

#[path = "histories_checks.rs"]
mod checks;

/// Histories on every run.
const HISTORIES: u64 = 100;
/// Steps of each.
const STEPS: u32 = 60;
const START: Timestamp = Timestamp(1_795_000_000_000);
const MINUTE_MS: u64 = 60_000;
/// Two of the same requests, and one of others.
const FEATURES: [&str; 3] = ["chat", "chat", "search"];

/// INV1 INV2 INV3 INV4 INV5 INV6 INV8 INV9 INV10 INV11 INV12 C1 C3 C5 T1 T3 V20
#[tokio::test(start_paused = true)]
async fn whatever_happens_in_whatever_order_the_controller_keeps_the_invariants() {
    let number = |name| Some(env::var_os(name)?.to_str().unwrap().parse::<u64>().unwrap());
    let histories = number("CROSSFADE_HISTORIES").map_or(HISTORIES, |it| it / 100);
    let first = number("CROSSFADE_SEED").unwrap_or(0);
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
    let mut counts = Counts::default();
    for seed in first..first + histories {
        let mut world = World::new(seed, &pairs).await;
        if let Err(broken) = world.play(&mut counts).await {
            panic!("seed {seed}: {broken}\n{}", world.log.join("\n"));
        }
    }
    println!("{histories} histories of {STEPS} steps: {counts:?}");
    // Histories that never get anywhere would hold everything.
    let Counts { rises, proven, falls, breaches, crashes, cut_off, lost, repeated, deleted } =
        counts;
    let each = [rises, proven, falls, breaches, crashes, cut_off, lost, repeated, deleted];
    assert!(each.iter().all(|it| histories / 10 <= *it), "{each:?}");
}

/// How often what matters happened.
#[derive(Debug, Default)]
struct Counts {
    rises: u64,
    /// Steps forward that nobody asked for.
    proven: u64,
    falls: u64,
    breaches: u64,
    crashes: u64,
    /// Crashes that left a step of which nobody was told.
    cut_off: u64,
    /// Crashes that lost one that was not durable.
    lost: u64,
    repeated: u64,
    deleted: u64,
}

/// The controller of a process that runs, and what the data path has of it.
struct Process {
    controller: Controller,
    outbox: Outbox,
    hanging: Vec<Waited>,
    answers: Vec<Answer>,
}

type Answer = (Command, oneshot::Receiver<Result<Vec<View>, Rejected>>);

struct World<'a> {
    dice: Random,
    /// Of all histories. What a crash loses of it only makes proofs take longer.
    pairs: &'a Pairs,
    names: [Name; 3],
    sim: Sim,
    process: Process,
    witness: Witness,
    log: Vec<String>,
}

impl Process {
    async fn open(sim: &Sim, pairs: &Pairs, at: Timestamp) -> (Self, History) {
        let (journal, history) = sim.endless_journal().unwrap();
        let setup = Setup {
            pairs: Some(pairs.clone()),
            ..setup_at(Clock::at(at), Ok((journal, history.clone())))
        };
        let outbox = setup.outbox.clone();
        let (controller, _) = Controller::new(setup).await;
        controller.publish();
        (Self { controller, outbox, hanging: Vec::new(), answers: Vec::new() }, history)
    }

    fn now(&self) -> Timestamp {
        self.controller.clock.now()
    }

    fn live(&self, name: &Name) -> Option<&Rollout> {
        self.controller.managed.get(name).map(|it| &it.rollout)
    }
}

impl<'a> World<'a> {
    async fn new(seed: u64, pairs: &'a Pairs) -> Self {
        let names = ["a", "b", "c"].map(|it| name(&format!("{it}-{seed}")));
        let sim = Sim::default();
        let (process, _) = Process::open(&sim, pairs, START).await;
        let witness = Witness::new(&names);
        let log = Vec::new();
        Self { dice: Random::new(seed), pairs, names, sim, process, witness, log }
    }

    async fn play(&mut self, counts: &mut Counts) -> Checked {
        for (index, feature) in FEATURES.into_iter().enumerate() {
            self.create(&self.names[index].clone(), feature);
            self.finish(4, counts).await?;
        }
        for _ in 0..STEPS {
            self.step(counts).await?;
            let writes = self.dice.below(6);
            self.finish(writes, counts).await?;
        }
        Ok(())
    }

    async fn step(&mut self, counts: &mut Counts) -> Checked {
        // Nothing happens at the same time as anything else.
        self.pass(1).await;
        match self.dice.below(20) {
            0 | 1 => {
                let minutes = self.dice.pick(&[0, 0, 1, 10, 120]);
                self.log(&format!("{minutes} minutes pass"));
                self.pass(1_100 + minutes * MINUTE_MS).await;
            }
            2..=6 => self.traffic(counts).await?,
            7 => self.trouble(),
            8..=10 => self.tick().await,
            11..=14 => self.command()?,
            15 => return self.repeat(counts).await,
            16 if self.dice.one_in(3) => self.stop(),
            16 => self.wish(Name::every(), Wish::Lift),
            17 if self.dice.one_in(2) => {
                let step = self.sim.steps() + 1 + self.dice.below(3);
                let error = self.dice.pick(&[Errno::Io, Errno::Full]);
                let lasts = self.dice.pick(&[Lasts::Once, Lasts::Once, Lasts::ForEver]);
                self.log(&format!("disk: {error:?} {lasts:?} in step {step}"));
                self.sim.fail(Some(Fault { step, error, lasts }));
            }
            17 => self.sim.fail(None),
            _ => return self.crash(counts).await,
        }
        self.look(counts).await
    }

    fn log(&mut self, text: &str) {
        let at = self.process.now().millis_since(START);
        self.log.push(format!("{at} {text}"));
    }

    fn plan(&mut self, feature: &str) -> Plan {
        let mut plan = plan(feature);
        let mut serve = 0;
        plan.stages.truncate(2 + usize::from(self.dice.one_in(2)));
        for stage in &mut plan.stages {
            stage.serve = Share::from_basis_points(serve).unwrap();
            stage.mirror = Share::ALL;
            serve += self.dice.pick(&[0, 500, 3_000]);
            stage.duration_ms_min = self.dice.pick(&[0, 0, MINUTE_MS, 30 * MINUTE_MS]);
            stage.samples_min = 1 + self.dice.below(40);
            stage.gates[0].margin = Margin::parse(Metric::ErrorRate, "+20pp").unwrap();
            if self.dice.one_in(6) {
                stage.approval = Approval::Needed;
            }
            if self.dice.one_in(3) {
                stage.slice.tasks = vec![self.dice.pick(&["notes", "titles"]).to_owned()];
            }
        }
        plan.times.idle_ms_max = 180 * MINUTE_MS;
        plan.times.on_idle = self.dice.pick(&[OnIdle::Pause, OnIdle::Rollback]);
        plan.times.bake_ms = self.dice.one_in(2).then_some(30 * MINUTE_MS);
        plan
    }

    async fn pass(&mut self, ms: u64) {
        advance(Duration::from_millis(ms)).await;
        self.witness.pass(&self.process, ms);
    }

    /// The window of a rollout whose traffic moves, if one does.
    fn moving(&mut self) -> Option<Window> {
        let board = self.process.controller.board.load();
        let lanes = &board.snapshot.lanes;
        let windows: Vec<Window> = lanes.iter().filter_map(|it| it.window.clone()).collect();
        (!windows.is_empty()).then(|| self.dice.pick(&windows))
    }

    async fn traffic(&mut self, counts: &mut Counts) -> Checked {
        let Some(window) = self.moving() else { return Ok(()) };
        let outcome = if self.dice.one_in(8) { Outcome::ProviderError } else { Outcome::Ok };
        let outcomes = vec![outcome; usize::try_from(1 + self.dice.below(40)).unwrap()];
        self.log(&format!("{window:?}: {} x {outcome:?}", outcomes.len()));
        let now = self.process.now();
        self.witness.see(&window, outcomes.len(), now);
        self.tell(&window, &outcomes, now);
        while self.take() {
            self.look(counts).await?;
        }
        if self.dice.one_in(2) {
            self.tick().await;
        }
        Ok(())
    }

    /// Lets the controller take what it was told next, if there is anything.
    fn take(&mut self) -> bool {
        let controller = &mut self.process.controller;
        let Ok(seen) = controller.seen.try_recv() else { return false };
        controller.take(seen);
        true
    }

    /// Stores what the recorder would.
    fn record(&mut self) {
        let managed = self.process.controller.managed.values_mut();
        self.pairs.put_notes(managed.filter_map(|it| it.begun.take()).collect()).unwrap();
    }

    fn tell(&self, window: &Window, outcomes: &[Outcome], at: Timestamp) {
        tell(&self.process.outbox, self.pairs, window, outcomes, at);
    }

    /// What counts for nothing, calls that hang, or a candidate that dies.
    fn trouble(&mut self) {
        let Some(window) = self.moving() else { return };
        let now = self.process.now();
        let board = self.process.controller.board.load();
        let mut lanes = board.snapshot.lanes.iter();
        let live = &board.live[lanes.position(|it| it.rollout == window.rollout).unwrap()];
        match self.dice.below(5) {
            0 => {
                let since = self.process.live(&window.rollout).unwrap().since();
                self.log(&format!("{window:?}: news of what was asked before it"));
                self.tell(&window, &[Outcome::ProviderError; 30], Timestamp(since.0 - 1));
            }
            1 => {
                let other = Window { stage: window.stage + 1, ..window };
                self.log(&format!("{other:?}: news of another window"));
                self.tell(&other, &[Outcome::Ok; 30], now);
            }
            2 => {
                self.log(&format!("{window:?}: calls hang"));
                self.process.hanging.extend((0..20).map(|_| live.wait(now)));
            }
            3 => {
                self.log(&format!("{window:?}: the candidate is dead"));
                let board = &self.process.controller.board;
                (0..50).for_each(|_| live.watch(board, now, Some(true), Some(false)));
            }
            _ => {
                self.log("nothing hangs any more");
                self.process.hanging.clear();
            }
        }
        while self.take() {}
    }

    async fn tick(&mut self) {
        self.log("tick");
        self.process.controller.tick();
        if let Some(keeping) = self.process.controller.keeping.take() {
            keeping.await.unwrap();
        }
    }

    fn command(&mut self) -> Checked {
        let name = self.dice.pick(&self.names);
        let Some(live) = self.process.live(&name).cloned() else {
            let feature = self.names.iter().position(|it| *it == name).map(|it| FEATURES[it]);
            self.create(&name, feature.unwrap_or_default());
            return Ok(());
        };
        if self.dice.one_in(30) {
            self.wish(name, Wish::Delete);
            return Ok(());
        }
        let begins = live.stage().is_none() && self.dice.one_in(2);
        let command = if begins { Command::Start } else { self.dice.command(&live) };
        let key = self.witness.asks(&name, &command);
        self.ask(name, command, &key)
    }

    /// Asks as the handle does.
    fn ask(&mut self, name: Name, command: Command, key: &str) -> Checked {
        self.log(&format!("{name} {key} {command:?}"));
        if command == Command::Rollback {
            self.process.controller.board.halt(&name);
        }
        let (reply, answer) = oneshot::channel();
        self.process.answers.push((command.clone(), answer));
        let (asked, back) = (name.clone(), command == Command::Rollback);
        let wish = Wish::Obey(command);
        self.process.controller.answer(Ask::Step(Step { name, wish, by: by(key), reply }));
        let moves = self.process.live(&asked).is_some_and(|it| it.stage().is_some());
        holds("INV10", "it was rolled back and moves", !(back && moves))
    }

    /// Asks again for what was done, which does nothing.
    async fn repeat(&mut self, counts: &mut Counts) -> Checked {
        let Some((name, command, key)) = self.witness.done(&mut self.dice) else { return Ok(()) };
        let stands = |process: &Process| {
            let flight = process.controller.book.in_flight().len();
            (process.live(&name).cloned().map(|it| it.save()), flight)
        };
        let before = stands(&self.process);
        self.ask(name.clone(), command, &key)?;
        counts.repeated += 1;
        if before == stands(&self.process) {
            return self.look(counts).await;
        }
        Err("INV6: what was done is done again".to_owned())
    }

    fn stop(&mut self) {
        self.log("stop");
        // As the handle does: what moves, and so is there.
        for name in self.names.iter().filter(|it| self.process.live(it).is_some()) {
            self.process.controller.board.halt(name);
        }
        let (reply, _) = oneshot::channel();
        self.process.controller.answer(Ask::Stop { by: by(""), reply });
    }

    fn create(&mut self, name: &Name, feature: &str) {
        let plan = self.plan(feature);
        self.wish(name.clone(), Wish::Create(Box::new(plan)));
    }

    fn wish(&mut self, name: Name, wish: Wish) {
        self.log(&format!("{name} {wish:?}"));
        // Whoever stops waiting for an answer is not obeyed later.
        let (reply, answer) = oneshot::channel();
        self.process.answers.push((Command::Pause, answer));
        self.process.controller.answer(Ask::Step(Step { name, wish, by: by(""), reply }));
    }

    /// Lets so many writes end at most.
    async fn finish(&mut self, writes: u64, counts: &mut Counts) -> Checked {
        self.look(counts).await?;
        for _ in 0..writes {
            if !self.process.controller.book.is_writing() {
                break;
            }
            let written = self.process.controller.book.written().await;
            self.log(&format!("written: {written:?}"));
            self.process.controller.written(written);
            self.record();
            self.rest().await;
            self.witness.wrote(&self.process, counts)?;
            // What it says holds now, and need not when the next step back is taken.
            self.witness.answered(&mut self.process)?;
        }
        Ok(())
    }

    /// Waits until the disk has done what it was told to, or hangs.
    async fn rest(&self) {
        let book = &self.process.controller.book;
        while book.is_writing() && !book.has_written() && !self.sim.hangs() {
            yield_now().await;
        }
    }

    async fn look(&mut self, counts: &mut Counts) -> Checked {
        self.record();
        self.rest().await;
        self.witness.look(&self.process, counts)?;
        self.witness.answered(&mut self.process)
    }

    /// The process is killed or the power fails, often in the middle of a write; another one begins.
    async fn crash(&mut self, counts: &mut Counts) -> Checked {
        if self.dice.one_in(2) {
            self.sim.hang_from(self.sim.steps() + 1 + self.dice.below(4));
            match self.dice.below(3) {
                0 => self.tick().await,
                1 => self.command()?,
                _ => {
                    let name = self.dice.pick(&self.names);
                    let key = self.witness.asks(&name, &Command::Rollback);
                    self.ask(name, Command::Rollback, &key)?;
                }
            }
        }
        self.look(counts).await?;
        let left = self.sim.crashed();
        let power = self.dice.one_in(2);
        let next = if power { self.dice.pick(&left) } else { left[0].clone() };
        let (down, back) = (self.dice.pick(&[0, 5_000, 4_320 * MINUTE_MS]), self.dice.one_in(8));
        let at = self.process.now().0 + down - if back { 10 * MINUTE_MS + down } else { 0 };
        let (process, history) = Process::open(&next, self.pairs, Timestamp(at)).await;
        let before = std::mem::replace(&mut self.process, process);
        std::mem::replace(&mut self.sim, next).go_on();
        let cause = if power { "power cut" } else { "kill" };
        self.log(&format!("{cause}, down for {down} ms, {} records", history.records.len()));
        self.witness.reopened(&before, &self.process, &history, counts)?;
        self.look(counts).await
    }
}
