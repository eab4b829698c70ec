//! What models cost: the table of prices, prices of a provider's own, and budgets.

use std::{collections::BTreeMap, path::Path};

use url::Url;

use crate::domain::{Budget, Price, PriceRow, Prices, Tariff, Timestamp};

use super::{
    Faults,
    faults::Report,
    form::{self, DAY, PRICE, SOME, USD, Unit},
    table::{Table, listed, nearest},
};

/// Largest table of prices read, in bytes.
const TABLE_BYTES_MAX: u64 = 8 << 20;
/// Most tiers of one price.
const TIERS_MAX: usize = 16;

/// A table of prices, of providers as their makers call them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceTable {
    /// The file as it was named.
    pub file: String,
    /// The day on which its prices were looked up.
    pub version: Timestamp,
    /// Providers by the host at which their prices hold.
    hosts: BTreeMap<String, String>,
    /// By provider.
    rows: BTreeMap<String, Vec<PriceRow>>,
}

impl PriceTable {
    /// Reads a text; `file` is what faults call it.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Faults> {
        let report = Report::new(text, file);
        let Some(document) = report.document() else { return report.finish(None) };
        let top = Table::top(&report, document.get_ref());
        top.need("version", "say on which day these prices were looked up, like \"2026-11-20\"");
        let version = top.text("version", &DAY).unwrap_or_default();
        let mut rows: BTreeMap<String, Vec<PriceRow>> = BTreeMap::new();
        for price in top.array("price") {
            let (provider, read) = table_rows(&price);
            rows.entry(provider).or_default().extend(read);
        }
        let hosts: BTreeMap<String, String> = top.pairs("hosts").into_iter().collect();
        for (host, provider) in hosts.iter().filter(|(_, it)| !rows.contains_key(*it)) {
            let problem = format!("`{host}` is `{provider}`, of which no price is here");
            top.fault("hosts", &problem, "leave it out, or add prices");
        }
        top.close();
        report.finish(Some(Self { file: file.to_owned(), version, hosts, rows }))
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The provider whose prices hold at an address, and at no other of its models' resellers.
    fn provider_at(&self, base_url: &str) -> Option<&str> {
        let url = Url::parse(base_url).ok()?;
        self.hosts.get(url.host_str()?).map(String::as_str)
    }
}

/// The rows of one `[[price]]`, which share a price, and whose they are.
fn table_rows(table: &Table<'_>) -> (String, Vec<PriceRow>) {
    table.need("provider", "name who asks this price, like \"openai\"");
    table.need("model", "name the models, like [\"gpt-4o\", \"gpt-4o-2024-*\"]");
    let provider = table.text("provider", &SOME).unwrap_or_default();
    let models = table.texts("model").unwrap_or_default();
    let from = table.text("from", &DAY).unwrap_or_default();
    let price = usd_per_mtok(table);
    let mut tiers = Vec::new();
    for tier in table.array("tier") {
        const ABOVE: &str = "above_input_tokens";
        tier.need(ABOVE, "say from how many input tokens on it holds");
        let above = tier.amount(ABOVE, Unit::Count, 1..=1 << 40).unwrap_or_default();
        if tiers.last().is_some_and(|(before, _)| above <= *before) || tiers.len() == TIERS_MAX {
            tier.fault(ABOVE, "does not rise from tier to tier", "write 1 to 16, the least first");
        }
        tiers.push((above, usd_per_mtok(&tier)));
        tier.close();
    }
    table.close();
    let mut rows = Vec::new();
    for (model, spot) in models {
        if model.strip_suffix('*').unwrap_or(model).contains('*') {
            let remedy = "write the whole name, or how names begin and then `*`";
            table.fault_at(Some(&spot), "model", "has a `*` before the end", remedy);
        }
        let tariff = Tariff { from, price, tiers: tiers.clone() };
        rows.push(PriceRow { model: model.to_owned(), tariff });
    }
    (provider, rows)
}

fn usd_per_mtok(table: &Table<'_>) -> Price {
    const KEY: &str = "usd_per_mtok";
    table.need(KEY, "write it like { input = \"2.50\", output = \"10.00\" }");
    let Some(table) = table.table(KEY) else { return Price::default() };
    let price = price(&table);
    table.close();
    price
}

/// A price; tokens of the cache cost as fresh ones unless told.
fn price(table: &Table<'_>) -> Price {
    table.need("input", PRICE.remedy);
    table.need("output", PRICE.remedy);
    let input = table.text("input", &PRICE).unwrap_or_default();
    Price {
        input,
        output: table.text("output", &PRICE).unwrap_or_default(),
        cache_read: table.text("cache_read", &PRICE).unwrap_or(input),
        cache_write: table.text("cache_write", &PRICE).unwrap_or(input),
    }
}

/// The table of prices that the file names, if it names one.
pub(super) fn table(top: &Table<'_>) -> Option<PriceTable> {
    const KEY: &str = "prices";
    let file = top.text(KEY, &SOME)?;
    let text = match form::read_bounded(Path::new(&file), TABLE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => {
            let remedy = "give the path of a table of prices, like \"config/prices.toml\"";
            top.fault(KEY, &format!("cannot be read: {error}"), remedy);
            return None;
        }
    };
    match PriceTable::parse(&text, &file) {
        Ok(table) => Some(table),
        Err(faults) => {
            for fault in faults.iter() {
                let line = fault.place.as_ref().map_or(1, |it| it.line);
                let problem = format!("has a fault in line {line}: {}", fault.problem);
                top.fault(KEY, &problem, fault.remedy.as_str());
            }
            None
        }
    }
}

/// What the models of a provider cost: its own prices, and those that the table has for whom it
/// says it is, or for its host.
pub(super) fn prices(
    provider: &Table<'_>,
    base_url: Option<&str>,
    table: Option<&PriceTable>,
) -> Prices {
    const KEY: &str = "prices";
    let own = provider.named("price").into_iter().map(|((model, _), table)| {
        let price = price(&table);
        table.close();
        PriceRow { model: model.to_owned(), tariff: Tariff { price, ..Tariff::default() } }
    });
    let own = own.collect();
    let named = provider.text(KEY, &SOME);
    let Some(table) = table else {
        if named.is_some() {
            let remedy = "name one at the top of the file: prices = \"config/prices.toml\"";
            provider.fault(KEY, "needs a table of prices", remedy);
        }
        return Prices { own, table: Vec::new() };
    };
    if let Some(name) = named.as_deref().filter(|it| !table.rows.contains_key(*it)) {
        let known = || table.rows.keys().map(String::as_str);
        let remedy = match nearest(name, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("{} has {}", table.file, listed(known())),
        };
        provider.fault(KEY, "is nobody in the table of prices", remedy);
    }
    let at_host = base_url.and_then(|it| table.provider_at(it));
    let rows = named.as_deref().or(at_host).and_then(|it| table.rows.get(it));
    Prices { own, table: rows.cloned().unwrap_or_default() }
}

/// What all rollouts together may spend in a day.
pub(super) fn day_budget(top: &Table<'_>) -> Budget {
    let Some(table) = top.table("budget") else { return Budget::default() };
    table.need("per_day", USD.remedy);
    let budget = Budget { per_day_nano_usd: table.text("per_day", &USD), total_nano_usd: None };
    table.close();
    budget
}

/// What a rollout may spend.
pub(super) fn budget(rollout: &Table<'_>) -> Budget {
    let Some(table) = rollout.table("budget") else { return Budget::default() };
    let budget = Budget {
        per_day_nano_usd: table.text("per_day", &USD),
        total_nano_usd: table.text("total", &USD),
    };
    if !table.has("per_day") && !table.has("total") {
        table.need("per_day", "write it like { per_day = \"$5\", total = \"$100\" }");
    }
    table.close();
    budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{faults, parse};
    use crate::domain::{Usage, read_day};

    const TABLE: &str = "version = '2026-11-20'\nhosts = { 'api.a.com' = 'a' }\n\
        [[price]]\nprovider = 'a'\nmodel = ['m', 'm-2024-*']\nfrom = '2024-08-06'\n\
        usd_per_mtok = { input = '2.50', output = '10.00', cache_read = '1.25' }\n\
        [[price.tier]]\nabove_input_tokens = 200\n\
        usd_per_mtok = { input = '5.00', output = '15.00' }\n\
        [[price]]\nprovider = 'a'\nmodel = ['m']\nfrom = '2026-01-01'\n\
        usd_per_mtok = { input = '1', output = '2' }\n";

    /// A configuration beside such a table: the providers and what follows.
    fn configured(dir: &tempfile::TempDir, more: &str) -> String {
        let path = dir.path().join("prices.toml");
        std::fs::write(&path, TABLE).unwrap();
        format!("prices = '{}'\nprimary = 'x'\n{more}", path.display())
    }

    const PROVIDERS: &str = "[provider.x]\nbase_url = 'https://api.a.com/v1'\n\
        [provider.y]\nbase_url = 'http://gateway/v1'\n";

    #[test]
    fn a_provider_has_the_prices_of_its_host_or_of_whom_it_names_at_the_time_of_the_call() {
        let dir = tempfile::tempdir().unwrap();
        let config = parse(&configured(&dir, PROVIDERS)).unwrap();
        let of = |index: usize, model, day| {
            let at = read_day(day).unwrap();
            let row = config.providers[index].prices.of(&[model], at);
            row.map(|it| it.tariff.price.input)
        };
        assert_eq!(of(0, "m", "2024-08-05"), None);
        assert_eq!(of(0, "m", "2025-12-31"), Some(2_500_000));
        assert_eq!(of(0, "m", "2026-01-01"), Some(1_000_000));
        assert_eq!(of(0, "m-2024-11-20", "2026-01-01"), Some(2_500_000));
        assert_eq!(of(0, "other", "2026-01-01"), None);
        assert_eq!(of(1, "m", "2026-01-01"), None, "another host may ask for more");
        let named = PROVIDERS.to_owned()
            + "prices = 'a'\n[provider.y.price.m]\ninput = '9'\noutput = '9'\n";
        let config = parse(&configured(&dir, &named)).unwrap();
        let prices = &config.providers[1].prices;
        let of = |model| prices.of(&[model], read_day("2026-01-01").unwrap()).unwrap();
        assert_eq!(of("m").tariff.price.input, 9_000_000, "its own goes first");
        let long = &of("m-2024-1").tariff;
        let usage = Usage { input: 201, ..Usage::default() };
        assert_eq!(long.cost_nano_usd(&usage), 201 * 5_000);
        assert_eq!(config.price_table.unwrap().len(), 3);
    }

    #[test]
    fn what_is_wrong_with_a_table_is_told_with_its_line() {
        let told = |from: &str, to: &str| {
            assert!(TABLE.contains(from), "{from}");
            PriceTable::parse(&TABLE.replacen(from, to, 1), "p").unwrap_err().to_string()
        };
        for (from, to, says) in [
            ("version = '2026-11-20'\n", "", "`version` is missing"),
            ("'2.50'", "2.5", "p:7"),
            ("'2.50'", "'2.5e-6'", "is not a price"),
            ("'m-2024-*'", "'*-2024'", "has a `*` before the end"),
            ("'2024-08-06'", "'06.08.2024'", "is not a day"),
            ("above_input_tokens = 200", "above = 200", "unknown key `above`"),
            ("'api.a.com' = 'a'", "'api.a.com' = 'b'", "of which no price is here"),
        ] {
            let told = told(from, to);
            assert!(told.contains(says), "{to}: {told}");
        }
        let dir = tempfile::tempdir().unwrap();
        let text = configured(&dir, PROVIDERS);
        std::fs::write(dir.path().join("prices.toml"), TABLE.replace("'10.00'", "'?'")).unwrap();
        let told = faults(&text);
        assert!(told.contains("has a fault in line 7") && told.contains("`output`"), "{told}");
        let told =
            faults(&(PROVIDERS.to_owned() + "prices = 'a'\n[provider.z]\nbase_url = 'http://z'\n"));
        assert!(told.contains("needs a table of prices"), "{told}");
        let told = faults(&configured(&dir, &(PROVIDERS.to_owned() + "prices = 'aa'\n")));
        assert!(
            told.contains("nobody in the table") && told.contains("did you mean `a`?"),
            "{told}"
        );
    }

    #[test]
    fn a_budget_needs_prices_of_all_that_is_paid_from_it() {
        let rollout = "[rollout.chat]\ncandidate = 'y'\n";
        let price = |of: &str| format!("[{of}.price.'*']\ninput = '1'\noutput = '2'\n");
        let file = |prices: &str, more: &str| {
            format!("primary = 'x'\n{PROVIDERS}key = 'none'\n{prices}{rollout}{more}")
        };
        let own = "budget = { per_day = '$5', total = '$100' }\n";
        let both = price("provider.x") + &price("provider.y");
        let config = parse(&file(&both, own)).unwrap();
        let budget = config.rollouts[0].budget;
        assert_eq!(budget.per_day_nano_usd, Some(5_000_000_000));
        assert_eq!(budget.total_nano_usd, Some(100_000_000_000));
        let all = "[budget]\nper_day = '$25'\n";
        let config = parse(&file(&both, all)).unwrap();
        assert_eq!(config.budget.per_day_nano_usd, Some(25_000_000_000));
        for more in [own, all] {
            let told = faults(&file(&price("provider.x"), more));
            assert!(told.contains("cannot be kept: provider `y` has no price"), "{told}");
            let judge = "[judge]\nbase_url = 'http://j/v1'\nmodel = 'j'\n";
            let told = faults(&(file(&both, more) + judge));
            assert!(told.contains("cannot be kept: the judge has no price"), "{told}");
            parse(&(file(&both, more) + judge + &price("judge"))).unwrap();
        }
        let told = faults(&file(&both, "budget = { per_day = '5' }\n"));
        assert!(told.contains("is not an amount of US dollars"), "{told}");
        let told = faults(&file(&both, "budget = {}\n"));
        assert!(told.contains("`per_day` is missing"), "{told}");
    }
}
