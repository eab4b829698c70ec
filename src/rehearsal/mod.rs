//! A rehearsal: players as providers and judge, the whole program between them, traffic, verdicts.
//!
//! `crossfade demo` plays `config/demo.toml`; `scripts/replay PLAN.toml` plays recorded rows.
//! Nothing is scripted but the players: requests pass real sockets, and the real gates decide.

mod plan;
mod report;
mod screen;
mod set;

pub use plan::{Expected, Percent, Plan, PlanError, PlayerPlan, TrafficPlan};
pub use report::{Report, RolloutReport};
pub use screen::{Screen, Style};

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::api::proto::{
    ListEventsRequest, ListRolloutsRequest, Rollout, StartRolloutRequest, rollout::State,
};
use crate::api::{Caller, Client};
use crate::app::App;
use crate::listeners::Passed;
use crate::players::{Pace, Traffic, TrafficReport};
use crate::tasks::{BoxError, Tasks};

use set::Set;

/// How often the rollouts are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long evidence may still come in after the last request.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How long one question to the API may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Calls under way at a time, for each rollout.
const IN_FLIGHT_MAX: usize = 256;

/// The plan of `crossfade demo`.
pub const DEMO: &str = include_str!("../../config/demo.toml");

/// Where a rehearsal finds and leaves things.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The folder of the recordings.
    pub data: &'a Path,
    /// The folder in which the store is left behind; none to remove it at the end.
    pub keep: Option<&'a Path>,
}

/// Plays a plan to its end: every rollout decided, the rows used up, or the time over.
///
/// # Errors
/// When the plan cannot be played at all. A rollout that ends otherwise than expected is in
/// the report, not an error.
pub async fn play(
    plan: &Plan,
    places: Places<'_>,
    screen: &mut Screen,
) -> Result<Report, BoxError> {
    let (set, config) = Set::build(plan, places).await?;
    let app = App::start(config, Passed::default()).await?;
    screen.begin(&app.addresses, plan)?;
    let control = app.addresses.control.clone();
    let base_url = format!("http://{}/v1", app.addresses.data);
    // The program is one task beside the rehearsal, so that it can end before the report.
    let (stop, stopped) = oneshot::channel::<()>();
    let mut program = JoinSet::new();
    program.spawn(app.run(async { drop(stopped.await) }));

    let caller = Caller { actor: Some("rehearsal".to_owned()), timeout: CALL_MAX };
    let client = Client::connect(&control, caller).await?;
    let ended = rehearse(plan, &set, (client, base_url), screen).await;
    // A program that ended by itself is heard of below.
    let _ = stop.send(());
    while let Some(ended) = program.join_next().await {
        ended??;
    }
    let (rollouts, traffic) = ended?;
    Ok(Report::new(plan, &rollouts, &traffic))
}

/// Starts every rollout, sends its traffic, and looks until nothing more can come of it.
async fn rehearse(
    plan: &Plan,
    set: &Set,
    (mut client, base_url): (Client, String),
    screen: &mut Screen,
) -> Result<(Vec<Rollout>, Vec<TrafficReport>), BoxError> {
    let names = plan.rollouts();
    for (name, _) in &names {
        let name = format!("rollouts/{name}");
        client.start_rollout(StartRolloutRequest { name, ..Default::default() }).await?;
    }
    let (ends, tasks) = (Instant::now() + plan.traffic.length(), Tasks::default());
    let mut running = JoinSet::new();
    for (index, (_, features)) in names.iter().enumerate() {
        let traffic = traffic(plan, &base_url, features.first());
        let rows = Arc::clone(&set.rows);
        // Each rollout has rows of its own, so that a row is evidence once.
        let share = rows.len() / names.len();
        let (calls, mut stop) = (index * share..(index + 1) * share, tasks.stop());
        running.spawn(async move { traffic.run(&rows, calls, stop.wait()).await });
    }
    let mut quiet: Option<Instant> = None;
    let mut traffic = Vec::new();
    let mut rollouts = loop {
        let rollouts = client.list_rollouts(ListRolloutsRequest::default()).await?.rollouts;
        screen.show(&rollouts)?;
        while let Some(report) = running.try_join_next() {
            traffic.push(report??);
        }
        if running.is_empty() {
            quiet.get_or_insert_with(Instant::now);
        }
        let settled = quiet.is_some_and(|from| SETTLE_MAX <= from.elapsed());
        if rollouts.iter().all(is_decided) || ends <= Instant::now() || settled {
            break rollouts;
        }
        sleep(LOOK).await;
    };
    halt(tasks).await;
    while let Some(report) = running.join_next().await {
        traffic.push(report??);
    }
    for rollout in &mut rollouts {
        freeze(&mut client, rollout).await?;
    }
    Ok((rollouts, traffic))
}

/// Puts the evidence of its last step in a rollout that ended well: the guard begins anew after it.
async fn freeze(client: &mut Client, rollout: &mut Rollout) -> Result<(), BoxError> {
    if rollout.state() != State::Succeeded {
        return Ok(());
    }
    let parent = rollout.name.clone();
    let events = client.list_events(ListEventsRequest { parent, ..Default::default() }).await?;
    if let Some(last) = events.events.into_iter().next() {
        rollout.pairs = last.evidence.iter().map(|it| it.samples).max().unwrap_or(0);
        rollout.evidence = last.evidence;
    }
    Ok(())
}

/// Tells the traffic to end. There is nothing else to stop, so nothing can go wrong.
async fn halt(tasks: Tasks) {
    drop(tasks.run(async {}, Duration::ZERO).await);
}

fn is_decided(rollout: &Rollout) -> bool {
    matches!(rollout.state(), State::Succeeded | State::Baked | State::RolledBack)
}

fn traffic(plan: &Plan, base_url: &str, feature: Option<&String>) -> Traffic {
    let mut headers = vec![("x-request-id".to_owned(), "r-{n}".to_owned())];
    if let Some(feature) = feature {
        headers.push(("x-crossfade-feature".to_owned(), feature.clone()));
    }
    Traffic {
        base_url: base_url.to_owned(),
        model: plan.traffic.model.clone(),
        headers,
        pace: Pace::Paced { rate: plan.traffic.rate, in_flight_max: IN_FLIGHT_MAX },
        stream_share: plan.traffic.stream.0,
        seed: plan.traffic.seed,
    }
}
