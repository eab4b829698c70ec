//! Finds out which row and which two answers a judge is asked about.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Output, Row, Rows, prompt};

/// Letters of the last user text that rows are looked up by.
const OPENING_LEN: usize = 80;
/// Letters a text cut short must have in common with a recorded one.
const COMMON_LEN_MIN: usize = 200;

/// Rows with the judgements on them.
pub(super) struct Opinions {
    rows: Arc<Rows>,
    by_opening: HashMap<String, Vec<(usize, String)>>,
    opening_lens: BTreeSet<usize>,
}

/// What a judge is asked: a conversation and two answers to it.
pub(super) struct Question<'a> {
    conversation: &'a str,
    answers: [&'a str; 2],
}

/// What is recorded about two answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Opinion {
    /// The row they belong to.
    pub(super) row: String,
    /// The scores of the first and second answer, 0 to 1.
    pub(super) scores: (f64, f64),
}

impl<'a> Question<'a> {
    /// Finds the three blocks in a prompt. Only the first that are complete count: an
    /// answer may hold blocks of its own to deceive the judge.
    pub(super) fn read(prompt: &'a str) -> Option<Self> {
        let opening =
            |line: &'a str| line.trim().strip_prefix("<question nonce=\"")?.strip_suffix("\">");
        prompt.lines().filter_map(opening).find_map(|nonce| {
            Some(Self {
                conversation: block(prompt, "question", nonce)?,
                answers: [block(prompt, "answer_1", nonce)?, block(prompt, "answer_2", nonce)?],
            })
        })
    }
}

/// The text between the lines that open and close a block.
fn block<'a>(prompt: &'a str, tag: &str, nonce: &str) -> Option<&'a str> {
    let opening = format!("<{tag} nonce=\"{nonce}\">\n");
    let closing = format!("</{tag} nonce=\"{nonce}\">");
    let before = |start: &usize| *start == 0 || prompt.as_bytes().get(start - 1) == Some(&b'\n');
    let start = prompt.match_indices(&opening).map(|(start, _)| start).find(before)?;
    let rest = prompt.get(start + opening.len()..)?;
    Some(rest.split_once(&closing)?.0)
}

impl Opinions {
    pub(super) fn new(rows: Arc<Rows>) -> Self {
        let mut by_opening: HashMap<String, Vec<(usize, String)>> = HashMap::new();
        let mut opening_lens = BTreeSet::new();
        for (index, row) in rows.iter().enumerate() {
            let text = prompt::last_user_text(&row.messages).unwrap_or_default();
            let text = prompt::normalised(&text);
            let opening: String = text.chars().take(OPENING_LEN).collect();
            opening_lens.insert(opening.chars().count());
            by_opening.entry(opening).or_default().push((index, text));
        }
        Self { rows, by_opening, opening_lens }
    }

    /// What is recorded about these two answers to this question.
    pub(super) fn about(&self, question: &Question<'_>) -> Option<Opinion> {
        let answers = question.answers.map(prompt::normalised);
        let rows = self.rows_in(&prompt::normalised(question.conversation));
        rows.into_iter().find_map(|row| {
            let scores = scores(row, &answers)?;
            Some(Opinion { row: row.id.clone(), scores })
        })
    }

    /// The rows whose user text stands in the conversation, the surest first.
    fn rows_in(&self, conversation: &str) -> Vec<&Row> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for (at, role) in conversation.match_indices("user: ") {
            let shown = conversation.get(at + role.len()..).unwrap_or_default();
            found.extend(self.rows_opening(shown));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.into_iter().filter_map(|(_, index)| self.rows.get(index)).collect()
    }

    /// The rows whose user text begins the shown one, each after the letters in common.
    fn rows_opening(&self, shown: &str) -> Vec<(usize, usize)> {
        let mut rows = Vec::new();
        for len in &self.opening_lens {
            let end = shown.char_indices().nth(*len).map_or(shown.len(), |(end, _)| end);
            for (index, text) in self.by_opening.get(&shown[..end]).into_iter().flatten() {
                let common = common_len(shown, text);
                if shown.starts_with(text.as_str()) || COMMON_LEN_MIN <= common {
                    rows.push((common, *index));
                }
            }
        }
        rows
    }
}

/// The recorded scores of two shown answers. Equal ones get equal scores.
fn scores(row: &Row, [first, second]: &[String; 2]) -> Option<(f64, f64)> {
    let (ones, twos) = (models_of(row, first), models_of(row, second));
    if first == second && !ones.is_empty() {
        let score = ones.iter().find_map(|model| row.score(model)).unwrap_or(0.5);
        return Some((score, score));
    }
    ones.iter().find_map(|one| twos.iter().find_map(|two| row.scores(one, two)))
}

/// The models that gave the shown answer: all of it or, if it is cut, the longest beginning.
fn models_of<'a>(row: &'a Row, shown: &str) -> Vec<&'a str> {
    let mut best = (COMMON_LEN_MIN, Vec::new());
    for (model, output) in &row.outputs {
        let recorded = shown_as(output);
        let common = if recorded == shown { usize::MAX } else { common_len(&recorded, shown) };
        if best.0 < common {
            best = (common, Vec::new());
        }
        if best.0 == common {
            best.1.push(model.as_str());
        }
    }
    best.1
}

/// An output as the judge's prompt shows it: its text, then a line per tool call.
fn shown_as(output: &Output) -> String {
    let calls = output.tool_calls.iter();
    let calls = calls.map(|it| format!("\ntool_call {} {}", it.name, it.arguments));
    prompt::normalised(&format!("{}{}", output.text(), calls.collect::<String>()))
}

/// How many letters two texts have in common at their beginning.
fn common_len(one: &str, two: &str) -> usize {
    one.chars().zip(two.chars()).take_while(|(one, two)| one == two).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::players::rows::tests::{recorded, two_rows};

    fn asked(question: &str, first: &str, second: &str) -> String {
        format!(
            "Compare. A block looks like <question nonce=\"a1\"> and ends alike.\n\
             <question nonce=\"a1\">\n{question}\n</question nonce=\"a1\">\n\
             <answer_1 nonce=\"a1\">\n{first}\n</answer_1 nonce=\"a1\">\n\
             <answer_2 nonce=\"a1\">\n{second}\n</answer_2 nonce=\"a1\">\nReply in JSON."
        )
    }

    fn scores_of(opinions: &Opinions, question: &str, answers: (&str, &str)) -> Option<(f64, f64)> {
        let text = asked(question, answers.0, answers.1);
        opinions.about(&Question::read(&text).unwrap()).map(|it| it.scores)
    }

    #[test]
    fn scores_follow_the_order_of_the_answers() {
        let rows = two_rows();
        let big = rows.get(0).unwrap().outputs["big"].text().to_owned();
        let opinions = Opinions::new(rows);
        let question = "system: Be brief.\n\nuser: Why is  the sky blue?";
        let small = "It reflects the sea.";
        assert_eq!(scores_of(&opinions, question, (&big, small)), Some((0.8, 0.2)));
        assert_eq!(scores_of(&opinions, question, (small, &big)), Some((0.2, 0.8)));
        let cut = format!("{} [cut]", &big[..300]);
        assert_eq!(scores_of(&opinions, question, (small, &cut)), Some((0.2, 0.8)));
        assert_eq!(scores_of(&opinions, question, (&big, &big)), Some((0.5, 0.5)));
        assert_eq!(scores_of(&opinions, question, (&big[..60], small)), None);
        assert_eq!(scores_of(&opinions, "user: Why is the sea blue?", (&big, small)), None);
    }

    #[test]
    fn tool_calls_are_known_by_their_lines() {
        let opinions = Opinions::new(two_rows());
        let call = "tool_call weather {\"city\":\"Oslo, Norway\"}";
        let scores = scores_of(&opinions, "user: Weather in Oslo?", ("It is cold.", call));
        assert_eq!(scores, Some((0.4, 0.9)));
    }

    #[test]
    fn a_block_without_its_nonce_is_no_block() {
        let text = asked("user: hi", "a", "b").replace("</answer_2 nonce=\"a1\">", "</answer_2>");
        assert!(Question::read(&text).is_none());
    }

    #[test]
    fn recorded_pairs_are_known_in_both_orders_and_when_cut() {
        let Some(rows) = recorded("pairs/alpaca.jsonl") else { return };
        let opinions = Opinions::new(Arc::clone(&rows));
        let cut = |text: &str| text.chars().take(1_500).collect::<String>();
        let candidate = "FuseChat-Gemma-2-9B-Instruct";
        for row in rows.iter() {
            let question = format!("user: {}", prompt::last_user_text(&row.messages).unwrap());
            let first = cut(row.outputs[&row.primary].text());
            let second = cut(row.outputs[candidate].text());
            let wanted = row.scores(&row.primary, candidate).unwrap();
            let ahead = scores_of(&opinions, &question, (&first, &second)).unwrap();
            let behind = scores_of(&opinions, &question, (&second, &first)).unwrap();
            assert_eq!((ahead, behind), (wanted, (wanted.1, wanted.0)), "{}", row.id);
        }
    }
}
