//! A rehearsal: players as providers and judge, the whole program between them, traffic, verdicts.
//!
//! `crossfade demo` plays `config/demo.toml`; `scripts/replay PLAN.toml` plays recorded rows.
//! Nothing is scripted but the players: requests pass real sockets, and the real gates decide.

mod plan;
mod report;
mod screen;

pub use plan::{Expected, Percent, Plan, PlanError, PlayerPlan, TrafficPlan};
pub use report::{Report, RolloutReport};
pub use screen::{Screen, Style};

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use toml::{Table, Value};

use crate::app::App;
use crate::api::Client;
use crate::config::Config;
use crate::players::{JudgePlayer, Latency, Provider, ProviderPlan, Rows, SyntheticModel, Traffic, synthetic};
use crate::tasks::BoxError;

use report::Watcher;

/// How often the screen and the outcomes are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The plan of `crossfade demo`.
pub const DEMO: &str = include_str!("../../config/demo.toml");

/// Everything that plays, and the program between.
struct Set {
    rows: Arc<Rows>,
    players: BTreeMap<String, Provider>,
    judge: JudgePlayer,
    app: App,
    folder: Folder,
}

/// A folder of our own that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("crossfade-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Plays a plan to its end: every rollout decided, the rows used up, or the time over.
///
/// # Errors
/// When the plan cannot be played at all. A rollout that ends otherwise than expected is in
/// the report, not an error.
pub async fn play(plan: &Plan, data: &Path, screen: &mut Screen) -> Result<Report, BoxError> {
    let Set { rows, players, judge, app, folder } = set(plan, data).await?;
    let client = Client::connect(&app.addresses.control).await?;
    screen.begin(&app.addresses, plan)?;
    let base_url = format!("http://{}", app.addresses.data);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = crate::tasks::start_aside(async move {
        let signal = async { drop(stopped.await) };
        app.run(signal).await
    });
    let mut watcher = Watcher::new(plan, client);
    watcher.start_all().await?;
    let traffic = plan.config.get("rollout").and_then(Value::as_table);
    let features = traffic.map(features).unwrap_or_default();
    let runs: Vec<_> = features.iter().enumerate().map(|(index, it)| traffic_of(plan, &base_url, it, (index, features.len()), &rows)).collect();
    let ends = Instant::now() + Duration::from_secs(plan.traffic.seconds_max);
    loop {
        watcher.look().await?;
        screen.show(&watcher)?;
        let sent = runs.iter().all(crate::players::Run::is_finished);
        if watcher.all_decided() || ends <= Instant::now() || (sent && watcher.is_quiet()) {
            break;
        }
        sleep(LOOK).await;
    }
    let mut report = watcher.report().await?;
    for run in runs {
        report.add_traffic(&run.stop().await);
    }
    drop(stop.send(()));
    running.await??;
    drop((players, judge, folder));
    Ok(report)
}
