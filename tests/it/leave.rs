//! What may leave and what may be kept: data classes, keys, and texts on disk.

mod answers;

use std::{
    cell::RefCell,
    fs::File,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use crossfade::{
    domain::Pair,
    patterns::{Detector, Keys, Pattern, Redactor},
    players::Delivery,
    store::{Bodies, Limits, Pairs, Query},
};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::world::{Serve, World, http, rollout, until, whole};

/// A provider that answers as it likes, and remembers all that it hears.
struct Peer {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

/// The pieces of an answer to a request, of which it is told head and body.
type Answer = fn(&str, &Value) -> Vec<String>;

impl Peer {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) =
            (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let memory = Arc::clone(&heard);
        crossfade::tasks::spawn("peer", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let Some((lines, body)) = read(&mut stream).await else { continue };
                memory.lock().unwrap().push(format!("{lines}{body}"));
                for piece in answer(&lines, &serde_json::from_str(&body).unwrap()) {
                    let _ = stream.write_all(piece.as_bytes()).await;
                    tokio::task::yield_now().await;
                }
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().join("\n")
    }
}

async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut all = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let len = stream.read(&mut part).await.ok().filter(|it| 0 < *it)?;
        all.extend_from_slice(&part[..len]);
        let text = String::from_utf8_lossy(&all).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
        if length.is_none_or(|it| body.len() == it.parse::<usize>().unwrap()) {
            return Some((format!("{head}\r\n\r\n"), body.to_owned()));
        }
    }
}

fn plain(body: &Value) -> Vec<String> {
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    vec![format!("{head}content-length: {}\r\n\r\n{body}", body.len())]
}

/// Repeats the credential and the question, wherever an answer has room for a text.
fn parrot(head: &str, body: &Value) -> Vec<String> {
    let key = head.lines().find_map(|it| it.strip_prefix("authorization: ")).unwrap_or("");
    let said = body["messages"][0]["content"].as_str().unwrap_or("");
    plain(&json!({
        "id": "c", "object": "chat.completion", "model": key,
        "choices": [{ "index": 0, "finish_reason": key, "message": {
            "role": "assistant", "content": format!("{key} {said}"),
            "tool_calls": [{ "id": "t", "type": "function", "function": {
                "name": "f", "arguments": json!({ "say": [key, said] }).to_string() } }],
        } }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    }))
}

/// Marks that are fair, with all that was read as the reason.
fn telltale(head: &str, body: &Value) -> Vec<String> {
    let marks = json!({ "accuracy": 9, "relevance": 9, "tone": 9 });
    let reason = format!("{head} {}", body["messages"][1]["content"].as_str().unwrap_or(""));
    let content = json!({ "answer_1": marks, "answer_2": marks, "reason": reason }).to_string();
    plain(&json!({ "choices": [{ "message": { "content": content } }] }))
}

/// A stream that says a key and an address in many pieces, some of them escaped.
fn drip(_: &str, _: &Value) -> Vec<String> {
    let event = |text: &str| {
        let chunk = "data: {\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":";
        format!("{chunk}[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let parts =
        ["it is s", "k-can", "\\u0061ry-str", "eam-01", "234567", "89, from ann", "\\u0040ex"];
    let mut pieces = vec![
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            .to_owned(),
    ];
    for text in parts.into_iter().chain(["ample", ".com", " or so"]) {
        let event = event(text);
        let (a, b) = event.split_at(event.len() / 2);
        pieces.extend([a.to_owned(), b.to_owned()]);
    }
    let end = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    pieces.extend([end.to_owned(), "data: [DONE]\n\n".to_owned()]);
    pieces
}

/// Two providers and a judge, each with a key of its own, and the program before them.
struct Rig {
    primary: Peer,
    candidate: Peer,
    judge: Peer,
    dir: TempDir,
}

const CANDIDATE_KEY: &str = "canary-of-candidate";
const JUDGE_KEY: &str = "canary-of-judge";

impl Rig {
    async fn new(answer: Answer) -> Self {
        Self {
            primary: Peer::start(answer).await,
            candidate: Peer::start(answer).await,
            judge: Peer::start(telltale).await,
            dir: TempDir::new().unwrap(),
        }
    }

    /// Starts the program, with everything it has to tell in a file of that name.
    async fn serve(&self, top: &str, log: &str) -> Serve {
        let file = |name: &str| self.dir.path().join(name);
        for (name, key) in [("candidate.key", CANDIDATE_KEY), ("judge.key", JUDGE_KEY)] {
            std::fs::write(file(name), key).unwrap();
        }
        let address = |peer: &Peer| format!("base_url = \"http://{}/v1\"\n", peer.address);
        let key = |name: &str| format!("key = \"file:{}\"\n", file(name).display());
        let text = format!(
            "listen = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\noperations = \"127.0.0.1:0\"\n\
             store = \"{}\"\nprimary = \"primary\"\n{top}\n[provider.primary]\n{}\
             [provider.candidate]\n{}{}[judge]\nmodel = \"j\"\n{}{}{}",
            file("store").display(),
            address(&self.primary),
            address(&self.candidate),
            key("candidate.key"),
            address(&self.judge),
            key("judge.key"),
            rollout("0%", "100%").replace("judge_score = \"off\"", "judge_score = \">= 90%\""),
        );
        std::fs::write(file("crossfade.toml"), text).unwrap();
        let log = Stdio::from(File::create(file(log)).unwrap());
        Serve::start_logging(&file("crossfade.toml"), "trace", log).await
    }

    /// What the store holds, once the program has ended.
    fn kept(&self) -> Vec<(Pair, Bodies)> {
        let limits = Limits {
            bytes_max: 1 << 30,
            age_ms_max: u64::MAX / 2,
            free_bytes_min: 0,
            queue_len_max: 8,
        };
        let pairs = Pairs::open(&self.dir.path().join("store"), limits).unwrap();
        let all = pairs.list(&Query { len_max: 100, ..Query::default() }).unwrap();
        assert!(!all.is_empty(), "no pair was kept");
        let bodies = |it: &Pair| pairs.bodies(it.id).unwrap().unwrap();
        all.into_iter().map(|it| (it.clone(), bodies(&it))).collect()
    }
}

fn text(bodies: &Bodies) -> String {
    let Bodies { request, primary, candidate } = bodies;
    [request, primary, candidate].map(|it| String::from_utf8(it.to_vec()).unwrap()).join("\n")
}

/// One request, as an application with secrets of its own sends it.
async fn ask(serve: &Serve, body: &Value) -> (u16, String, String) {
    let uri = format!("http://{}/v1/chat/completions?trace=canary-in-query", serve.data);
    let request = Request::post(uri)
        .header("content-type", "application/json")
        .header("authorization", "Bearer canary-of-caller")
        .header("cookie", "session=canary-in-cookie")
        .header("x-private", "canary-in-header")
        .header("x-crossfade-segment", "free")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let answer = whole(http().request(request).await.unwrap()).await;
    let id = answer.header("x-crossfade-request-id").to_owned();
    (answer.status, id, String::from_utf8(answer.body.to_vec()).unwrap())
}

/// Every file below a folder, as it is on disk.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

/// Everything that the program shows of itself while it runs.
async fn shown(serve: &Serve, id: &str) -> Vec<(String, Vec<u8>)> {
    let pid = serve.pid();
    let mut shown =
        vec![("cmdline".to_owned(), std::fs::read(format!("/proc/{pid}/cmdline")).unwrap())];
    for page in ["/metrics", "/readyz", "/healthz"] {
        shown.push((page.to_owned(), serve.page(page).await.into_bytes()));
    }
    let pair = serve.json_lines(&["pairs", "chat"]).await[0]["name"].as_str().unwrap().to_owned();
    for args in [
        &["pairs", "chat"][..],
        &["pair", &pair],
        &["explain", "--request", id],
        &["explain", "chat"],
        &["events", "chat"],
        &["status", "chat"],
        &["list"],
    ] {
        let (_, text) = serve.cli(args).await;
        shown.push((args.join(" "), text.into_bytes()));
        let (_, text) = serve.cli(&[args, &["-o", "json"]].concat()).await;
        shown.push((format!("{args:?} as JSON"), text.into_bytes()));
    }
    shown
}

/// B-72 B-73
#[tokio::test]
async fn secrets_are_with_those_they_are_meant_for_and_nowhere_else() {
    const CALLER_KEY: &str = "canary-of-caller";
    const IN_BODY: &str = "sk-canary-in-body-0123456789";
    let rig = Rig::new(parrot).await;
    let serve = rig.serve("fields = { user = \"metadata.who\" }", "log").await;
    let said = json!({ "model": "m", "messages": [
        { "role": "user", "content": format!("my key is {IN_BODY}, forget it") }],
        "user": "ann-1", "metadata": { "who": "ann-2", "user_id": "ann-3" }, "prompt_cache_key": "ann-4" });
    let id = RefCell::new(String::new());
    until("a pair is judged", || async {
        let (status, asked, answer) = ask(&serve, &said).await;
        assert!(
            status == 200 && answer.contains(CALLER_KEY),
            "the caller gets all of it: {answer}"
        );
        *id.borrow_mut() = asked;
        let pairs = serve.json_lines(&["pairs", "chat"]).await;
        let Some(newest) = pairs.last() else { return false };
        let name = newest["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        !serve.json(&["pair", &name]).await["judgements"].as_array().is_none_or(Vec::is_empty)
    })
    .await;

    let (primary, candidate, judge) = (&rig.primary, &rig.candidate, &rig.judge);
    assert!(primary.heard().contains(CALLER_KEY) && primary.heard().contains("canary-in-cookie"));
    assert!(candidate.heard().contains(&format!("Bearer {CANDIDATE_KEY}")));
    assert!(judge.heard().contains(&format!("Bearer {JUDGE_KEY}")));
    for (peer, others) in [
        (primary, &[CANDIDATE_KEY, JUDGE_KEY, "x-crossfade"][..]),
        (
            candidate,
            &[
                CALLER_KEY,
                JUDGE_KEY,
                "canary-in-cookie",
                "canary-in-header",
                "canary-in-query",
                "ann-",
            ],
        ),
        (judge, &[CALLER_KEY, CANDIDATE_KEY, IN_BODY, "canary-in-", "x-crossfade"]),
    ] {
        for other in others {
            assert!(!peer.heard().contains(other), "{other} in {}", peer.heard());
        }
    }

    let mut shown = shown(&serve, &id.into_inner()).await;
    assert!(shown.iter().any(|(_, it)| String::from_utf8_lossy(it).contains("[redacted:key]")));
    assert!(serve.stop().await.success());
    for (_, bodies) in rig.kept() {
        shown.push(("a pair in the store".to_owned(), text(&bodies).into_bytes()));
        assert!(text(&bodies).contains("my key is [redacted:secret], forget it"));
    }
    shown.extend(files(&rig.dir.path().join("store")));
    let log = std::fs::read(rig.dir.path().join("log")).unwrap();
    assert!(String::from_utf8_lossy(&log).contains("TRACE"), "the log is at its most talkative");
    shown.push(("log".to_owned(), log));
    for (what, bytes) in shown {
        let text = String::from_utf8_lossy(&bytes);
        let at = text.find("canary-");
        let around =
            at.map(|at| text[text.floor_char_boundary(at.saturating_sub(80))..].chars().take(200));
        assert!(at.is_none(), "{what}: {}", around.map_or_else(String::new, Iterator::collect));
    }
}

/// B-75
#[tokio::test]
async fn what_a_stream_says_in_pieces_is_redacted_before_it_is_on_disk() {
    let rig = Rig::new(drip).await;
    let serve = rig.serve("redact = [\"secret\", \"email\"]", "log").await;
    let said = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\
                \"metadata\":{\"note\":\"{\\\"to\\\":\\\"bob\\\\u0040example.com\\\"}\"}}";
    let said: Value = serde_json::from_str(said).unwrap();
    until("a pair is kept", || async {
        let (status, _, answer) = ask(&serve, &said).await;
        assert!(status == 200 && answer.contains("\\u0061ry-str"), "bytes untouched: {answer}");
        !serve.json_lines(&["pairs", "chat"]).await.is_empty()
    })
    .await;
    assert!(serve.stop().await.success());
    for (_, bodies) in rig.kept() {
        for answer in [&bodies.primary, &bodies.candidate] {
            let answer: Value = serde_json::from_slice(answer).unwrap();
            assert_eq!(answer["text"], "it is [redacted:secret], from [redacted:email] or so");
        }
        let request: Value = serde_json::from_slice(&bodies.request).unwrap();
        let note = request["metadata"]["note"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(note).unwrap()["to"], "[redacted:email]");
        assert_eq!(request["stream"], true);
    }
}

/// A request that says something besides its question.
fn saying(world: &World, index: usize, json: &str) -> Vec<u8> {
    let body = String::from_utf8(world.body(index, Delivery::Whole)).unwrap();
    body.replacen('{', &format!("{{\"metadata\":{{\"note\":{json}}},"), 1).into_bytes()
}

const DETECT: &str = "[detect.pii]\npatterns = [\"card\", \"mrn\"]\n\
    [detect.eu]\npatterns = [\"email\"]\n[patterns]\nmrn = '\\bMRN-\\d{6}\\b'\n";

/// B-74
#[tokio::test]
async fn what_a_request_says_of_uncleared_data_reaches_neither_candidate_nor_judge() {
    let world = World::new().await;
    let plan = rollout("0%", "100%").replace("judge_score = \"off\"", "judge_score = \">= 90%\"");
    let serve = world.serve(&format!("{plan}{DETECT}")).await;
    until("the lane is open", || async {
        serve.chat(world.body(0, Delivery::Whole), &[]).await;
        0 < world.candidate.stats().requests
    })
    .await;
    let before = world.candidate.stats().requests;
    let uncleared = [
        r#""MRN-123456""#,
        r#""\u004dRN-123456""#,
        r#""{\"id\":\"MRN\\u002d123456\"}""#,
        r#""4111 1111 1111 1111""#,
        "4111111111111111",
        r#""MRN-123456 of ann@example.com""#,
    ];
    for (index, said) in uncleared.iter().enumerate() {
        let answer = serve.chat(saying(&world, index, said), &[("x-crossfade-data", "eu")]).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
    }
    // A cleared one after them shows that the others would have been there by now.
    serve.chat(world.body(9, Delivery::Whole), &[]).await;
    until("the cleared one is copied", || async { before < world.candidate.stats().requests })
        .await;
    assert_eq!(world.candidate.stats().requests, before + 1);
    let skipped = "crossfade_mirror_skipped_total{reason=\"data_class\"}";
    assert!((serve.metric(skipped).await - 6.0).abs() < 1e-9);
    for seen in world.candidate.seen().iter().chain(&world.judge.seen()) {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        assert!(
            !body.contains("123456") && !body.contains("1111") && !body.contains("ann@"),
            "{body}"
        );
    }
}

/// B-74
#[tokio::test]
async fn a_pair_of_data_that_judge_and_store_are_not_cleared_for_is_kept_without_its_texts() {
    let world = World::new().await;
    let plan = rollout("0%", "100%").replace("judge_score = \"off\"", "judge_score = \">= 90%\"");
    let serve = world.serve(&format!("{plan}{DETECT}")).await;
    let withheld = async |from: &str| {
        serve.metric(&format!("crossfade_withheld_total{{from=\"{from}\"}}")).await
    };
    until("a pair is withheld", || async {
        serve.chat(saying(&world, 1, r#""ann@example.com""#), &[]).await;
        0.5 < withheld("store").await
    })
    .await;
    assert!(0.5 < withheld("judge").await);
    until("it is kept", || async { !serve.json_lines(&["pairs", "chat"]).await.is_empty() }).await;
    let name = serve.json_lines(&["pairs", "chat"]).await[0]["name"].as_str().unwrap().to_owned();
    let pair = serve.json(&["pair", &name]).await;
    assert!(pair["bodies"].is_null() && pair["primary"]["outcome"] == "OUTCOME_OK", "{pair}");
    let (code, text) = serve.cli(&["pair", &name]).await;
    assert!(code == 0 && text.contains("the texts were not kept"), "{text}");
    assert_eq!(world.judge.stats().requests, 0);
    // Without a class of its own a request is kept whole.
    until("a pair is kept whole", || async {
        serve.chat(world.body(2, Delivery::Whole), &[]).await;
        let name =
            serve.json_lines(&["pairs", "chat"]).await[0]["name"].as_str().unwrap().to_owned();
        !serve.json(&["pair", &name]).await["bodies"].is_null()
    })
    .await;
}

#[tokio::test]
async fn a_request_is_marked_by_its_path_or_by_what_its_body_says() {
    let world = World::new().await;
    let slice = "slice = { features = [\"search\"] }\nautostart";
    let marks = "[[caller]]\npath = \"/search\"\nfeature = \"search\"\ndata = [\"eu\"]\n\
                 [fields]\nfeature = \"metadata.note\"\ndata = \"metadata.data\"\n";
    let plan = rollout("0%", "100%").replace("autostart", slice);
    let serve = world.serve(&format!("{plan}{marks}")).await;
    let path = "/search/v1/chat/completions";
    until("what comes by the path is copied", || async {
        let answer = serve.post(path, world.body(1, Delivery::Whole), &[]).await;
        assert_eq!(answer.status, 200);
        0 < world.candidate.stats().requests
    })
    .await;
    for seen in world.primary.seen().iter().chain(&world.candidate.seen()) {
        assert_eq!(seen.path, "/v1/chat/completions");
    }
    let copies = || world.candidate.stats().requests;
    let before = copies();
    serve.chat(saying(&world, 2, "\"chat\""), &[]).await;
    serve.chat(world.body(3, Delivery::Whole), &[]).await;
    serve.chat(saying(&world, 4, "\"search\""), &[]).await;
    until("what its body marks is copied", || async { before < copies() }).await;
    assert_eq!(copies(), before + 1);
    let uncleared = String::from_utf8(saying(&world, 5, "\"search\"")).unwrap();
    let uncleared = uncleared.replacen("\"note\"", "\"data\":[\"eu\",\"pii\"],\"note\"", 1);
    serve.chat(uncleared.into_bytes(), &[]).await;
    let skipped = "crossfade_mirror_skipped_total{reason=\"data_class\"}";
    assert!((serve.metric(skipped).await - 1.0).abs() < 1e-9);
}

/// B-75: texts made to be slow to look at. The square of their length would take minutes.
#[test]
fn long_texts_take_time_in_proportion_to_their_length() {
    let own = Pattern::new("own", r"(?:\w+\s?)+x$|.*[^A-Z]|[A-Z]").unwrap();
    let patterns: Vec<Pattern> =
        Pattern::names().filter_map(Pattern::built_in).chain([own]).collect();
    let detector = Detector::new(vec![("own".to_owned(), patterns[..4].to_vec())]);
    let redactor = Redactor::new(patterns, Keys::default());
    let begun = Instant::now();
    let row = ["4111111111111111 ", "4111-1111-1111-1111-", "DE89 3704 0044 0532 0130 00 "];
    let slow = ["a", "a@", "a@a.", "4444 ", "DE89 ", "DE89", "eyJaaaaaaaa.", "A", "\\\\", "\\n"];
    for part in slow.into_iter().chain(row) {
        let text = format!("[\"{}\"]", part.repeat(100_000 / part.len()));
        detector.classes(text.as_bytes());
        redactor.document(text.as_bytes(), &Keys::default());
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
