//! Checks of the code itself: who may use whom, and how long things may get.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The layers. A row may use only rows above it; this table is the whole rule.
#[rustfmt::skip]
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain",     &[]),
    ("analysis",   &["domain"]),
    ("dialect",    &["domain"]),
    ("patterns",   &[]),
    ("clock",      &["domain"]),
    ("tasks",      &[]),
    ("memory",     &["domain"]),
    ("telemetry",  &["domain"]),
    ("config",     &["domain", "patterns"]),
    ("listeners",  &["tasks", "config"]),
    ("store",      &["domain"]),
    ("upstream",   &["domain", "clock", "tasks", "telemetry", "config"]),
    ("traffic",    &["domain", "analysis", "clock", "memory"]),
    ("controller", &["domain", "analysis", "clock", "tasks", "telemetry", "store", "traffic"]),
    ("judge",      &["domain", "patterns", "clock", "tasks", "memory", "telemetry", "config", "store", "upstream",
                     "traffic"]),
    ("proxy",      &["domain", "dialect", "patterns", "clock", "tasks", "memory", "telemetry", "listeners", "store",
                     "upstream", "traffic"]),
    ("api",        &["domain", "analysis", "dialect", "tasks", "telemetry", "config", "listeners", "store", "traffic",
                     "controller"]),
    ("operations", &["domain", "tasks", "memory", "telemetry", "listeners", "store", "upstream", "controller", "api"]),
    ("app",        &["domain", "patterns", "clock", "tasks", "memory", "telemetry", "config", "listeners", "store",
                     "upstream", "traffic", "controller", "judge", "proxy", "operations", "api"]),
    ("golden",     &["domain", "analysis", "dialect", "patterns", "clock", "tasks", "config", "store", "upstream"]),
    ("players",    &["domain", "clock", "tasks"]),
    ("rehearsal",  &["domain", "clock", "tasks", "config", "listeners", "api", "app", "players"]),
    ("simulate",   &["domain", "analysis", "config", "store"]),
    ("scenario",   &["domain", "analysis", "config"]),
    ("cli",        &["domain", "clock", "tasks", "telemetry", "config", "listeners", "store", "api", "app", "golden",
                     "players", "rehearsal", "simulate", "scenario"]),
];

/// Crates that only some modules may name, and why there is more than one home.
#[rustfmt::skip]
const HOME: &[(&str, &[&str])] = &[
    ("sled",              &["store"]),
    ("zstd",              &["store", "dialect"]), // compressed bodies on disk and on the wire
    ("crc32fast",         &["store"]),
    ("flate2",            &["dialect"]),
    ("brotli_decompressor", &["dialect"]),
    ("statrs",            &["analysis"]),
    ("tonic",             &["api"]),
    ("prost",             &["api"]),
    ("tiktoken_rs",       &["dialect"]),
    ("regex",             &["patterns"]),
    ("memchr",            &["patterns"]),         // what `regex` itself looks for bytes with
    ("reqwest",           &["judge", "upstream"]), // off the hot path: judge and health checks; callers go by hyper's own client
    ("hyper_rustls",      &["upstream"]),
    ("webpki_roots",      &["upstream"]),
    ("httpdate",          &["upstream"]),         // what Retry-After may be written as
    ("tokio_rustls",      &["config", "upstream", "proxy"]), // a certificate is checked where it is configured
    ("hyper",             &["upstream", "proxy", "operations", "golden", "players", "api"]),
    ("prometheus_client", &["telemetry"]),
    ("clap",              &["cli"]),
    ("rustix",            &["listeners", "store", "proxy", "cli"]), // keys as they are pressed
    ("listenfd",          &["listeners"]),
    ("sd_notify",         &["listeners"]),
    ("jsonschema",        &["dialect"]),
    ("whatlang",          &["dialect"]),
    ("jiff",              &["domain"]),           // zones for freezes: its tz database is compiled in, so it stays pure
    ("toml",              &["config", "rehearsal"]),
];

/// Modules that must stay free of effects.
const PURE: &[&str] = &["domain", "analysis", "dialect", "patterns"];
const EFFECTS: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "async fn",
    ".await",
];

const FILE_LINES_MAX: usize = 500;

#[test]
fn tidy() {
    let mut faults = Vec::new();
    for path in rust_files(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        check(&path, &text, &mut faults);
    }
    order(&fs::read_to_string("src/lib.rs").unwrap(), &mut faults);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn check(path: &Path, text: &str, faults: &mut Vec<String>) {
    let module = module_of(path);
    if !text.starts_with("//!") {
        faults.push(format!("{}:1: begin with `//!`: what is this file for?", path.display()));
    }
    let lines = text.lines().count();
    if FILE_LINES_MAX < lines {
        faults
            .push(format!("{}: {lines} lines; split it (limit {FILE_LINES_MAX})", path.display()));
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else { return };
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        let at = format!("{}:{}", path.display(), index + 1);
        for (other, _) in MAY_USE {
            if *other != module
                && code.contains(&format!("crate::{other}"))
                && !allowed.contains(other)
            {
                faults.push(format!("{at}: `{module}` may not use `{other}`"));
            }
        }
        if code.contains("crate::{") || code.contains("super::super") {
            faults.push(format!("{at}: write `use crate::<module>::…`, one module a line"));
        }
        for (krate, homes) in HOME {
            if !homes.contains(&module.as_str()) && names(code, krate) {
                faults.push(format!("{at}: only {homes:?} may name `{krate}`"));
            }
        }
        for effect in EFFECTS {
            if PURE.contains(&module.as_str()) && code.contains(effect) {
                faults.push(format!("{at}: `{module}` is pure, `{effect}` is not"));
            }
        }
    }
}

/// Whether a line names a crate's path, and not another one that ends alike.
fn names(code: &str, krate: &str) -> bool {
    code.match_indices(&format!("{krate}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|it| it.is_alphanumeric() || it == '_' || it == ':')
    })
}

/// `lib.rs` must list modules in the table's order, and the table must not look down.
fn order(lib: &str, faults: &mut Vec<String>) {
    let listed: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let ranked: Vec<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    if listed != ranked {
        faults.push(format!("src/lib.rs lists {listed:?}, the table says {ranked:?}"));
    }
    for (rank, (name, uses)) in MAY_USE.iter().enumerate() {
        for used in *uses {
            if !ranked[..rank].contains(used) {
                faults.push(format!("tidy.rs: `{name}` uses `{used}`, which is not above it"));
            }
        }
    }
}

/// The first folder or file below `src`.
fn module_of(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_string_lossy().into_owned();
    first.strip_suffix(".rs").map(str::to_owned).unwrap_or(first)
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
