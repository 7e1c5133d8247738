//! What a manager answers, or whoever stands in its place.

use std::time::Duration;

use futures_util::stream;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::timeout,
};

use super::served::on_runtime;
use crate::{
    manager::{
        Outcome, State, grpc,
        outcome::{self, LONGEST_WISH},
        rest::Answer,
    },
    net::Connection,
    proto::manager_v2::KeepAliveRequest,
};

/// Characters of why something failed, at most: a log line.
const MOST_WORDS: usize = 2000;

/// An answer over REST: two bytes of status, a `Retry-After` up to the first newline, the body.
pub fn rest(data: &[u8]) {
    let [high, low, rest @ ..] = data else { return };
    // Numbers that are a status, and most of them one that matters.
    let status = match high {
        0..=99 => 200,
        _ => 100 + (u16::from(*high) << 8 | u16::from(*low)) % 500,
    };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (wish, body) = rest.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let retry_after = std::str::from_utf8(wish).ok().and_then(outcome::retry_after);
    let answer = Answer { status, retry_after, body: body.to_vec() };
    let said = answer.message();

    let outcome = outcome::of_http("http://m:8080", status, &said, retry_after);
    assert_eq!(matches!(outcome, Outcome::Confirmed), (200..300).contains(&status));
    let gone = status == 404 && said.trim() == "record not found";
    assert_eq!(matches!(outcome, Outcome::Absent), gone);
    if let Some(failure) = outcome.failure() {
        assert!(failure.why.chars().count() <= MOST_WORDS, "{} characters", failure.why.len());
        assert!(failure.floor.is_none_or(|floor| floor <= LONGEST_WISH));
        assert_eq!(failure.exhausted, status == 429);
    }
    match answer.rows("http://m:8080") {
        Ok(rows) => {
            assert!((200..300).contains(&status), "rows of an answer of {status}");
            // The same by a reader of its own, which is stricter about fields that don't matter.
            let Ok(page) = serde_json::from_slice::<Value>(body) else { return };
            let shown = page.as_array().cloned().unwrap_or_default();
            assert_eq!(rows.len(), shown.len());
            for (row, shown) in rows.iter().zip(&shown) {
                // A row as an array is not what a manager writes; only its being one is looked at.
                if shown.is_object() {
                    assert_eq!(Some(row.id), shown["id"].as_u64());
                    assert_eq!(row.state == State::Active, shown["state"] == "active");
                    assert_eq!(row.hostname, shown["host_name"].as_str().unwrap_or_default());
                }
            }
        }
        Err(failure) => {
            assert!(failure.why.chars().count() <= MOST_WORDS, "{} characters", failure.why.len());
            assert!(failure.why.starts_with("http://m:8080"), "{failure}");
        }
    }
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PREFACE: usize = 24;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK's literals, not indexed, not compressed.
fn fields(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        let value = &value[..value.len().min(100)];
        block.push(0);
        for text in [name.as_bytes(), value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text);
        }
    }
    block
}

/// What a server writes once it has the whole request.
struct Script {
    bytes: Vec<u8>,
    /// OK as the status at the end is in it, so that it may confirm.
    may_confirm: bool,
    /// Frames were written as they are: what is in them isn't known.
    raw: bool,
}

/// Reads the data as what a server does, one step after another: a byte that says what, a byte that says how, and what that
/// needs.
fn script(mut data: &[u8]) -> Script {
    let mut script = Script { bytes: Vec::new(), may_confirm: false, raw: false };
    while let [what, how, rest @ ..] = data {
        let (some, rest) = match what % 12 {
            2 | 3 | 7 => rest.split_at(rest.len().min(usize::from(*how >> 2))),
            _ => rest.split_at(0),
        };
        data = rest;
        let code = (how % 17).to_string();
        let http: &[u8] =
            [&b"200"[..], b"200", b"200", b"404", b"503", b"302", b"100", b"401"][usize::from(how % 8)];
        let kind = ("content-type", &b"application/grpc"[..]);
        let next = match what % 12 {
            0 | 11 => frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", http), kind])),
            1 => {
                script.may_confirm |= code == "0";
                let status = ("grpc-status", code.as_bytes());
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":status", b"200"), kind, status]))
            }
            2 => {
                let length = u32::try_from(some.len()).unwrap().to_be_bytes();
                frame(DATA, 0, 1, &[&[how & 1], &length[..], some].concat())
            }
            3 => {
                let code: &[u8] = [&b"0"[..], b"13", b"14", b"5"][usize::from(how % 4)];
                script.may_confirm |= code == b"0";
                let block = fields(&[("grpc-status", code), ("grpc-message", some)]);
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            }
            4 => frame(3, 0, 1, &u32::from(how % 15).to_be_bytes()),
            5 => {
                let last = [0, 1, 3, 0x7fff_ffff][usize::from(how % 4)] as u32;
                frame(7, 0, 0, &[last.to_be_bytes(), u32::from(how >> 4).to_be_bytes()].concat())
            }
            6 => frame(DATA, END_STREAM, 1, &[]),
            7 => {
                script.raw = true;
                some.to_vec()
            }
            8 => frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("x", b"y")])),
            9 => {
                // OK at the beginning, and the stream goes on.
                let status = ("grpc-status", &b"0"[..]);
                frame(HEADERS, END_HEADERS, 1, &fields(&[(":status", b"200"), kind, status]))
            }
            _ => frame(6, 0, 0, &[0; 8]),
        };
        script.bytes.extend(next);
    }
    script
}

/// Whether the client has ended its request: a frame of its stream with that flag.
fn has_asked(sent: &[u8]) -> bool {
    let mut rest = sent.get(PREFACE..).unwrap_or_default();
    while let [a, b, c, _, flags, s0, s1, s2, s3, after @ ..] = rest {
        let kind = rest[3];
        let stream = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        if stream == 1 && (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        rest = after.get(length..).unwrap_or_default();
    }
    false
}

async fn serve(mut io: DuplexStream, bytes: &[u8]) {
    let mut sent = Vec::new();
    // The client may hang up at any of these.
    let _ = io.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    while !has_asked(&sent) {
        if io.read_buf(&mut sent).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let _ = io.write_all(bytes).await;
    let _ = io.shutdown().await;
    let _ = tokio::io::copy(&mut io, &mut tokio::io::sink()).await;
}

/// How a sign-off ended that was answered so; none where nobody is to be asked.
fn sign_off(bytes: &[u8]) -> Option<Outcome> {
    on_runtime(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let peer = "10.0.0.1:65003".parse().unwrap();
        let client = async {
            let origin = http::Uri::from_static("http://10.0.0.1:65003");
            let connection = Connection::over(ours, peer, origin, None).await.ok()?;
            let request = KeepAliveRequest { hostname: "h".into(), cluster_id: 1, ..Default::default() };
            let drained =
                timeout(Duration::from_secs(30), grpc::drain(&connection, stream::iter([request]))).await;
            Some(match drained {
                Ok(Ok(())) => Outcome::Confirmed,
                Ok(Err(status)) => outcome::of_status("m", &status),
                Err(_) => Outcome::Unknown(crate::manager::Failure::new("no answer")),
            })
        };
        tokio::select! {
            biased;
            outcome = client => outcome,
            () = async { serve(theirs, bytes).await; std::future::pending().await } => None,
        }
    })
}

/// An answer over gRPC, frame by frame, to the real client: OK at the end confirms, and nothing else does.
pub fn grpc(data: &[u8]) {
    let script = script(data);
    let Some(outcome) = sign_off(&script.bytes) else { return };
    let confirmed = matches!(outcome, Outcome::Confirmed);
    assert!(!confirmed || script.may_confirm || script.raw, "confirmed without OK at the end");
    let words = b"record not found";
    let said = data.windows(words.len()).any(|some| some == words);
    assert!(outcome != Outcome::Absent || said || script.raw, "absent, and nobody said so");
    if let Some(failure) = outcome.failure() {
        assert!(failure.why.chars().count() <= MOST_WORDS, "{} characters", failure.why.len());
        assert!(failure.floor.is_none_or(|floor| floor <= LONGEST_WISH));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[&[u8]]) -> Outcome {
        sign_off(&script(&steps.concat()).bytes).unwrap()
    }

    #[test]
    fn the_script_reaches_every_outcome() {
        let (headers, ok): (&[u8], &[u8]) = (&[0, 0], &[3, 0]);
        assert_eq!(after(&[headers, ok]), Outcome::Confirmed);
        assert_eq!(after(&[headers, &[2, 0], ok]), Outcome::Confirmed);
        assert_eq!(after(&[&[1, 0]]), Outcome::Confirmed);
        assert_eq!(after(&[headers, &[3, 16 << 2 | 1], b"record not found"]), Outcome::Absent);
        assert!(matches!(after(&[&[1, 16]]), Outcome::Rejected(_)));
        assert!(matches!(after(&[headers, &[3, 1]]), Outcome::Failed(_)));
        // OK at the beginning is none at the end.
        for cut in [&[4, 0][..], &[4, 8], &[6, 0], &[8, 0], &[]] {
            assert!(matches!(after(&[&[9, 0], cut]), Outcome::Unknown(_)), "{cut:?}");
        }
        assert_eq!(after(&[&[9, 0], ok]), Outcome::Confirmed);
        for cut in [&[6, 0][..], &[8, 0], &[4, 8], &[4, 0], &[5, 1], &[]] {
            assert!(matches!(after(&[headers, cut]), Outcome::Unknown(_)), "{cut:?}");
        }
    }
}
