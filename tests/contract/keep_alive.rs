//! Registration and KeepAlive.

use std::time::{Duration, Instant};

use signoff::{manager::State, mock::By, proto::manager_v2::KeepAliveRequest};
use tonic::Code;

use crate::support::{
    Stream, Target, beat, client, eventually, key, mock, one_message, register, registration, said, sign_off,
    with_ip,
};

#[tokio::test]
async fn a_registered_row_is_inactive_and_registering_never_sets_the_state() {
    let target = Target::any().await;
    let key = key("registered");
    assert_eq!(register(target.grpc, &key).await.state, "inactive");
    let stream = Stream::open(target.grpc).await;
    stream.send(beat(&key));
    target.eventually(&key, Some(State::Active)).await;
    assert_eq!(register(target.grpc, &key).await.state, "active");
    stream.half_close().await.unwrap();
}

#[tokio::test]
async fn the_same_key_with_a_new_port_collides_with_the_unique_key() {
    let target = Target::any().await;
    let key = key("ports");
    register(target.grpc, &key).await;
    let mut other = registration(&key);
    other.port = 8003;
    let status = client(target.grpc).await.update_scheduler(other).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("Error 1062"), "{status:?}");
    assert!(status.message().contains("uk_scheduler"), "{status:?}");
}

#[tokio::test]
async fn the_first_message_makes_the_row_active_and_ok_after_the_half_close_comes_without_a_message() {
    let target = Target::any().await;
    let key = key("moments");
    register(target.grpc, &key).await;
    let stream = Stream::open(target.grpc).await;
    stream.send(beat(&key));
    target.eventually(&key, Some(State::Active)).await;
    assert_eq!(stream.half_close().await.unwrap(), 0, "messages before the OK");
    assert_eq!(target.state(&key).await, Some(State::Inactive), "at the moment of the OK");
}

#[tokio::test]
async fn an_absent_row_is_internal_record_not_found() {
    let target = Target::any().await;
    let answer = said(sign_off(target.grpc, &key("absent")).await);
    assert_eq!(answer, (Code::Internal, "record not found".into()));
}

#[tokio::test]
async fn of_parallel_calls_for_an_absent_row_some_get_ok() {
    let config = signoff::mock::Config { latency: Duration::from_millis(100), ..Default::default() };
    let mock = mock(config).await;
    let key = key("absent");
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(Stream::open(mock.grpc_addr()).await);
    }
    for stream in &streams {
        stream.send(beat(&key));
    }
    let calls: Vec<_> = streams.into_iter().map(|stream| tokio::spawn(stream.half_close())).collect();
    let mut ok = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => ok += 1,
            Err(status) => assert_eq!(status.message(), "record not found"),
        }
    }
    assert!((1..4).contains(&ok), "{ok} of 4 got OK");
    assert_eq!(mock.table().history(), []);
}

#[tokio::test]
async fn a_wrong_request_is_internal_too_and_names_the_field() {
    let target = Target::any().await;
    let right = beat(&key("wrong"));
    for (wrong, field) in [
        (KeepAliveRequest { cluster_id: 0, ..right.clone() }, "ClusterId: value must be"),
        (KeepAliveRequest { ip: "10.0.0".into(), ..right.clone() }, "Ip: value must be"),
        (KeepAliveRequest { hostname: "under_score".into(), ..right.clone() }, "Hostname: value must be"),
        (KeepAliveRequest { hostname: String::new(), ..right.clone() }, "Hostname: value must be"),
        (KeepAliveRequest { hostname: "x".repeat(64), ..right.clone() }, "Hostname: value must be"),
    ] {
        let (code, message) = said(one_message(target.grpc, wrong).await);
        assert_eq!(code, Code::Internal, "{message}");
        let wanted = format!("rpc error: code = InvalidArgument desc = invalid KeepAliveRequest.{field}");
        assert!(message.starts_with(&wanted), "{message}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_first_message_changes_nothing() {
    let target = Target::any().await;
    let stream = Stream::open(target.grpc).await;
    let (code, _) = said(stream.half_close().await);
    assert_eq!(code, Code::Internal);
}

#[tokio::test]
async fn an_empty_ip_matches_the_lowest_id_of_that_hostname() {
    let target = Target::any().await;
    let first = key("noip");
    let second = with_ip(&first, "192.0.2.2");
    register(target.grpc, &first).await;
    register(target.grpc, &second).await;
    let stream = Stream::open(target.grpc).await;
    stream.send(KeepAliveRequest { ip: String::new(), ..beat(&second) });
    target.eventually(&first, Some(State::Active)).await;
    assert_eq!(target.state(&second).await, Some(State::Inactive));
    stream.half_close().await.unwrap();
    assert_eq!(target.state(&first).await, Some(State::Inactive));
}

#[tokio::test]
async fn on_mysql_the_hostname_matches_without_regard_to_case() {
    let target = Target::any().await;
    let key = key("Case");
    register(target.grpc, &key).await;
    let mut upper = beat(&key);
    upper.hostname = upper.hostname.to_uppercase();
    let stream = Stream::open(target.grpc).await;
    stream.send(upper);
    target.eventually(&key, Some(State::Active)).await;
    stream.half_close().await.unwrap();
}

#[tokio::test]
async fn an_ip_in_another_spelling_finds_nothing() {
    let target = Target::any().await;
    let key = with_ip(&key("spelling"), "fd00::1");
    register(target.grpc, &key).await;
    let long = KeepAliveRequest { ip: "fd00:0:0:0:0:0:0:1".into(), ..beat(&key) };
    let answer = said(one_message(target.grpc, long).await);
    assert_eq!(answer, (Code::Internal, "record not found".into()));
}

#[tokio::test]
async fn of_two_streams_the_end_of_either_makes_the_row_inactive_and_the_others_messages_dont_mend_it() {
    let target = Target::any().await;
    if !target.has_times() {
        return;
    }
    let key = key("two");
    register(target.grpc, &key).await;
    let (stays, ends) = (Stream::open(target.grpc).await, Stream::open(target.grpc).await);
    stays.send(beat(&key));
    target.eventually(&key, Some(State::Active)).await;
    ends.send(beat(&key));
    ends.half_close().await.unwrap();
    assert_eq!(target.state(&key).await, Some(State::Inactive));
    let before = last_keep_alive(&target, &key).await;
    eventually("a later message was taken", async || {
        stays.send(beat(&key));
        last_keep_alive(&target, &key).await != before
    })
    .await;
    assert_eq!(target.state(&key).await, Some(State::Inactive));
    stays.half_close().await.unwrap();
}

async fn last_keep_alive(target: &Target, key: &signoff::key::SchedulerKey) -> String {
    target.row(key).await.unwrap()["last_keep_alive_at"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_message_does_not_move_last_keep_alive_at_and_the_following_ones_do() {
    let target = Target::any().await;
    if !target.has_times() {
        return;
    }
    let key = key("beats");
    register(target.grpc, &key).await;
    let registered = last_keep_alive(&target, &key).await;
    let stream = Stream::open(target.grpc).await;
    stream.send(beat(&key));
    target.eventually(&key, Some(State::Active)).await;
    assert_eq!(last_keep_alive(&target, &key).await, registered);
    stream.send(beat(&key));
    eventually("the second message moves it", async || last_keep_alive(&target, &key).await != registered)
        .await;
    stream.half_close().await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_makes_the_row_inactive() {
    let target = Target::any().await;
    let key = key("lost");
    register(target.grpc, &key).await;
    let stream = Stream::open(target.grpc).await;
    stream.send(beat(&key));
    target.eventually(&key, Some(State::Active)).await;
    stream.lose();
    target.eventually(&key, Some(State::Inactive)).await;
}

#[tokio::test]
async fn a_sign_off_of_an_inactive_row_passes_through_active() {
    let mock = mock(signoff::mock::Config::default()).await;
    let key = key("again");
    register(mock.grpc_addr(), &key).await;
    sign_off(mock.grpc_addr(), &key).await.unwrap();
    let writes: Vec<_> = mock.table().history().iter().skip(1).map(|c| (c.to, c.by)).collect();
    assert_eq!(writes, [(Some(State::Active), By::FirstMessage), (Some(State::Inactive), By::StreamEnd)]);
}

#[tokio::test]
async fn a_healthy_sign_off_takes_two_to_three_milliseconds() {
    let config = signoff::mock::Config { latency: Duration::from_millis(2), ..Default::default() };
    let mock = mock(config).await;
    let key = key("healthy");
    register(mock.grpc_addr(), &key).await;
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let begun = Instant::now();
        sign_off(mock.grpc_addr(), &key).await.unwrap();
        fastest = fastest.min(begun.elapsed());
    }
    // No sooner than the database allows; how much later is the machine's load.
    assert!(fastest >= Duration::from_millis(2), "{fastest:?}");
}

#[tokio::test]
async fn a_client_that_pings_oftener_than_every_five_minutes_is_cut_and_its_row_goes_inactive() {
    let target = Target::any().await;
    let key = key("pings");
    register(target.grpc, &key).await;
    let tcp = tokio::net::TcpStream::connect(target.grpc).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tcp);
    let (mut send, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(Duration::from_millis(200))
            .handshake(io)
            .await
            .unwrap();
    let (body, messages) = tokio::sync::mpsc::unbounded_channel::<bytes::Bytes>();
    let messages = futures_util::stream::unfold(messages, |mut messages| async move {
        let bytes = messages.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(bytes)), messages))
    });
    let mut message = vec![0, 0, 0, 0];
    let beat = prost::Message::encode_to_vec(&beat(&key));
    message.push(u8::try_from(beat.len()).unwrap());
    message.extend(beat);
    body.send(message.into()).unwrap();
    let request = http::Request::post(format!("http://{}/manager.v2.Manager/KeepAlive", target.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::StreamBody::new(Box::pin(messages)))
        .unwrap();
    let connection = tokio::spawn(connection);
    let call = tokio::spawn(async move { send.send_request(request).await });
    target.eventually(&key, Some(State::Active)).await;
    let ended = tokio::time::timeout(crate::support::PATIENCE, call).await.expect("it is cut").unwrap();
    assert!(ended.is_err(), "no answer");
    let error = format!("{:?}", connection.await.unwrap().expect_err("a GOAWAY"));
    assert!(error.contains("too_many_pings"), "{error}");
    target.eventually(&key, Some(State::Inactive)).await;
}
