//! Rows made up for a demonstration: a support desk, its tools, and models of known quality.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Output, RecordedCall, Row, Rows,
    dice::Dice,
    row::{Judge, Mark},
};

const PRODUCTS: [&str; 8] = [
    "coffee grinder",
    "desk lamp",
    "rain jacket",
    "bicycle pump",
    "water filter",
    "keyboard",
    "travel bag",
    "garden hose",
];
const TROUBLES: [&str; 6] = [
    "arrived with a crack",
    "stopped working",
    "is the wrong colour",
    "has a part missing",
    "makes a loud noise",
    "was charged twice",
];
const WISHES: [&str; 5] = [
    "Can I get my money back?",
    "Please send me a new one.",
    "What should I do now?",
    "How do I return it?",
    "I would like to speak to somebody.",
];
const OPENINGS: [&str; 5] = [
    "I am sorry about that.",
    "Thank you for telling us.",
    "That should not have happened.",
    "I understand how annoying this is.",
    "Let us put this right.",
];
const STEPS: [&str; 5] = [
    "I have opened a case for you and attached your order.",
    "You can send it back free of charge within 30 days.",
    "A replacement leaves our warehouse tomorrow.",
    "The amount will be on your card within five working days.",
    "If you can, reply with a photo so that we can check the batch.",
];
const CLOSINGS: [&str; 4] = [
    "Is there anything else I can do?",
    "You will get a mail with all details.",
    "Thank you for your patience.",
    "Have a good day.",
];
/// Every so many rows, one asks for something only a tool can tell.
const TOOL_ROW_EVERY: usize = 5;
/// How much the difficulty of a prompt moves the scores of all models (standard deviation).
const PROMPT_NOISE: f64 = 0.06;
/// How much a model's answers differ in worth among themselves (standard deviation).
const ANSWER_NOISE: f64 = 0.05;
/// Median of the made-up latencies, in seconds, and the deviation of their logarithm.
const LATENCY_S: (f64, f64) = (0.6, 0.4);

/// A model to make answers for.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticModel {
    /// Its name.
    pub name: String,
    /// The mean score of its answers, 0 to 1.
    pub quality: f64,
}

/// Makes rows of distinct prompts. The first model is the primary.
///
/// Scores lie around each model's quality and share the difficulty of their prompt. The
/// same arguments make the same rows.
pub fn synthetic(count: usize, seed: u64, models: &[SyntheticModel]) -> Rows {
    Rows::from_rows((0..count).map(|index| row(index, seed, models)).collect())
}

fn row(index: usize, seed: u64, models: &[SyntheticModel]) -> Row {
    let id = format!("demo-{index}");
    let mut dice = Dice::new(seed, &id);
    let prompt_noise = PROMPT_NOISE * dice.normal();
    let by_tool = index % TOOL_ROW_EVERY == TOOL_ROW_EVERY - 1;
    let order = 100_000 + index;
    let product = dice.pick(&PRODUCTS);
    let text = if by_tool {
        format!("Where is my {product} now? The order number is {order}.")
    } else {
        let (trouble, wish) = (dice.pick(&TROUBLES), dice.pick(&WISHES));
        format!("My {product} {trouble} (order {order}). {wish}")
    };
    let mut row = Row {
        primary: models.first().map(|it| it.name.clone()).unwrap_or_default(),
        messages: vec![
            json!({"role": "system", "content": "You work at the support desk of a small shop."}),
            json!({"role": "user", "content": text}),
        ],
        tools: if by_tool { vec![order_tool()] } else { Vec::new() },
        outputs: BTreeMap::new(),
        judge: Judge::default(),
        verdict: BTreeMap::new(),
        id,
    };
    for model in models {
        let mut dice = Dice::new(seed, &format!("{}/{}", row.id, model.name));
        let mut score = model.quality + prompt_noise + ANSWER_NOISE * dice.normal();
        let mut output = if by_tool { call(order) } else { answer(&mut dice) };
        // A weak model now and then calls with the order number of somebody else.
        if by_tool && model.quality < dice.unit() {
            (output, score) = (call(order + 1), 0.1);
        } else if by_tool {
            score = 0.95;
        }
        output.latency_s = Some(LATENCY_S.0 * (LATENCY_S.1 * dice.normal()).exp());
        let mark = Mark::score(score.clamp(0.0, 1.0));
        row.outputs.insert(model.name.clone(), output);
        row.judge.by_model.insert(model.name.clone(), mark);
    }
    row
}

/// An answer that no other model gives, nor one nearly the same, as it holds long numbers.
fn answer(dice: &mut Dice) -> Output {
    let (opening, closing) = (dice.pick(&OPENINGS), dice.pick(&CLOSINGS));
    let (step, case) = (dice.pick(&STEPS), dice.roll());
    let label: Vec<String> = (0..10).map(|_| format!("{:016x}", dice.roll())).collect();
    let label = label.concat();
    let content = format!(
        "{opening} {step} Your case is C-{case:016x}, and the label to send it back {label}. {closing}"
    );
    Output { content: Some(content), ..Output::default() }
}

fn call(order: usize) -> Output {
    let arguments = json!({"order": order}).to_string();
    let call = RecordedCall { name: "order_status".to_owned(), arguments };
    Output { tool_calls: vec![call], ..Output::default() }
}

fn order_tool() -> Value {
    json!({
        "type": "function",
        "function": {
            "name": "order_status",
            "description": "Tells where an order is.",
            "parameters": {
                "type": "object",
                "properties": {"order": {"type": "integer", "description": "The order number."}},
                "required": ["order"],
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::players::prompt;

    fn models() -> Vec<SyntheticModel> {
        let model = |name: &str, quality| SyntheticModel { name: name.to_owned(), quality };
        vec![model("big", 0.85), model("small", 0.6)]
    }

    #[test]
    fn prompts_and_answers_are_distinct_and_repeatable() {
        let rows = synthetic(1_000, 7, &models());
        let keys: BTreeSet<_> =
            rows.iter().map(|it| prompt::key(&it.messages, &it.tools).unwrap()).collect();
        assert_eq!(keys.len(), 1_000);
        let again = synthetic(1_000, 7, &models());
        for (row, same) in rows.iter().zip(again.iter()) {
            assert_eq!(row.outputs, same.outputs);
            assert!(!row.tools.is_empty() || row.outputs["big"] != row.outputs["small"]);
        }
    }

    #[test]
    fn scores_lie_around_the_quality_of_the_model() {
        let rows = synthetic(2_000, 7, &models());
        for model in models() {
            let texts = rows.iter().filter(|it| it.tools.is_empty());
            let sum: f64 = texts.map(|it| it.score(&model.name).unwrap()).sum();
            assert!((sum / 1_600.0 - model.quality).abs() < 0.02, "{} {sum}", model.name);
        }
    }
}
