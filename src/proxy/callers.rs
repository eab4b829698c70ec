//! Who asks, as far as it is known: the marks of applications, and the facts a route needs.

use std::{borrow::Cow, collections::HashMap, fmt};

use hyper::{
    header::{HeaderMap, HeaderName},
    http::request::Parts,
};

use crate::dialect::{self, Asked};
use crate::domain::{Endpoint, Facts, Key, MarkFields, PairId, Route, Skip, Snapshot, Sticky};
use crate::patterns::Detector;

use super::{headers, serve::path_and_query};

static CONVERSATION: HeaderName = HeaderName::from_static("x-crossfade-conversation");
static USER: HeaderName = HeaderName::from_static("x-crossfade-user");
static FEATURE: HeaderName = HeaderName::from_static("x-crossfade-feature");
static SEGMENT: HeaderName = HeaderName::from_static("x-crossfade-segment");
static TASK: HeaderName = HeaderName::from_static("x-crossfade-task");
static DATA: HeaderName = HeaderName::from_static("x-crossfade-data");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static RETRIES: HeaderName = HeaderName::from_static("x-stainless-retry-count");
static IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest mark that is read, in bytes; marks are remembered for many requests.
const MARK_LEN_MAX: usize = 256;
/// Most data classes that one request may name.
const CLASSES_MAX: usize = 32;
/// The class of what cannot be read as classes, or is more of them than are read: nobody is
/// cleared for it.
const UNREADABLE: &str = "unreadable";

/// The marks that go with an application.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The feature; empty when unmarked.
    pub feature: String,
    /// The segment; empty when unmarked.
    pub segment: String,
    /// The data classes.
    pub data: Vec<String>,
}

/// What is known of requests before they are asked: marks by API key, path and place in the body,
/// data classes by what they say, and those of requests that are not marked.
#[derive(Clone, Default)]
pub struct Callers {
    /// By key.
    pub by_key: HashMap<String, Marks>,
    /// By the prefix of the path, which is taken off.
    pub by_path: Vec<(String, Marks)>,
    /// Where in bodies marks stand.
    pub fields: MarkFields,
    /// Finds data classes in bodies.
    pub detector: Detector,
    /// What sticks to a side: the first of these that a request has.
    pub sticky: Vec<Sticky>,
    /// For requests without a mark of their own.
    pub data_default: Vec<String>,
}

/// Which prefix was taken off a request's path.
#[derive(Clone, Copy, Debug)]
struct Entrance(usize);

impl Callers {
    /// Takes off the prefix that an application is known by, and remembers which it was.
    pub(super) fn enter(&self, head: &mut Parts) {
        let path = head.uri.path();
        let begins = |prefix: &str| path.strip_prefix(prefix).is_some_and(|it| it.starts_with('/'));
        let known = self.by_path.iter().enumerate().filter(|(_, (prefix, _))| begins(prefix));
        let Some((index, (prefix, _))) = known.max_by_key(|(_, (prefix, _))| prefix.len()) else {
            return;
        };
        if let Ok(rest) = path_and_query(&head.uri)[prefix.len()..].parse() {
            head.uri = rest;
            head.extensions.insert(Entrance(index));
        }
    }

    /// Everything the route needs to know of what marks a request: headers first, then places in
    /// the body, then the API key, then the path.
    pub(super) fn facts(
        &self,
        id: PairId,
        head: &Parts,
        (endpoint, asked, body): (Endpoint, &Asked, &[u8]),
    ) -> Facts {
        let headers = &head.headers;
        let said = self.said(body);
        let marks = self.marks(head, &said);
        let bounded_or =
            |text: &str, mark: &str| bounded(if text.is_empty() { mark } else { text }).to_owned();
        let own = |name: &HeaderName, mark: &str| bounded_or(headers::text(headers, name), mark);
        let some = |text: String| (!text.is_empty()).then_some(text);
        let key = self.sticky.iter().find_map(|it| match it {
            Sticky::Header(name) => {
                some(bounded_or(headers::text(headers, name), "")).map(Key::Conversation)
            }
            Sticky::Conversation => {
                let named = asked.conversation.as_deref().unwrap_or("");
                some(own(&CONVERSATION, named)).map(Key::Conversation)
            }
            Sticky::User => {
                let named = Some(said.user.as_str()).filter(|it| !it.is_empty());
                let named = named.or(asked.user.as_deref()).unwrap_or("");
                some(own(&USER, named)).map(Key::User)
            }
            Sticky::Opening => dialect::opening(endpoint, body).map(Key::Conversation),
        });
        let key = key.unwrap_or_else(|| Key::Request(own(&REQUEST_ID, &id.to_string())));
        Facts {
            key,
            feature: own(&FEATURE, &marks.feature),
            segment: own(&SEGMENT, &marks.segment),
            task: own(&TASK, &said.task),
            model: asked.model.clone(),
            data: self.data(headers, &marks),
            barred: barred(headers).or(asked.barred),
            tie: asked.tie,
        }
    }

    /// Where a request goes, with what it says taken into account.
    ///
    /// That is looked at wherever lots are drawn, whatever they drew: what is taken out is taken
    /// out of both sides.
    pub(super) fn route(
        &self,
        snapshot: &Snapshot,
        mut facts: Facts,
        body: &[u8],
    ) -> (Facts, Route) {
        let route = snapshot.route(&facts);
        if route.places.is_none() {
            return (facts, route);
        }
        let mut found = self.detector.classes(body);
        found.retain(|it| !facts.data.contains(it));
        if found.is_empty() {
            return (facts, route);
        }
        facts.data.extend(found);
        let route = snapshot.route(&facts);
        (facts, route)
    }

    /// The marks in the body of a request.
    fn said(&self, body: &[u8]) -> Said {
        let MarkFields { feature, segment, task, user, data } = &self.fields;
        if self.fields == MarkFields::default() {
            return Said::default();
        }
        let [feature, segment, task, user, data] =
            dialect::at(body, [feature, segment, task, user, data].map(String::as_str));
        let [feature, segment, task, user] =
            [feature, segment, task, user].map(|it| it.into_iter().next().unwrap_or_default());
        Said { marks: Marks { feature, segment, data: classes(&data) }, task, user }
    }

    /// The marks in the body, of every key a request carries and of its path: the first feature
    /// and the first segment, and all data.
    fn marks(&self, head: &Parts, said: &Said) -> Marks {
        let mut all = said.marks.clone();
        let keys = (!self.by_key.is_empty()).then(|| credentials(head));
        let by_key = keys.into_iter().flatten().filter_map(|it| self.by_key.get(it.as_ref()));
        let entrance = head.extensions.get::<Entrance>();
        let by_path = entrance.and_then(|it| self.by_path.get(it.0)).map(|(_, marks)| marks);
        for marks in by_key.chain(by_path) {
            for (mark, known) in
                [(&mut all.feature, &marks.feature), (&mut all.segment, &marks.segment)]
            {
                if mark.is_empty() {
                    mark.clone_from(known);
                }
            }
            all.data.extend(marks.data.iter().cloned());
        }
        all
    }

    /// Data classes of headers and marks together; the default only where neither says any.
    fn data(&self, headers: &HeaderMap, marks: &Marks) -> Vec<String> {
        let named = headers.get_all(&DATA).iter();
        let mut all = classes(named.map(|it| it.to_str().unwrap_or(UNREADABLE)));
        all.extend(marks.data.iter().cloned());
        if all.is_empty() {
            all.clone_from(&self.data_default);
        }
        all
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its keys are secrets.
        f.debug_struct("Callers").field("fields", &self.fields).finish_non_exhaustive()
    }
}

/// What the body of a request says of it.
#[derive(Debug, Default)]
struct Said {
    marks: Marks,
    task: String,
    user: String,
}

/// As much of a mark as is read, whoever sets it.
fn bounded(mark: &str) -> &str {
    &mark[..mark.floor_char_boundary(MARK_LEN_MAX)]
}

/// Data classes as they are listed, with commas between, each once.
fn classes(lists: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let mut classes = Vec::new();
    for list in lists {
        for named in list.as_ref().split(',').map(str::trim).filter(|it| !it.is_empty()) {
            if classes.len() >= CLASSES_MAX || bounded(named) != named {
                classes.push(UNREADABLE.to_owned());
                return classes;
            }
            let named = named.to_ascii_lowercase();
            if !classes.contains(&named) {
                classes.push(named);
            }
        }
    }
    classes
}

/// Every API key a request carries, wherever a dialect puts one.
pub(super) fn credentials(head: &Parts) -> impl Iterator<Item = Cow<'_, str>> {
    let in_headers = headers::CREDENTIALS.iter().flat_map(|name| head.headers.get_all(name));
    let in_headers = in_headers.filter_map(|it| it.to_str().ok()).map(|it| {
        // `Bearer KEY`, whatever the case of the scheme; a bare key has no space.
        it.trim().rsplit_once(' ').map_or(it.trim(), |(_, key)| key)
    });
    let in_query = dialect::credentials(head.uri.query().unwrap_or(""));
    in_headers.map(Cow::Borrowed).chain(in_query)
}

/// Whether the caller brought a credential of its own, of whatever kind.
pub(super) fn has_credential(head: &Parts) -> bool {
    headers::CREDENTIALS.iter().any(|it| head.headers.contains_key(it))
        || dialect::credentials(head.uri.query().unwrap_or("")).next().is_some()
}

/// Why a request may not be copied, by its headers alone.
fn barred(headers: &HeaderMap) -> Option<Skip> {
    let retry = headers::text(headers, &RETRIES);
    if headers.contains_key(&headers::COPY_MARK) {
        Some(Skip::Loop)
    } else if !retry.is_empty() && retry != "0" {
        Some(Skip::Retry)
    } else if headers.contains_key(&IDEMPOTENCY) {
        Some(Skip::Idempotent)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Flags, Lane, Share, Slice, Window};
    use crate::proxy::headers::tests::headers;

    fn facts(list: &[(&'static str, &'static str)], body: &str) -> Facts {
        facts_at("/v1/chat/completions?a=b&key=k-query", list, body).0
    }

    fn facts_by(sticky: Vec<Sticky>, list: &[(&'static str, &'static str)], body: &str) -> Facts {
        let callers = Callers { sticky, ..callers() };
        read(&callers, "/v1/chat/completions?a=b&key=k-query", list, body).0
    }

    /// The facts of a request, and the path that is left of its own.
    fn facts_at(path: &str, list: &[(&'static str, &'static str)], body: &str) -> (Facts, String) {
        read(&callers(), path, list, body)
    }

    fn callers() -> Callers {
        let marks = Marks {
            feature: "batch".to_owned(),
            segment: "free".to_owned(),
            data: vec!["pii".to_owned()],
        };
        Callers {
            by_key: HashMap::from([
                ("k-1".to_owned(), marks),
                ("k-query".to_owned(), Marks { data: vec!["q".to_owned()], ..Marks::default() }),
            ]),
            sticky: Sticky::DEFAULT.to_vec(),
            by_path: vec![
                ("/search".to_owned(), Marks { segment: "path".to_owned(), ..Marks::default() }),
                (
                    "/search/eu".to_owned(),
                    Marks { data: vec!["eu".to_owned()], ..Marks::default() },
                ),
            ],
            fields: MarkFields {
                feature: "metadata.feature".to_owned(),
                user: "metadata.who".to_owned(),
                data: "metadata.data".to_owned(),
                ..MarkFields::default()
            },
            detector: Detector::default(),
            data_default: vec!["internal".to_owned()],
        }
    }

    fn read(
        callers: &Callers,
        path: &str,
        list: &[(&'static str, &'static str)],
        body: &str,
    ) -> (Facts, String) {
        let asked = dialect::ask(Endpoint::Chat, "/v1/chat/completions", body.as_bytes()).unwrap();
        let mut request = hyper::Request::post(path);
        *request.headers_mut().unwrap() = headers(list);
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        callers.enter(&mut head);
        let facts = callers.facts(PairId(7), &head, (Endpoint::Chat, &asked, body.as_bytes()));
        (facts, head.uri.to_string())
    }

    const BODY: &str = r#"{"model":"gpt","messages":[],"user":"u-1"}"#;

    /// M10 M11
    #[test]
    fn the_conversation_is_the_key_else_the_user_else_the_request() {
        assert_eq!(facts(&[], BODY).key, Key::User("u-1".to_owned()));
        let conversation = facts(&[("x-crossfade-conversation", "c-1")], BODY);
        assert_eq!(conversation.key, Key::Conversation("c-1".to_owned()));
        let request = facts(&[("x-request-id", "r-1")], r#"{"model":"gpt","messages":[]}"#);
        assert_eq!(request.key, Key::Request("r-1".to_owned()));
    }

    /// M10
    #[test]
    fn the_key_is_the_first_part_that_a_request_has() {
        let body = r#"{"model":"m","user":"u","messages":[{"role":"user","content":"a"}]}"#;
        let header = || Sticky::Header("x-session".to_owned());
        let by = |list: &[(&'static str, &'static str)], sticky: &[Sticky]| {
            facts_by(sticky.to_vec(), list, body).key
        };
        let session = by(&[("x-session", "s-1")], &[header(), Sticky::User]);
        assert_eq!(session, Key::Conversation("s-1".to_owned()));
        assert_eq!(by(&[], &[header(), Sticky::User]), Key::User("u".to_owned()));
        let opening = r#"{"role":"user","content":"a"}"#.to_owned();
        assert_eq!(by(&[], &[Sticky::Opening, Sticky::User]), Key::Conversation(opening));
        assert_eq!(by(&[("x-request-id", "r")], &[]), Key::Request("r".to_owned()));
    }

    /// M8
    #[test]
    fn data_classes_of_header_and_key_add_up_and_the_default_fills_a_gap() {
        assert_eq!(facts(&[], BODY).data, ["q"], "a key in the query counts too");
        let keyed = facts(&[("authorization", "Bearer k-1"), ("x-crossfade-data", "EU, x")], BODY);
        assert_eq!(keyed.data, ["eu", "x", "pii", "q"]);
        assert_eq!(keyed.feature, "batch");
        for scheme in ["BEARER k-1", "k-1"] {
            assert_eq!(facts(&[("authorization", scheme)], BODY).data, ["pii", "q"]);
        }
        let both = facts(&[("x-api-key", "k-1"), ("authorization", "Bearer other")], BODY);
        assert_eq!(both.data, ["pii", "q"]);
        assert_eq!(Callers::default().data(&HeaderMap::new(), &Marks::default()), [""; 0]);
    }

    #[test]
    fn a_key_in_the_query_is_the_callers_own_however_it_is_written() {
        for query in ["key=k-1", "$key=k%2D1", "a=b&%24key=k-1", "token=k-1"] {
            let path = format!("/v1/chat/completions?{query}");
            let (facts, _) = facts_at(&path, &[], BODY);
            assert_eq!((&*facts.feature, facts.data), ("batch", texts(&["pii"])), "{query}");
            let (head, ()) = hyper::Request::post(&path).body(()).unwrap().into_parts();
            assert!(has_credential(&head), "{query}");
        }
        let (head, ()) = hyper::Request::post("/v1/x?alt=sse&key=").body(()).unwrap().into_parts();
        assert!(!has_credential(&head));
    }

    /// B-71
    #[test]
    fn marks_are_bounded_whoever_sets_them_and_too_many_classes_are_nobodys() {
        let long = "é".repeat(100_000);
        let body = serde_json::json!({
            "model": "m", "user": long, "metadata": {"feature": long, "who": long, "data": long},
        });
        let facts = facts(&[], &body.to_string());
        let Key::User(user) = &facts.key else { panic!("{:?}", facts.key) };
        for mark in [user, &facts.feature] {
            assert_eq!(mark.len(), MARK_LEN_MAX);
        }
        assert_eq!(facts.data, ["unreadable", "q"]);
        assert_eq!(classes(["a, A,".repeat(10_000), " b".to_owned()]), ["a", "b"]);
        let many: Vec<String> = (0..30_000).map(|it| it.to_string()).collect();
        for lists in [vec![many.join(",")], many] {
            let found = classes(lists);
            assert_eq!((found.len(), found[0].as_str()), (CLASSES_MAX + 1, "0"));
            assert_eq!(found.last().unwrap(), "unreadable");
        }
    }

    #[test]
    fn marks_come_from_headers_then_the_body_then_the_key_then_the_path() {
        let body = r#"{"model":"gpt","messages":[],"user":"u-1","metadata":
            {"feature":"said","who":"u-2","data":["A","b,c"]}}"#;
        let key = ("authorization", "Bearer k-1");
        let (all, _) = facts_at("/search/v1/chat/completions", &[key], body);
        assert_eq!((all.feature.as_str(), all.segment.as_str()), ("said", "free"));
        assert_eq!(
            (all.key, all.data),
            (Key::User("u-2".to_owned()), texts(&["a", "b", "c", "pii"]))
        );
        let header = ("x-crossfade-feature", "told");
        assert_eq!(facts(&[key, header], body).feature, "told");
        // What cannot be read as a class is one that nobody is cleared for.
        let odd = facts(&[], r#"{"model":"gpt","metadata":{"data":{"pii":false}}}"#);
        assert_eq!(odd.data, [r#"{"pii":false}"#, "q"]);
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn the_longest_prefix_of_a_path_marks_a_request_and_is_taken_off() {
        let at = |path| {
            let (facts, left) = facts_at(path, &[], BODY);
            (facts.segment, facts.data, left)
        };
        let chat = "/v1/chat/completions";
        let internal = texts(&["internal"]);
        let path = "/search/v1/chat/completions?x=1";
        assert_eq!(at(path), ("path".to_owned(), internal.clone(), format!("{chat}?x=1")));
        let path = "/search/eu/v1/chat/completions";
        assert_eq!(at(path), (String::new(), texts(&["eu"]), chat.to_owned()));
        for path in ["/searching/v1/x", "/search", "/v1/search/x", "/search/../search/x"] {
            let left = if path == "/search/../search/x" { "/../search/x" } else { path };
            assert_eq!(at(path).2, left);
        }
        // Whatever follows is a path, never another host.
        assert_eq!(at("/search//evil.example/v1/x").2, "//evil.example/v1/x");
    }

    #[test]
    fn what_is_said_is_looked_at_where_lots_are_drawn_and_nowhere_else() {
        let email = crate::patterns::Pattern::built_in("email").unwrap();
        let detector = Detector::new(vec![("pii".to_owned(), vec![email])]);
        let callers = Callers { detector, ..Callers::default() };
        let body = br#"{"messages":[{"content":"ann\u0040example.com"}]}"#;
        let lane = |cleared: &[&str]| Lane {
            rollout: "chat".parse().unwrap(),
            window: Some(Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 }),
            primary: "a".parse().unwrap(),
            candidate: "b".parse().unwrap(),
            slice: Slice::default(),
            stage_slice: Slice::default(),
            watched: None,
            gated: Vec::new(),
            compared: crate::domain::Compared::default(),
            serve: Share::NONE,
            noise: Share::NONE,
            flags: Flags::default(),
            mirror: Share::ALL,
            cleared: texts(cleared),
            judge: Share::NONE,
        };
        let route = |cleared: &[&str], barred| {
            let snapshot = Snapshot { lanes: vec![Arc::new(lane(cleared))] };
            let facts = Facts { barred, data: Vec::new(), ..facts(&[], BODY) };
            let (facts, route) = callers.route(&snapshot, facts, body);
            (facts.data, route.mirror)
        };
        assert_eq!(route(&[], None), (texts(&["pii"]), Err(Skip::DataClass)));
        assert_eq!(route(&["pii"], None), (texts(&["pii"]), Ok(())));
        assert_eq!(route(&[], Some(Skip::Retry)), (Vec::new(), Err(Skip::Retry)));
    }

    #[test]
    fn retries_loops_and_idempotent_requests_are_never_copied() {
        assert_eq!(facts(&[("x-stainless-retry-count", "0")], BODY).barred, None);
        assert_eq!(facts(&[("x-stainless-retry-count", "1")], BODY).barred, Some(Skip::Retry));
        assert_eq!(facts(&[("x-crossfade-copy", "1")], BODY).barred, Some(Skip::Loop));
        assert_eq!(facts(&[("idempotency-key", "a")], BODY).barred, Some(Skip::Idempotent));
    }
}
