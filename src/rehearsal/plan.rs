//! The plan of a rehearsal: who plays, what traffic comes, what should come of it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Table, Value};

use crate::config;
use crate::domain::Share;

/// A plan as its file has it. Tables that are not named here are configuration of `serve`.
#[derive(Clone, Debug, Deserialize)]
pub struct Plan {
    /// What is sent.
    pub traffic: TrafficPlan,
    /// Who answers, by provider; the one called `primary` serves.
    pub player: BTreeMap<String, PlayerPlan>,
    /// What should come of each rollout.
    pub expect: BTreeMap<String, Expected>,
    /// Configuration: `[provider.…]`, `[rollout.…]`, `[judge]`, `[limits]`.
    #[serde(flatten)]
    pub config: Table,
}

/// The requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficPlan {
    /// The model the application asks for.
    pub model: String,
    /// Files of recorded rows, below the data folder.
    #[serde(default)]
    pub rows: Vec<PathBuf>,
    /// Rows made up instead.
    #[serde(default)]
    pub made_up: usize,
    /// Makes rows, order, errors and latencies; the same seed gives the same rehearsal.
    #[serde(default)]
    pub seed: u64,
    /// Requests a second for each rollout.
    pub rate: f64,
    /// Part of the requests that ask for a stream.
    #[serde(default = "half")]
    pub stream: Percent,
    /// The rehearsal ends after so long, decided or not.
    pub seconds_max: u64,
}

/// One provider.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlayerPlan {
    /// Answers as the first of these recorded models that a row has.
    #[serde(default)]
    pub models: Vec<String>,
    /// How long answers take.
    #[serde(default)]
    pub latency: LatencyPlan,
    /// Part of the requests answered with an error.
    #[serde(default)]
    pub errors: Percent,
    /// How good made-up answers are, 0 to 1.
    #[serde(default)]
    pub quality: f64,
}

/// How long a player's answers take.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum LatencyPlan {
    /// As recorded, times `factor`, `speed` times as fast.
    Recorded {
        /// 3 is three times as slow as recorded.
        factor: f64,
        /// Divides every time, so that a rehearsal does not take as long as the recording.
        speed: f64,
    },
    /// Log-normal.
    Spread {
        /// Half of the answers take longer.
        median_ms: u32,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// None.
    #[default]
    None,
}

/// What should come of a rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// `succeeded` or `rolled_back`.
    pub outcome: String,
    /// The gate that should have sent it back.
    #[serde(default)]
    pub gate: String,
    /// The most the candidate may have served.
    #[serde(default)]
    pub serve_max: Option<Percent>,
}

/// A share written like `5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Percent(pub Share);

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let share = config::share(&text);
        share.map(Self).ok_or_else(|| format!("`{text}` is not a share: write it like \"5%\""))
    }
}

fn half() -> Percent {
    Percent(Share::from_basis_points(5_000).unwrap_or(Share::NONE))
}

impl TrafficPlan {
    /// The longest it may take.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.seconds_max)
    }
}

/// Why a plan cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// It is not a plan.
    #[error("{name} is not a plan of a rehearsal")]
    Form {
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        error: Box<toml::de::Error>,
    },
    /// Nobody plays the primary.
    #[error("{0} has no [player.primary]")]
    NoPrimary(String),
}

impl Plan {
    /// Reads a plan from a file.
    ///
    /// # Errors
    /// When it cannot be read or is not a plan.
    pub fn load(path: &Path) -> Result<Self, PlanError> {
        let text = fs::read_to_string(path)
            .map_err(|error| PlanError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a plan from text; `name` is what errors call it.
    ///
    /// # Errors
    /// When it is not a plan.
    pub fn parse(text: &str, name: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text)
            .map_err(|error| PlanError::Form { name: name.to_owned(), error: Box::new(error) })?;
        if !plan.player.contains_key("primary") {
            return Err(PlanError::NoPrimary(name.to_owned()));
        }
        Ok(plan)
    }

    /// Every rollout by name, with the features of its slice.
    pub fn rollouts(&self) -> Vec<(String, Vec<String>)> {
        let rollouts = self.config.get("rollout").and_then(Value::as_table);
        let features = |rollout: &Value| {
            let list = rollout.get("slice").and_then(|it| it.get("features"));
            let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let rollouts = rollouts.into_iter().flatten();
        rollouts.map(|(name, rollout)| (name.clone(), features(rollout))).collect()
    }
}
