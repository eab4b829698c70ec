//! Tests of the tee.

use super::*;
use crate::memory::{Memory, Need};

#[test]
fn what_is_allocated_for_an_answer_is_held() {
    let memory = Memory::new(1 << 20);
    let (head, ()) = hyper::Response::new(()).into_parts();
    let (name, len_max) = ("a".parse().unwrap(), 10_000);
    let keep = Keep::UpTo(len_max, memory.hold(Need::Answer, None));
    let mut taking = Taking::new(name, &head, instant(), keep, Box::new(drop));
    for len in [1, 700, 3_000, 9, 3_300, 2_989, 2, 5_000] {
        taking.chunk(&vec![b'x'; len].into());
        assert_eq!(memory.bytes(), taking.body.capacity());
    }
    assert_eq!((taking.body.len(), taking.body.capacity()), (len_max, len_max));
    taking.finish(Ended::Whole);
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn b04_what_was_used_by_the_time_a_caller_left_is_known() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\
        \"model\":\"m\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n";
    for ended in [Ended::Abandoned, Ended::Silent] {
        let (taken, _) = taken(&[start, "event: content_bl"], 1_000, ended);
        let (call, reading) = taken.read(Endpoint::Messages);
        assert_eq!(call.usage.map(|it| (it.input, it.output)), Some((9, 1)));
        assert_eq!((call.outcome, call.model.as_deref()), (Outcome::Abandoned, Some("m")));
        assert_eq!((call.finish_reason, reading.transcript), (None, None));
    }
    let (taken, _) = taken(&[], 1_000, Ended::Abandoned);
    assert_eq!(taken.read(Endpoint::Messages).0.usage, None);
}

/// What becomes of a stream of these pieces of which so much is kept, at most.
fn taken(pieces: &[&str], len_max: usize, ended: Ended) -> (Taken, usize) {
    let memory = Memory::new(1 << 20);
    let head = hyper::Response::builder().header(CONTENT_TYPE, "text/event-stream");
    let (head, ()) = head.body(()).unwrap().into_parts();
    let (sender, receiver) = std::sync::mpsc::channel();
    let keep = Keep::UpTo(len_max, memory.hold(Need::Answer, None));
    let done: Done = Box::new(move |taken| sender.send(taken).unwrap());
    let mut taking = Taking::new("a".parse().unwrap(), &head, instant(), keep, done);
    for piece in pieces {
        taking.chunk(&Bytes::copy_from_slice(piece.as_bytes()));
        assert_eq!(memory.bytes(), taking.body.capacity() + taking.tail.capacity());
    }
    taking.finish(ended);
    (receiver.recv().unwrap(), memory.bytes())
}

#[test]
fn the_end_of_a_stream_is_kept_beside_its_beginning_and_says_how_it_went() {
    let delta = "data: {\"choices\":[{\"delta\":{\"content\":\"some words\"}}]}\n\n";
    let fault = "data: {\"error\":{\"code\":500,\"message\":\"late\"}}\n\n";
    let mark = "data: [DONE]\n\n";
    for deltas in [1, 40, 2_000] {
        let all = delta.repeat(deltas);
        for (last, outcome) in
            [(mark, Outcome::Ok), (fault, Outcome::ProviderError), ("", Outcome::Truncated)]
        {
            for len_max in [20, delta.len(), 200] {
                let stream = delta.to_owned() + &all + last;
                let (one, held) = taken(&[&stream], len_max, Ended::Whole);
                assert!(held <= len_max.max(stream.len()) + TAIL_LEN_MAX);
                let (call, _) = one.read(Endpoint::Chat);
                assert_eq!(call.outcome, outcome, "{deltas} {last:?} {len_max}");
                let pieces: Vec<&str> =
                    stream.split_inclusive('}').flat_map(|it| it.split_inclusive(',')).collect();
                let (other, _) = taken(&pieces, len_max, Ended::Whole);
                assert_eq!((&other.body, &other.tail), (&one.body, &one.tail));
                assert_eq!(other.missing, one.missing);
            }
        }
    }
}
