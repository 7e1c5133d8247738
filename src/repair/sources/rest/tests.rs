use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use super::*;
use crate::{
    manager::{
        State,
        client::{Client, ManagerSettings},
    },
    mock::{Collation, Config, Database, Fault, Kind, MockManager, Release, Scope as At, TableRow, User},
    repair::sighting::Stamp,
};

const AT: u64 = 1_795_427_672_734;

struct Bench {
    manager: MockManager,
    source: RestSource,
    _dir: tempfile::TempDir,
}

async fn bench(config: Config) -> Bench {
    let users = vec![User::root(), User::guest("signoff", "correct-horse")];
    let manager = MockManager::start(Config { users, ..config }).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "correct-horse\n").unwrap();
    let client = Client::new(ManagerSettings {
        grpc: vec![format!("grpc://{}", manager.grpc_addr()).parse().unwrap()],
        rest: vec![format!("http://{}", manager.rest_addr()).parse().unwrap()],
        username: Some("signoff".into()),
        password_file: Some(password),
        ..ManagerSettings::default()
    });
    let source = RestSource::new(client.unwrap().shared_rest().unwrap());
    Bench { manager, source, _dir: dir }
}

fn rows(count: usize) -> impl Iterator<Item = TableRow> {
    (0..count).map(|n| {
        let ip = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        TableRow::sample(&format!("s-{n}"), &ip, 1 + n as u64 % 3, State::Active, AT)
    })
}

async fn seen(source: &RestSource, scope: &Scope) -> Result<Vec<Sighting>, Failure> {
    let mut all = Vec::new();
    source.look(scope, &mut |row| all.push(row)).await?;
    Ok(all)
}

#[tokio::test]
async fn thousands_of_rows_are_each_handed_over_once() {
    let bench = bench(Config::default()).await;
    bench.manager.table().put(rows(5000)).unwrap();
    let all = seen(&bench.source, &Scope::All).await.unwrap();
    assert_eq!(all.len(), 5000);
    assert_eq!(all.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), 5000);
    let row = &all[1];
    assert_eq!(
        (row.cluster_id, &*row.hostname, row.port, row.interval_ms),
        (2, "s-1", 8002, NonZeroU32::new(5000))
    );
    assert_eq!((row.ip, row.state), (Some("10.0.0.1".parse().unwrap()), State::Active));
    assert_eq!(row.keep_alive, Some(Stamp::of("2026-11-23T09:54:32.734Z")));
    assert_eq!(row.updated, row.keep_alive);
    let said = (bench.source.name(), bench.source.names(), bench.source.fresh());
    assert_eq!(said, (format!("REST http://{}", bench.manager.rest_addr()), Names::Unknown, true));
}

#[tokio::test]
async fn a_scope_shows_its_clusters_alone_and_each_of_them_once() {
    let bench = bench(Config::default()).await;
    bench.manager.table().put(rows(4500)).unwrap();
    let ids = [3, 1, 3].map(|id| id.try_into().unwrap()).to_vec();
    let all = seen(&bench.source, &Scope::Clusters(ids)).await.unwrap();
    assert_eq!(all.len(), 3000);
    assert!(all.iter().all(|row| row.cluster_id != 2));
}

#[tokio::test]
async fn rows_that_are_made_and_deleted_while_it_looks_leave_every_other_row_seen_once() {
    let bench = bench(Config::default()).await;
    bench.manager.table().put(rows(3000)).unwrap();
    let (mut ids, table) = (Vec::new(), bench.manager.table());
    let each = &mut |row: Sighting| {
        if ids.is_empty() {
            table.put([TableRow::sample("late", "192.0.2.1", 1, State::Active, AT)]).unwrap();
            table.delete(3000, crate::mock::By::Rest).unwrap();
        }
        ids.push(row.id);
    };
    bench.source.look(&Scope::All, each).await.unwrap();
    ids.sort_unstable();
    assert_eq!(ids, (1..3000).chain([3001]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_look_sees_at_once_what_another_manager_wrote() {
    let bench = bench(Config::default()).await;
    let table = bench.manager.table();
    table.put(rows(2)).unwrap();
    let first = seen(&bench.source, &Scope::All).await.unwrap();
    // Not by this manager: its memory of the first look's query stays.
    let key = first[0].key().unwrap();
    table.set_by_hand(&key, State::Inactive).unwrap();
    assert_eq!(seen(&bench.source, &Scope::All).await.unwrap()[0].state, State::Inactive);
    assert_eq!(bench.source.again(&first[0]).await.unwrap().unwrap().state, State::Inactive);
    table.set_by_hand(&key, State::Active).unwrap();
    assert_eq!(bench.source.again(&first[0]).await.unwrap().unwrap().state, State::Active);
}

#[tokio::test]
async fn a_failure_between_two_pages_is_an_error_that_names_the_endpoint() {
    let faults = [
        (Fault::new(Kind::Internal), "HTTP 500"),
        // Its own user is no longer one.
        (Fault { status: Some(401), ..Fault::new(Kind::Http) }, "401"),
        (Fault::new(Kind::Reset), "connection"),
    ];
    for (fault, words) in faults {
        let bench = bench(Config::default()).await;
        bench.manager.table().put(rows(3000)).unwrap();
        let mut count = 0;
        let each = &mut |_| {
            count += 1;
            if count == 1 {
                bench.manager.faults().add(fault.clone().scope(At::Rest).call("list")).unwrap();
            }
        };
        let why = bench.source.look(&Scope::All, each).await.unwrap_err().why;
        assert!(count > 0 && count < 3000);
        let names_it = why.contains(&bench.manager.rest_addr().to_string());
        assert!(why.contains(words) && names_it || why.contains("sign-in"), "{why}");
    }
}

#[tokio::test]
async fn one_row_is_found_again_by_its_id_whatever_it_holds() {
    let bench = bench(Config::default()).await;
    let odd = |hostname: &str, ip: &str| TableRow::sample(hostname, ip, 1, State::Active, AT);
    let table = bench.manager.table();
    let odd_rows =
        [odd("s-0", "10.0.0.1"), odd("s-0", "::ffff:10.0.0.1"), odd("s 0&=?/ü", ""), odd("", "10.0.0.9")];
    table.put(odd_rows).unwrap();
    let all = seen(&bench.source, &Scope::All).await.unwrap();
    assert_eq!(all.iter().map(|row| row.ip.is_some()).collect::<Vec<_>>(), [true, false, false, true]);
    for row in &all {
        assert_eq!(bench.source.again(row).await.unwrap().as_ref(), Some(row));
    }
    for row in &all {
        table.delete(row.id, crate::mock::By::Rest).unwrap();
        if row.hostname.is_empty() {
            // By its id alone: from the manager's memory for up to 30 s.
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(31)).await;
            tokio::time::resume();
            // Its idle connection ended in those 31 s, which the client may not have noticed yet.
            let _ = bench.source.again(row).await;
        }
        assert_eq!(bench.source.again(row).await.unwrap(), None, "{row:?}");
    }
}

#[tokio::test]
async fn a_manager_before_v2_3_1_shows_no_keep_alive_times() {
    let bench = bench(Config { release: Release::V2_2, ..Config::default() }).await;
    bench.manager.table().put(rows(1)).unwrap();
    let row = &seen(&bench.source, &Scope::All).await.unwrap()[0];
    assert_eq!((row.keep_alive, row.interval_ms), (None, None));
    assert_eq!(row.updated, Some(Stamp::of("2026-11-23T09:54:32Z")));
}

#[tokio::test]
async fn the_zone_of_the_manager_that_answers_is_no_move() {
    let database = Database::in_memory(Collation::MySql);
    database.put(rows(1)).unwrap();
    let config = Config { database: Some(database), ..Config::default() };
    let utc = bench(config.clone()).await;
    let shanghai = bench(Config { zone_hours: 8, ..config }).await;
    let before = seen(&utc.source, &Scope::All).await.unwrap()[0].keep_alive.unwrap();
    let now = seen(&shanghai.source, &Scope::All).await.unwrap()[0].keep_alive.unwrap();
    assert!(!now.moved_since(before));
}
