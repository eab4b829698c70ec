//! A judge that gives the judgement recorded for a pair of answers.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use hyper::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Fault, Latency, Output, Rows, Seen, Stats,
    completion::Completion,
    dice::Dice,
    opinions::{Opinions, Question},
    prompt::{self, Asked},
    reply,
    server::{CHAT_PATH, Fate, Player, Reply, Server},
};

/// A running judge: an OpenAI-compatible server for `POST /v1/chat/completions`.
///
/// The last user message of a request must hold these lines, with raw text between them
/// and `N` a text of the asker's choice that is the same in all:
///
/// ```text
/// <question nonce="N">
/// role: text                     a paragraph per message; of `user:`, the last is looked up
/// </question nonce="N">
/// <answer_1 nonce="N">
/// text                           may be cut after 200 letters or more
/// tool_call NAME ARGUMENTS       a line per tool call
/// </answer_1 nonce="N">
/// <answer_2 nonce="N">
/// …
/// </answer_2 nonce="N">
/// ```
///
/// The content of its reply is, with numbers from 0 to 10 that need not be whole:
///
/// ```text
/// {"answer_1":{"accuracy":A,"relevance":R,"tone":T},"answer_2":{…},"reason":"…"}
/// ```
///
/// Answers that are equal get equal scores. Where no row has this question with these
/// two answers and a judgement on them, it replies HTTP 404 with the type `replay_unknown`.
/// Dropped, it closes its address and all connections.
#[derive(Debug)]
pub struct JudgePlayer {
    fault: Arc<Mutex<JudgeFault>>,
    server: Server,
}

/// What is wrong with a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgeFault {
    /// Nothing.
    None,
    /// It replies with prose instead of JSON.
    Garbage,
    /// It replies HTTP 500.
    Down,
    /// It never replies.
    Hang,
    /// It prefers the first answer, whatever that is.
    AlwaysFirst,
}

struct Bench {
    opinions: Opinions,
    latency: Latency,
    fault: Arc<Mutex<JudgeFault>>,
}

impl JudgePlayer {
    /// Starts a judge without fault; port 0 takes any that is free.
    ///
    /// Rows hold no latency of judges, so [`Latency::Recorded`] means none.
    ///
    /// # Errors
    /// When the address cannot be taken.
    pub async fn start(rows: Arc<Rows>, latency: Latency, address: SocketAddr) -> io::Result<Self> {
        let fault = Arc::new(Mutex::new(JudgeFault::None));
        let bench = Bench { opinions: Opinions::new(rows), latency, fault: Arc::clone(&fault) };
        Ok(Self { fault, server: Server::start(bench, address).await? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What became of the requests so far.
    pub fn stats(&self) -> Stats {
        self.server.stats()
    }

    /// The last requests it received, at most 1000, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// Changes what is wrong with it, from the next request on.
    pub fn set_fault(&self, fault: JudgeFault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Closes its address and all connections, and waits until they are closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Player for Bench {
    async fn reply(&self, seen: &Seen) -> Reply {
        if seen.method != Method::POST || seen.path != CHAT_PATH {
            return reply::no_such_route();
        }
        let start = Instant::now();
        let asked: Asked = match serde_json::from_slice(&seen.body) {
            Ok(asked) => asked,
            Err(error) => return reply::failed(400, &format!("not a chat request: {error}")),
        };
        let text = prompt::last_user_text(&asked.messages).unwrap_or_default();
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let content = match fault {
            JudgeFault::Down => return reply::failed(500, "the judge is in trouble"),
            JudgeFault::Hang => match reply::hang().await {},
            JudgeFault::Garbage => "Both answers have their merits, I would say.".to_owned(),
            JudgeFault::AlwaysFirst => verdict((0.9, 0.4), "the first answer is better"),
            JudgeFault::None => match self.recorded(&text) {
                Ok(content) => content,
                Err(message) => return reply::unknown(message),
            },
        };
        let output = Output { content: Some(content), ..Output::default() };
        let texts = Completion::new(&asked, &text, &output).texts();
        let delays = self.latency.delays(Dice::new(0, &text), None);
        let response = reply::deliver(texts, &asked, Fault::None, (start, delays)).await;
        Reply { fate: Fate::Answered, response: Some(response) }
    }
}

impl Bench {
    fn recorded(&self, text: &str) -> Result<String, &'static str> {
        let question = Question::read(text)
            .ok_or("the prompt lacks a question and two answers with one nonce")?;
        let opinion = (self.opinions.about(&question))
            .ok_or("no row has this question with a judgement on these two answers")?;
        Ok(verdict(opinion.scores, &format!("as recorded for {}", opinion.row)))
    }
}

/// The strict form, from scores of 0 to 1.
fn verdict((first, second): (f64, f64), reason: &str) -> String {
    let marks = |score: f64| {
        let mark = (score.clamp(0.0, 1.0) * 1e5).round() / 1e4;
        json!({"accuracy": mark, "relevance": mark, "tone": mark})
    };
    json!({"answer_1": marks(first), "answer_2": marks(second), "reason": reason}).to_string()
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use hyper::{Request, StatusCode};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use serde_json::Value;

    use super::*;
    use crate::players::rows::tests::two_rows;

    const PROMPT: &str = "Compare.\n<question nonce=\"7f\">\nuser: Weather in Oslo?\n\
        </question nonce=\"7f\">\n<answer_1 nonce=\"7f\">\nIt is cold.\n\
        </answer_1 nonce=\"7f\">\n<answer_2 nonce=\"7f\">\n\
        tool_call weather {\"city\":\"Oslo, Norway\"}\n</answer_2 nonce=\"7f\">\n";

    async fn ask(judge: &JudgePlayer, prompt: &str) -> (StatusCode, Value) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let body = json!({"model": "j", "messages": [{"role": "user", "content": prompt}]});
        let request = Request::post(format!("http://{}{CHAT_PATH}", judge.address()))
            .body(Full::<bytes::Bytes>::from(body.to_string()))
            .unwrap();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    fn content(reply: &Value) -> &str {
        reply["choices"][0]["message"]["content"].as_str().unwrap()
    }

    #[tokio::test]
    async fn it_gives_the_recorded_judgement_in_the_strict_form() {
        let free = "127.0.0.1:0".parse().unwrap();
        let judge = JudgePlayer::start(two_rows(), Latency::None, free).await.unwrap();
        let (status, reply) = ask(&judge, PROMPT).await;
        assert_eq!(status, StatusCode::OK);
        let marks = |it: f64| json!({"accuracy": it, "relevance": it, "tone": it});
        let verdict: Value = serde_json::from_str(content(&reply)).unwrap();
        assert_eq!(verdict["answer_1"], marks(4.0));
        assert_eq!(verdict["answer_2"], marks(9.0));
        assert!(reply["usage"]["prompt_tokens"].as_u64().unwrap() > 10);

        let (status, reply) = ask(&judge, &PROMPT.replace("cold", "warm")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(reply["error"]["type"], "replay_unknown");
        let expected = Stats { requests: 2, answered: 1, errors: 0, unknown: 1 };
        assert_eq!(judge.stats(), expected);
    }

    #[tokio::test]
    async fn its_faults_can_be_switched_while_it_runs() {
        let free = "127.0.0.1:0".parse().unwrap();
        let judge = JudgePlayer::start(two_rows(), Latency::None, free).await.unwrap();
        judge.set_fault(JudgeFault::Garbage);
        let (_, reply) = ask(&judge, PROMPT).await;
        assert!(serde_json::from_str::<Value>(content(&reply)).is_err());
        judge.set_fault(JudgeFault::AlwaysFirst);
        let (_, reply) = ask(&judge, PROMPT).await;
        assert!(content(&reply).starts_with(r#"{"answer_1":{"accuracy":9.0"#), "{reply}");
        judge.set_fault(JudgeFault::Down);
        assert_eq!(ask(&judge, PROMPT).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
