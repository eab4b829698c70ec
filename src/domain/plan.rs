//! The plan of a rollout: who, which traffic, which stages, which limits.

use std::collections::HashSet;

use super::{Compared, Freeze, Gate, Metric, Name, Role, Share, Watched};

/// Which requests; an empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Features of the application.
    pub features: Vec<String>,
    /// Segments of its users.
    pub segments: Vec<String>,
    /// Classes of tasks.
    pub tasks: Vec<String>,
    /// Models asked for.
    pub models: Vec<String>,
}

/// Whether a person must agree before a stage is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// The gates are enough.
    NotNeeded,
    /// Somebody must approve, after the gates.
    Needed,
}

/// One step of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Name, unique in the plan.
    pub name: String,
    /// Traffic the candidate answers.
    pub serve: Share,
    /// Traffic for which the other side is asked too, so that a pair exists.
    pub mirror: Share,
    /// Narrows the rollout's slice for this stage.
    pub slice: Slice,
    /// Least time to stay, in milliseconds.
    pub duration_ms_min: u64,
    /// Time after which somebody should look, in milliseconds; none for never. Moves nothing.
    pub duration_ms_max: Option<u64>,
    /// How long evidence is left out after the stage begins, in milliseconds: a candidate that
    /// warms up is slow at first. The tripwire waits for nothing.
    pub delay_ms: u64,
    /// Least pairs that count before the stage may be left.
    pub samples_min: u64,
    /// Limits that hold in this stage.
    pub gates: Vec<Gate>,
    /// Whether a person is asked after the gates.
    pub approval: Approval,
}

impl Stage {
    /// Whether no request gets the candidate in it that does not in the other.
    pub fn is_below(&self, other: &Self) -> bool {
        let narrower = self.serve <= other.serve && self.slice.is_within(&other.slice);
        self.serve.is_none() || narrower
    }

    /// Whether some callers get the candidate's answers and some the primary's.
    pub fn serves_both(&self) -> bool {
        Share::NONE < self.serve && self.serve < Share::ALL
    }

    /// Whether evidence that was gathered in one of them says nothing in the other: what is
    /// compared, or how much of it is seen, is not the same.
    pub fn is_seen_otherwise(&self, other: &Self) -> bool {
        let seen = |it: &Self| (it.serve, it.mirror, it.delay_ms);
        seen(self) != seen(other) || self.gates != other.gates
    }
}

/// The chances of error the operator accepts, and where alarms begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Risk {
    /// Chance of a false rollback over a whole attempt, in basis points.
    pub harm_bps: u32,
    /// Chance that a gate is called proven in a stage though it is not, in basis points.
    pub safe_bps: u32,
    /// Regressions below this percentage of the margin never roll back in the long run; 100 is the strict mode.
    pub alarm_from_percent: u32,
}

impl Default for Risk {
    fn default() -> Self {
        Self { harm_bps: 100, safe_bps: 500, alarm_from_percent: 70 }
    }
}

/// When nothing goes forward, and how long a rollout goes on in silence and after success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// Times in which nothing goes forward.
    pub freezes: Vec<Freeze>,
    /// Longest a running rollout goes without a pair, in milliseconds.
    pub idle_ms_max: u64,
    /// What is done then.
    pub on_idle: OnIdle,
    /// How long the gates guard after success, in milliseconds; none for as long as the
    /// candidate serves.
    pub bake_ms: Option<u64>,
}

/// What is done with a running rollout of which nothing is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnIdle {
    /// It is held, and says so.
    Pause,
    /// It goes back.
    Rollback,
}

impl Default for Times {
    fn default() -> Self {
        Self { freezes: Vec::new(), idle_ms_max: DAY_MS, on_idle: OnIdle::Pause, bake_ms: None }
    }
}

/// A whole plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who serves today.
    pub primary: Name,
    /// Who is under test.
    pub candidate: Name,
    /// Which traffic the rollout governs.
    pub slice: Slice,
    /// Which parts of it every gate also watches by themselves; none where averages are enough.
    pub watched: Option<Watched>,
    /// What answers are compared by, besides the whole of them.
    pub compared: Compared,
    /// The ladder.
    pub stages: Vec<Stage>,
    /// Most copies a day (UTC).
    pub copies_per_day_max: u64,
    /// Share of pairs the judge sees.
    pub judge_share: Share,
    /// Share of pairs that people are shown, and a larger one of those that raise doubt; none where
    /// nobody is.
    pub review: Share,
    /// Traffic that the primary answers and is asked a second time, so that it is known how much
    /// it differs from itself; none where that is not measured.
    pub noise: Share,
    /// The chances of error accepted.
    pub risk: Risk,
    /// When it may not move, and how long it waits.
    pub times: Times,
}

/// Something wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PlanFault {
    /// Where, as the API names it: `stages[1].serve_bps`.
    pub field: String,
    /// What, and what would be right.
    pub problem: String,
}

/// Most stages of a plan.
const STAGES_MAX: usize = 20;
/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;
/// Most freezes of a plan.
const FREEZES_MAX: usize = 32;

impl Slice {
    /// Whether a request with these marks is inside.
    pub fn matches(&self, feature: &str, segment: &str, task: &str, model: &str) -> bool {
        let fits =
            |list: &[String], mark: &str| list.is_empty() || list.iter().any(|it| it == mark);
        fits(&self.features, feature)
            && fits(&self.segments, segment)
            && fits(&self.tasks, task)
            && fits(&self.models, model)
    }

    /// Whether every request inside is inside the other too.
    pub fn is_within(&self, other: &Self) -> bool {
        let kept = |own: &[String], other: &[String]| {
            other.is_empty() || (!own.is_empty() && own.iter().all(|it| other.contains(it)))
        };
        kept(&self.features, &other.features)
            && kept(&self.segments, &other.segments)
            && kept(&self.tasks, &other.tasks)
            && kept(&self.models, &other.models)
    }

    /// Whether some request could be inside both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: &[String], b: &[String]| {
            a.is_empty() || b.is_empty() || a.iter().any(|it| b.contains(it))
        };
        meet(&self.features, &other.features)
            && meet(&self.segments, &other.segments)
            && meet(&self.tasks, &other.tasks)
            && meet(&self.models, &other.models)
    }
}

impl Plan {
    /// Whether some stage has a gate on the metric.
    pub fn gates(&self, metric: Metric) -> bool {
        self.stages.iter().flat_map(|it| &it.gates).any(|it| it.metric() == metric)
    }

    /// The first metric that some stage gates and that is wanted.
    pub fn gated(&self, wanted: fn(Metric) -> bool) -> Option<Metric> {
        let metrics = self.stages.iter().flat_map(|it| &it.gates).map(|it| it.metric());
        metrics.into_iter().find(|it| wanted(*it))
    }

    /// Everything that is wrong with the plan; empty when it can be run.
    pub fn faults(&self) -> Vec<PlanFault> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, problem: String| {
            faults.push(PlanFault { field: field.to_owned(), problem });
        };
        if self.primary == self.candidate {
            fault("candidate", format!("`{}` is the primary itself", self.candidate));
        }
        if self.stages.is_empty() || STAGES_MAX < self.stages.len() {
            fault("stages", format!("a ladder has 1 to {STAGES_MAX} stages"));
        }
        if let Some(problem) = self.watched.as_ref().and_then(|it| it.fault(&self.slice)) {
            fault("slices", problem);
        }
        if let Some(problem) = self.compared.fault() {
            fault("compare", problem);
        }
        let risk = self.risk;
        if !(1..=5_000).contains(&risk.harm_bps) || !(1..=5_000).contains(&risk.safe_bps) {
            fault("risk", "chances of error are 0.01% to 50%".to_owned());
        }
        if !(1..=100).contains(&risk.alarm_from_percent) {
            fault("risk.alarm_from_percent", "is 1 to 100".to_owned());
        }
        if FREEZES_MAX < self.times.freezes.len() {
            fault("freezes", format!("are at most {FREEZES_MAX}"));
        }
        for (key, ms) in [("idle", Some(self.times.idle_ms_max)), ("bake", self.times.bake_ms)] {
            if ms == Some(0) {
                fault(key, "is longer than nothing".to_owned());
            }
        }
        let mut seen = HashSet::new();
        let mut serve_before = Share::NONE;
        for (index, stage) in self.stages.iter().enumerate() {
            let at = |key: &str| format!("stages[{index}].{key}");
            if stage.name.is_empty() || !seen.insert(stage.name.as_str()) {
                fault(&at("stage_id"), format!("`{}` is empty or used twice", stage.name));
            }
            if stage.serve < serve_before {
                let problem = format!("{} is less than the stage before serves", stage.serve);
                fault(&at("serve_bps"), problem);
            }
            serve_before = stage.serve;
            for (key, problem) in stage.faults(self) {
                fault(&at(key), problem);
            }
        }
        faults
    }
}

impl Stage {
    fn faults(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.mirror.is_none() {
            faults.push(("mirror_bps", "is 0: without pairs nothing can be proven".to_owned()));
        }
        if self.duration_ms_max.is_some_and(|it| it <= self.duration_ms_min) {
            faults.push(("max_duration", "is more than the least duration".to_owned()));
        }
        if DAY_MS < self.delay_ms {
            faults.push(("initial_delay", "is at most a day".to_owned()));
        }
        if self.samples_min == 0 {
            faults.push(("min_samples", "is at least 1".to_owned()));
        }
        let metrics: HashSet<Metric> = self.gates.iter().map(|it| it.metric()).collect();
        if metrics.len() != self.gates.len() {
            faults.push(("gates", "has two gates of one metric".to_owned()));
        }
        if !self.gates.iter().any(|it| it.role == Role::Prove) {
            faults.push(("gates", "needs at least one gate that must be proven".to_owned()));
        }
        let judged = metrics.iter().find(|it| it.is_judged() && plan.judge_share.is_none());
        if let Some(metric) = judged {
            let problem = format!("{} needs a judge that sees some pairs", metric.as_str());
            faults.push(("gates", problem));
        }
        if metrics.contains(&Metric::HumanWinRate) && plan.review.is_none() {
            faults.push((
                "gates",
                "human_win_rate needs people who see some pairs: set `review`".to_owned(),
            ));
        }
        let proves = |it: &Gate| it.metric() == Metric::Feedback && it.role == Role::Prove;
        if !self.serves_both() && self.gates.iter().any(proves) {
            let problem = "feedback is proven only where both sides answer callers: let it guard";
            faults.push(("gates", problem.to_owned()));
        }
        if metrics.contains(&Metric::LabelMatchRate) && plan.compared.labels.is_empty() {
            let problem = "label_match_rate needs labels to compare by: name them in `compare`";
            faults.push(("gates", problem.to_owned()));
        }
        if plan.noise.is_none() && self.gates.iter().any(|it| it.margin.is_beyond_noise()) {
            faults.push(("gates", "count beyond noise, and no `noise` is measured".to_owned()));
        }
        faults
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::FreezeText;
    use crate::domain::{Margin, default_ladder};

    /// The default ladder with all gates, from `gpt` to `cheap`.
    pub(in crate::domain) fn plan() -> Plan {
        let metrics = Metric::DEFAULTS.into_iter().chain(Metric::GROUND_DEFAULTS);
        let margins: Vec<_> = metrics.map(Margin::default_of).collect();
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            watched: None,
            compared: Compared::default(),
            stages: default_ladder(&margins, &[], &[]),
            copies_per_day_max: 10_000,
            judge_share: Share::ALL,
            review: Share::ALL,
            noise: Share::NONE,
            risk: Risk::default(),
            times: Times::default(),
        }
    }

    #[test]
    fn the_default_ladder_is_the_fields_own() {
        let plan = plan();
        assert_eq!(plan.faults(), []);
        let serve: Vec<u16> = plan.stages.iter().map(|it| it.serve.basis_points()).collect();
        assert_eq!(serve, [0, 500, 2_000, 5_000, 10_000]);
        assert!(plan.stages.iter().all(|it| it.samples_min == 1_000));
    }

    #[test]
    fn what_is_named_harmless_narrows_the_second_and_third_stage() {
        let [features, tasks] = ["notes", "summary"].map(|it| vec![it.to_owned()]);
        let ladder = default_ladder(&[], &features, &tasks);
        let slices: Vec<Slice> = ladder.into_iter().map(|it| it.slice).collect();
        let mut expected = vec![Slice::default(); 5];
        expected[1].features = features;
        expected[2].tasks = tasks;
        assert_eq!(slices, expected);
    }

    /// F5
    #[test]
    fn every_fault_of_a_plan_is_told_at_once() {
        let mut plan = plan();
        plan.candidate = plan.primary.clone();
        plan.stages[1].mirror = Share::NONE;
        plan.stages[2].name = "shadow".to_owned();
        plan.stages[3].serve = Share::NONE;
        plan.stages[4].gates.clear();
        let fields: Vec<String> = plan.faults().into_iter().map(|it| it.field).collect();
        assert_eq!(
            fields,
            [
                "candidate",
                "stages[1].mirror_bps",
                "stages[2].stage_id",
                "stages[3].serve_bps",
                "stages[4].gates"
            ]
        );
    }

    /// Changes one thing of a sound plan and says which fields are wrong then.
    fn wrong(change: impl FnOnce(&mut Plan)) -> Vec<String> {
        let mut plan = plan();
        change(&mut plan);
        plan.faults().into_iter().map(|it| it.field).collect()
    }

    #[test]
    fn a_ladder_has_one_to_twenty_stages() {
        let ladder = |len: usize| {
            wrong(|it| {
                let full = it.stages.pop().unwrap();
                let stage = |index: usize| Stage { name: index.to_string(), ..full.clone() };
                it.stages = (0..len).map(stage).collect();
            })
        };
        assert_eq!([0, 1, 20, 21].map(|len| ladder(len).len()), [1, 0, 0, 1]);
        assert_eq!(ladder(21), ["stages"]);
    }

    #[test]
    fn the_chances_of_error_have_limits() {
        for (bps, sound) in [(0, false), (1, true), (5_000, true), (5_001, false)] {
            let expected: &[&str] = if sound { &[] } else { &["risk"] };
            assert_eq!(wrong(|it| it.risk.harm_bps = bps), expected, "{bps}");
            assert_eq!(wrong(|it| it.risk.safe_bps = bps), expected, "{bps}");
        }
        for (percent, sound) in [(0, false), (1, true), (100, true), (101, false)] {
            let expected: &[&str] = if sound { &[] } else { &["risk.alarm_from_percent"] };
            assert_eq!(wrong(|it| it.risk.alarm_from_percent = percent), expected, "{percent}");
        }
    }

    #[test]
    fn the_times_of_a_plan_have_limits() {
        let freeze = || {
            let days = vec!["mon".to_owned()];
            let [from, to, zone] = ["18:00", "08:00", "UTC"].map(str::to_owned);
            Freeze::read(&FreezeText { days, from, to, zone }).unwrap()
        };
        assert_eq!(wrong(|it| it.times.freezes = vec![freeze(); 32]), [""; 0]);
        assert_eq!(wrong(|it| it.times.freezes = vec![freeze(); 33]), ["freezes"]);
        assert_eq!(wrong(|it| it.times.idle_ms_max = 0), ["idle"]);
        assert_eq!(wrong(|it| it.times.bake_ms = Some(0)), ["bake"]);
        assert_eq!(wrong(|it| it.times.bake_ms = Some(1)), [""; 0]);
    }

    #[test]
    fn a_stage_can_be_left_and_proves_something_it_can_measure() {
        let first = |change: fn(&mut Stage)| wrong(|it| change(&mut it.stages[0]));
        assert_eq!(first(|it| it.name.clear()), ["stages[0].stage_id"]);
        assert_eq!(first(|it| it.duration_ms_max = Some(it.duration_ms_min + 1)), [""; 0]);
        assert_eq!(
            first(|it| it.duration_ms_max = Some(it.duration_ms_min)),
            ["stages[0].max_duration"]
        );
        assert_eq!(first(|it| it.samples_min = 0), ["stages[0].min_samples"]);
        assert_eq!(first(|it| it.gates.push(it.gates[0])), ["stages[0].gates"]);
        assert_eq!(
            first(|it| it.gates.iter_mut().for_each(|it| it.role = Role::Guard)),
            ["stages[0].gates"]
        );
        let judged = wrong(|it| it.judge_share = Share::NONE);
        assert_eq!(judged.len(), 5, "every stage has a gate on scores: {judged:?}");
    }

    #[test]
    fn a_plan_knows_which_metrics_it_gates() {
        let plan = plan();
        assert!(plan.gates(Metric::JudgeScore) && !plan.gates(Metric::Cost));
    }

    #[test]
    fn slices_overlap_unless_some_mark_keeps_them_apart() {
        let of = |feature: &str, segment: &str| {
            let list = |it: &str| if it.is_empty() { vec![] } else { vec![it.to_owned()] };
            Slice { features: list(feature), segments: list(segment), ..Slice::default() }
        };
        assert!(of("chat", "").overlaps(&of("", "free")));
        assert!(!of("chat", "").overlaps(&of("search", "")));
        assert!(!of("chat", "free").overlaps(&of("chat", "paid")));
    }
}
