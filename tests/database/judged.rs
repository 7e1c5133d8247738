//! `signoff reconcile` as a process, on the database alone.

use std::process::{Command, Output};

use signoff::{
    key::SchedulerKey,
    mock::{
        manager::{Config, MockManager},
        scheduler::{MockScheduler, SchedulerConfig},
    },
};

use crate::bench::{Bench, PASSWORD, Schema};

/// A scheduler that lives, beside a manager that nobody asks.
async fn living() -> (MockManager, MockScheduler) {
    let manager = MockManager::start(Config::default()).await.unwrap();
    let key = SchedulerKey::new(1.try_into().unwrap(), "s-0".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let scheduler = MockScheduler::start(SchedulerConfig::new(key, manager.grpc_addr())).await.unwrap();
    (manager, scheduler)
}

async fn reconcile(bench: &Bench, args: &[&str]) -> Output {
    let url = bench.url("", "127.0.0.1", "").replace(":@", "@");
    let mut command = Command::new(env!("CARGO_BIN_EXE_signoff"));
    command
        .env_clear()
        .arg("reconcile")
        .args(args)
        .env("SIGNOFF_DATABASE_URL", url)
        .env("SIGNOFF_DATABASE_PASSWORD_FILE", bench.file("password", PASSWORD))
        .env("SIGNOFF_RUN_DIR", bench.dir.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    for stream in [&output.stdout, &output.stderr] {
        crate::secret::none_in(&String::from_utf8_lossy(stream), "a command's output");
    }
    output
}

#[tokio::test]
async fn a_row_whose_time_stands_still_is_dead_and_one_whose_moves_lives_whatever_their_zone() {
    let (_manager, scheduler) = living().await;
    let port = scheduler.addr().port();
    for mut bench in Bench::each(Schema::V2_5).await {
        // Its hostname differs in case: MySQL takes the two for one, PostgreSQL doesn't. Hours off by any clock of ours.
        for (id, name, ip, port, time) in [
            (1, "S-0", "127.0.0.9", 1, "2020-01-01 03:54:32.734"),
            (2, "s-0", "127.0.0.1", port, "2020-01-01 11:54:32.734"),
        ] {
            bench
                .run(&format!(
                    "INSERT INTO scheduler (id, host_name, ip, port, state, scheduler_cluster_id, is_del, updated_at, last_keep_alive_at) \
                     VALUES ({id}, '{name}', '{ip}', {port}, 'active', 1, 0, '{time}', '{time}')"
                ))
                .await;
        }
        let mut second = bench.second().await;
        let beats = tokio::spawn(async move {
            for beat in 0u32.. {
                let time = format!("2020-01-01 11:{:02}:{:02}.000", beat / 60 % 60, beat % 60);
                second.run(&format!("UPDATE scheduler SET last_keep_alive_at = '{time}' WHERE id = 2")).await;
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        });
        let output = reconcile(&bench, &["-o", "json"]).await;
        beats.abort();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        let verdict = match bench.url("", "", "").starts_with("mysql") {
            true => "replaced",
            false => "dead",
        };
        assert_eq!(output.status.code(), Some(2), "{out}{err}");
        assert_eq!(
            (&report["rows"][0]["id"], &report["rows"][0]["verdict"]),
            (&1.into(), &verdict.into()),
            "{out}"
        );
        assert_eq!(report["counts"]["live"], 1, "{out}");
        // Writes need the manager's gRPC: said before anything is looked at.
        let output = reconcile(&bench, &["--apply", "--all-clusters"]).await;
        assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
