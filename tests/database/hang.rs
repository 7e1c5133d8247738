//! Servers that are down, that say nothing, and connections that end.

use std::{net::SocketAddr, time::Duration};

use signoff::repair::sources::{Scope, Source, database::DatabaseSource};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    bench::{Bench, Schema, refusal, seen},
    server::Engine,
};

fn sources(addr: SocketAddr) -> [DatabaseSource; 2] {
    ["mysql", "postgres"]
        .map(|scheme| DatabaseSource::new(&format!("{scheme}://u:hunter2@{addr}/m"), None).unwrap())
}

#[tokio::test]
async fn a_server_that_is_down_is_named() {
    // Bound and not listening: refused, and nobody else's.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    for source in sources(socket.local_addr().unwrap()) {
        let why = refusal(&source).await;
        assert!(why.starts_with(&source.name()) && why.contains("Connection refused"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_says_nothing_is_given_up_on() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for source in sources(silent.local_addr().unwrap()) {
        let begun = Instant::now();
        let why = refusal(&source).await;
        assert!(why.ends_with("connect: no answer within 5s"), "{why}");
        assert_eq!(begun.elapsed().as_secs(), 5);
    }
}

#[tokio::test]
async fn a_server_of_another_kind_is_an_error() {
    let greetings: [&[u8]; 6] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0",
        b"\x01\0\0\0\x0a",
        b"N",
    ];
    for greeting in greetings {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sources = sources(listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, greeting).await;
            }
        });
        for source in sources {
            let why = refusal(&source).await;
            assert!(why.starts_with(&source.name()) && !why.contains("hunter2"), "{why}");
        }
        server.abort();
    }
}

#[tokio::test]
async fn a_statement_that_is_never_answered_is_given_up_on_and_the_next_look_is_well() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.fill(1).await;
        let (lock, unlock, waiting) = match bench.engine {
            Engine::MariaDb => (
                "LOCK TABLES scheduler WRITE",
                "UNLOCK TABLES",
                format!(
                    "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{}' AND state LIKE 'Waiting for table%'",
                    bench.user
                ),
            ),
            Engine::Postgres => (
                "BEGIN; LOCK TABLE scheduler IN ACCESS EXCLUSIVE MODE",
                "COMMIT",
                format!(
                    "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
                    bench.user
                ),
            ),
        };
        // Its own session: PostgreSQL shows a transaction the same activity to its end.
        let mut other = bench.second().await;
        other.run(lock).await;
        let source = std::sync::Arc::new(bench.source());
        let look = tokio::spawn({
            let source = source.clone();
            async move { refusal(&source).await }
        });
        // No longer the connection that is waited for, but the statement.
        bench.eventually(&waiting, |n| n == 1).await;
        tokio::time::pause();
        let begun = Instant::now();
        let why = look.await.unwrap();
        assert!(begun.elapsed() <= Duration::from_secs(31), "{:?}", begun.elapsed());
        tokio::time::resume();
        assert!(why.ends_with("read: no answer within 30s"), "{why}");
        other.run(unlock).await;
        assert_eq!(seen(&source, &Scope::All).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn there_is_one_connection_at_most_and_one_that_ended_is_replaced() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.fill(2).await;
        let source = bench.source();
        let rows = seen(&source, &Scope::All).await.unwrap();
        seen(&source, &Scope::All).await.unwrap();
        for row in &rows {
            assert_eq!(source.again(row).await.unwrap().as_ref(), Some(row));
        }
        let sessions = bench.sessions();
        bench.eventually(&sessions, |n| n == 1).await;
        let kill = match bench.engine {
            Engine::MariaDb => format!("KILL USER '{}'@'%'", bench.user),
            Engine::Postgres => {
                format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
                    bench.user
                )
            }
        };
        bench.run(&kill).await;
        bench.eventually(&sessions, |n| n == 0).await;
        assert_eq!(source.again(&rows[1]).await.unwrap().as_ref(), Some(&rows[1]));
        assert_eq!(bench.number(&sessions).await, 1);
        drop(source);
        bench.eventually(&sessions, |n| n == 0).await;
    }
}

#[tokio::test]
async fn a_look_that_is_dropped_half_way_leaves_the_next_one_well() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.fill(25_000).await;
        let source = bench.source();
        for _ in 0..20 {
            let limit = Duration::from_micros(fastrand::u64(0..100_000));
            let _ = tokio::time::timeout(limit, seen(&source, &Scope::All)).await;
        }
        let all = seen(&source, &Scope::All).await.unwrap();
        assert_eq!(all.len(), 25_000);
        assert_eq!(source.again(&all[24_999]).await.unwrap().as_ref(), all.last());
    }
}
