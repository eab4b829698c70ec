//! temporary
use crate::domain::*;
#[derive(Debug)]
pub struct Asked {
    pub model: String,
    pub stream: bool,
    pub user: Option<String>,
    pub conversation: Option<String>,
    pub barred: Option<Skip>,
}
pub enum End {
    Whole,
    Broken,
    Cut,
}
pub struct Received<'a> {
    pub endpoint: Endpoint,
    pub status: u16,
    pub content_type: &'a str,
    pub content_encoding: &'a str,
    pub body: &'a [u8],
    pub ended: End,
}
pub struct Reading {
    pub outcome: Outcome,
    pub transcript: Option<Transcript>,
    pub usage: Option<Usage>,
    pub finish_reason: Option<String>,
    pub model: Option<String>,
    pub trouble: Option<String>,
}
pub struct Edits<'a> {
    pub model: Option<&'a str>,
    pub purpose: Purpose,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Copy,
    Serve,
}
pub fn endpoint(_m: &str, _p: &str) -> Option<Endpoint> {
    None
}
pub fn ask(_e: Endpoint, _p: &str, _b: &[u8]) -> Result<Asked, Skip> {
    Err(Skip::NotJson)
}
pub fn adapt(
    _e: Endpoint,
    p: &str,
    b: &[u8],
    _a: &Asked,
    _x: &Edits<'_>,
) -> Result<(String, Vec<u8>), Skip> {
    Ok((p.to_owned(), b.to_vec()))
}
pub fn read(_r: &Received<'_>) -> Reading {
    Reading {
        outcome: Outcome::Ok,
        transcript: None,
        usage: None,
        finish_reason: None,
        model: None,
        trouble: None,
    }
}
pub fn agreement(_a: Option<&Transcript>, _b: Option<&Transcript>) -> Agreement {
    Agreement::Unknown
}
pub fn conversation(_e: Endpoint, _b: &[u8], _l: usize) -> String {
    String::new()
}
