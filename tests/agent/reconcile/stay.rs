//! With `--every`.

use super::*;
use crate::{
    harness::Process,
    hook::{get, metric, own_address},
};

fn staying(fleet: &Fleet, address: SocketAddr) -> Process {
    let mut command = fleet.reconcile(&[&ALL[..], &["--every=2s"]].concat());
    command.env("SIGNOFF_LISTEN", address.to_string());
    Process::start(command)
}

#[tokio::test]
async fn a_dead_row_is_repaired_within_a_period_and_everything_is_counted() {
    let mut fleet = Fleet::of(3).await;
    let address = own_address();
    let job = staying(&fleet, address);
    job.says("A run ended.").await;
    assert_eq!(get(address, "/livez").await.0, 200);
    assert_eq!(get(address, "/readyz").await.0, 200);
    assert_eq!(metric(address, "signoff_reconcile_rows{verdict=\"live\"}").await, "3");
    assert_eq!(metric(address, "signoff_reconcile_interval_seconds").await, "2.0");
    fleet.lose(&[0]).await;
    fleet.until(&nth(0), State::Inactive).await;
    eventually("it is counted", async || {
        (metric(address, "signoff_reconcile_signoffs_total{outcome=\"signed-off\"}").await == "1")
            .then_some(())
    })
    .await;
    assert_eq!(metric(address, "signoff_reconcile_runs_total{result=\"repaired\"}").await, "1");
    assert_ne!(metric(address, "signoff_reconcile_last_run_timestamp_seconds").await, "0.0");
    job.term();
    let (code, log) = job.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("Signed a dead scheduler's row off."), "{log}");
}

#[tokio::test]
async fn a_row_that_comes_back_is_signed_off_at_most_once_by_one_process() {
    let mut fleet = Fleet::of(2).await;
    let address = own_address();
    let job = staying(&fleet, address);
    fleet.lose(&[0]).await;
    fleet.until(&nth(0), State::Inactive).await;
    eventually("it is counted", async || {
        (metric(address, "signoff_reconcile_signoffs_total{outcome=\"signed-off\"}").await == "1")
            .then_some(())
    })
    .await;
    fleet.manager.table().set_by_hand(&nth(0), State::Active).unwrap();
    let before = fleet.history().len();
    eventually("it is contested", async || {
        (metric(address, "signoff_reconcile_rows{verdict=\"contested\"}").await == "1").then_some(())
    })
    .await;
    job.says("this process signed it off, and it is active again").await;
    job.says_times("A run ended.", 4).await;
    assert_eq!((fleet.history().len(), fleet.state(&nth(0))), (before, Some(State::Active)), "{}", job.log());
}

#[tokio::test]
async fn an_outage_of_the_manager_ends_no_process_and_is_counted() {
    let mut fleet = Fleet::of(1).await;
    let address = own_address();
    fleet.manager.stop().await;
    let job = staying(&fleet, address);
    eventually("it failed", async || {
        (metric(address, "signoff_reconcile_runs_total{result=\"failed\"}").await == "1").then_some(())
    })
    .await;
    assert_eq!(get(address, "/readyz").await.0, 503);
    assert_eq!(metric(address, "signoff_reconcile_last_run_timestamp_seconds").await, "0.0");
    fleet.manager.restart().await.unwrap();
    eventually("it is ready", async || (get(address, "/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(fleet.state(&nth(0)), Some(State::Active), "{}", job.log());
}

/// A Secret that is optional and isn't there yet, as in a first install.
#[tokio::test]
async fn without_its_password_file_it_only_reports_and_with_it_it_repairs() {
    let mut fleet = Fleet::of(2).await;
    fleet.lose(&[0]).await;
    fleet.add(named("scheduler-0", 1, 51)).await;
    let password = tempfile::tempdir().unwrap();
    let file = password.path().join("password");
    let mut command = fleet.reconcile_as_root(&[&ALL[..], &["--every=1s"]].concat());
    command.env("SIGNOFF_PASSWORD_FILE", &file).env("SIGNOFF_LISTEN", "127.0.0.1:0");
    let before = fleet.history().len();
    let job = Process::start(command);
    job.says_times("A run ended.", 2).await;
    job.says_times("There is no password file", 1).await;
    job.says("A row is not as it should be.").await;
    assert_eq!((fleet.history().len(), fleet.state(&nth(0))), (before, Some(State::Active)), "{}", job.log());
    // At once, as the kubelet puts it there.
    std::fs::write(file.with_extension("new"), ROOT_PASSWORD).unwrap();
    std::fs::rename(file.with_extension("new"), &file).unwrap();
    eventually("the row is gone", async || fleet.state(&nth(0)).is_none().then_some(())).await;
    job.says("The password file is there now.").await;
}
