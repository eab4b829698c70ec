//! A model on a raw socket that says what a function of ours says: a judge, or a candidate.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use crate::breaker::stub;

/// What a model says to a body.
type Says = dyn Fn(&Value) -> String + Send + Sync;

/// A model that says what a function says.
pub(crate) struct Thinker {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Thinker {
    /// One that calls itself `name` in its answers.
    pub(crate) async fn start(
        name: &'static str,
        says: impl Fn(&Value) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (says, seen): (Arc<Says>, _) = (Arc::new(says), Arc::default());
        let memory: Arc<Mutex<Vec<Value>>> = Arc::clone(&seen);
        crossfade::tasks::spawn("thinker", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (says, memory) = (Arc::clone(&says), Arc::clone(&memory));
                crossfade::tasks::spawn("thinker connection", async move {
                    answer(stream, name, (&*says, &memory)).await;
                });
            }
        });
        Self { address, seen }
    }

    /// A judge that gives each answer it is shown a mark from 0 to 10, by its text.
    pub(crate) async fn judge(mark: impl Fn(&str) -> f64 + Send + Sync + 'static) -> Self {
        Self::start("thinker-1", move |body| {
            let marks = |text: &str| {
                let mark = mark(text);
                json!({ "accuracy": mark, "relevance": mark, "tone": mark })
            };
            let mut said: serde_json::Map<String, Value> =
                shown(body).into_iter().map(|(tag, text)| (tag, marks(&text))).collect();
            said.insert("reason".to_owned(), json!("so it is"));
            Value::from(said).to_string()
        })
        .await
    }

    /// The body of every request.
    pub(crate) fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

/// The answers that a judge is shown, each with its tag.
pub(crate) fn shown(body: &Value) -> Vec<(String, String)> {
    let text = body["messages"][1]["content"].as_str().unwrap();
    let nonce = text.split('"').nth(1).unwrap();
    let block = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag} nonce=\"{nonce}\">\n"))?;
        let (inside, _) = rest.split_once(&format!("\n</{tag} nonce=\"{nonce}\">"))?;
        Some((tag.to_owned(), inside.to_owned()))
    };
    ["answer", "answer_1", "answer_2"].into_iter().filter_map(block).collect()
}

async fn answer(mut stream: TcpStream, name: &str, (says, seen): (&Says, &Mutex<Vec<Value>>)) {
    while let Some(body) = request(&mut stream).await {
        let content = says(&body);
        seen.lock().unwrap().push(body);
        let message = json!({ "role": "assistant", "content": content });
        let body = json!({
            "id": "a", "object": "chat.completion", "created": 0, "model": name,
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
        })
        .to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let whole = format!("{head}{}\r\n\r\n{body}", body.len());
        if stream.write_all(whole.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads the next request with a body that is JSON; others are refused.
async fn request(stream: &mut TcpStream) -> Option<Value> {
    let (_, body) = stub::request(stream).await?;
    serde_json::from_str(&body).ok()
}
