//! Notes as the store keeps them: many small ones of a window together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    json::{self, DecodeError, known},
    pair::{CallJson, LotJson, OrderJson, WindowJson},
};
use crate::domain::{Metric, Note, Order, PairId, Side, Told, Weather, Window};

#[derive(Serialize, Deserialize)]
struct NotesJson {
    v: u32,
    window: WindowJson,
    notes: Vec<NoteJson>,
}

#[derive(Serialize, Deserialize)]
struct NoteJson {
    order: OrderJson,
    told: String,
    /// Of a solo alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    solo: Option<SoloJson>,
    /// Of noise alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noise: Option<NoiseJson>,
    /// Of feedback alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feedback: Option<FeedbackJson>,
    /// Of a beginning alone: thousandths by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    weather: BTreeMap<String, u32>,
}

#[derive(Serialize, Deserialize)]
struct SoloJson {
    lot: LotJson,
    side: String,
    call: CallJson,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
}

#[derive(Serialize, Deserialize)]
struct NoiseJson {
    served: CallJson,
    again: CallJson,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
}

#[derive(Serialize, Deserialize)]
struct FeedbackJson {
    request: String,
    lot: LotJson,
    side: String,
    score_millionths: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slice: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
}

const SOLO: &str = "solo";
const FEEDBACK: &str = "feedback";
const NOISE: &str = "noise";
const ENTERED: &str = "entered";

/// What is told in a word, and the word for it.
const PLAIN: [(&str, Told); 4] = [
    ("copy_lost", Told::CopyLost),
    ("score_lost", Told::ScoreLost),
    ("judge_failed", Told::JudgeFailed),
    ("guarded", Told::Guarded),
];

/// The bytes of notes of one window.
pub(super) fn encode(window: &Window, notes: &[Note]) -> Vec<u8> {
    let notes = notes.iter().map(|it| {
        let plain = |told: &str| NoteJson {
            order: it.order.into(),
            told: told.to_owned(),
            solo: None,
            noise: None,
            feedback: None,
            weather: BTreeMap::new(),
        };
        match &it.told {
            Told::Solo { lot, side, call, watched } => {
                let (lot, side) = ((*lot).into(), side.as_str().to_owned());
                let (call, slice) = (CallJson::from(&**call), watched.clone());
                let solo = SoloJson { lot, side, call, slice };
                NoteJson { solo: Some(solo), ..plain(SOLO) }
            }
            Told::Noise { served, again, watched } => {
                let [served, again] = [served, again].map(|it| CallJson::from(&**it));
                let noise = NoiseJson { served, again, slice: watched.clone() };
                NoteJson { noise: Some(noise), ..plain(NOISE) }
            }
            Told::Feedback { request, lot, side, score_millionths, watched, key } => {
                let (request, side) = (request.to_string(), side.as_str().to_owned());
                let (lot, slice) = ((*lot).into(), watched.clone());
                let (score_millionths, key) = (*score_millionths, key.clone());
                let feedback = FeedbackJson { request, lot, side, score_millionths, slice, key };
                NoteJson { feedback: Some(feedback), ..plain(FEEDBACK) }
            }
            Told::Entered(weather) => {
                let of = |it: &Weather| (it.metric.as_str().to_owned(), it.variance_permille);
                NoteJson { weather: weather.iter().map(of).collect(), ..plain(ENTERED) }
            }
            Told::CopyLost => plain("copy_lost"),
            Told::ScoreLost => plain("score_lost"),
            Told::JudgeFailed => plain("judge_failed"),
            Told::Guarded => plain("guarded"),
        }
    });
    let (v, window) = (json::VERSION, WindowJson::from(window));
    json::encode(&NotesJson { v, window, notes: notes.collect() })
}

/// The notes of some bytes, in the order they were written.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Note>, DecodeError> {
    let json: NotesJson = json::decode(bytes)?;
    let window = json.window.window()?;
    let note = |it: NoteJson| {
        let order = Order::from(it.order);
        let told = if let Some(solo) = it.solo {
            solo.told()?
        } else if let Some(noise) = it.noise {
            noise.told()?
        } else if let Some(feedback) = it.feedback {
            feedback.told()?
        } else if it.told == ENTERED {
            Told::Entered(it.weather.iter().filter_map(weather).collect())
        } else {
            let plain = PLAIN.into_iter().find(|(word, _)| *word == it.told);
            known("told", &it.told, plain)?.1
        };
        Ok(Note { window: window.clone(), order, told })
    };
    json.notes.into_iter().map(note).collect()
}

/// What a later version may measure besides is passed over.
fn weather((metric, variance_permille): (&String, &u32)) -> Option<Weather> {
    let metric = Metric::ALL.into_iter().find(|it| it.as_str() == metric)?;
    Some(Weather { metric, variance_permille: *variance_permille })
}

impl SoloJson {
    fn told(self) -> Result<Told, DecodeError> {
        let side = side(&self.side)?;
        let (lot, call) = (self.lot.into(), Box::new(self.call.call()?));
        Ok(Told::Solo { lot, side, call, watched: self.slice })
    }
}

impl FeedbackJson {
    fn told(self) -> Result<Told, DecodeError> {
        let request = known("request", &self.request, self.request.parse::<PairId>().ok())?;
        let (lot, side) = (self.lot.into(), side(&self.side)?);
        let (score_millionths, watched, key) = (self.score_millionths, self.slice, self.key);
        Ok(Told::Feedback { request, lot, side, score_millionths, watched, key })
    }
}

fn side(name: &str) -> Result<Side, DecodeError> {
    let sides = [Side::Primary, Side::Candidate];
    known("side", name, sides.into_iter().find(|it| it.as_str() == name))
}

impl NoiseJson {
    fn told(self) -> Result<Told, DecodeError> {
        let (served, again) = (Box::new(self.served.call()?), Box::new(self.again.call()?));
        Ok(Told::Noise { served, again, watched: self.slice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn notes_read_back_and_are_small_together() {
        let pair = samples::pair("chat", 1_000, 1);
        let notes: Vec<Note> = samples::notes(&pair, 1, 100);
        let bytes = encode(&pair.window, &notes);
        assert_eq!(decode(&bytes).unwrap(), notes);
        let packed = zstd::bulk::compress(&bytes, 3).unwrap();
        assert!(packed.len() < 100 * 40, "{}", packed.len());
    }
}
