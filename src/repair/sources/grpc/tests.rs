use std::time::Duration;

use super::*;
use crate::{
    manager::{
        State,
        client::{Client, ManagerSettings},
    },
    mock::{Config, Fault, Kind, MockManager, Release, TableRow},
};

async fn bench(config: Config) -> (MockManager, GrpcSource) {
    let manager = MockManager::start(config).await.unwrap();
    let client = Client::new(ManagerSettings {
        grpc: vec![format!("grpc://{}", manager.grpc_addr()).parse().unwrap()],
        ..ManagerSettings::default()
    })
    .unwrap();
    let source = GrpcSource::new(client.shared_grpc(), client.caller_ip());
    (manager, source)
}

fn sample(hostname: &str, cluster_id: u64, state: State) -> TableRow {
    TableRow::sample(hostname, "10.0.0.1", cluster_id, state, 1_795_427_672_734)
}

async fn seen(source: &GrpcSource, scope: &Scope) -> Result<Vec<Sighting>, Failure> {
    let mut all = Vec::new();
    source.look(scope, &mut |row| all.push(row)).await?;
    Ok(all)
}

#[tokio::test]
async fn active_rows_of_the_scope_are_shown_without_times_whatever_the_release() {
    for release in [Release::V2_2, Release::V2_5] {
        let (manager, source) = bench(Config { release, ..Config::default() }).await;
        let rows = [("a", 1, State::Active), ("b", 2, State::Active), ("c", 1, State::Inactive)];
        manager.table().put(rows.map(|(name, cluster, state)| sample(name, cluster, state))).unwrap();
        assert_eq!(seen(&source, &Scope::All).await.unwrap().len(), 2);
        let one = seen(&source, &Scope::Clusters(vec![1.try_into().unwrap()])).await.unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!((one[0].id, &*one[0].hostname, one[0].port), (1, "a", 8002));
        assert_eq!((one[0].keep_alive, one[0].updated, one[0].interval_ms), (None, None, None));
        let said = (source.name(), source.names(), source.fresh());
        assert_eq!(said, (format!("gRPC grpc://{}", manager.grpc_addr()), Names::Unknown, false));
    }
}

#[tokio::test]
async fn a_row_is_found_again_while_it_is_active_and_the_list_is_at_most_30_s_old() {
    let (manager, source) = bench(Config::default()).await;
    manager.table().put([sample("a", 1, State::Active)]).unwrap();
    let row = seen(&source, &Scope::All).await.unwrap().remove(0);
    assert_eq!(source.again(&row).await.unwrap().as_ref(), Some(&row));
    manager.table().set_by_hand(&row.key().unwrap(), State::Inactive).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    assert_eq!(source.again(&row).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_that_is_too_large_is_an_error_that_names_the_other_ways() {
    let (manager, source) = bench(Config::default()).await;
    manager.faults().add(Fault::new(Kind::MillionRow)).unwrap();
    let why = seen(&source, &Scope::All).await.unwrap_err().why;
    assert!(why.contains("REST") && why.contains("database") && why.contains("4 MiB"), "{why}");
    assert!(why.contains(&manager.grpc_addr().to_string()), "{why}");
}
