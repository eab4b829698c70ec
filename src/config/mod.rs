//! What the operator asked for: from a TOML file to checked values, every fault at once.
//!
//! A file is read table by table. Each key is asked for by name, so a key that nobody
//! asked for is a fault, and so is every value that is not what its key needs. Nothing is
//! refused before the whole file has been read. Secrets are only referred to, by
//! `file:/path` or `env:NAME`; this is the one place where the environment is read.

mod egress;
mod faults;
mod form;
mod golden;
mod guard;
mod judging;
mod kinship;
mod leave;
mod limits;
mod plan_faults;
mod prices;
mod provider;
mod request;
mod rollout;
mod serving;
mod table;
#[cfg(test)]
mod tests;
mod tls;

#[cfg(test)]
mod plan_tests;

pub use egress::{LinkLocal, is_link_local};
pub use faults::{Fault, Faults, Place};
pub use form::share;
pub use guard::{Breaker, Health};
pub use judging::{Asking, Calibration, Criterion, Orders, Row};
pub use kinship::Kin;
pub use limits::Limits;
pub use prices::PriceTable;
pub use provider::{Auth, Caller, Judge, KnownBy, ModelMap, Provider};
pub use rollout::{Autostart, COPIES_PER_DAY_DEFAULT, RolloutConfig, plan, review_default};

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::domain::{Budget, MarkFields, Metric, Name, Share, Sticky};
use crate::patterns::{Detector, Pattern};
use tokio_rustls::rustls::ServerConfig;

use faults::Report;
use form::{ADDRESS, CONTROL, Environment, NAME, SHARE, SOME};
use rollout::{Around, Named, check_provider};
use table::Table;

/// A configuration without faults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where applications send their requests.
    pub listen: SocketAddr,
    /// What it shows to those who speak TLS there; without it HTTP is spoken plainly.
    pub tls: Option<Arc<ServerConfig>>,
    /// Where the control API listens.
    pub control: Control,
    /// Where pages, metrics and health are served.
    pub operations: SocketAddr,
    /// The folder of everything remembered; relative to the working directory.
    pub store: PathBuf,
    /// Who serves today; one of `providers`.
    pub primary: Name,
    /// Who answers in its place when it cannot, in this order; each one of `providers`.
    pub failover: Vec<Name>,
    /// Every provider, in the order of the file; never empty.
    pub providers: Vec<Provider>,
    /// Every rollout, in the order of the file; empty is a plain pass-through.
    pub rollouts: Vec<RolloutConfig>,
    /// The model that scores pairs.
    pub judge: Option<Judge>,
    /// The table of prices, if one is named.
    pub price_table: Option<PriceTable>,
    /// What all rollouts together may spend on copies and scores.
    pub budget: Budget,
    /// Marks for requests by the API key they come with, or the prefix of their path.
    pub callers: Vec<Caller>,
    /// What sticks to a side: the first of these that a request has.
    pub sticky: Vec<Sticky>,
    /// Where in their bodies marks stand.
    pub mark_fields: MarkFields,
    /// Finds data classes in what requests say.
    pub detector: Detector,
    /// What is taken out of texts before they are kept or judged.
    pub redacted: Vec<Pattern>,
    /// Data classes of which texts may be kept; everything else is kept without its texts.
    pub store_cleared: Vec<String>,
    /// Data classes of requests that carry no mark of their own.
    pub data_default: Vec<String>,
    /// The share of requests that `crossfade audit` looks at.
    pub audit: Share,
    /// Whether answers tell where they came from.
    pub response_headers: Headers,
    /// What may be used at most.
    pub limits: Limits,
}

/// Where the control API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A unix socket; who may open the file may command.
    Unix(PathBuf),
    /// A loopback address.
    Tcp(SocketAddr),
}

/// Whether our own headers are added to answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    /// `x-crossfade-…` tells provider and request.
    #[default]
    Added,
    /// Answers are passed on as they came.
    Off,
}

/// Largest configuration read, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

impl Config {
    /// Reads a file, with secrets from this process's environment.
    ///
    /// # Errors
    /// Every fault of the file, or the one reason why it could not be read.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let text = form::read_bounded(path, CONFIG_BYTES_MAX)
            .map_err(|error| Faults::unreadable(&file, &error))?;
        Self::parse(&text, &file)
    }

    /// Reads a text; `file` is what faults call it.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Faults> {
        #[expect(clippy::disallowed_methods, reason = "the one home of the environment")]
        Self::parse_with(text, file, &|name| std::env::var(name).ok())
    }

    /// Reads a text with variables from `environment`.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse_with(
        text: &str,
        file: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Faults> {
        let report = Report::new(text, file);
        let Some(document) = report.document() else { return report.finish(None) };
        let config = read(&Table::top(&report, document.get_ref()), environment);
        report.finish(config)
    }

    /// The provider of that name.
    pub fn provider(&self, name: &Name) -> Option<&Provider> {
        self.providers.iter().find(|it| it.name == *name)
    }
}

fn read(top: &Table<'_>, environment: Environment<'_>) -> Option<Config> {
    let (listen, control, operations) = addresses(top);
    let tls = tls::tls(top);
    let (price_table, budget) = (prices::table(top), prices::day_budget(top));
    let providers = provider::providers(top, environment, price_table.as_ref());
    let judge = provider::judge(top, environment, price_table.as_ref());
    let callers = provider::callers(top, environment);
    let tables = rollout::named(top);
    let primary = primary(top, &providers, &tables);
    let failover = serving::failover(top, &providers, primary.as_ref());
    if let Some(primary) = &primary {
        provider::keys(top, &providers, primary);
    }
    let around = Around {
        primary: primary.as_ref(),
        providers: Some(&providers),
        budget,
        judge_unpriced: judge.as_ref().is_some_and(|it| it.prices.is_empty()),
        judge: judge.as_ref().map(|it| it.share),
        kin: kinship::kin(judge.as_ref(), &providers, primary.as_ref()),
        ground: &Metric::GROUND_DEFAULTS,
    };
    let rollouts = rollout::read(&tables, &around);
    let store = top.text("store", &SOME).map_or_else(|| "crossfade-data".into(), PathBuf::from);
    let leave = leave::read(top);
    let data_default = top.list("data_default");
    let sticky = serving::sticky(top);
    let audit = top.text("audit", &SHARE).unwrap_or_else(audit_default);
    let headers = top.choice("response_headers", Headers::Added, Headers::Off);
    let limits = top.table("limits").map_or_else(Limits::default, |table| {
        let limits = Limits::read(&table);
        table.close();
        limits
    });
    top.close();
    Some(Config {
        listen,
        tls,
        control,
        operations,
        store,
        primary: primary?,
        failover,
        providers,
        rollouts,
        judge,
        price_table,
        budget,
        callers,
        sticky,
        mark_fields: leave.mark_fields,
        detector: leave.detector,
        redacted: leave.redacted,
        store_cleared: leave.store_cleared,
        data_default,
        audit,
        response_headers: headers.unwrap_or_default(),
        limits,
    })
}

/// Enough to see a day of a busy application, and next to nothing to pay for it.
fn audit_default() -> Share {
    Share::from_basis_points(500).unwrap_or_default()
}

/// Who listens where, each at a place of its own.
fn addresses(top: &Table<'_>) -> (SocketAddr, Control, SocketAddr) {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = top.text("listen", &ADDRESS).unwrap_or(local(8080));
    let operations = top.text("operations", &ADDRESS).unwrap_or(local(8081));
    let control = top.text("control", &CONTROL).unwrap_or(Control::Tcp(local(9090)));
    let same = |a: SocketAddr, b: SocketAddr| a == b && a.port() != 0;
    let remedy = "give `listen`, `operations` and `control` a port each";
    if same(listen, operations) {
        top.fault("operations", "is the same address as `listen`", remedy);
    }
    if let Control::Tcp(address) = control {
        if same(listen, address) || same(operations, address) {
            top.fault("control", "is the address of another listener", remedy);
        }
        if !address.ip().is_loopback() {
            let problem = "is open to other machines, and whoever reaches it may move traffic";
            let remedy = "use a loopback address or \"unix:crossfade.sock\"; for other machines \
                          put a proxy in front that asks who they are";
            top.fault("control", problem, remedy);
        }
    }
    (listen, control, operations)
}

/// The primary: named at the top, else by the rollouts, else the only provider.
fn primary<'t, 'a>(
    top: &Table<'_>,
    providers: &[Provider],
    rollouts: &'t [Named<'a>],
) -> Option<Name> {
    if top.has("primary") {
        let name = top.text("primary", &NAME)?;
        check_provider(top, "primary", &name, providers);
        return Some(name);
    }
    let named = |(_, table): &'t Named<'a>| Some((table.text("primary", &NAME)?, table));
    if let Some((name, table)) = rollouts.iter().find_map(named) {
        check_provider(table, "primary", &name, providers);
        return Some(name);
    }
    if let [only] = providers {
        return Some(only.name.clone());
    }
    if !providers.is_empty() {
        top.need("primary", "name the provider that serves today, like primary = \"openai\"");
    }
    None
}
