//! What is taken over plain HTTP as well: feedback, from applications without gRPC.

use serde::Deserialize;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{errors, pairs::Pairs, proto};

/// What an application says of an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackJson {
    /// The `x-crossfade-request-id` of the answer.
    response_id: String,
    /// 0 to 1; or a thumb instead.
    score: Option<f64>,
    thumb: Option<Thumb>,
    #[serde(default)]
    signal: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    idempotency_key: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Thumb {
    Up,
    Down,
}

impl Pairs {
    /// Takes feedback as JSON; the HTTP status and the JSON it is answered with.
    pub async fn feedback_json(&self, body: &[u8]) -> (u16, String) {
        let given = match read(body) {
            Ok(asked) => self.feedback(asked).await,
            Err(status) => Err(status),
        };
        match given {
            Ok(told) => {
                let json = json!({ "provider": told.provider, "not_counted": told.not_counted });
                (200, json.to_string())
            }
            Err(status) => (http_status(status.code()), error(&status)),
        }
    }
}

fn read(body: &[u8]) -> Result<proto::SubmitFeedbackRequest, Status> {
    let read: FeedbackJson = serde_json::from_slice(body).map_err(|error| {
        let problem = format!(
            "not feedback: {error}; write {{\"response_id\": \"…\", \"thumb\": \"up\"}}, or a \
             `score` from 0 to 1, with `signal`, `comment` and `idempotency_key` if you like"
        );
        errors::argument("body", &problem)
    })?;
    let score = match (read.score, read.thumb) {
        (Some(score), None) => score,
        (None, Some(Thumb::Up)) => 1.0,
        (None, Some(Thumb::Down)) => 0.0,
        (Some(_), Some(_)) | (None, None) => {
            return Err(errors::argument("score", "give one of `score` and `thumb`"));
        }
    };
    Ok(proto::SubmitFeedbackRequest {
        served_request_id: read.response_id,
        score,
        signal: read.signal,
        comment: read.comment,
        request_id: read.idempotency_key,
    })
}

/// What went wrong, as the services tell it.
fn error(status: &Status) -> String {
    let info = status.get_details_error_info();
    let (reason, mut metadata) = info.map(|it| (it.reason, it.metadata)).unwrap_or_default();
    let hint = metadata.remove("hint").unwrap_or_default();
    let error = json!({ "reason": reason, "message": status.message(), "hint": hint });
    json!({ "error": error }).to_string()
}

fn http_status(code: Code) -> u16 {
    match code {
        Code::InvalidArgument => 400,
        Code::NotFound => 404,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        _ => 500,
    }
}
