//! The faults: each as a client on the wire sees it. On the mock alone.

use std::time::{Duration, Instant};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{Channel, Config, Fault, Kind, MockManager, Scope},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::support::{
    PATIENCE, Stream, beat, client, eventually, key, mock, register, reqwest, said, sign_in, sign_off,
};

async fn ready() -> (MockManager, SchedulerKey) {
    let mock = mock(Config::default()).await;
    let key = key("fault");
    register(mock.grpc_addr(), &key).await;
    (mock, key)
}

#[tokio::test]
async fn refuse_closes_the_port_and_opens_it_again_when_it_is_over() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::Refuse).scope(Scope::Grpc)).unwrap();
    eventually("refused", async || {
        Channel::connect(mock.grpc_addr())
            .await
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    })
    .await;
    assert!(TcpStream::connect(mock.rest_addr()).await.is_ok(), "REST is another matter");
    mock.faults().clear();
    eventually("open again", async || Channel::connect(mock.grpc_addr()).await.is_ok()).await;
    sign_off(mock.grpc_addr(), &key).await.unwrap();
}

#[tokio::test]
async fn black_hole_accepts_and_says_nothing_on_old_and_new_connections_until_it_is_over() {
    let (mock, key) = ready().await;
    let old = Stream::open(mock.grpc_addr()).await;
    mock.faults().add(Fault::new(Kind::BlackHole)).unwrap();
    old.send(beat(&key));
    let mut new = TcpStream::connect(mock.grpc_addr()).await.unwrap();
    new.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut byte = [0];
    let silence = tokio::time::timeout(Duration::from_millis(200), new.read(&mut byte)).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive));
    mock.faults().clear();
    assert_eq!(new.read(&mut byte).await.unwrap(), 1);
    assert!(mock.table().eventually_state(&key, Some(State::Active), PATIENCE).await);
    old.half_close().await.unwrap();
}

#[tokio::test]
async fn a_counted_black_hole_takes_so_many_connections_and_no_more() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::BlackHole).count(1).scope(Scope::Grpc)).unwrap();
    let _swallowed = TcpStream::connect(mock.grpc_addr()).await.unwrap();
    eventually("taken", async || mock.faults().list().is_empty()).await;
    sign_off(mock.grpc_addr(), &key).await.unwrap();
}

#[tokio::test]
async fn stall_answers_late() {
    let (mock, key) = ready().await;
    let stall = Fault::new(Kind::Stall).after(Duration::from_millis(300)).count(1);
    mock.faults().add(stall).unwrap();
    let begun = Instant::now();
    sign_off(mock.grpc_addr(), &key).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn reset_after_the_first_message_is_a_tcp_reset_and_the_row_ends_inactive() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::Reset).count(1)).unwrap();
    let stream = Stream::open(mock.grpc_addr()).await;
    stream.send(beat(&key));
    let status = stream.answer().await.unwrap_err();
    let text = format!("{status:?}");
    assert!(text.contains("ConnectionReset"), "{text}");
    assert!(mock.table().eventually(PATIENCE, |_| mock.table().history().len() == 3).await);
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive));
}

#[tokio::test]
async fn cut_after_apply_applies_both_moments_and_gives_no_answer() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::CutAfterApply).count(1)).unwrap();
    assert!(sign_off(mock.grpc_addr(), &key).await.is_err());
    let states: Vec<_> = mock.table().history().iter().skip(1).map(|c| c.to).collect();
    assert_eq!(states, [Some(State::Active), Some(State::Inactive)]);
}

#[tokio::test]
async fn cut_after_apply_of_a_rest_delete_deletes() {
    let (mock, key) = ready().await;
    let rest = format!("http://{}", mock.rest_addr());
    let (_, granted) = sign_in(&rest, "root", "dragonfly").await;
    mock.faults().add(Fault::new(Kind::CutAfterApply).call("delete").count(1)).unwrap();
    let id = mock.table().find(&key).unwrap().unwrap().id;
    let answer = reqwest()
        .delete(format!("{rest}/api/v1/schedulers/{id}"))
        .bearer_auth(granted["token"].as_str().unwrap())
        .send()
        .await;
    assert!(answer.is_err());
    assert_eq!(mock.table().find(&key).unwrap(), None);
}

#[tokio::test]
async fn die_between_leaves_the_row_active() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::DieBetween).count(1)).unwrap();
    assert!(sign_off(mock.grpc_addr(), &key).await.is_err());
    sign_off(mock.grpc_addr(), &crate::support::with_ip(&key, "192.0.2.9")).await.unwrap_err();
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Active));
    assert_eq!(mock.table().history().len(), 2);
}

#[tokio::test]
async fn error_answers_come_as_often_as_asked_and_change_nothing() {
    let (mock, key) = ready().await;
    for (kind, code) in [
        (Kind::Unavailable, Code::Unavailable),
        (Kind::ResourceExhausted, Code::ResourceExhausted),
        (Kind::Internal, Code::Internal),
    ] {
        mock.faults().add(Fault::new(kind).count(2).message("said so")).unwrap();
        for _ in 0..2 {
            assert_eq!(said(sign_off(mock.grpc_addr(), &key).await), (code, "said so".to_owned()));
        }
    }
    assert_eq!(mock.table().history().len(), 1);
    sign_off(mock.grpc_addr(), &key).await.unwrap();
}

#[tokio::test]
async fn rest_answers_errors_with_their_status_and_an_http_error_reaches_grpc_too() {
    let (mock, key) = ready().await;
    let rest = format!("http://{}", mock.rest_addr());
    for (kind, status) in
        [(Kind::Unavailable, 503), (Kind::ResourceExhausted, 429), (Kind::Internal, 500), (Kind::Http, 500)]
    {
        mock.faults().add(Fault::new(kind).count(1).scope(Scope::Rest)).unwrap();
        let answer = reqwest().get(format!("{rest}/api/v1/schedulers")).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers().contains_key("retry-after"), status == 429);
    }
    mock.faults().add("unavailable,count=1,after=3".parse().unwrap()).unwrap();
    let answer = reqwest().get(format!("{rest}/api/v1/schedulers")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"3".parse().unwrap()));
    mock.faults().add("http,status=502,count=1,scope=grpc".parse().unwrap()).unwrap();
    // As gRPC maps a proxy's 502.
    assert_eq!(said(sign_off(mock.grpc_addr(), &key).await).0, Code::Unavailable);
}

#[tokio::test]
async fn garbage_is_no_http() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::Garbage).count(1)).unwrap();
    let mut tcp = TcpStream::connect(mock.grpc_addr()).await.unwrap();
    let mut noise = Vec::new();
    tcp.read_to_end(&mut noise).await.unwrap();
    assert!(noise.starts_with(&[0, 0xff]), "{noise:?}");
    let mut warm = client(mock.grpc_addr()).await;
    mock.faults().add(Fault::new(Kind::Garbage).count(1)).unwrap();
    assert!(warm.update_scheduler(crate::support::registration(&key)).await.is_err());
    sign_off(mock.grpc_addr(), &key).await.unwrap();
}

#[tokio::test]
async fn slow_sends_one_byte_at_a_time() {
    let (mock, _) = ready().await;
    mock.faults().add(Fault::new(Kind::Slow).scope(Scope::Rest)).unwrap();
    let mut tcp = TcpStream::connect(mock.rest_addr()).await.unwrap();
    tcp.write_all(b"GET /healthy HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut bytes = [0; 64];
    for _ in 0..4 {
        assert_eq!(tcp.read(&mut bytes).await.unwrap(), 1);
    }
    mock.faults().clear();
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"\"OK\""));
}

#[tokio::test]
async fn a_million_rows_more_are_in_both_lists() {
    let (mock, key) = ready().await;
    sign_off(mock.grpc_addr(), &key).await.unwrap();
    mock.faults().add(Fault::new(Kind::MillionRow)).unwrap();
    let request = signoff::proto::manager_v2::ListSchedulersRequest {
        hostname: "caller".into(),
        ip: "192.0.2.9".into(),
        scheduler_cluster_id: 1,
        ..Default::default()
    };
    let mut client = client(mock.grpc_addr()).await.max_decoding_message_size(usize::MAX);
    let rows = client.list_schedulers(request).await.unwrap().into_inner().schedulers;
    assert_eq!((rows.len(), rows[0].hostname.as_str()), (1_000_001, key.hostname.as_str()));
    let rest = format!("http://{}", mock.rest_addr());
    let (_, granted) = sign_in(&rest, "root", "dragonfly").await;
    let mut answer = reqwest()
        .get(format!("{rest}/api/v1/schedulers"))
        .bearer_auth(granted["token"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    // A part of it is enough: the whole is 700 MB.
    let mut text = Vec::new();
    while text.len() < 4_000_000 {
        text.extend_from_slice(&answer.chunk().await.unwrap().expect("more"));
    }
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("[{\"id\":1,"), "its own row is the first");
    assert!(text.matches("},{\"id\":").count() > 5000);
}

#[tokio::test]
async fn faults_are_switched_over_the_admin_port() {
    let (mock, key) = ready().await;
    let url = format!("http://{}/faults", mock.admin_addr().unwrap());
    let post = async |body: &'static str| reqwest().post(&url).body(body).send().await.unwrap();
    assert_eq!(post(r#"{"kind":"unavailable","count":2}"#).await.status(), 201);
    assert_eq!(said(sign_off(mock.grpc_addr(), &key).await).0, Code::Unavailable);
    let listed: serde_json::Value = reqwest().get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(listed, serde_json::json!([{ "kind": "unavailable", "count": 1, "scope": "both" }]));
    assert_eq!(reqwest().delete(&url).send().await.unwrap().status(), 204);
    sign_off(mock.grpc_addr(), &key).await.unwrap();
    let wrong = post(r#"{"kind":"refuse","count":2}"#).await;
    assert_eq!(wrong.status(), 422);
    assert!(wrong.text().await.unwrap().contains("use seconds"));
}

#[tokio::test]
async fn past_its_limit_a_manager_refuses_calls_in_the_limiters_words_and_counts_them() {
    let mock = mock(Config { limit: Some(2), ..Config::default() }).await;
    let key = key("many");
    register(mock.grpc_addr(), &key).await;
    let all = futures_util::future::join_all((0..50).map(|_| sign_off(mock.grpc_addr(), &key))).await;
    let refused: Vec<_> = all.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty());
    for status in &refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let words =
            "/manager.v2.Manager/KeepAlive is rejected by grpc_ratelimit middleware, please retry later.";
        assert_eq!(status.message(), words);
    }
    let calls = mock.calls();
    assert_eq!((calls.len(), calls.iter().filter(|call| call.refused).count()), (51, refused.len()));
}

#[tokio::test]
async fn proxied_answers_in_the_managers_place_for_every_call_and_its_health() {
    let (mock, key) = ready().await;
    for (fault, code) in [
        (Fault::new(Kind::Proxied), Code::Unavailable),
        (Fault { status: Some(404), ..Fault::new(Kind::Proxied) }, Code::Unimplemented),
        (Fault::new(Kind::Proxied).message("no healthy upstream"), Code::Unavailable),
    ] {
        mock.faults().add(fault.clone()).unwrap();
        assert!(sign_off(mock.grpc_addr(), &key).await.is_err(), "{fault:?}");
        let channel = Channel::connect(mock.grpc_addr()).await.unwrap();
        let origin = format!("http://{}", mock.grpc_addr()).parse().unwrap();
        let mut health = signoff::proto::health_v1::health_client::HealthClient::with_origin(channel, origin);
        let health = health.check(signoff::proto::health_v1::HealthCheckRequest::default()).await;
        assert_eq!(health.unwrap_err().code(), code, "{fault:?}");
        mock.faults().clear();
    }
    let wish = Fault::new(Kind::Proxied).message("maintenance").after(Duration::from_secs(3600));
    mock.faults().add(wish).unwrap();
    let status = sign_off(mock.grpc_addr(), &key).await.unwrap_err();
    assert_eq!(status.metadata().get("retry-after").unwrap(), "3600");
    let answer =
        reqwest().get(format!("http://{}/api/v1/schedulers", mock.rest_addr())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"3600".parse().unwrap()));
    assert_eq!(mock.table().state(&key).unwrap(), Some(State::Inactive), "nothing was applied");
}

#[tokio::test]
async fn hang_up_accepts_and_closes_without_a_byte() {
    let (mock, key) = ready().await;
    mock.faults().add(Fault::new(Kind::HangUp).scope(Scope::Grpc).count(1)).unwrap();
    let mut tcp = TcpStream::connect(mock.grpc_addr()).await.unwrap();
    assert_eq!(tcp.read(&mut [0]).await.unwrap_or(0), 0);
    sign_off(mock.grpc_addr(), &key).await.unwrap();
}
