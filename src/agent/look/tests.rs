use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::watch;

use super::*;
use crate::{
    manager::{AttemptOptions, Contact, Failure, Freshness, HoldStart, Listed, Outcome, RowRead},
    net::{Probe, Reach},
};

/// What each list shows in turn, the last one again and again.
struct Lists(Mutex<Vec<Vec<Row>>>);

#[async_trait]
impl Manager for Lists {
    async fn sign_off(&self, _: &SchedulerKey, _: AttemptOptions) -> Outcome {
        unreachable!("a look writes nothing")
    }
    async fn hold(&self, _: &SchedulerKey) -> Result<HoldStart, Failure> {
        unreachable!("a look writes nothing")
    }
    async fn read_row(&self, _: &SchedulerKey) -> Result<RowRead, Failure> {
        unreachable!("a look lists")
    }
    async fn list(&self, _: &Filter) -> Result<Listed, Failure> {
        let mut lists = self.0.lock().unwrap();
        let rows = if lists.len() > 1 { lists.remove(0) } else { lists[0].clone() };
        Ok(Listed { rows, freshness: Freshness::Fresh })
    }
    async fn register(&self, _: &SchedulerKey, _: &crate::manager::Registered) -> Result<(), Failure> {
        unreachable!("a look writes nothing")
    }
    fn freshness(&self) -> Freshness {
        Freshness::Fresh
    }
    fn watch(&self) -> watch::Receiver<Contact> {
        watch::channel(Contact::default()).1
    }
}

struct Answers;

#[async_trait]
impl Reach for Answers {
    async fn probe(&self, addr: SocketAddr, _: Duration) -> Probe {
        if addr.ip().to_string() == "10.0.0.1" {
            Probe::Scheduler
        } else {
            Probe::Nobody("refused".to_owned())
        }
    }
}

/// A row with that ip, last heard of at that second.
fn row(id: u64, hostname: &str, heard: &str) -> Row {
    Row {
        id,
        hostname: hostname.to_owned(),
        ip: "10.0.0.1".to_owned(),
        port: 8002,
        state: State::Active,
        cluster_id: 1,
        created_at: None,
        last_keep_alive_at: (!heard.is_empty()).then(|| format!("2026-11-23T12:00:{heard}Z")),
        keep_alive_interval: None,
        updated_at: None,
    }
}

async fn look(lists: &[Vec<Row>]) -> Look {
    let key = SchedulerKey::new(1.try_into().unwrap(), "s-0".parse().unwrap(), "10.0.0.1".parse().unwrap());
    let manager = Lists(Mutex::new(lists.to_vec()));
    at(&Prober::new(Answers), &manager, &key, "10.0.0.1:8002".parse().unwrap()).await
}

fn reused() -> Look {
    Look::Reused("t-0 serves at 10.0.0.1:8002 now".to_owned())
}

#[tokio::test(start_paused = true)]
async fn g7_an_orphans_row_with_its_address_is_no_heir_of_one_that_lives() {
    // An older row, of which nothing is heard any more.
    let dead = |heard| row(1, "t-0", heard);
    let said = look(&[vec![row(2, "s-0", ""), dead("")]]).await;
    assert!(matches!(&said, Look::Unclear(why) if why.contains("t-0 has 10.0.0.1:8002 too")), "{said:?}");
    assert_eq!(look(&[vec![row(2, "s-0", "20"), dead("10")]]).await, Look::Lives);
    // Both were silent, and the one that answers is heard of only now.
    let lists = [vec![row(2, "s-0", "10"), dead("10")], vec![row(2, "s-0", "20"), dead("10")]];
    assert_eq!(look(&lists).await, Look::Lives);
    let said = look(&[vec![row(2, "s-0", "10"), dead("10")]]).await;
    assert!(matches!(said, Look::Unclear(_)), "{said:?}");
    // It came back to its own row, which is older than the orphan's.
    assert_eq!(look(&[vec![row(1, "s-0", "20"), row(2, "t-0", "10")]]).await, Look::Lives);
}

#[tokio::test(start_paused = true)]
async fn an_heir_that_is_heard_of_or_younger_has_the_address_now() {
    assert_eq!(look(&[vec![row(1, "s-0", ""), row(2, "t-0", "")]]).await, reused());
    assert_eq!(look(&[vec![row(1, "s-0", "10"), row(2, "t-0", "20")]]).await, reused());
    let lists =
        [vec![row(2, "s-0", "10"), row(1, "t-0", "20")], vec![row(2, "s-0", "10"), row(1, "t-0", "25")]];
    assert_eq!(look(&lists).await, reused());
    // The key's own row is not shown: there is nothing that could be taken from it.
    assert_eq!(look(&[vec![row(1, "t-0", "")]]).await, reused());
}

#[tokio::test(start_paused = true)]
async fn g7_what_has_no_heir_in_its_cluster_lives() {
    let other_cluster = Row { cluster_id: 2, ..row(2, "t-0", "20") };
    let other_port = Row { port: 8003, ..row(2, "t-0", "20") };
    let inactive = Row { state: State::Inactive, ..row(2, "t-0", "20") };
    for other in [other_cluster, other_port, inactive] {
        assert_eq!(look(&[vec![row(1, "s-0", "10"), other.clone()]]).await, Look::Lives, "{other:?}");
    }
}
