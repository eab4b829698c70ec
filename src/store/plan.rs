//! Plans as the journal keeps them.

use serde::{Deserialize, Serialize};

use super::json::{self, DecodeError, known};
use crate::domain::{
    Approval, Compared, Freeze, FreezeText, Gate, Margin, Mark, Metric, OnIdle, Plan, Risk, Role,
    Slice, Stage, Times, Watched,
};

#[derive(Serialize, Deserialize)]
pub(super) struct PlanJson {
    primary: String,
    candidate: String,
    slice: SliceJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slices: Option<WatchedJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compare: Option<ComparedJson>,
    stages: Vec<StageJson>,
    copies_per_day_max: u64,
    judge_share_bps: u16,
    /// Plans of before there were reviews show nobody anything.
    #[serde(default, skip_serializing_if = "is_none")]
    review_bps: u16,
    #[serde(default, skip_serializing_if = "is_none")]
    noise_bps: u16,
    risk: RiskJson,
    #[serde(default)]
    times: TimesJson,
}

#[derive(Serialize, Deserialize)]
struct SliceJson {
    features: Vec<String>,
    segments: Vec<String>,
    tasks: Vec<String>,
    models: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct WatchedJson {
    by: String,
    values: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ComparedJson {
    labels: Vec<String>,
    fields: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StageJson {
    name: String,
    serve_bps: u16,
    mirror_bps: u16,
    slice: SliceJson,
    duration_ms_min: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ms_max: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    delay_ms: u64,
    samples_min: u64,
    gates: Vec<GateJson>,
    approval: ApprovalJson,
}

#[derive(Serialize, Deserialize)]
struct GateJson {
    metric: String,
    margin: String,
    role: RoleJson,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleJson {
    Prove,
    Guard,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ApprovalJson {
    NotNeeded,
    Needed,
}

#[derive(Serialize, Deserialize)]
struct RiskJson {
    harm_bps: u32,
    safe_bps: u32,
    alarm_from_percent: u32,
}

/// Plans of before there were such times have none of their own.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct TimesJson {
    freezes: Vec<FreezeJson>,
    idle_ms_max: Option<u64>,
    on_idle: OnIdleJson,
    bake_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct FreezeJson {
    days: Vec<String>,
    from: String,
    to: String,
    zone: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnIdleJson {
    #[default]
    Pause,
    Rollback,
}

impl From<&Plan> for PlanJson {
    fn from(plan: &Plan) -> Self {
        Self {
            primary: plan.primary.as_str().to_owned(),
            candidate: plan.candidate.as_str().to_owned(),
            slice: SliceJson::from(&plan.slice),
            slices: plan.watched.as_ref().map(WatchedJson::from),
            compare: (!plan.compared.is_empty()).then(|| ComparedJson {
                labels: plan.compared.labels.clone(),
                fields: plan.compared.fields.clone(),
            }),
            stages: plan.stages.iter().map(StageJson::from).collect(),
            copies_per_day_max: plan.copies_per_day_max,
            judge_share_bps: plan.judge_share.basis_points(),
            review_bps: plan.review.basis_points(),
            noise_bps: plan.noise.basis_points(),
            risk: RiskJson {
                harm_bps: plan.risk.harm_bps,
                safe_bps: plan.risk.safe_bps,
                alarm_from_percent: plan.risk.alarm_from_percent,
            },
            times: TimesJson::from(&plan.times),
        }
    }
}

impl PlanJson {
    /// The plan, if every value can be one.
    pub(super) fn plan(self) -> Result<Plan, DecodeError> {
        let stages = self.stages.into_iter().map(StageJson::stage);
        Ok(Plan {
            primary: json::name("primary", &self.primary)?,
            candidate: json::name("candidate", &self.candidate)?,
            slice: self.slice.slice(),
            watched: self.slices.map(WatchedJson::watched).transpose()?,
            compared: self.compare.map_or_else(Compared::default, |it| {
                let ComparedJson { labels, fields } = it;
                Compared { labels, fields }
            }),
            stages: stages.collect::<Result<_, _>>()?,
            copies_per_day_max: self.copies_per_day_max,
            judge_share: json::share("judge_share_bps", self.judge_share_bps)?,
            review: json::share("review_bps", self.review_bps)?,
            noise: json::share("noise_bps", self.noise_bps)?,
            risk: Risk {
                harm_bps: self.risk.harm_bps,
                safe_bps: self.risk.safe_bps,
                alarm_from_percent: self.risk.alarm_from_percent,
            },
            times: self.times.times()?,
        })
    }
}

impl From<&Times> for TimesJson {
    fn from(times: &Times) -> Self {
        let freeze = |it: &Freeze| {
            let FreezeText { days, from, to, zone } = it.text();
            FreezeJson { days, from, to, zone }
        };
        Self {
            freezes: times.freezes.iter().map(freeze).collect(),
            idle_ms_max: Some(times.idle_ms_max),
            on_idle: match times.on_idle {
                OnIdle::Pause => OnIdleJson::Pause,
                OnIdle::Rollback => OnIdleJson::Rollback,
            },
            bake_ms: times.bake_ms,
        }
    }
}

impl TimesJson {
    fn times(self) -> Result<Times, DecodeError> {
        let freeze = |FreezeJson { days, from, to, zone }| {
            let text = FreezeText { days, from, to, zone };
            known("freezes", &format!("{text:?}"), Freeze::read(&text).ok())
        };
        Ok(Times {
            freezes: self.freezes.into_iter().map(freeze).collect::<Result<_, _>>()?,
            idle_ms_max: self.idle_ms_max.unwrap_or(Times::default().idle_ms_max),
            on_idle: match self.on_idle {
                OnIdleJson::Pause => OnIdle::Pause,
                OnIdleJson::Rollback => OnIdle::Rollback,
            },
            bake_ms: self.bake_ms,
        })
    }
}

impl From<&Slice> for SliceJson {
    fn from(slice: &Slice) -> Self {
        Self {
            features: slice.features.clone(),
            segments: slice.segments.clone(),
            tasks: slice.tasks.clone(),
            models: slice.models.clone(),
        }
    }
}

impl SliceJson {
    fn slice(self) -> Slice {
        let Self { features, segments, tasks, models } = self;
        Slice { features, segments, tasks, models }
    }
}

impl From<&Watched> for WatchedJson {
    fn from(watched: &Watched) -> Self {
        Self { by: watched.by.as_str().to_owned(), values: watched.values.clone() }
    }
}

impl WatchedJson {
    fn watched(self) -> Result<Watched, DecodeError> {
        let by = known("slices", &self.by, Mark::from_name(&self.by))?;
        Ok(Watched { by, values: self.values })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(basis_points: &u16) -> bool {
    *basis_points == 0
}

impl From<&Stage> for StageJson {
    fn from(stage: &Stage) -> Self {
        Self {
            name: stage.name.clone(),
            serve_bps: stage.serve.basis_points(),
            mirror_bps: stage.mirror.basis_points(),
            slice: SliceJson::from(&stage.slice),
            duration_ms_min: stage.duration_ms_min,
            duration_ms_max: stage.duration_ms_max,
            delay_ms: stage.delay_ms,
            samples_min: stage.samples_min,
            gates: stage.gates.iter().map(GateJson::from).collect(),
            approval: match stage.approval {
                Approval::NotNeeded => ApprovalJson::NotNeeded,
                Approval::Needed => ApprovalJson::Needed,
            },
        }
    }
}

impl StageJson {
    fn stage(self) -> Result<Stage, DecodeError> {
        Ok(Stage {
            name: self.name,
            serve: json::share("serve_bps", self.serve_bps)?,
            mirror: json::share("mirror_bps", self.mirror_bps)?,
            slice: self.slice.slice(),
            duration_ms_min: self.duration_ms_min,
            duration_ms_max: self.duration_ms_max,
            delay_ms: self.delay_ms,
            samples_min: self.samples_min,
            gates: self.gates.iter().map(GateJson::gate).collect::<Result<_, _>>()?,
            approval: match self.approval {
                ApprovalJson::NotNeeded => Approval::NotNeeded,
                ApprovalJson::Needed => Approval::Needed,
            },
        })
    }
}

impl From<&Gate> for GateJson {
    fn from(gate: &Gate) -> Self {
        Self {
            metric: gate.metric().as_str().to_owned(),
            margin: gate.margin.to_string(),
            role: match gate.role {
                Role::Prove => RoleJson::Prove,
                Role::Guard => RoleJson::Guard,
            },
        }
    }
}

impl GateJson {
    fn gate(&self) -> Result<Gate, DecodeError> {
        let metric = known("metric", &self.metric, Metric::from_name(&self.metric))?;
        let margin = known("margin", &self.margin, Margin::parse(metric, &self.margin).ok())?;
        let role = match self.role {
            RoleJson::Prove => Role::Prove,
            RoleJson::Guard => Role::Guard,
        };
        Ok(Gate { margin, role })
    }
}
