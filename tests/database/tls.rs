//! TLS: who is believed.

use signoff::repair::sources::{Scope, database::DatabaseSource};

use crate::{
    bench::{Bench, PASSWORD, Schema, refusal, seen},
    server::{Engine, another_ca},
};

/// The parameters that ask for a mode, in either database's words, with a CA.
fn parameters(engine: Engine, mode: [&str; 2], ca: Option<&std::path::Path>) -> String {
    let (name, ca_name, mode) = match engine {
        Engine::MariaDb => ("ssl-mode", "ssl-ca", mode[0]),
        Engine::Postgres => ("sslmode", "sslrootcert", mode[1]),
    };
    let ca = ca.map(|path| format!("&{ca_name}={}", path.display())).unwrap_or_default();
    format!("?{name}={mode}{ca}")
}

const NEVER: [&str; 2] = ["disabled", "disable"];
const REQUIRED: [&str; 2] = ["required", "require"];
const VERIFY_CA: [&str; 2] = ["verify_ca", "verify-ca"];
const VERIFY_IDENTITY: [&str; 2] = ["verify_identity", "verify-full"];

#[tokio::test]
async fn tls_is_used_where_it_is_offered_and_not_where_it_is_not_wanted() {
    for mut bench in Bench::each(Schema::V2_5).await {
        let encrypted = match bench.engine {
            // Only encrypted sessions of this user are let in.
            Engine::MariaDb => {
                bench.run(&format!("ALTER USER '{}'@'%' REQUIRE SSL", bench.user.clone())).await;
                None
            }
            Engine::Postgres => Some(format!(
                "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = '{}'",
                bench.user
            )),
        };
        for (mode, secure) in [(NEVER, false), (["preferred", "prefer"], true), (REQUIRED, true)] {
            let source = bench.source_with(&parameters(bench.engine, mode, None));
            let looked = seen(&source, &Scope::All).await;
            match &encrypted {
                None => assert_eq!(looked.is_ok(), secure, "{mode:?}"),
                Some(sql) => {
                    looked.unwrap();
                    assert_eq!(bench.number(sql).await, i64::from(secure), "{mode:?}");
                }
            }
            drop(source);
            let sessions = bench.sessions();
            bench.eventually(&sessions, |n| n == 0).await;
        }
    }
}

#[tokio::test]
async fn a_ca_that_signed_nothing_here_is_not_believed_and_the_right_one_is() {
    for bench in Bench::each(Schema::V2_5).await {
        let right = bench.file("ca.pem", &bench.server.ca);
        let wrong = bench.file("wrong.pem", &another_ca());
        for mode in [VERIFY_CA, VERIFY_IDENTITY] {
            let with = |ca| bench.source_with(&parameters(bench.engine, mode, ca));
            seen(&with(Some(&right)), &Scope::All).await.unwrap();
            // Without any CA, Mozilla's list.
            for source in [with(Some(&wrong)), with(None)] {
                let why = refusal(&source).await;
                assert!(why.contains("invalid peer certificate"), "{why}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_where_the_name_is_verified() {
    for bench in Bench::each(Schema::V2_5).await {
        let ca = bench.file("ca.pem", &bench.server.ca);
        let password = bench.file("password", PASSWORD);
        let by_name = |mode| {
            let url = bench.url("", "localhost", &parameters(bench.engine, mode, Some(&ca)));
            DatabaseSource::new(&url, Some(password.clone())).unwrap()
        };
        let why = refusal(&by_name(VERIFY_IDENTITY)).await;
        assert!(why.contains("not valid for name"), "{why}");
        seen(&by_name(VERIFY_CA), &Scope::All).await.unwrap();
    }
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_named() {
    for bench in Bench::each(Schema::V2_5).await {
        let empty = bench.file("empty.pem", "nothing\n");
        for path in [empty, bench.dir.path().join("absent.pem")] {
            let why =
                refusal(&bench.source_with(&parameters(bench.engine, VERIFY_IDENTITY, Some(&path)))).await;
            assert!(why.contains(&path.display().to_string()), "{why}");
        }
    }
}
