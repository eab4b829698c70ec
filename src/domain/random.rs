//! Random plans, evidence and commands for the histories.

use super::{
    Answer, Approval, Command, Consent, Evidence, Freeze, FreezeText, Gate, GateEvidence, Margin,
    Mark, Metric, OnIdle, Plan, Risk, Role, Rollout, Share, Slice, Splitmix, Stage, State, Times,
    Undecided, Verdict, Watched,
};

const HOUR_MS: u64 = 3_600_000;

fn watched() -> Watched {
    Watched { by: Mark::Task, values: vec!["tools".to_owned()] }
}

/// Random plans, evidence and commands.
pub(crate) struct Random(Splitmix);

impl Random {
    /// Everything that follows from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds side by side would otherwise give the same numbers, one place on.
        Self(Splitmix(Splitmix(seed).roll()))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.roll() % end
    }

    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        let index = self.below(u64::try_from(all.len()).unwrap());
        all[usize::try_from(index).unwrap()].clone()
    }

    pub(crate) fn plan(&mut self) -> Plan {
        let mut serve = 0;
        let stages = (0..=self.below(4)).map(|index| {
            serve = 10_000.min(serve + self.below(3_000));
            self.stage(&format!("s{index}"), serve)
        });
        let stages = stages.collect();
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            watched: self.one_in(3).then(watched),
            // Every metric may be gated.
            compared: crate::domain::Compared { labels: vec!["yes".to_owned()], fields: vec![] },
            stages,
            copies_per_day_max: 1_000,
            judge_share: Share::ALL,
            review: Share::ALL,
            noise: Share::NONE,
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
    pub(crate) fn revision(&mut self, rollout: &Rollout) -> Plan {
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
        // Feedback is proven in some stages alone.
        let mut metrics = Metric::ALL.to_vec();
        metrics.retain(|it| *it != Metric::Feedback);
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
            delay_ms: 0,
            samples_min: 1 + self.below(500),
            gates,
            approval: if self.one_in(5) { Approval::Needed } else { Approval::NotNeeded },
        }
    }

    /// Evidence of the stage it is in: often good, and in every way that it can be bad.
    pub(crate) fn evidence(&mut self, rollout: &Rollout) -> Evidence {
        let plan = rollout.plan();
        let Some(stage) = plan.stages.get(rollout.stage_index()) else {
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
        for gate in stage.gates.iter().filter(|_| plan.watched.is_some()) {
            let doubt = [Verdict::Undecided, Verdict::Pass];
            let worse = [Verdict::Undecided, Verdict::Invalid, Verdict::Breach];
            let verdict = self.pick(if good { &doubt } else { &worse });
            let known = self.gate(gate.metric(), verdict);
            evidence.gates.push(GateEvidence { watched: "tools".to_owned(), ..known });
        }
        if good {
            evidence.pairs = stage.samples_min.saturating_sub(1) + self.below(4);
        } else {
            match self.below(8) {
                0 => evidence.problem = Some("coverage is 90%".to_owned()),
                1 => evidence.outage = Some("the primary fails".to_owned()),
                2 => evidence.unsettled = Some("calls are under way".to_owned()),
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
            watched: String::new(),
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
            noise: None,
            basis: None,
            tiers: Vec::new(),
            fixed: None,
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

    pub(crate) fn command(&mut self, rollout: &Rollout) -> Command {
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
                let attempt = match self.below(4) {
                    0 => None,
                    1 => rollout.attempt().checked_sub(1),
                    _ => Some(rollout.attempt()),
                };
                Command::Approve { stage: self.name(rollout), attempt, answer }
            }
            14 if self.one_in(2) => Command::Rollback,
            _ => Command::Revise(Box::new(self.revision(rollout))),
        }
    }
}
