//! `explain --request` and `feedback`: why a request went where it went, and what came of it.

use super::{
    Exit, Problem,
    commands::{FeedbackArgs, Global, Output},
    ladder,
    out::{Out, harmless},
    pairs::line,
};
use crate::api::{Client, proto};

/// One request: in words, with the facts that mattered.
pub(super) async fn explain(
    client: &mut Client,
    out: &mut Out,
    request_id: String,
) -> Result<Exit, Problem> {
    let told = client.explain_request(proto::ExplainRequestRequest { request_id }).await?;
    match out.output() {
        Output::Json => out.json("ExplainRequestResponse", &told)?,
        Output::Table => out.data(&picture(&told))?,
    }
    Ok(Exit::Done)
}

/// What an answer is worth.
pub(super) async fn feedback(
    client: &mut Client,
    out: &mut Out,
    args: FeedbackArgs,
    global: &Global,
) -> Result<Exit, Problem> {
    let told = client
        .submit_feedback(proto::SubmitFeedbackRequest {
            served_request_id: args.request,
            score: args.score,
            signal: args.signal,
            comment: String::new(),
            request_id: global.request_id.clone().unwrap_or_default(),
        })
        .await?;
    let provider = ladder::short(&told.provider);
    match (out.output(), told.not_counted.as_str()) {
        (Output::Json, _) => out.json("SubmitFeedbackResponse", &told)?,
        (Output::Table, "") => out.note(&format!(
            "✔ it counts for {provider}, as the first of its conversation or user"
        ))?,
        (Output::Table, why) => out.note(&format!("· it does not count: {}", harmless(why)))?,
    }
    Ok(Exit::Done)
}

fn picture(told: &proto::ExplainRequestResponse) -> String {
    let mut lines = vec![format!("{}   {}", told.request_id, ladder::moment(told.create_time))];
    if 0 < told.attempt {
        let (attempt, stage) = (told.attempt, told.stage_index + 1);
        let rollout = ladder::short(&told.rollout);
        lines.push(format!("rollout    {rollout}   attempt {attempt} stage {stage}"));
    }
    let marks = [
        ("feature", &told.feature),
        ("segment", &told.segment),
        ("task", &told.task),
        ("model", &told.model),
        ("data", &told.data_classes.join(", ")),
    ];
    let marks = marks.into_iter().filter(|(_, mark)| !mark.is_empty());
    lines.extend(marks.map(|(name, mark)| format!("{name:<10} {}", harmless(mark))));
    lines.extend(told.primary.as_ref().map(|it| line("primary", it)));
    lines.extend(told.candidate.as_ref().map(|it| line("candidate", it)));
    lines.push(String::new());
    lines.extend(told.explanation.iter().map(|it| harmless(it)));
    lines.join("\n")
}
