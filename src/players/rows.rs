//! All recorded prompts, found again by what a request asks.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Row, prompt};

/// Recorded prompts, at least one unless made of nothing by [`Rows::join`].
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    by_prompt: HashMap<String, Vec<usize>>,
}

/// How an answer is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As one JSON object.
    Whole,
    /// As server-sent events, tokens told at the end.
    Stream,
}

/// Why rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The file cannot be read.
    #[error("could not read rows from `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A line is not a row.
    #[error("`{name}` line {line} is not a row with id, primary, messages and outputs")]
    Line {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
    /// A row has nothing to know its request by.
    #[error("`{name}` line {line} has no user message with text, by which requests are known")]
    NoUserText {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// There is nothing to play.
    #[error("`{name}` holds no rows: write one JSON object per line")]
    Empty {
        /// The file.
        name: String,
    },
}

impl Rows {
    /// Reads the rows of a file.
    ///
    /// # Errors
    /// When the file cannot be read, has a bad line, or has no row.
    pub fn load(path: &Path) -> Result<Self, RowsError> {
        let text = fs::read_to_string(path)
            .map_err(|error| RowsError::Read { path: path.to_owned(), error })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads rows from text, one JSON object per line; blank lines are skipped.
    ///
    /// # Errors
    /// When a line is bad (named by `name` and its number), or there is no row.
    pub fn parse(text: &str, name: &str) -> Result<Self, RowsError> {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let rows =
            lines.map(|(line, json)| read(name, line, json)).collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() {
            return Err(RowsError::Empty { name: name.to_owned() });
        }
        Ok(Self::from_rows(rows))
    }

    /// All rows of all parts, in order.
    pub fn join(parts: Vec<Self>) -> Self {
        Self::from_rows(parts.into_iter().flat_map(|it| it.rows).collect())
    }

    /// The rows with one more model: `name` answers as the first of `models` that a row has.
    ///
    /// So a player can stand for several recorded models when rows come from several files.
    #[must_use]
    pub fn with_alias(mut self, name: &str, models: &[String]) -> Self {
        for row in &mut self.rows {
            let output = models.iter().find_map(|it| row.outputs.get(it)).cloned();
            if let Some(output) = output {
                row.outputs.insert(name.to_owned(), output);
            }
        }
        self
    }

    /// Indexes rows; those without user text are never found.
    pub(super) fn from_rows(rows: Vec<Row>) -> Self {
        let mut by_prompt: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            if let Some(key) = prompt::key(&row.messages, &row.tools) {
                by_prompt.entry(key).or_default().push(index);
            }
        }
        Self { rows, by_prompt }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at this place, from 0.
    pub fn get(&self, index: usize) -> Option<&Row> {
        self.rows.get(index)
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// The names of all models with an answer somewhere.
    pub fn models(&self) -> BTreeSet<&str> {
        self.rows.iter().flat_map(|it| it.outputs.keys()).map(String::as_str).collect()
    }

    /// The body of a chat completion request that asks what this row asks.
    pub fn request(&self, index: usize, model: &str, delivery: Delivery) -> Option<Value> {
        let row = self.rows.get(index)?;
        let mut body = json!({"model": model, "messages": row.messages});
        if !row.tools.is_empty() {
            body["tools"] = json!(row.tools);
        }
        if delivery == Delivery::Stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        Some(body)
    }

    /// The first row with this key that the model answered.
    pub(super) fn find(&self, key: &str, model: &str) -> Option<&Row> {
        let mut rows = self.by_prompt.get(key)?.iter().filter_map(|index| self.rows.get(*index));
        rows.find(|row| row.outputs.contains_key(model))
    }

    /// The median of the model's recorded latencies, in seconds.
    pub(super) fn latency_s_median(&self, model: &str) -> Option<f64> {
        let outputs = self.rows.iter().filter_map(|row| row.outputs.get(model));
        let mut seconds: Vec<f64> = outputs.filter_map(|it| it.latency_s).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied()
    }
}

fn read(name: &str, line: usize, json: &str) -> Result<Row, RowsError> {
    let row: Row = serde_json::from_str(json).map_err(|error| RowsError::Line {
        name: name.to_owned(),
        line,
        error,
    })?;
    if prompt::key(&row.messages, &row.tools).is_none() {
        return Err(RowsError::NoUserText { name: name.to_owned(), line });
    }
    Ok(row)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// Two rows: a text answered by three models, and a tool call.
    pub(in crate::players) fn two_rows() -> Arc<Rows> {
        let long = "word ".repeat(120);
        let text = json!({
            "id": "text", "primary": "big",
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "outputs": {
                "big": format!("Because of Rayleigh scattering. {long}"),
                "small": "It reflects\n the sea.",
                "broken": {"error": "Internal error occurred."},
            },
            "judge": {"kind": "pairwise_vs_primary", "by_model": {"small": {"pref": 0.2}}},
        });
        let call = json!({
            "id": "call", "primary": "big",
            "messages": [{"role": "user", "content": "Weather in Oslo?"}],
            "tools": [{"type": "function", "function": {"name": "weather"}}],
            "outputs": {
                "big": {
                    "tool_calls": [{"name": "weather", "arguments": "{\"city\":\"Oslo, Norway\"}"}],
                    "latency_s": 0.4, "in_tokens": 50, "out_tokens": 9,
                },
                "small": {"content": "It is cold."},
            },
            "judge": {"by_model": {"big": {"score": 0.9}, "small": {"score": 0.4}}},
        });
        Arc::new(Rows::parse(&format!("{text}\n\n{call}\n"), "test").unwrap())
    }

    /// A file of recorded rows, where the shared data is at hand.
    pub(in crate::players) fn recorded(file: &str) -> Option<Arc<Rows>> {
        let data = std::env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
        let path = Path::new(&data).join(file);
        if !path.exists() {
            println!("skipped: no recorded rows at {}", path.display());
            return None;
        }
        Some(Arc::new(Rows::load(&path).unwrap()))
    }

    #[test]
    fn a_request_is_found_again_by_its_prompt() {
        let rows = two_rows();
        for index in 0..rows.len() {
            let body = rows.request(index, "any", Delivery::Stream).unwrap();
            let asked: prompt::Asked = serde_json::from_value(body).unwrap();
            let found = rows.find(&asked.key().unwrap(), "big").unwrap();
            assert_eq!(found.id, rows.get(index).unwrap().id);
        }
        assert!(rows.find("Why is the sky blue?", "nobody").is_none());
    }

    #[test]
    fn a_bad_line_is_named_with_its_place() {
        let good =
            r#"{"id":"a","primary":"p","messages":[{"role":"user","content":"x"}],"outputs":{}}"#;
        let message = |text: &str| Rows::parse(text, "mine.jsonl").unwrap_err().to_string();
        assert!(message(&format!("{good}\n\n{{\"id\":1}}")).contains("`mine.jsonl` line 3"));
        assert!(message(&good.replace("user", "system")).contains("line 1 has no user message"));
        assert!(message("\n").contains("holds no rows"));
    }

    #[test]
    fn joined_rows_are_all_found() {
        let joined = Rows::join(vec![(*two_rows()).clone(), (*two_rows()).clone()]);
        assert_eq!(joined.len(), 4);
        assert!(joined.find("Weather in Oslo?\nweather", "small").is_some());
        assert_eq!(joined.models(), BTreeSet::from(["big", "broken", "small"]));
    }

    #[test]
    fn every_recorded_row_is_known_again() {
        for file in ["pairs/alpaca.jsonl", "pairs/gsm8k.jsonl", "tools/bfcl.jsonl"] {
            let Some(rows) = recorded(file) else { return };
            for row in rows.iter() {
                let key = prompt::key(&row.messages, &row.tools).unwrap();
                let model = row.outputs.keys().next().unwrap();
                assert_eq!(rows.find(&key, model).unwrap().id, row.id);
            }
        }
    }
}
