//! What an answer keeps to by rule, of what its request asks.

use whatlang::{Info, detect};

use super::{
    conversation::{asked, question},
    fields::Fields,
    form::{Form, callable, is_json},
    schema::Schemas,
    tools::Offered,
};
use crate::domain::{Check, Checks, Endpoint, Metric, Transcript};

/// Most of a text that is looked at for its language, in bytes, and least that says something of it,
/// in letters: by its script alone, and by its words.
const LANGUAGE_LEN_MAX: usize = 2_000;
const SCRIPT_LETTERS_MIN: usize = 24;
const WORDS_LETTERS_MIN: usize = 60;
/// Longest question that is looked at, in bytes.
const QUESTION_LEN_MAX: usize = 16 << 10;
/// Longest answer that is nothing but a refusal, in bytes.
const DECLINED_LEN_MAX: usize = 400;

/// What a model says that declines and says nothing else, in English; with these first words it is
/// as good as sure. What begins so and goes on to answer is told by its length.
const DECLINES: [&str; 14] = [
    "i'm sorry, but i can't assist with",
    "i'm sorry, but i cannot assist with",
    "i'm sorry, but i can't help with",
    "i'm sorry, but i cannot help with",
    "i'm sorry, i can't assist with",
    "i'm sorry, i can't help with",
    "sorry, but i can't assist with",
    "sorry, but i can't help with",
    "i can't assist with",
    "i can't help with that",
    "i cannot assist with",
    "i cannot help with that",
    "i'm unable to assist with",
    "i am unable to assist with",
];

/// A request, as far as answers are checked against it.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Where it went.
    pub endpoint: Endpoint,
    /// Its body.
    pub body: &'a [u8],
    /// The form that its answer is to have.
    pub form: Form,
}

/// A whole answer that is no refusal by its dialect.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What it says.
    pub transcript: &'a Transcript,
    /// Its provider's word for why it stopped.
    pub finish_reason: Option<&'a str>,
}

impl Prompt<'_> {
    /// What it asks last, as far as that is looked at.
    pub fn question(&self) -> String {
        question(self.endpoint, self.body, QUESTION_LEN_MAX)
    }

    /// What all that it says comes to, from its first turn to its last: the same where the same is
    /// asked.
    pub fn conversation(&self) -> u64 {
        asked(self.endpoint, self.body)
    }
}

impl Answer<'_> {
    /// Its characters: the text, and the arguments of tool calls.
    pub fn chars(&self) -> u32 {
        let Transcript { text, tool_calls, .. } = self.transcript;
        let texts = tool_calls.iter().map(|it| &it.arguments).chain([text]);
        u32::try_from(texts.map(|it| it.chars().count()).sum::<usize>()).unwrap_or(u32::MAX)
    }
}

/// What an answer keeps to by itself. What takes the request to be read for it alone is looked at
/// where there is a gate on it.
pub fn check(prompt: Prompt<'_>, answer: Answer<'_>, gated: &[Metric], known: &Schemas) -> Checks {
    let Answer { transcript, finish_reason } = answer;
    let Transcript { text, tool_calls, refusal } = transcript;
    let is_blank = text.trim().is_empty();
    let says = !is_blank || !tool_calls.is_empty() || refusal.is_some();
    let checks = Checks::default()
        .with(Check::NotEmpty, Some(says))
        .with(Check::NotCut, finish_reason.map(|it| !is_cut(it)))
        .with(Check::NotDeclined, Some(!tool_calls.is_empty() || !declines(text)));
    // A tool call comes in place of the answer that is to have the form.
    let form = if is_blank && !tool_calls.is_empty() { Form::Free } else { prompt.form };
    let json = form.kept(text);
    let wants_tools = gated.contains(&Metric::ToolCallValidRate) || !tool_calls.is_empty();
    let (mut schema, mut calls) = (None, callable(tool_calls));
    if (form != Form::Free || wants_tools)
        && let Some(fields) = Fields::parse(prompt.body)
    {
        schema = json.and_then(|_| valid(text, prompt.endpoint, &fields, known));
        calls = Offered::of(prompt.endpoint, &fields).kept(tool_calls, known).or(calls);
    }
    let language = gated.contains(&Metric::LanguageSwitchRate);
    let language = language.then(|| same_language(&prompt.question(), text)).flatten();
    checks
        .with(Check::Json, json)
        .with(Check::Schema, schema)
        .with(Check::ToolCalls, calls)
        .with(Check::SameLanguage, language)
}

/// Whether a text is valid against the schema that a request gives; none where it gives none that
/// can be used.
fn valid(text: &str, endpoint: Endpoint, fields: &Fields<'_>, known: &Schemas) -> Option<bool> {
    let (schema, wording) = Form::schema(endpoint, fields)?;
    match serde_json::from_str(text) {
        Ok(value) => known.is_valid(schema.get(), wording, &value),
        Err(_) => (!is_json(text)).then_some(false),
    }
}

/// Whether a model stopped for a limit of its answer's length, in any dialect.
fn is_cut(finish_reason: &str) -> bool {
    let words = ["length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"];
    words.iter().any(|it| it.eq_ignore_ascii_case(finish_reason))
}

/// Whether a text does nothing but decline, as far as that is sure.
fn declines(text: &str) -> bool {
    let text = text.trim();
    if DECLINED_LEN_MAX < text.len() {
        return false;
    }
    let said = text.replace('’', "'").to_lowercase();
    DECLINES.iter().any(|it| said.starts_with(it))
}

/// Whether an answer is in the language of its question; none where that of the question is not
/// sure. What is not sure of the answer speaks for it.
fn same_language(question: &str, answer: &str) -> Option<bool> {
    let asked = Tongue::of(question)?;
    let Some(answered) = Tongue::of(answer) else { return Some(true) };
    if asked.info.script() != answered.info.script() {
        return Some(false);
    }
    let sure = |it: &Tongue| it.info.is_reliable() && WORDS_LETTERS_MIN <= it.letters;
    if !sure(&asked) {
        return None;
    }
    Some(!sure(&answered) || asked.info.lang() == answered.info.lang())
}

/// The language of a text, and how many letters say so.
struct Tongue {
    info: Info,
    letters: usize,
}

impl Tongue {
    /// That of a text without the code in it; none where there is too little.
    fn of(text: &str) -> Option<Self> {
        let prose: String = text.split("```").step_by(2).collect();
        let prose = &prose[..prose.floor_char_boundary(LANGUAGE_LEN_MAX)];
        let letters = prose.chars().filter(|it| it.is_alphabetic()).count();
        let info = detect(prose).filter(|_| SCRIPT_LETTERS_MIN <= letters)?;
        Some(Self { info, letters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{End, Received, Tail, ask, read};
    use crate::domain::ToolCall;

    const ALL: [Metric; 2] = [Metric::ToolCallValidRate, Metric::LanguageSwitchRate];

    fn checked(body: &str, transcript: &Transcript, finish: Option<&str>) -> Checks {
        let endpoint = Endpoint::Chat;
        let form = ask(endpoint, "/v1/chat/completions", body.as_bytes()).unwrap().form;
        let prompt = Prompt { endpoint, body: body.as_bytes(), form };
        check(prompt, Answer { transcript, finish_reason: finish }, &ALL, &Schemas::default())
    }

    fn says(text: &str) -> Transcript {
        Transcript { text: text.to_owned(), ..Transcript::default() }
    }

    fn calls(arguments: &str) -> Transcript {
        let call = ToolCall {
            name: "f".to_owned(),
            arguments: arguments.to_owned(),
            ..ToolCall::default()
        };
        Transcript { tool_calls: vec![call], ..Transcript::default() }
    }

    const SCHEMA: &str = r#"{"response_format":{"type":"json_schema","json_schema":{"schema":
        {"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}}}},
        "tools":[{"type":"function","function":{"name":"f","parameters":
        {"type":"object","required":["x"]}}}]}"#;

    #[test]
    fn json_is_asked_for_and_so_is_what_its_schema_says() {
        let kept = |transcript: &Transcript| {
            let checks = checked(SCHEMA, transcript, Some("stop"));
            [Check::Json, Check::Schema, Check::ToolCalls].map(|it| checks.kept(it))
        };
        assert_eq!(kept(&says(" {\"a\":1}")), [Some(true), Some(true), Some(true)]);
        assert_eq!(kept(&says("{\"a\":\"1\"}")), [Some(true), Some(false), Some(true)]);
        assert_eq!(kept(&says("{\"a\":1")), [Some(false), Some(false), Some(true)]);
        assert_eq!(kept(&says("")), [Some(false), Some(false), Some(true)]);
        // A call in place of an answer; and both at once.
        assert_eq!(kept(&calls("{\"x\":1}")), [None, None, Some(true)]);
        assert_eq!(kept(&calls("{}")), [None, None, Some(false)]);
        let both = Transcript { text: "{}".to_owned(), ..calls("{\"x\":1}") };
        assert_eq!(kept(&both), [Some(true), Some(false), Some(true)]);
        let object = r#"{"response_format":{"type":"json_object"}}"#;
        let checks = checked(object, &says("{}"), None);
        assert_eq!([Check::Json, Check::Schema].map(|it| checks.kept(it)), [Some(true), None]);
        assert_eq!(checked("{}", &says("{}"), None).kept(Check::Json), None);
    }

    #[test]
    fn what_takes_a_request_to_be_read_is_looked_at_where_there_is_a_gate() {
        let prompt = Prompt { endpoint: Endpoint::Chat, body: SCHEMA.as_bytes(), form: Form::Free };
        let answer = says("An answer to nobody knows what");
        let answer = Answer { transcript: &answer, finish_reason: None };
        let checks = check(prompt, answer, &[], &Schemas::default());
        let asked: Vec<Check> = checks.iter().map(|it| it.0).collect();
        assert_eq!(asked, [Check::NotEmpty, Check::NotDeclined]);
    }

    /// WIRE 35
    #[test]
    fn an_answer_is_cut_in_the_words_of_every_dialect() {
        let kept = |word: Option<&str>| checked("{}", &says("a"), word).kept(Check::NotCut);
        for word in ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens"] {
            assert_eq!(kept(Some(word)), Some(false), "{word}");
        }
        assert_eq!(
            [kept(Some("stop")), kept(Some("end_turn")), kept(None)],
            [Some(true), Some(true), None]
        );
        let cut = r#"{"choices":[{"finish_reason":"length","message":{"content":null,
            "tool_calls":[{"id":"1","function":{"name":"f","arguments":"{\"x\":"}}]}}]}"#;
        let reading = read(&Received {
            endpoint: Endpoint::Chat,
            status: 200,
            content_type: "application/json",
            content_encoding: "",
            body: cut.as_bytes(),
            tail: Tail::default(),
            ended: End::Whole,
        });
        let checks = checked("{}", &reading.transcript.unwrap(), reading.finish_reason.as_deref());
        assert_eq!([Check::NotCut, Check::ToolCalls].map(|it| checks.kept(it)), [Some(false); 2]);
    }

    #[test]
    fn an_answer_says_something_or_declines() {
        let kept = |transcript: &Transcript| {
            let checks = checked("{}", transcript, None);
            [Check::NotEmpty, Check::NotDeclined].map(|it| checks.kept(it) == Some(true))
        };
        assert_eq!(kept(&says(" \n")), [false, true]);
        assert_eq!(kept(&calls("{}")), [true, true]);
        let refused = Transcript { refusal: Some("No".to_owned()), ..says("") };
        assert_eq!(kept(&refused), [true, true]);
        assert_eq!(kept(&says("I’m sorry, but I can’t assist with that request.")), [true, false]);
        for text in [
            "I'm sorry to hear that your order is late. Here is what to do.",
            "I can't help with that directly, but here is how: ".repeat(10).as_str(),
            "She said: I can't assist with that.",
            "I cannot assist you better than your doctor can.",
        ] {
            assert_eq!(kept(&says(text)), [true, true], "{text}");
        }
    }

    #[test]
    fn a_language_switches_only_where_both_are_sure() {
        let english =
            "Please explain to me how the weather of the coming week is going to be in the north.";
        let german = "Das Wetter wird in der kommenden Woche im Norden überwiegend freundlich und trocken sein.";
        let russian = "На следующей неделе на севере ожидается сухая и солнечная погода.";
        assert_eq!(same_language(english, english), Some(true));
        assert_eq!(same_language(english, german), Some(false));
        assert_eq!(same_language(german, english), Some(false));
        assert_eq!(same_language(english, russian), Some(false));
        assert_eq!(same_language(english, "Nein."), Some(true));
        assert_eq!(same_language("How is it?", german), None);
        let code = format!("```\n{english}\n```\n{german}");
        assert_eq!(same_language(german, &code), Some(true));
        assert_eq!(same_language("", ""), None);
    }

    #[test]
    fn an_answer_is_as_long_as_its_text_and_its_arguments() {
        let transcript = Transcript { text: "né😀".to_owned(), ..calls("{}") };
        assert_eq!(Answer { transcript: &transcript, finish_reason: None }.chars(), 5);
    }
}
