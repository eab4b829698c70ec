//! Providers, the judge and callers: whom we talk to, and with which credentials.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::RootCertStore;

use crate::domain::{Name, Prices, RequestRules, Share, hash};

use super::{
    Asking, Calibration, Criterion, Kin,
    egress::LinkLocal,
    form::{Environment, NAME, PREFIX, SHARE, SOME, Unit, base_url, secret},
    guard::{self, Breaker, Health},
    judging,
    prices::{self, PriceTable},
    request,
    table::Table,
    tls::authorities,
};

/// A provider of models.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name, unique among providers.
    pub name: Name,
    /// Absolute http or https address without query, credentials or slash at the end.
    pub base_url: String,
    /// Whether that may lead to a link-local address.
    pub link_local: LinkLocal,
    /// Authorities that may vouch for it, besides the public ones.
    pub authorities: RootCertStore,
    /// Our credential there; without one the caller's own headers are all it gets.
    pub key: Option<SecretString>,
    /// How the credential is sent.
    pub auth: Auth,
    /// Which of its models stands for the one asked for.
    pub models: ModelMap,
    /// What requests must look like for it; none where they need not be changed.
    pub rules: Option<RequestRules>,
    /// Data classes that may be sent there.
    pub cleared: Vec<String>,
    /// What its models cost, as far as that is told.
    pub prices: Prices,
    /// When callers are no longer sent to it; none where that is switched off.
    pub breaker: Option<Breaker>,
    /// What it is asked now and then while it serves; none where that is switched off.
    pub health: Option<Health>,
}

impl Provider {
    /// What is asked of it and where, as a number: with another one it is another provider for
    /// whoever compares answers. Credentials, prices and whom it serves are no part of it.
    pub fn identity(&self) -> u64 {
        hash("provider", &format!("{} {:?} {:?}", self.base_url, self.models, self.rules))
    }
}

/// How a credential is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer …`.
    #[default]
    Bearer,
    /// `x-api-key: …`, as Anthropic wants it.
    XApiKey,
    /// `api-key: …`, as Azure wants it.
    ApiKey,
    /// `x-goog-api-key: …`, as Google wants it.
    XGoogApiKey,
}

/// The models of a provider by the models asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelMap(BTreeMap<String, String>);

/// The model that scores pairs.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Absolute http or https address without query, credentials or slash at the end.
    pub base_url: String,
    /// Whether that may lead to a link-local address.
    pub link_local: LinkLocal,
    /// Authorities that may vouch for it, besides the public ones.
    pub authorities: RootCertStore,
    /// Our credential there.
    pub key: Option<SecretString>,
    /// How the credential is sent.
    pub auth: Auth,
    /// The model that judges.
    pub model: String,
    /// Data classes that may be sent there.
    pub cleared: Vec<String>,
    /// What it marks answers for; never empty.
    pub rubric: Vec<Criterion>,
    /// What it is shown at a time.
    pub asking: Asking,
    /// What it is tried on, if anything.
    pub calibration: Option<Calibration>,
    /// Longest a call may take, in milliseconds.
    pub timeout_ms: u64,
    /// How often a failed call is tried again.
    pub retries_max: u32,
    /// Calls under way at a time.
    pub concurrency_max: usize,
    /// Share of pairs it sees, unless a rollout says otherwise.
    pub share: Share,
    /// Whether it may judge its own kin.
    pub kin: Kin,
    /// What its models cost, as far as that is told.
    pub prices: Prices,
}

/// How the requests of an application are told from others.
#[derive(Clone, Debug)]
pub enum KnownBy {
    /// By the API key they present to us.
    Key(SecretString),
    /// By the prefix of their path, which no provider gets to see.
    Path(String),
}

/// What is known of an application.
#[derive(Clone, Debug)]
pub struct Caller {
    /// How its requests are told from others.
    pub known_by: KnownBy,
    /// The feature its requests belong to; empty when unmarked.
    pub feature: String,
    /// The segment its requests belong to; empty when unmarked.
    pub segment: String,
    /// The data classes its requests carry.
    pub data: Vec<String>,
}

impl ModelMap {
    /// The model to ask for instead of `model`; none when it keeps its name.
    pub fn get(&self, model: &str) -> Option<&str> {
        self.0.get(model).or_else(|| self.0.get("*")).map(String::as_str)
    }

    /// Each model asked for and the one sent, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(asked, sent)| (asked.as_str(), sent.as_str()))
    }
}

/// Every provider, in the order of the file.
pub(super) fn providers(
    top: &Table<'_>,
    environment: Environment<'_>,
    price_table: Option<&PriceTable>,
) -> Vec<Provider> {
    const REMEDY: &str = "add at least one table like [provider.openai] with a `base_url`";
    top.need("provider", REMEDY);
    let tables = top.named("provider");
    if tables.is_empty() && top.has("provider") {
        top.fault("provider", "has no provider in it", REMEDY);
    }
    let mut providers = Vec::new();
    for ((name, spot), table) in tables {
        let base_url = base_url(&table);
        let authorities = authorities(&table);
        let key = own_key(&table, environment);
        let auth = auth(&table);
        let models = ModelMap(table.pairs("model_map").into_iter().collect());
        let rules = request::rules(&table);
        let cleared = table.list("data");
        let prices = prices::prices(&table, base_url.as_ref().map(|it| it.0.as_str()), price_table);
        let (breaker, health) = (guard::breaker(&table), guard::health(&table));
        table.close();
        let checked = (NAME.read)(name);
        if checked.is_none() {
            top.fault_at(Some(&spot), name, "is not a name", NAME.remedy);
        }
        // A provider at fault still counts as known, so that those who name it are not faulted.
        if let Some(name) = checked {
            let (base_url, link_local) = base_url.unwrap_or_default();
            providers.push(Provider {
                name,
                base_url,
                link_local,
                authorities,
                key,
                auth,
                models,
                rules,
                cleared,
                prices,
                breaker,
                health,
            });
        }
    }
    providers
}

/// The judge, if there is one.
pub(super) fn judge(
    top: &Table<'_>,
    environment: Environment<'_>,
    price_table: Option<&PriceTable>,
) -> Option<Judge> {
    let table = top.table("judge")?;
    table.need("model", "name the model that judges");
    let (base_url, link_local) = base_url(&table).unwrap_or_default();
    let judge = Judge {
        prices: prices::prices(&table, Some(&base_url), price_table),
        base_url,
        link_local,
        authorities: authorities(&table),
        key: own_key(&table, environment),
        auth: auth(&table),
        model: table.text("model", &SOME).unwrap_or_default(),
        cleared: table.list("data"),
        rubric: judging::rubric(&table),
        asking: judging::asking(&table),
        calibration: judging::calibration(&table),
        timeout_ms: table.amount("timeout", Unit::Millis, 100..=600_000).unwrap_or(60_000),
        retries_max: table.amount("retries_max", Unit::Count, 0..=10).unwrap_or(2),
        concurrency_max: table.amount("concurrency_max", Unit::Count, 1..=1_024).unwrap_or(8),
        share: table.text("share", &SHARE).unwrap_or(Share::ALL),
        kin: table.choice("allow_kin", Kin::Allowed, Kin::Refused).unwrap_or_default(),
    };
    needs_key(&table, &judge.base_url);
    table.close();
    Some(judge)
}

/// A caller's key goes to the primary alone, so everybody else has one or says that it wants none.
pub(super) fn keys(top: &Table<'_>, providers: &[Provider], primary: &Name) {
    for ((name, _), table) in top.named("provider") {
        let provider = providers.iter().find(|it| it.name.as_str() == name);
        if let Some(provider) = provider.filter(|it| it.name != *primary) {
            needs_key(&table, &provider.base_url);
        }
    }
}

/// By plain HTTP a key would be anybody's to read, so whoever is asked so is taken to want none.
fn needs_key(table: &Table<'_>, base_url: &str) {
    if base_url.starts_with("https:") {
        let remedy = "a caller's own key goes to the primary alone: refer to ours by \
                      \"file:/path\" or \"env:NAME\"; if it wants none, write `key = \"none\"`";
        table.need("key", remedy);
    }
}

/// Our key at a provider; none where it wants none.
fn own_key(table: &Table<'_>, environment: Environment<'_>) -> Option<SecretString> {
    if table.is_word("key", "none") { None } else { secret(table, environment) }
}

/// Every caller, in the order of the file.
pub(super) fn callers(top: &Table<'_>, environment: Environment<'_>) -> Vec<Caller> {
    let mut callers: Vec<Caller> = Vec::new();
    for table in top.array("caller") {
        let key = secret(&table, environment);
        let path = table.text("path", &PREFIX);
        let feature = table.text("feature", &SOME).unwrap_or_default();
        let segment = table.text("segment", &SOME).unwrap_or_default();
        let data = table.list("data");
        table.close();
        let known_by = match (table.has("key"), table.has("path")) {
            (true, false) => key.map(KnownBy::Key),
            (false, true) => path.map(KnownBy::Path),
            (true, true) => {
                table.fault("path", "stands beside `key`", "write a [[caller]] for each");
                continue;
            }
            (false, false) => {
                table.need("key", "refer to the key the application presents: \"file:/path\" or \"env:NAME\"; or give it a `path`");
                continue;
            }
        };
        let Some(known_by) = known_by else { continue };
        if callers.iter().any(|it| it.known_by.is(&known_by)) {
            let key = if table.has("key") { "key" } else { "path" };
            let problem = format!("is the {key} of another caller too");
            table.fault(key, &problem, "give each caller its own");
        }
        callers.push(Caller { known_by, feature, segment, data });
    }
    callers
}

impl KnownBy {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(a), Self::Key(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Path(a), Self::Path(b)) => a == b,
            (Self::Key(_), Self::Path(_)) | (Self::Path(_), Self::Key(_)) => false,
        }
    }
}

fn auth(table: &Table<'_>) -> Auth {
    let words = [
        ("bearer", Auth::Bearer),
        ("x-api-key", Auth::XApiKey),
        ("api-key", Auth::ApiKey),
        ("x-goog-api-key", Auth::XGoogApiKey),
    ];
    table.word("auth", &words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};

    /// B-73
    #[test]
    fn who_is_asked_by_tls_and_is_not_the_primary_has_a_key_or_wants_none() {
        let text = |more: &str| {
            format!(
                "primary = 'a'\nprovider.a.base_url = 'https://a'\n\
                 provider.local.base_url = 'http://127.0.0.1:1'\n\
                 [provider.b]\nbase_url = 'HTTPS://b'\n{more}"
            )
        };
        let told = faults(&text("[judge]\nmodel = 'm'\nbase_url = 'https://c'\n"));
        assert!(told.contains("`key` is missing in [provider.b]"), "{told}");
        assert!(told.contains("`key` is missing in [judge]"), "{told}");
        assert!(told.contains("write `key = \"none\"`") && !told.contains("provider.a]"), "{told}");
        let config = parse(&text("key = 'env:B_KEY'\n")).unwrap();
        assert!(config.provider(&"b".parse().unwrap()).unwrap().key.is_some());
        let judge = "[judge]\nmodel = 'm'\nbase_url = 'https://c'\nkey = 'none'\n";
        let config = parse(&text(&format!("key = 'none'\n{judge}"))).unwrap();
        assert!(config.providers.iter().all(|it| it.key.is_none()));
        assert!(config.judge.is_some_and(|it| it.key.is_none()));
    }
}
