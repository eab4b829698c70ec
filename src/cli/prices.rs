//! The verb `prices`: which price holds for whom, and tables made of public ones.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::clock::Clock;
use crate::config::{Config, PriceTable};
use crate::domain::{Price, PriceRow, Prices, Timestamp, read_day};

use super::{
    import::{Imported, import},
    ladder::{lines, table},
    out::harmless,
    program::{CONFIG_INVALID, DONE, FAILED, Form, complain, note, say},
};

/// Names shown of what is left out, for each reason.
const NAMES_MAX: usize = 8;

/// What `prices` takes.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PricesArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "crossfade.toml")]
    config: PathBuf,
    #[command(subcommand)]
    verb: Option<PricesVerb>,
}

#[derive(Clone, Debug, Subcommand)]
enum PricesVerb {
    /// Make a table of prices from `LiteLLM`'s `model_prices_and_context_window.json` or genai-prices'
    /// `data_slim.json` (v2), and print it; what cannot be taken is named on standard error
    Import {
        /// The file
        file: PathBuf,
        /// The day of which its prices are
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = day)]
        as_of: String,
        /// Take only these models
        #[arg(long, value_name = "MODEL", num_args = 1..)]
        only: Vec<String>,
    },
}

fn day(text: &str) -> Result<String, &'static str> {
    read_day(text).map(|_| text.to_owned()).ok_or("write it like 2026-11-20")
}

/// Shows which price holds for each provider and model, or makes a table.
pub(super) fn prices(args: &PricesArgs, form: Form) -> u8 {
    match &args.verb {
        Some(PricesVerb::Import { file, as_of, only }) => imported(file, as_of, only),
        None => shown(&args.config, form),
    }
}

fn imported(file: &Path, as_of: &str, only: &[String]) -> u8 {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let read = read.and_then(|it| import(&it).map_err(|error| error.to_string()));
    let mut imported = match read {
        Ok(imported) => imported,
        Err(error) => {
            return complain(
                &format!("cannot read prices from {}: {error}", file.display()),
                FAILED,
            );
        }
    };
    let missing = if only.is_empty() { Vec::new() } else { imported.only(only) };
    let text = imported.table(as_of);
    if let Err(faults) = PriceTable::parse(&text, "the table made of it") {
        return complain(&faults.to_string(), FAILED);
    }
    say(text.trim_end());
    note(&told(&imported, &missing));
    if missing.is_empty() { DONE } else { FAILED }
}

/// What became of a file, for people.
fn told(imported: &Imported, missing: &[String]) -> String {
    let mut told = vec![format!("{} models taken", imported.models())];
    let list = |names: &[String]| {
        let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
        let more = names.len().saturating_sub(NAMES_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{more}", harmless(&shown.join(", ")))
    };
    for (why, names) in &imported.left_out {
        told.push(format!("left out, {} which {why}: {}", names.len(), list(names)));
    }
    if !imported.ignored.is_empty() {
        let each = imported.ignored.iter().map(|(key, count)| format!("{key} ({count})"));
        let each: Vec<String> = each.collect();
        told.push(format!("prices of something else, not taken: {}", each.join(", ")));
    }
    if 0 < imported.noisy {
        let noisy = imported.noisy;
        told.push(format!("{noisy} numbers had the noise of binary floats, which is taken away"));
    }
    if !imported.knows_hosts() {
        let so = "say whose prices hold by `prices = \"NAME\"` in each [provider.…]";
        told.push(format!("the file does not say at which hosts its prices hold: {so}"));
    }
    if !missing.is_empty() {
        told.push(format!("asked for and not taken: {}", list(missing)));
    }
    told.join("\n")
}

/// One line: whose, of which model, and what holds.
struct Held<'a> {
    whose: String,
    model: String,
    row: Option<&'a PriceRow>,
    from: &'static str,
}

fn shown(file: &Path, form: Form) -> u8 {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(faults) => return complain(&faults.to_string(), CONFIG_INVALID),
    };
    let now = Clock::start().now();
    let held = held(&config, now);
    match form {
        Form::Json => {
            for it in &held {
                say(&json(it).to_string());
            }
        }
        Form::Table => {
            let mut shown =
                table(&["WHOSE", "MODEL", "INPUT", "OUTPUT", "CACHE READ", "WRITE", "FROM"]);
            for Held { whose, model, row, from } in &held {
                let price = row.map(|it| it.tariff.price);
                let cell = |of: fn(&Price) -> u64| {
                    price.as_ref().map_or("unknown".to_owned(), |it| Price::show(of(it)))
                };
                let long = row.is_some_and(|it| !it.tariff.tiers.is_empty());
                let from = if long {
                    format!("{from}; long inputs cost more")
                } else {
                    (*from).to_owned()
                };
                shown.add_row([
                    whose.clone(),
                    harmless(model),
                    cell(|it| it.input),
                    cell(|it| it.output),
                    cell(|it| it.cache_read),
                    cell(|it| it.cache_write),
                    from,
                ]);
            }
            say(&lines(&shown));
            say(&age(config.price_table.as_ref(), now));
        }
    }
    DONE
}

/// What holds for every model that the configuration names.
fn held<'a>(config: &'a Config, now: Timestamp) -> Vec<Held<'a>> {
    let asked: BTreeSet<&str> =
        config.rollouts.iter().flat_map(|it| &it.plan.slice.models).map(String::as_str).collect();
    let hold = |whose: &str, prices: &'a Prices, model: &str| {
        let row = prices.of(&[model], now);
        let own = row.is_some_and(|row| prices.own.iter().any(|it| std::ptr::eq(it, row)));
        let from = match (row, own) {
            (None, _) => "",
            (Some(_), true) => "its own",
            (Some(_), false) => "the table",
        };
        Held { whose: whose.to_owned(), model: model.to_owned(), row, from }
    };
    let mut all = Vec::new();
    for provider in &config.providers {
        let mut models: BTreeSet<&str> = provider.models.iter().map(|(_, sent)| sent).collect();
        models.extend(asked.iter().map(|it| provider.models.get(it).unwrap_or(it)));
        models.extend(provider.prices.own.iter().map(|it| it.model.as_str()));
        let hold = |model| hold(provider.name.as_str(), &provider.prices, model);
        all.extend(models.into_iter().map(hold));
    }
    all.extend(config.judge.iter().map(|it| hold("judge", &it.prices, &it.model)));
    all
}

fn json(held: &Held<'_>) -> serde_json::Value {
    let price = held.row.map(|it| it.tariff.price);
    let usd = |of: fn(&Price) -> u64| price.as_ref().map(|it| Price::show(of(it)));
    json!({
        "whose": held.whose,
        "model": held.model,
        "from": held.from,
        "usd_per_mtok": price.map(|_| json!({
            "input": usd(|it| it.input),
            "output": usd(|it| it.output),
            "cache_read": usd(|it| it.cache_read),
            "cache_write": usd(|it| it.cache_write),
        })),
        "tiers": held.row.map_or(0, |it| it.tariff.tiers.len()),
    })
}

fn age(table: Option<&PriceTable>, now: Timestamp) -> String {
    let Some(table) = table else {
        return "no table of prices: `prices` at the top of the configuration names one".to_owned();
    };
    let days = now.day().saturating_sub(table.version.day());
    format!(
        "US dollars for a million tokens. {}: {} prices, {days} days old",
        table.file,
        table.len()
    )
}
