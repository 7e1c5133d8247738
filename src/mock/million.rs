//! A list with a million rows more, made while it is sent: it costs the mock no memory.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use prost::Message;

use super::listener::{Body, BoxError, boxed};
use crate::proto::manager_v2::{ListSchedulersResponse, Scheduler};

const ROWS: u64 = 1_000_000;
const CHUNK: u64 = 1000;
/// Ids from here on, and hostnames with as many digits, all have the same length.
const FIRST_ID: u64 = 10_000_000;

/// Marks an answer that a million rows are to be added to.
#[derive(Debug, Clone)]
pub(super) struct Extra;

fn chunk(n: u64) -> ListSchedulersResponse {
    let first = FIRST_ID + n * CHUNK;
    let row = |id| Scheduler {
        id,
        hostname: format!("filler-{id}"),
        ip: "192.0.2.1".to_owned(),
        port: 8002,
        state: "active".to_owned(),
        scheduler_cluster_id: 1,
        ..Scheduler::default()
    };
    ListSchedulersResponse { schedulers: (first..first + CHUNK).map(row).collect() }
}

/// Puts the million rows behind the one message of a gRPC answer.
pub(super) async fn grpc(response: Response<tonic::body::Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        return boxed(tonic::Status::internal("no list").into_http::<tonic::body::Body>());
    };
    let own = body.to_bytes();
    let own = own.get(5..).map(Bytes::copy_from_slice).unwrap_or_default();
    let chunks = ROWS / CHUNK;
    let length = own.len() + usize::try_from(chunks).unwrap_or(0) * chunk(0).encoded_len();
    let mut head = BytesMut::with_capacity(5 + own.len());
    head.put_u8(0);
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    head.extend_from_slice(&own);
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = std::iter::once(Frame::data(head.freeze()))
        .chain((0..chunks).map(|n| Frame::data(chunk(n).encode_to_vec().into())))
        .chain(std::iter::once(Frame::trailers(status)));
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>)));
    Response::from_parts(parts, body.boxed_unsync())
}

/// Puts the million rows, made by `row` from an id, behind the rows of a JSON array.
pub(super) fn json(own: &[u8], row: impl Fn(u64) -> Vec<u8> + Send + 'static) -> Body {
    let own = own.strip_suffix(b"]").unwrap_or(own).to_vec();
    let empty = own == b"[";
    let filler = (0..ROWS / CHUNK).map(move |n| {
        let mut text = Vec::new();
        for id in FIRST_ID + n * CHUNK..FIRST_ID + (n + 1) * CHUNK {
            if !(empty && id == FIRST_ID) {
                text.push(b',');
            }
            text.extend_from_slice(&row(id));
        }
        text
    });
    let parts = std::iter::once(own).chain(filler).chain(std::iter::once(b"]".to_vec()));
    StreamBody::new(stream::iter(parts.map(|p| Ok::<_, BoxError>(Frame::data(Bytes::from(p))))))
        .boxed_unsync()
}
