//! Which rows a look shows, and what of each.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32};

use signoff::{
    manager::State,
    repair::{
        sighting::{Sighting, Stamp},
        sources::{Names, Scope, Source},
    },
};

use crate::{
    bench::{Bench, Schema, seen},
    server::Engine,
};

#[tokio::test]
async fn every_row_of_several_pages_is_shown_once_and_a_deleted_one_never() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.fill(25_000).await;
        bench.run("UPDATE scheduler SET is_del = 1 WHERE id = 17000").await;
        let source = bench.source();
        let all = seen(&source, &Scope::All).await.unwrap();
        assert_eq!(all.len(), 24_999);
        let ids: Vec<_> = all.iter().map(|row| row.id).collect();
        assert_eq!(ids, (1..=25_000).filter(|id| *id != 17_000).collect::<Vec<_>>());
        let gone = all[0].clone();
        assert_eq!(source.again(&gone).await.unwrap(), Some(gone.clone()));
        bench.run("DELETE FROM scheduler WHERE id = 1").await;
        assert_eq!(source.again(&gone).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_scope_shows_its_clusters_alone() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.fill(30_000).await;
        let scope = Scope::Clusters([1, 3].map(|id| id.try_into().unwrap()).to_vec());
        let all = seen(&bench.source(), &scope).await.unwrap();
        assert_eq!(all.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), 20_000);
        assert_eq!(all.len(), 20_000);
        assert!(all.iter().all(|row| scope.holds(row.cluster_id)));
    }
}

#[tokio::test]
async fn rows_written_while_they_are_looked_at_are_each_shown_once() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.fill(30_000).await;
        let (source, mut ids) = (bench.source(), Vec::new());
        let each = &mut |row: Sighting| {
            ids.push(row.id);
            // In the middle of a page, and at its end.
            if ids.len() == 5_000 || ids.len() == 10_000 {
                // PostgreSQL moves what is written to another place in its table.
                bench.run_meanwhile("UPDATE scheduler SET port = port + 1 WHERE MOD(id, 2) = 0");
                bench.run_meanwhile("DELETE FROM scheduler WHERE id = 20000");
            }
        };
        source.look(&Scope::All, each).await.unwrap();
        assert_eq!(ids, (1..=30_000).filter(|id| *id != 20_000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_row_is_read_in_full_and_its_times_are_taken_as_the_table_has_them() {
    for mut bench in Bench::each(Schema::V2_5).await {
        let (at, later) = match bench.engine {
            Engine::MariaDb => ("2026-11-23 20:54:32.734", "2026-11-23 20:54:37.734"),
            // By a manager in Shanghai.
            Engine::Postgres => ("2026-11-23 20:54:32.734+08", "2026-11-23 20:54:37.734+08"),
        };
        bench
            .run(&format!(
                "INSERT INTO scheduler (host_name, ip, port, state, scheduler_cluster_id, is_del, config, \
                 last_keep_alive_at, updated_at) VALUES ('Sched-0', 'fd00::1', 8002, 'active', 7, 0, \
                 '{{\"manager_keep_alive_interval\":3000000000}}', '{at}', '{later}')"
            ))
            .await;
        let source = bench.source();
        let row = seen(&source, &Scope::All).await.unwrap().remove(0);
        assert_eq!((row.id, row.cluster_id, &*row.hostname, row.port), (1, 7, "Sched-0", 8002));
        assert_eq!(row.ip, Some("fd00::1".parse::<IpAddr>().unwrap()));
        assert_eq!((row.state, row.interval_ms), (State::Active, NonZeroU32::new(3000)));
        let (keep_alive, updated) = (row.keep_alive.unwrap(), row.updated.unwrap());
        match bench.engine {
            Engine::MariaDb => assert_eq!(keep_alive, Stamp::of(at)),
            Engine::Postgres => {
                assert_eq!(keep_alive, Stamp::of("2026-11-23 12:54:32.734+00"), "this session's zone is UTC");
                // The same moment over REST of that manager.
                assert!(!keep_alive.moved_since(Stamp::of("2026-11-23T20:54:32.734+08:00")));
            }
        }
        assert_eq!(updated.after(keep_alive).unwrap().as_secs(), 5);

        let again = source.again(&row).await.unwrap().unwrap();
        assert!(!again.keep_alive.unwrap().moved_since(keep_alive), "nothing was written");
        bench.run(&format!("UPDATE scheduler SET last_keep_alive_at = '{later}', state = 'inactive'")).await;
        let again = source.again(&row).await.unwrap().unwrap();
        assert!(again.keep_alive.unwrap().moved_since(keep_alive));
        assert_eq!(again.state, State::Inactive);
        assert_eq!(seen(&source, &Scope::All).await.unwrap()[0], again);
    }
}

#[tokio::test]
async fn a_table_of_v2_2_shows_no_keep_alive_times_and_its_own_in_utc() {
    for mut bench in Bench::each(Schema::V2_2).await {
        bench.fill(1).await;
        let row = seen(&bench.source(), &Scope::All).await.unwrap().remove(0);
        assert_eq!((row.keep_alive, row.interval_ms), (None, None));
        assert_eq!(row.updated, Some(Stamp::of("2026-11-23 20:54:32")));
    }
}

#[tokio::test]
async fn nulls_and_odd_values_fail_no_look() {
    for mut bench in Bench::each(Schema::V2_5).await {
        let nothing = match bench.engine {
            Engine::MariaDb => {
                "SET SESSION sql_mode = ''; UPDATE scheduler SET last_keep_alive_at = '0000-00-00'"
            }
            Engine::Postgres => "UPDATE scheduler SET last_keep_alive_at = 'infinity'",
        };
        bench
            .run(
                "ALTER TABLE scheduler ADD COLUMN tags text; \
                 INSERT INTO scheduler (host_name, ip, port, state, scheduler_cluster_id, is_del, config) VALUES \
                 ('', '', -1, NULL, 0, 0, NULL), ('hé 0', '::ffff:10.0.0.1', 70000, 'on', 1, 0, 'null'), \
                 ('h', '10.0.0.1', 0, 'active', 1, 0, '{\"manager_keep_alive_interval\":\"5s\"}')",
            )
            .await;
        bench.run(nothing).await;
        let source = bench.source();
        let all = seen(&source, &Scope::All).await.unwrap();
        assert_eq!(
            all.iter().map(|row| (&*row.hostname, row.port)).collect::<Vec<_>>(),
            [("", 0), ("hé 0", 0), ("h", 0)]
        );
        assert_eq!(all.iter().map(|row| row.ip.is_some()).collect::<Vec<_>>(), [false, false, true]);
        assert!(all.iter().all(|row| row.interval_ms.is_none() && row.updated.is_none()));
        assert!(all.iter().all(|row| (row.state == State::Active) == (&*row.hostname == "h")));
        let (id, before) = (all[2].id, all[2].keep_alive.unwrap());
        assert!(
            !source.again(&all[2]).await.unwrap().unwrap().keep_alive.unwrap().moved_since(before),
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_source_says_what_it_is_and_never_its_password() {
    for bench in Bench::each(Schema::V2_5).await {
        let source = bench.source();
        let (names, engine) = match bench.engine {
            Engine::MariaDb => (Names::IgnoreCase, "MySQL"),
            Engine::Postgres => (Names::Exact, "PostgreSQL"),
        };
        let name = format!("database {} on 127.0.0.1:{} ({engine})", bench.database, bench.server.port);
        assert_eq!((source.name(), source.names(), source.fresh()), (name.clone(), names, true));
        assert_eq!(format!("{source:?}"), format!("DatabaseSource({name:?})"));
    }
}
