use std::collections::HashSet;

use tonic::metadata::MetadataValue;

use super::*;

/// One line for each of gRPC's seventeen codes, with a message that means nothing in particular.
const CODES: [(Code, Class); 17] = [
    (Code::Ok, Class::Confirmed),
    (Code::Cancelled, Class::Unknown),
    (Code::Unknown, Class::Unknown),
    (Code::InvalidArgument, Class::Rejected),
    (Code::DeadlineExceeded, Class::Unknown),
    (Code::NotFound, Class::Rejected),
    (Code::AlreadyExists, Class::Rejected),
    (Code::PermissionDenied, Class::Rejected),
    (Code::ResourceExhausted, Class::Exhausted),
    (Code::FailedPrecondition, Class::Rejected),
    (Code::Aborted, Class::Failed),
    (Code::OutOfRange, Class::Rejected),
    (Code::Unimplemented, Class::Rejected),
    (Code::Internal, Class::Failed),
    (Code::Unavailable, Class::Unknown),
    (Code::DataLoss, Class::Failed),
    (Code::Unauthenticated, Class::Rejected),
];

/// What a manager, or something that speaks in its place, writes into `Internal`.
const INTERNAL: [(&str, Class); 21] = [
    ("record not found", Class::Absent),
    (" record not found\n", Class::Absent),
    ("table record not found: x", Class::Failed),
    (
        "rpc error: code = InvalidArgument desc = invalid KeepAliveRequest.ClusterId: value must be greater than or equal to 1",
        Class::Rejected,
    ),
    (
        "rpc error: code = InvalidArgument desc = invalid KeepAliveRequest.Ip: value must be a valid IP",
        Class::Rejected,
    ),
    (
        "rpc error: code = InvalidArgument desc = invalid KeepAliveRequest.Hostname: value must be a hostname",
        Class::Rejected,
    ),
    ("rpc error: code = Unauthenticated desc = who", Class::Rejected),
    ("rpc error: code = ResourceExhausted desc = slow down", Class::Exhausted),
    ("rpc error: code = Canceled desc = context canceled", Class::Failed),
    ("rpc error: code = Unavailable desc = transport is closing", Class::Failed),
    ("rpc error: code = ", Class::Failed),
    ("dial tcp 127.0.0.1:13306: connect: connection refused", Class::Failed),
    ("dial tcp: lookup mysql on 10.96.0.10:53: no such host", Class::Failed),
    ("invalid connection", Class::Failed),
    ("driver: bad connection", Class::Failed),
    ("Error 1040: Too many connections", Class::Failed),
    ("Error 1205 (HY000): Lock wait timeout exceeded; try restarting transaction", Class::Failed),
    ("", Class::Failed),
    ("failed to decode Protobuf message: buffer underflow", Class::Unknown),
    ("protocol error: received message with invalid compression flag: 72", Class::Unknown),
    ("stream terminated by RST_STREAM with error code: INTERNAL_ERROR", Class::Unknown),
];

#[test]
fn g5_every_grpc_code_has_its_line() {
    let walked: HashSet<i32> = CODES.iter().map(|(code, _)| *code as i32).collect();
    assert_eq!(walked, (0..17).collect(), "the walk leaves no code out");
    assert_eq!(Code::from_i32(17), Code::Unknown, "and there is no other");
    for (code, class) in CODES {
        assert_eq!(classify(code, "some text"), class, "{code:?}");
    }
}

#[test]
fn g5_under_internal_the_message_decides() {
    for (message, class) in INTERNAL {
        assert_eq!(classify(Code::Internal, message), class, "{message:?}");
    }
    assert_eq!(classify(Code::NotFound, "record not found"), Class::Absent);
}

#[test]
fn g5_an_answer_over_the_cap_says_nothing_about_what_was_applied() {
    let text = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
    assert_eq!(classify(Code::OutOfRange, text), Class::Unknown);
}

#[test]
fn g5_only_absent_in_so_many_words_is_absent() {
    for (code, _) in CODES {
        let absent = matches!(code, Code::Internal | Code::NotFound);
        assert_eq!(classify(code, "record not found") == Class::Absent, absent, "{code:?}");
    }
}

#[test]
fn a_lost_database_is_named_and_ends_the_call() {
    let status = Status::internal("dial tcp 127.0.0.1:13306: connect: connection refused");
    let Outcome::Failed(failure) = of_status("m:65003", &status) else { panic!() };
    assert!(failure.why.starts_with("m:65003: the manager can't reach its database"), "{failure}");
    assert!(!failure.exhausted);
}

#[test]
fn g3_an_overloaded_manager_s_wish_is_a_floor() {
    for (name, value, floor) in [
        ("grpc-retry-pushback-ms", "1500", Some(1500)),
        ("grpc-retry-pushback-ms", "18446744073709551615", Some(30_000)),
        ("retry-after", "18446744073709551615", Some(30_000)),
        ("retry-after", "2", Some(2000)),
        ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("unrelated", "5", None),
    ] {
        let mut status = Status::resource_exhausted("rate limit");
        status.metadata_mut().insert(name, MetadataValue::from_static(value));
        let Outcome::Failed(failure) = of_status("m", &status) else { panic!() };
        assert!(failure.exhausted);
        assert_eq!(failure.floor, floor.map(Duration::from_millis), "{name}: {value}");
    }
}

#[test]
fn g5_a_request_that_was_never_seen_failed_and_a_cut_one_is_unknown() {
    for (error, unknown) in [
        (CallError::NotSent, false),
        (CallError::Refused("REFUSED_STREAM".into()), false),
        (CallError::Cut("reset".into()), true),
    ] {
        let outcome = of_status("m", &Status::from_error(Box::new(error)));
        assert_eq!(matches!(outcome, Outcome::Unknown(_)), unknown, "{outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Failed(_)), !unknown, "{outcome:?}");
    }
}

#[test]
fn g5_every_http_status_has_its_class() {
    for status in 100..=599u16 {
        let class = match status {
            200..=299 => Class::Confirmed,
            408 | 421 | 425 | 500 => Class::Failed,
            429 => Class::Exhausted,
            300..=499 | 501 | 505 => Class::Rejected,
            _ => Class::Unknown,
        };
        assert_eq!(classify_http(status, "text"), class, "{status}");
        let absent = classify_http(status, "record not found") == Class::Absent;
        assert_eq!(absent, status == 404, "{status}");
    }
}

#[test]
fn an_http_answer_carries_its_floor_and_its_words() {
    let outcome = of_http("http://m:8080", 429, "slow", retry_after("3"));
    let failure = outcome.failure().unwrap();
    assert!(failure.exhausted);
    assert_eq!(failure.floor, Some(Duration::from_secs(3)));
    assert!(failure.why.contains("http://m:8080: HTTP 429"), "{failure}");
}
