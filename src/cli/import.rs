//! Prices as they are kept in public, made a table of ours: `LiteLLM`'s and genai-prices' files.
//!
//! Numbers are read as they are written, so that no price is rounded on its way. What cannot be
//! said in our table is left out and named.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::Price;

/// Digits of a number from which on it can only be what a binary float made of a shorter one.
const NOISE_DIGITS: usize = 16;
/// Digits that such a number has, at least.
const TRUE_DIGITS: usize = 15;
/// How far the point moves from dollars for a token to dollars for a million of them.
const PER_TOKEN: i32 = 6;
/// Thousands of tokens from which on a price may be another one, at most.
const THOUSANDS_MAX: u64 = 1_000_000;
/// How deep the rules of genai-prices may be nested.
const NESTED_MAX: u32 = 4;
/// How `LiteLLM` calls what is paid for by tokens of texts.
const MODES: [&str; 4] = ["chat", "completion", "responses", "embedding"];

/// What came of a file.
#[derive(Debug, Default)]
pub(super) struct Imported {
    hosts: BTreeMap<String, String>,
    rows: Vec<Row>,
    /// Models that are not taken, or not all of them, by the reason.
    pub(super) left_out: BTreeMap<String, Vec<String>>,
    /// Models with prices of something else than their tokens, by the name of the price.
    pub(super) ignored: BTreeMap<String, usize>,
    /// Numbers that had the noise of binary floats.
    pub(super) noisy: usize,
}

#[derive(Debug)]
struct Row {
    provider: String,
    models: Vec<String>,
    from: Option<String>,
    tiers: Vec<(u64, Amounts)>,
}

/// US dollars for a million tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Amounts {
    input: String,
    output: String,
    cache_read: Option<String>,
    cache_write: Option<String>,
}

type Entry<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct GenaiProvider<'a> {
    id: String,
    #[serde(default)]
    api_pattern: String,
    #[serde(borrow)]
    models: Vec<GenaiModel<'a>>,
}

#[derive(Deserialize)]
struct GenaiModel<'a> {
    id: String,
    #[serde(rename = "match", borrow)]
    clause: &'a RawValue,
    #[serde(borrow)]
    prices: &'a RawValue,
}

#[derive(Deserialize)]
struct GenaiPeriod<'a> {
    #[serde(default)]
    constraint: BTreeMap<String, String>,
    #[serde(borrow)]
    prices: Entry<'a>,
}

#[derive(Deserialize)]
struct GenaiTiers<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<GenaiTier<'a>>,
}

#[derive(Deserialize)]
struct GenaiTier<'a> {
    start: u64,
    #[serde(borrow)]
    price: &'a RawValue,
}

/// Reads a file of either format: a list of providers is genai-prices', an object of models
/// `LiteLLM`'s.
///
/// # Errors
/// Where it is neither.
pub(super) fn import(text: &str) -> Result<Imported, serde_json::Error> {
    let mut imported = Imported::default();
    if text.trim_start().starts_with('[') {
        for provider in serde_json::from_str::<Vec<GenaiProvider<'_>>>(text)? {
            imported.genai(&provider);
        }
    } else {
        for (name, entry) in serde_json::from_str::<BTreeMap<String, Entry<'_>>>(text)? {
            if name != "sample_spec" {
                imported.litellm(&name, entry);
            }
        }
    }
    Ok(imported)
}

impl Imported {
    /// How many models it has prices of.
    pub(super) fn models(&self) -> usize {
        self.rows.iter().map(|it| it.models.len()).sum()
    }

    /// Whether it says at which hosts its prices hold.
    pub(super) fn knows_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Keeps only these models; those of them that are not there.
    pub(super) fn only(&mut self, models: &[String]) -> Vec<String> {
        let is_wanted = |it: &String| models.contains(it);
        let missing =
            models.iter().filter(|it| !self.rows.iter().any(|row| row.models.contains(it)));
        let missing = missing.cloned().collect();
        for row in &mut self.rows {
            row.models.retain(is_wanted);
        }
        self.rows.retain(|it| !it.models.is_empty());
        self.hosts.retain(|_, provider| self.rows.iter().any(|it| it.provider == *provider));
        for names in self.left_out.values_mut() {
            names.retain(is_wanted);
        }
        self.left_out.retain(|_, names| !names.is_empty());
        missing
    }

    /// The table, as of a day.
    pub(super) fn table(&self, version: &str) -> String {
        let mut text = format!("version = {}\n", quoted(version));
        if !self.hosts.is_empty() {
            text.push_str("\n[hosts]\n");
        }
        for (host, provider) in &self.hosts {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} = {}", quoted(host), quoted(provider));
        }
        for Row { provider, models, from, tiers } in &self.rows {
            let models: Vec<String> = models.iter().map(|it| quoted(it)).collect();
            let (provider, models) = (quoted(provider), models.join(", "));
            let _ = write!(text, "\n[[price]]\nprovider = {provider}\nmodel = [{models}]\n");
            if let Some(from) = from {
                let _ = writeln!(text, "from = {}", quoted(from));
            }
            for (above, amounts) in tiers {
                if 0 < *above {
                    let _ = write!(text, "[[price.tier]]\nabove_input_tokens = {above}\n");
                }
                let _ = writeln!(text, "usd_per_mtok = {{ {} }}", amounts.written());
            }
        }
        text
    }

    fn leave(&mut self, why: impl Into<String>, model: &str) {
        self.left_out.entry(why.into()).or_default().push(model.to_owned());
    }

    /// Adds a row unless the same models have one already.
    fn add(&mut self, row: Row) {
        let same = |it: &&Row| it.provider == row.provider && it.from == row.from;
        let known: Vec<&Row> = self.rows.iter().filter(same).collect();
        let twice = |model: &String| known.iter().any(|it| it.models.contains(model));
        let (twice, models): (Vec<_>, Vec<_>) = row.models.iter().cloned().partition(twice);
        for model in twice {
            self.leave("has another price of the same time", &model);
        }
        if !models.is_empty() {
            self.rows.push(Row { models, ..row });
        }
    }

    /// A price as we write it.
    fn usd(&mut self, number: &str, point: i32) -> Option<String> {
        let (text, noisy) = decimal(number, point)?;
        self.noisy += usize::from(noisy);
        Price::read(&text)?;
        Some(text)
    }

    fn litellm(&mut self, name: &str, mut entry: Entry<'_>) {
        let text = |it: Option<&RawValue>| {
            it.and_then(|it| serde_json::from_str::<String>(it.get()).ok()).unwrap_or_default()
        };
        let provider = text(entry.remove("litellm_provider"));
        let mode = text(entry.remove("mode"));
        if !MODES.contains(&mode.as_str()) {
            return self.leave(format!("is for `{mode}`"), name);
        }
        if provider.is_empty() {
            return self.leave("names no provider", name);
        }
        let reasoning = entry.remove("output_cost_per_reasoning_token").map(RawValue::get);
        let output = entry.get("output_cost_per_token").map(|it| it.get());
        if reasoning.is_some() && reasoning != output {
            return self.leave("asks another price for what it thinks", name);
        }
        let above = |key: &String| {
            let thousands =
                key.strip_prefix("input_cost_per_token_above_")?.strip_suffix("k_tokens")?;
            thousands.parse::<u64>().ok().filter(|it| (1..=THOUSANDS_MAX).contains(it))
        };
        let mut from: Vec<u64> = entry.keys().filter_map(above).collect();
        from.sort_unstable();
        let mut tiers: Vec<(u64, Amounts)> = Vec::new();
        for thousands in std::iter::once(0).chain(from) {
            let suffix =
                if thousands == 0 { String::new() } else { format!("_above_{thousands}k_tokens") };
            let take = |entry: &mut Entry<'_>, key: &str| {
                entry.remove(&format!("{key}{suffix}")).map(|it| it.get().to_owned())
            };
            let numbers = [
                take(&mut entry, "input_cost_per_token"),
                take(&mut entry, "output_cost_per_token")
                    .or_else(|| (mode == "embedding" && thousands == 0).then(|| "0".to_owned())),
                take(&mut entry, "cache_read_input_token_cost"),
                take(&mut entry, "cache_creation_input_token_cost"),
            ];
            match self.amounts(&numbers, PER_TOKEN, tiers.last().map(|(_, it)| it)) {
                Ok(amounts) => tiers.push((thousands * 1_000, amounts)),
                Err(why) => return self.leave(why, name),
            }
        }
        self.ignore(&entry);
        let model = name.strip_prefix(&format!("{provider}/")).unwrap_or(name).to_owned();
        self.add(Row { provider, models: vec![model], from: None, tiers });
    }

    /// Counts the prices that are not taken.
    fn ignore(&mut self, entry: &Entry<'_>) {
        let priced = |(key, it): &(&String, &&RawValue)| {
            let is_price = key.contains("cost") || key.contains("mtok") || key.contains("kcount");
            is_price && it.get().bytes().any(|it| (b'1'..=b'9').contains(&it))
        };
        for (key, _) in entry.iter().filter(priced) {
            *self.ignored.entry(key.clone()).or_default() += 1;
        }
    }

    /// A price by its numbers (input, output, read from and written to the cache). What a tier does
    /// not say costs as before it.
    fn amounts(
        &mut self,
        numbers: &[Option<String>; 4],
        point: i32,
        before: Option<&Amounts>,
    ) -> Result<Amounts, String> {
        let [input, output, cache_read, cache_write] = numbers.each_ref().map(|number| {
            number.as_deref().map(|it| {
                self.usd(it, point)
                    .ok_or_else(|| "has a price of more than six decimals".to_owned())
            })
        });
        let before = before.cloned();
        let needed = |it: Option<Result<String, String>>, before: Option<String>| {
            it.unwrap_or_else(|| before.ok_or_else(|| "has no price of its tokens".to_owned()))
        };
        let old = before.unwrap_or_default();
        let known = |it: &String| Some(it.clone()).filter(|it| !it.is_empty());
        Ok(Amounts {
            input: needed(input, known(&old.input))?,
            output: needed(output, known(&old.output))?,
            cache_read: cache_read.transpose()?.or(old.cache_read),
            cache_write: cache_write.transpose()?.or(old.cache_write),
        })
    }

    fn genai(&mut self, provider: &GenaiProvider<'_>) {
        let host = provider.api_pattern.strip_prefix("https://").map(|it| it.replace("\\.", "."));
        let plain =
            |it: &String| it.bytes().all(|it| it.is_ascii_alphanumeric() || b"-.".contains(&it));
        let before = self.rows.len();
        for model in &provider.models {
            self.genai_model(&provider.id, model);
        }
        if let Some(host) = host.filter(plain).filter(|_| before < self.rows.len()) {
            self.hosts.insert(host, provider.id.clone());
        }
    }

    fn genai_model(&mut self, provider: &str, model: &GenaiModel<'_>) {
        let mut models = Vec::new();
        if !names(model.clause.get(), NESTED_MAX, &mut models) {
            self.leave("is also told by patterns that are not taken", &model.id);
        }
        if models.is_empty() {
            return;
        }
        let periods = match serde_json::from_str::<Vec<GenaiPeriod<'_>>>(model.prices.get()) {
            Ok(periods) => periods,
            Err(_) => match serde_json::from_str(model.prices.get()) {
                Ok(prices) => vec![GenaiPeriod { constraint: BTreeMap::new(), prices }],
                Err(_) => return self.leave("has prices that cannot be read", &model.id),
            },
        };
        let mut rows = Vec::new();
        for GenaiPeriod { mut constraint, prices } in periods {
            let from = constraint.remove("start_date");
            if !constraint.is_empty() {
                return self.leave("has a price that depends on the hour", &model.id);
            }
            match self.genai_tiers(prices) {
                Ok(tiers) => {
                    let (provider, models) = (provider.to_owned(), models.clone());
                    rows.push(Row { provider, models, from, tiers });
                }
                Err(why) => return self.leave(why, &model.id),
            }
        }
        for row in rows {
            self.add(row);
        }
    }

    fn genai_tiers(&mut self, mut prices: Entry<'_>) -> Result<Vec<(u64, Amounts)>, String> {
        let names = ["input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"];
        let prices_of = names.map(|it| {
            let raw = prices.remove(it).map(RawValue::get)?;
            let Ok(tiers) = serde_json::from_str::<GenaiTiers<'_>>(raw) else {
                return Some(BTreeMap::from([(0, raw.to_owned())]));
            };
            let above = tiers.tiers.iter().map(|it| (it.start, it.price.get().to_owned()));
            Some(std::iter::once((0, tiers.base.get().to_owned())).chain(above).collect())
        });
        let thought = prices.remove("output_reasoning_mtok").map(RawValue::get);
        let plain = prices_of[1].as_ref().and_then(|it: &BTreeMap<u64, String>| it.get(&0));
        if thought.is_some() && thought != plain.map(String::as_str) {
            return Err("asks another price for what it thinks".to_owned());
        }
        self.ignore(&prices);
        let mut above: Vec<u64> =
            prices_of.iter().flatten().flat_map(|it| it.keys().copied()).collect();
        above.sort_unstable();
        above.dedup();
        let mut tiers: Vec<(u64, Amounts)> = Vec::new();
        for start in above {
            let mut numbers = prices_of.each_ref().map(|it| it.as_ref()?.get(&start).cloned());
            // Without a price of its own, what is made of no tokens costs nothing.
            if start == 0 && prices_of[0].is_some() && prices_of[1].is_none() {
                numbers[1] = Some("0".to_owned());
            }
            let amounts = self.amounts(&numbers, 0, tiers.last().map(|(_, it)| it))?;
            tiers.push((start, amounts));
        }
        if tiers.is_empty() { Err("has no price of its tokens".to_owned()) } else { Ok(tiers) }
    }
}

impl Amounts {
    fn written(&self) -> String {
        let Self { input, output, cache_read, cache_write } = self;
        let mut text = format!("input = \"{input}\", output = \"{output}\"");
        for (key, amount) in [("cache_read", cache_read), ("cache_write", cache_write)] {
            if let Some(amount) = amount {
                // Writing to a string cannot fail.
                let _ = write!(text, ", {key} = \"{amount}\"");
            }
        }
        text
    }
}

/// The names that a rule of genai-prices tells, and how names begin; whether that is all of it. What
/// is nested deeper than this is not.
fn names(clause: &str, nested_max: u32, found: &mut Vec<String>) -> bool {
    let Ok(clause) = serde_json::from_str::<Entry<'_>>(clause) else { return false };
    let mut all = true;
    for (kind, value) in clause {
        let text = serde_json::from_str::<String>(value.get()).ok().filter(|it| !it.contains('*'));
        match (kind.as_str(), text) {
            ("equals", Some(name)) => found.push(name),
            ("starts_with", Some(begins)) if !begins.is_empty() => found.push(begins + "*"),
            ("or", None) if 0 < nested_max => {
                let clauses = serde_json::from_str::<Vec<&RawValue>>(value.get());
                for clause in clauses.unwrap_or_default() {
                    all &= names(clause.get(), nested_max - 1, found);
                }
            }
            _ => all = false,
        }
    }
    found.sort();
    found.dedup();
    all
}

/// A number of JSON with its point moved, as plain decimals; and whether it had the noise of a
/// binary float, which is taken away.
fn decimal(number: &str, point: i32) -> Option<(String, bool)> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let plain = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    if !plain(whole) || !plain(part) || whole.is_empty() || 40 < whole.len() + part.len() {
        return None;
    }
    let all = format!("{whole}{part}");
    let digits = all.trim_start_matches('0');
    let mut scale = exponent.parse::<i32>().ok()?.checked_add(point)?;
    scale = scale.checked_sub(i32::try_from(part.len()).ok()?)?;
    let noisy = NOISE_DIGITS <= digits.len();
    let mut value: u128 = digits.parse().unwrap_or(0);
    for _ in TRUE_DIGITS..digits.len() {
        let last = value % 10;
        value = value / 10 + u128::from(5 <= last);
        scale += 1;
    }
    while value != 0 && value.is_multiple_of(10) {
        (value, scale) = (value / 10, scale + 1);
    }
    let decimals = usize::try_from(scale.checked_neg()?.max(0)).ok()?;
    let zeros = if value == 0 { 0 } else { u32::try_from(scale.max(0)).ok()? };
    let value = value.checked_mul(10_u128.checked_pow(zeros)?)?;
    if value == 0 {
        return Some(("0".to_owned(), noisy));
    }
    if 40 < decimals {
        return None;
    }
    let text = format!("{value:0>width$}", width = decimals + 1);
    let (whole, part) = text.split_at(text.len() - decimals);
    Some((if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }, noisy))
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
