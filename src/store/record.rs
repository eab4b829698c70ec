//! Records of events as the journal keeps them.

use serde::{Deserialize, Serialize};

use super::{
    json::{self, DecodeError, float, known},
    plan::PlanJson,
};
use crate::domain::{
    Cause, Event, Flag, GateEvidence, Metric, Name, Noise, Plan, Record, Share, State, Timestamp,
    Verdict,
};

/// The version of records since plans have times, and events and causes that must not be
/// overlooked: a program of before refuses the journal rather than move through a freeze.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
pub(super) struct RecordJson {
    v: u32,
    seq: u64,
    at: u64,
    rollout: String,
    actor: String,
    comment: String,
    request_id: String,
    event: EventJson,
    from: String,
    to: String,
    #[serde(default)]
    plan_revision: u64,
    evidence: Vec<EvidenceJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum EventJson {
    Created {
        plan: Box<PlanJson>,
    },
    Revised {
        plan: Box<PlanJson>,
    },
    Loosened {
        plan: Box<PlanJson>,
    },
    StageEntered {
        attempt: u32,
        stage: usize,
        cause: CauseJson,
    },
    ApprovalRequested,
    Paused {
        #[serde(default)]
        cause: CauseJson,
    },
    Resumed,
    Overdue,
    Succeeded {
        cause: CauseJson,
    },
    Baked,
    RolledBack {
        cause: CauseJson,
    },
    Deleted,
    Stopped,
    Lifted,
    Flagged {
        flag: Box<FlagJson>,
    },
    Unflagged {
        flag: String,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct FlagJson {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollout: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    feature: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    segment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serve_bps_max: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror_bps_max: Option<u16>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CauseJson {
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct EvidenceJson {
    metric: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
    verdict: String,
    /// Absent in records of before it was shown, when it was 70 unless the plan said otherwise.
    #[serde(default = "alarm_before")]
    alarm_from_percent: u32,
    problem: String,
    samples: u64,
    samples_needed: Option<u64>,
    #[serde(with = "float")]
    primary: f64,
    #[serde(with = "float")]
    candidate: f64,
    #[serde(with = "float")]
    difference: f64,
    #[serde(with = "float")]
    lower: f64,
    #[serde(with = "float")]
    upper: f64,
    #[serde(with = "float")]
    bound: f64,
    #[serde(with = "float")]
    harm: f64,
    #[serde(with = "float")]
    safe: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noise: Option<NoiseJson>,
}

#[derive(Serialize, Deserialize)]
struct NoiseJson {
    samples: u64,
    #[serde(with = "float")]
    difference: f64,
    #[serde(with = "float")]
    lower: f64,
    #[serde(with = "float")]
    upper: f64,
}

fn alarm_before() -> u32 {
    70
}

/// The bytes of a record.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    json::encode(&RecordJson::from(record))
}

/// The record of some bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    json::decode::<RecordJson>(bytes)?.record()
}

impl From<&Record> for RecordJson {
    fn from(record: &Record) -> Self {
        Self {
            v: VERSION,
            seq: record.seq,
            at: record.at.0,
            rollout: record.rollout.as_str().to_owned(),
            actor: record.actor.clone(),
            comment: record.comment.clone(),
            request_id: record.request_id.clone(),
            event: EventJson::from(&record.event),
            from: record.from.as_str().to_owned(),
            to: record.to.as_str().to_owned(),
            plan_revision: record.plan_revision,
            evidence: record.evidence.iter().map(EvidenceJson::from).collect(),
        }
    }
}

impl RecordJson {
    pub(super) fn record(self) -> Result<Record, DecodeError> {
        let evidence = self.evidence.into_iter().map(EvidenceJson::evidence);
        Ok(Record {
            seq: self.seq,
            at: Timestamp(self.at),
            rollout: if self.rollout == Name::every().as_str() {
                Name::every()
            } else {
                json::name("rollout", &self.rollout)?
            },
            actor: self.actor,
            comment: self.comment,
            request_id: self.request_id,
            event: self.event.event()?,
            from: known("from", &self.from, State::from_name(&self.from))?,
            to: known("to", &self.to, State::from_name(&self.to))?,
            plan_revision: self.plan_revision,
            evidence: evidence.collect::<Result<_, _>>()?,
        })
    }
}

/// Records of before a pause had a cause: a person asked.
impl Default for CauseJson {
    fn default() -> Self {
        Cause::Operator.into()
    }
}

impl From<&Event> for EventJson {
    fn from(event: &Event) -> Self {
        let packed = |plan: &Plan| Box::new(PlanJson::from(plan));
        match event {
            Event::Created(plan) => Self::Created { plan: packed(plan) },
            Event::Revised(plan) => Self::Revised { plan: packed(plan) },
            Event::Loosened(plan) => Self::Loosened { plan: packed(plan) },
            Event::StageEntered { attempt, stage, cause } => {
                Self::StageEntered { attempt: *attempt, stage: *stage, cause: (*cause).into() }
            }
            Event::ApprovalRequested => Self::ApprovalRequested,
            Event::Paused(cause) => Self::Paused { cause: (*cause).into() },
            Event::Resumed => Self::Resumed,
            Event::Overdue => Self::Overdue,
            Event::Succeeded(cause) => Self::Succeeded { cause: (*cause).into() },
            Event::Baked => Self::Baked,
            Event::RolledBack(cause) => Self::RolledBack { cause: (*cause).into() },
            Event::Deleted => Self::Deleted,
            Event::Stopped => Self::Stopped,
            Event::Lifted => Self::Lifted,
            Event::Flagged(flag) => Self::Flagged { flag: Box::new(FlagJson::from(&**flag)) },
            Event::Unflagged(flag) => Self::Unflagged { flag: flag.as_str().to_owned() },
        }
    }
}

impl EventJson {
    pub(super) fn event(self) -> Result<Event, DecodeError> {
        Ok(match self {
            Self::Created { plan } => Event::Created(Box::new(plan.plan()?)),
            Self::Revised { plan } => Event::Revised(Box::new(plan.plan()?)),
            Self::Loosened { plan } => Event::Loosened(Box::new(plan.plan()?)),
            Self::StageEntered { attempt, stage, cause } => {
                Event::StageEntered { attempt, stage, cause: cause.cause()? }
            }
            Self::ApprovalRequested => Event::ApprovalRequested,
            Self::Paused { cause } => Event::Paused(cause.cause()?),
            Self::Resumed => Event::Resumed,
            Self::Overdue => Event::Overdue,
            Self::Succeeded { cause } => Event::Succeeded(cause.cause()?),
            Self::Baked => Event::Baked,
            Self::RolledBack { cause } => Event::RolledBack(cause.cause()?),
            Self::Deleted => Event::Deleted,
            Self::Stopped => Event::Stopped,
            Self::Lifted => Event::Lifted,
            Self::Flagged { flag } => Event::Flagged(Box::new(flag.flag()?)),
            Self::Unflagged { flag } => Event::Unflagged(json::name("flag", &flag)?),
        })
    }
}

impl From<&Flag> for FlagJson {
    fn from(flag: &Flag) -> Self {
        Self {
            name: flag.name.as_str().to_owned(),
            rollout: flag.rollout.as_ref().map(|it| it.as_str().to_owned()),
            feature: flag.feature.clone(),
            segment: flag.segment.clone(),
            serve_bps_max: flag.serve.map(Share::basis_points),
            mirror_bps_max: flag.mirror.map(Share::basis_points),
        }
    }
}

impl FlagJson {
    fn flag(self) -> Result<Flag, DecodeError> {
        let rollout = self.rollout.map(|it| json::name("rollout", &it)).transpose()?;
        let Self { feature, segment, .. } = self;
        let share = |field, share: Option<u16>| share.map(|it| json::share(field, it)).transpose();
        let serve = share("serve_bps_max", self.serve_bps_max)?;
        let mirror = share("mirror_bps_max", self.mirror_bps_max)?;
        let name = json::name("name", &self.name)?;
        Ok(Flag { name, rollout, feature, segment, serve, mirror })
    }
}

impl From<Cause> for CauseJson {
    fn from(cause: Cause) -> Self {
        let metric = cause.metric().map(|it| it.as_str().to_owned());
        Self { code: cause.code().to_owned(), metric }
    }
}

impl CauseJson {
    pub(super) fn cause(&self) -> Result<Cause, DecodeError> {
        let breached = self.metric.as_deref().and_then(Metric::from_name).map(Cause::Breach);
        let cause = Cause::PLAIN.into_iter().chain(breached).find(|it| it.code() == self.code);
        known("cause", &self.code, cause)
    }
}

impl From<&GateEvidence> for EvidenceJson {
    fn from(evidence: &GateEvidence) -> Self {
        Self {
            metric: evidence.metric.as_str().to_owned(),
            slice: evidence.watched.clone(),
            verdict: evidence.verdict.as_str().to_owned(),
            alarm_from_percent: evidence.alarm_from_percent,
            problem: evidence.problem.clone(),
            samples: evidence.samples,
            samples_needed: evidence.samples_needed,
            primary: evidence.primary,
            candidate: evidence.candidate,
            difference: evidence.difference,
            lower: evidence.lower,
            upper: evidence.upper,
            bound: evidence.bound,
            harm: evidence.harm,
            safe: evidence.safe,
            noise: evidence.noise.map(NoiseJson::from),
        }
    }
}

impl EvidenceJson {
    fn evidence(self) -> Result<GateEvidence, DecodeError> {
        Ok(GateEvidence {
            metric: known("metric", &self.metric, Metric::from_name(&self.metric))?,
            watched: self.slice,
            verdict: known("verdict", &self.verdict, Verdict::from_name(&self.verdict))?,
            alarm_from_percent: self.alarm_from_percent,
            problem: self.problem,
            samples: self.samples,
            samples_needed: self.samples_needed,
            primary: self.primary,
            candidate: self.candidate,
            difference: self.difference,
            lower: self.lower,
            upper: self.upper,
            bound: self.bound,
            harm: self.harm,
            safe: self.safe,
            noise: self.noise.map(NoiseJson::noise),
            basis: None,
            tiers: Vec::new(),
            fixed: None,
        })
    }
}

impl From<Noise> for NoiseJson {
    fn from(Noise { samples, difference, lower, upper }: Noise) -> Self {
        Self { samples, difference, lower, upper }
    }
}

impl NoiseJson {
    fn noise(self) -> Noise {
        let Self { samples, difference, lower, upper } = self;
        Noise { samples, difference, lower, upper }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn every_event_and_cause_reads_back() {
        for (seq, event) in (1..).zip(samples::events()) {
            let record = samples::record(seq, event);
            assert_eq!(decode(&encode(&record)).unwrap(), record);
        }
    }

    #[test]
    fn every_state_reads_back() {
        for (from, to) in State::ALL.into_iter().zip(State::ALL.into_iter().rev()) {
            let record = Record { from, to, ..samples::record(1, Event::Paused(Cause::Operator)) };
            assert_eq!(decode(&encode(&record)).unwrap(), record);
        }
    }

    #[test]
    fn an_alarm_reads_back_as_it_was_shown() {
        let mut record = samples::record(1, Event::Resumed);
        for percent in [1, 100] {
            record.evidence[0].alarm_from_percent = percent;
            assert_eq!(decode(&encode(&record)).unwrap(), record);
        }
    }

    /// What version 1 wrote.
    #[test]
    fn records_of_the_first_version_still_read() {
        let text = r#"{"v":1,"seq":4,"at":7,"rollout":"chat","actor":"ana","comment":"","request_id":"",
            "event":{"kind":"paused"},"from":"running","to":"paused","evidence":[]}"#;
        let record = decode(text.as_bytes()).unwrap();
        assert_eq!(record.event, Event::Paused(Cause::Operator));
        assert_eq!(record.plan_revision, 0);
        let text = r#"{"v":1,"seq":1,"at":7,"rollout":"chat","actor":"ana","comment":"","request_id":"",
            "event":{"kind":"created","plan":{"primary":"gpt","candidate":"cheap","slice":{"features":[],
            "segments":[],"tasks":[],"models":[]},"stages":[{"name":"shadow","serve_bps":0,
            "mirror_bps":100,"slice":{"features":[],"segments":[],"tasks":[],"models":[]},
            "duration_ms_min":1,"samples_min":1,"gates":[],"approval":"not_needed"}],
            "copies_per_day_max":9,"judge_share_bps":0,"risk":{"harm_bps":100,"safe_bps":500,
            "alarm_from_percent":70}}},"from":"pending","to":"pending","evidence":[]}"#;
        let Event::Created(plan) = decode(text.as_bytes()).unwrap().event else {
            panic!("created")
        };
        assert_eq!(plan.times, crate::domain::Times::default());
        assert_eq!(plan.stages[0].duration_ms_max, None);
    }

    #[test]
    fn what_no_version_wrote_is_named() {
        let text =
            String::from_utf8(encode(&samples::record(1, Event::Paused(Cause::Operator)))).unwrap();
        let wrong = text.replace("\"to\":\"paused\"", "\"to\":\"flying\"");
        let error = decode(wrong.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "`to` cannot be `flying`");
    }
}
