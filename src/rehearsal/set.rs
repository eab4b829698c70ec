//! The set: rows, players on sockets of their own, and the configuration that joins them.

use std::{
    collections::BTreeMap,
    env, fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{Table, Value};

use crate::config::Config;
use crate::players::{
    JudgePlayer, Latency, Provider, ProviderPlan, Rows, SyntheticModel, synthetic,
};
use crate::tasks::BoxError;

use super::{
    Places,
    plan::{LatencyPlan, Plan, PlayerPlan},
};

/// Everything that plays. Dropped, it is gone: sockets, files and all.
pub(super) struct Set {
    pub(super) rows: Arc<Rows>,
    _players: Vec<Provider>,
    _judge: JudgePlayer,
    _folder: Folder,
}

/// Where the program keeps its store.
enum Folder {
    /// Our own, removed at the end.
    Own(PathBuf),
    /// Somebody wants it afterwards.
    Kept(PathBuf),
}

impl Folder {
    fn new(keep: Option<&Path>) -> io::Result<Self> {
        let own = || env::temp_dir().join(format!("crossfade-{}", uuid::Uuid::now_v7()));
        let folder = keep.map_or_else(|| Self::Own(own()), |it| Self::Kept(it.to_owned()));
        fs::create_dir_all(folder.path())?;
        Ok(folder)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Own(path) | Self::Kept(path) => path,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Self::Own(path) = self {
            // What is left behind in the system's temporary folder is the system's to remove.
            drop(fs::remove_dir_all(path));
        }
    }
}

impl Set {
    /// Starts the players, and writes the configuration for the program between them.
    pub(super) async fn build(plan: &Plan, places: Places<'_>) -> Result<(Self, Config), BoxError> {
        let rows = Arc::new(rows(plan, places.data)?);
        let mut players = Vec::new();
        let mut addresses = BTreeMap::new();
        for (name, player) in &plan.player {
            let plan = player_plan(name, player, plan.traffic.seed);
            let provider = Provider::start(Arc::clone(&rows), plan, local()).await?;
            addresses.insert(name.clone(), provider.address());
            players.push(provider);
        }
        let judge = JudgePlayer::start(Arc::clone(&rows), Latency::None, local()).await?;
        let folder = Folder::new(places.keep)?;
        let text = config(plan, &addresses, judge.address(), folder.path())?;
        let config = Config::parse(&text, "the rehearsal's configuration")?;
        Ok((Self { rows, _players: players, _judge: judge, _folder: folder }, config))
    }
}

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The rows, with one model for each player under the player's own name.
fn rows(plan: &Plan, data: &Path) -> Result<Rows, BoxError> {
    if 0 < plan.traffic.made_up {
        return Ok(made_up(plan));
    }
    let files: Result<Vec<Rows>, _> =
        plan.traffic.rows.iter().map(|file| Rows::load(&data.join(file))).collect();
    let players = plan.player.iter();
    Ok(players.fold(Rows::join(files?), |rows, (name, it)| rows.with_alias(name, &it.models)))
}

/// Rows made up: the primary first, because the judge compares everybody with it.
fn made_up(plan: &Plan) -> Rows {
    let model = |(name, player): (&String, &PlayerPlan)| SyntheticModel {
        name: name.clone(),
        quality: player.quality,
    };
    let is_primary = |name: &str| name == "primary";
    let first = plan.player.iter().filter(|(name, _)| is_primary(name));
    let rest = plan.player.iter().filter(|(name, _)| !is_primary(name));
    let models: Vec<SyntheticModel> = first.chain(rest).map(model).collect();
    synthetic(plan.traffic.made_up, plan.traffic.seed, &models)
}

fn player_plan(name: &str, player: &PlayerPlan, seed: u64) -> ProviderPlan {
    let mut plan = ProviderPlan::new(name);
    plan.errors = player.errors.0;
    plan.seed = seed;
    plan.latency = match player.latency {
        LatencyPlan::Recorded { factor, speed } => Latency::Recorded { times: factor, speed },
        LatencyPlan::Spread { median_ms, sigma } => Latency::Spread { median_ms, sigma },
        LatencyPlan::None => Latency::None,
    };
    plan
}

/// What the plan says of the program, with addresses, judge and store filled in.
fn config(
    plan: &Plan,
    players: &BTreeMap<String, SocketAddr>,
    judge: SocketAddr,
    folder: &Path,
) -> Result<String, BoxError> {
    let mut config = plan.config.clone();
    for key in ["listen", "control", "operations"] {
        config.insert(key.to_owned(), Value::from(local().to_string()));
    }
    let store = folder.join("store").display().to_string();
    config.insert("store".to_owned(), Value::from(store));
    config.insert("primary".to_owned(), Value::from("primary"));
    let url = |address: SocketAddr| Value::from(format!("http://{address}/v1"));
    let providers = table(&mut config, "provider")?;
    for (name, address) in players {
        table(providers, name)?.insert("base_url".to_owned(), url(*address));
    }
    let settings = table(&mut config, "judge")?;
    settings.insert("base_url".to_owned(), url(judge));
    settings.insert("model".to_owned(), Value::from("judge"));
    Ok(config.to_string())
}

/// The table of that name inside another, made where it is missing.
fn table<'a>(around: &'a mut Table, name: &str) -> Result<&'a mut Table, BoxError> {
    let entry = around.entry(name).or_insert_with(|| Value::Table(Table::new()));
    entry.as_table_mut().ok_or_else(|| format!("`{name}` of the plan is not a table").into())
}
