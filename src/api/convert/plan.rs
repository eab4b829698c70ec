//! Plans from messages: every fault is told, with the field it is in.

use std::{fmt::Display, str::FromStr};

use crate::api::proto;
use crate::domain::{
    Approval, Compared, Freeze, FreezeText, Gate, Margin, Mark, Metric, Name, OnIdle, Plan,
    PlanFault, Risk, Role, Share, Slice, Stage, Times, Watched, default_ladder,
};

/// Stages that are looked at; a ladder with as many is faulty already.
const STAGES_READ_MAX: usize = 21;
/// Freezes that are looked at; as many are faulty already.
const FREEZES_READ_MAX: usize = 33;
/// Most names in one list of a slice.
const SLICE_LEN_MAX: usize = 100;
/// Most bytes of one of them.
const MARK_LEN_MAX: usize = 128;

/// What a plan gets where its author said nothing.
#[derive(Clone, Debug)]
pub struct PlanDefaults {
    /// The gates of the default ladder.
    pub margins: Vec<Margin>,
    /// Most copies a day (UTC).
    pub copies_per_day_max: u64,
    /// Share of pairs the judge sees; none without a judge.
    pub judge_share: Share,
    /// Share of pairs that people are shown.
    pub review: Share,
    /// The chances of error accepted.
    pub risk: Risk,
}

/// What is to be created.
#[derive(Debug)]
pub(in crate::api) struct Created {
    /// Under which name.
    pub(in crate::api) name: Name,
    /// By which plan.
    pub(in crate::api) plan: Plan,
}

#[derive(Default)]
struct Faults(Vec<PlanFault>);

impl Faults {
    fn add(&mut self, field: &str, problem: impl Into<String>) {
        self.0.push(PlanFault { field: field.to_owned(), problem: problem.into() });
    }

    fn take<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Adds what the domain finds, unless the field is known to be faulty: then it saw
    /// the stand-in for what could not be read.
    fn add_new(&mut self, found: Vec<PlanFault>) {
        let known: Vec<String> = self.0.iter().map(|it| it.field.clone()).collect();
        self.0.extend(found.into_iter().filter_map(|fault| {
            let field = format!("rollout.{}", fault.field);
            let new = !known.iter().any(|it| it.starts_with(&field));
            new.then_some(PlanFault { field, ..fault })
        }));
    }
}

/// Reads what is to be created.
///
/// # Errors
/// Every fault, by its field in the request.
pub(in crate::api) fn created(
    request: proto::CreateRolloutRequest,
    defaults: &PlanDefaults,
) -> Result<Created, Vec<PlanFault>> {
    let mut faults = Faults::default();
    let name = faults.take("rollout_id", request.rollout_id.parse::<Name>());
    let mut asked = request.rollout.unwrap_or_default();
    let stages = match (asked.stages.is_empty(), request.default_ladder) {
        (true, ladder) => default_stages(&mut faults, ladder.unwrap_or_default(), defaults),
        (false, Some(_)) => {
            faults.add("default_ladder", "is refused beside explicit stages; leave one out");
            explicit_stages(&mut faults, std::mem::take(&mut asked.stages))
        }
        (false, None) => explicit_stages(&mut faults, std::mem::take(&mut asked.stages)),
    };
    let copies = asked.copies_per_day.map_or(Ok(defaults.copies_per_day_max), positive);
    let copies = faults.take("rollout.copies_per_day", copies);
    let judged = asked.judge_share_bps.map_or(Ok(defaults.judge_share), share);
    let judged = faults.take("rollout.judge_share_bps", judged);
    let review = asked.review_bps.map_or(Ok(defaults.review), share);
    let review = faults.take("rollout.review_bps", review);
    let noise = faults.take("rollout.noise_bps", share(asked.noise_bps));
    let times = times(&mut faults, &mut asked);
    let plan = Plan {
        primary: provider(&mut faults, "rollout.primary", &asked.primary),
        candidate: provider(&mut faults, "rollout.candidate", &asked.candidate),
        slice: slice(&mut faults, "rollout.slice", asked.slice),
        watched: asked.slices.and_then(|it| watched(&mut faults, it)),
        compared: asked.compare.map_or_else(Compared::default, |it| {
            let proto::Compare { labels, fields } = it;
            Compared { labels, fields }
        }),
        stages,
        copies_per_day_max: copies.unwrap_or(defaults.copies_per_day_max),
        judge_share: judged.unwrap_or(Share::ALL),
        review: review.unwrap_or_default(),
        noise: noise.unwrap_or_default(),
        risk: asked.risk.map_or(defaults.risk, risk),
        times,
    };
    faults.add_new(plan.faults());
    match name {
        Some(name) if faults.0.is_empty() => Ok(Created { name, plan }),
        Some(_) | None => Err(faults.0),
    }
}

/// Reads a whole plan that is to replace that of a rollout.
///
/// # Errors
/// Every fault, by its field in the request.
pub(in crate::api) fn updated(
    rollout: proto::Rollout,
    defaults: &PlanDefaults,
) -> Result<Created, Vec<PlanFault>> {
    let rollout_id = rollout.name.strip_prefix("rollouts/").unwrap_or(&rollout.name).to_owned();
    let rollout = Some(rollout);
    created(proto::CreateRolloutRequest { rollout_id, rollout, ..Default::default() }, defaults)
}

fn times(faults: &mut Faults, asked: &mut proto::Rollout) -> Times {
    let default = Times::default();
    let mut freezes = Vec::new();
    for (index, asked) in asked.freezes.drain(..).take(FREEZES_READ_MAX).enumerate() {
        let proto::Freeze { days, from, to, zone } = asked;
        match Freeze::read(&FreezeText { days, from, to, zone }) {
            Ok(freeze) => freezes.push(freeze),
            Err(error) => {
                faults.add(&format!("rollout.freezes[{index}].{}", error.field), error.problem);
            }
        }
    }
    let idle = asked.idle.map_or(Ok(default.idle_ms_max), span);
    let bake = asked.bake.map(span).transpose();
    let on_idle = match proto::rollout::OnIdle::try_from(asked.on_idle) {
        Ok(proto::rollout::OnIdle::Unspecified | proto::rollout::OnIdle::Pause) => OnIdle::Pause,
        Ok(proto::rollout::OnIdle::RollBack) => OnIdle::Rollback,
        Err(_) => {
            faults.add("rollout.on_idle", "is ON_IDLE_PAUSE or ON_IDLE_ROLL_BACK");
            OnIdle::Pause
        }
    };
    Times {
        freezes,
        idle_ms_max: faults.take("rollout.idle", idle).unwrap_or(default.idle_ms_max),
        on_idle,
        bake_ms: faults.take("rollout.bake", bake).flatten(),
    }
}

fn provider(faults: &mut Faults, field: &str, text: &str) -> Name {
    let name = text.strip_prefix("providers/").unwrap_or(text);
    match name.parse() {
        Ok(name) => name,
        Err(error) => {
            faults.add(field, format!("{error}, as `providers/NAME` or `NAME`"));
            unreadable()
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant")]
fn unreadable() -> Name {
    Name::from_str("unreadable").expect("ten letters are a name")
}

fn default_stages(
    faults: &mut Faults,
    ladder: proto::DefaultLadder,
    defaults: &PlanDefaults,
) -> Vec<Stage> {
    let mut margins: Vec<Margin> = Vec::new();
    for (index, asked) in ladder.gates.iter().enumerate() {
        let field = format!("default_ladder.gates[{index}]");
        if asked.role != 0 {
            faults.add(&format!("{field}.role"), "the default ladder chooses the roles itself");
        }
        let Some(margin) = margin(faults, &field, asked) else { continue };
        if margins.iter().any(|it| it.metric() == margin.metric()) {
            faults.add(&format!("{field}.metric"), "there is a gate of this metric already");
        } else {
            margins.push(margin);
        }
    }
    let margins = if margins.is_empty() { &defaults.margins } else { &margins };
    let features = "default_ladder.non_critical_features";
    let features = marks(faults, features, ladder.non_critical_features);
    let tasks = marks(faults, "default_ladder.migratable_tasks", ladder.migratable_tasks);
    default_ladder(margins, &features, &tasks)
}

fn explicit_stages(faults: &mut Faults, stages: Vec<proto::Stage>) -> Vec<Stage> {
    let numbered = stages.into_iter().take(STAGES_READ_MAX).enumerate();
    numbered.map(|(index, it)| stage(faults, &format!("rollout.stages[{index}]"), it)).collect()
}

fn stage(faults: &mut Faults, at: &str, asked: proto::Stage) -> Stage {
    let field = |key: &str| format!("{at}.{key}");
    // Stages are named in commands and log lines, so they keep to plain names.
    faults.take(&field("stage_id"), asked.stage_id.parse::<Name>());
    let lasting = asked.min_duration.ok_or("has to be set; `0s` is allowed").and_then(span);
    let longest = asked.max_duration.map(span).transpose();
    let delay = asked.initial_delay.map(span).transpose();
    let gates = asked.gates.iter().enumerate();
    let gates = gates.filter_map(|(index, it)| gate(faults, &format!("{at}.gates[{index}]"), it));
    let gates: Vec<Gate> = gates.collect();
    Stage {
        name: asked.stage_id,
        serve: faults.take(&field("serve_bps"), share(asked.serve_bps)).unwrap_or_default(),
        mirror: faults.take(&field("mirror_bps"), share(asked.mirror_bps)).unwrap_or_default(),
        slice: slice(faults, &field("slice"), asked.slice),
        duration_ms_min: faults.take(&field("min_duration"), lasting).unwrap_or(0),
        duration_ms_max: faults.take(&field("max_duration"), longest).flatten(),
        delay_ms: faults.take(&field("initial_delay"), delay).flatten().unwrap_or(0),
        samples_min: faults.take(&field("min_samples"), positive(asked.min_samples)).unwrap_or(1),
        gates,
        approval: if asked.approval_required { Approval::Needed } else { Approval::NotNeeded },
    }
}

fn gate(faults: &mut Faults, at: &str, asked: &proto::Gate) -> Option<Gate> {
    let role = match proto::gate::Role::try_from(asked.role) {
        Ok(proto::gate::Role::Unspecified | proto::gate::Role::Prove) => Role::Prove,
        Ok(proto::gate::Role::Guard) => Role::Guard,
        Err(_) => {
            faults.add(&format!("{at}.role"), "is ROLE_PROVE or ROLE_GUARD");
            return None;
        }
    };
    margin(faults, at, asked).map(|margin| Gate { margin, role })
}

fn margin(faults: &mut Faults, at: &str, asked: &proto::Gate) -> Option<Margin> {
    let metric = Metric::from_name(&asked.metric).ok_or_else(|| {
        let names = Metric::ALL.map(Metric::as_str).join(", ");
        format!("`{}` is not a metric: use one of {names}", asked.metric)
    });
    let metric = faults.take(&format!("{at}.metric"), metric)?;
    faults.take(&format!("{at}.max_regression"), Margin::parse(metric, &asked.max_regression))
}

fn slice(faults: &mut Faults, at: &str, asked: Option<proto::TrafficSlice>) -> Slice {
    let proto::TrafficSlice { features, segments, models, tasks } = asked.unwrap_or_default();
    Slice {
        features: marks(faults, &format!("{at}.features"), features),
        segments: marks(faults, &format!("{at}.segments"), segments),
        tasks: marks(faults, &format!("{at}.tasks"), tasks),
        models: marks(faults, &format!("{at}.models"), models),
    }
}

fn watched(faults: &mut Faults, asked: proto::WatchedSlices) -> Option<Watched> {
    let proto::WatchedSlices { by, values } = asked;
    let mark = Mark::from_name(&by).ok_or_else(|| {
        let names = Mark::ALL.map(Mark::as_str).join(", ");
        format!("`{by}` is not a mark of requests: use one of {names}")
    });
    Some(Watched { by: faults.take("rollout.slices.by", mark)?, values })
}

fn marks(faults: &mut Faults, field: &str, marks: Vec<String>) -> Vec<String> {
    if SLICE_LEN_MAX < marks.len() {
        faults.add(field, format!("has {} names; {SLICE_LEN_MAX} is the most", marks.len()));
    }
    let fits =
        |it: &String| (1..=MARK_LEN_MAX).contains(&it.len()) && !it.chars().any(char::is_control);
    if !marks.iter().all(fits) {
        faults.add(field, format!("names have 1 to {MARK_LEN_MAX} printable bytes"));
    }
    marks
}

fn risk(asked: proto::Risk) -> Risk {
    // What is below zero is out of range as zero is, and the domain says so.
    let number = |it: i32| u32::try_from(it).unwrap_or(0);
    Risk {
        harm_bps: number(asked.harm_bps),
        safe_bps: number(asked.safe_bps),
        alarm_from_percent: number(asked.alarm_from_percent),
    }
}

fn share(basis_points: i32) -> Result<Share, String> {
    let share = u16::try_from(basis_points).ok();
    let share = share.and_then(|it| Share::from_basis_points(it).ok());
    share.ok_or_else(|| format!("{basis_points} is not in basis points, 0 to 10000"))
}

fn positive(number: i64) -> Result<u64, &'static str> {
    u64::try_from(number).ok().filter(|it| 0 < *it).ok_or("is at least 1")
}

fn span(duration: proto::Duration) -> Result<u64, &'static str> {
    if duration.seconds < 0 || duration.nanos < 0 {
        return Err("is not negative");
    }
    Ok(super::millis(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> PlanDefaults {
        PlanDefaults {
            margins: Metric::DEFAULTS.map(Margin::default_of).into(),
            copies_per_day_max: 500,
            judge_share: Share::ALL,
            review: Share::ALL,
            risk: Risk::default(),
        }
    }

    fn request() -> proto::CreateRolloutRequest {
        proto::CreateRolloutRequest {
            rollout_id: "chat".to_owned(),
            rollout: Some(proto::Rollout {
                primary: "providers/gpt".to_owned(),
                candidate: "cheap".to_owned(),
                ..proto::Rollout::default()
            }),
            ..proto::CreateRolloutRequest::default()
        }
    }

    fn gate(metric: &str, max_regression: &str) -> proto::Gate {
        let (metric, max_regression) = (metric.to_owned(), max_regression.to_owned());
        proto::Gate { metric, max_regression, role: 0 }
    }

    fn fields(request: proto::CreateRolloutRequest) -> Vec<String> {
        let faults = created(request, &defaults()).unwrap_err();
        faults.into_iter().map(|it| it.field).collect()
    }

    #[test]
    fn a_rollout_needs_no_more_than_its_providers() {
        let Created { name, plan } = created(request(), &defaults()).unwrap();
        assert_eq!((name.as_str(), plan.primary.as_str()), ("chat", "gpt"));
        assert_eq!(plan.candidate.as_str(), "cheap");
        assert_eq!(plan.copies_per_day_max, 500);
        assert_eq!(plan.stages, default_ladder(&defaults().margins, &[], &[]));
    }

    #[test]
    fn the_default_ladder_takes_other_gates() {
        let ladder = proto::DefaultLadder {
            gates: vec![gate("error_rate", "+2pp")],
            ..proto::DefaultLadder::default()
        };
        let asked = proto::CreateRolloutRequest { default_ladder: Some(ladder), ..request() };
        let plan = created(asked, &defaults()).unwrap().plan;
        let margin = Margin::parse(Metric::ErrorRate, "+2pp").unwrap();
        assert!(plan.stages.iter().all(|it| it.gates == [Gate { margin, role: Role::Prove }]));
    }

    #[test]
    fn every_fault_is_told_with_its_field() {
        let mut asked = request();
        asked.rollout_id = "Chat!".to_owned();
        let rollout = asked.rollout.as_mut().unwrap();
        rollout.candidate = "providers/".to_owned();
        rollout.copies_per_day = Some(0);
        rollout.slices = Some(proto::WatchedSlices { by: "model".to_owned(), values: vec![] });
        rollout.risk = Some(proto::Risk::default());
        rollout.stages = vec![
            proto::Stage {
                stage_id: "shadow".to_owned(),
                mirror_bps: 100,
                gates: vec![gate("error_rate", "0.5"), gate("speed", "+1pp")],
                ..proto::Stage::default()
            },
            proto::Stage {
                stage_id: "shadow".to_owned(),
                serve_bps: 20_000,
                min_duration: Some(proto::Duration { seconds: 1, nanos: 0 }),
                min_samples: 1,
                ..proto::Stage::default()
            },
        ];
        asked.default_ladder = Some(proto::DefaultLadder::default());
        let mut told = fields(asked);
        told.sort();
        let expected = [
            "default_ladder",
            "rollout.candidate",
            "rollout.copies_per_day",
            "rollout.risk",
            "rollout.risk.alarm_from_percent",
            "rollout.slices.by",
            "rollout.stages[0].gates[0].max_regression",
            "rollout.stages[0].gates[1].metric",
            "rollout.stages[0].min_duration",
            "rollout.stages[0].min_samples",
            "rollout.stages[1].gates",
            "rollout.stages[1].mirror_bps",
            "rollout.stages[1].serve_bps",
            "rollout.stages[1].stage_id",
            "rollout_id",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_ladder_without_end_is_not_read_to_its_end() {
        let mut asked = request();
        asked.rollout.as_mut().unwrap().stages = vec![proto::Stage::default(); 10_000];
        let told = fields(asked);
        assert!(told.contains(&"rollout.stages[0].stage_id".to_owned()));
        assert!(told.len() < 200, "{}", told.len());
    }
}
