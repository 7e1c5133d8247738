//! Why a manager may refuse a scheduler's registration though nothing is wrong with the scheduler: the table's unique key.
//!
//! `uk_scheduler` is (host_name, ip, scheduler_cluster_id) from v2.1.0. Managers v2.0.2 to v2.0.10 made it of (host_name,
//! scheduler_cluster_id), and a later manager's migration leaves an index of that name as it is (`manager/models/scheduler.go` of
//! these tags; gorm's AutoMigrate; seen on v2.5.1 with MariaDB 10.11). In such a table a pod that comes back with a new IP can't be
//! registered: the manager answers `Error 1062 (23000): Duplicate entry 'NAME-CLUSTER' for key 'uk_scheduler'`, where a table of
//! today's says `'NAME-IP-CLUSTER'`, and the scheduler ends at its start.

use std::collections::BTreeSet;

use crate::{key::SchedulerKey, manager::Row};

/// What to look for and to do, where these rows (of the key's hostname, the key's own not among them) leave it possible that the
/// table has the old key: `None` where they prove that it hasn't, or there is no row that could stand in the way.
pub fn old_key(key: &SchedulerKey, rows: &[Row]) -> Option<String> {
    let same = rows.iter().filter(|row| {
        row.cluster_id == key.cluster_id.get() && row.hostname.eq_ignore_ascii_case(key.hostname.as_str())
    });
    let addresses: BTreeSet<&str> = same.map(|row| row.ip.as_str()).collect();
    // Two rows of one name in one cluster can't be under the old key.
    if addresses.len() != 1 {
        return None;
    }
    Some(format!(
        "if the scheduler's log says `Duplicate entry '{}-{}' for key 'uk_scheduler'` (PostgreSQL: `duplicate key value violates \
         unique constraint \"uk_scheduler\"`), the manager's table was made before v2.1.0 and its unique key lacks the IP: no pod \
         of that name can register under a new IP. Cure, in the manager's database: ALTER TABLE scheduler DROP INDEX \
         uk_scheduler, ADD UNIQUE INDEX uk_scheduler (host_name, ip, scheduler_cluster_id)",
        key.hostname, key.cluster_id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::State;

    fn row(hostname: &str, ip: &str, cluster_id: u64) -> Row {
        Row {
            id: 1,
            hostname: hostname.to_owned(),
            ip: ip.to_owned(),
            port: 8002,
            state: State::Inactive,
            cluster_id,
            last_keep_alive_at: None,
            keep_alive_interval: None,
            created_at: None,
            updated_at: None,
        }
    }

    #[test]
    fn the_old_key_is_told_where_one_row_of_the_name_may_stand_in_the_way_and_not_where_two_prove_the_new_one()
     {
        let key =
            SchedulerKey::new(1.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.9".parse().unwrap());
        let said = old_key(&key, &[row("Sched-0", "10.0.0.7", 1), row("sched-1", "10.0.0.8", 1)]).unwrap();
        assert!(
            said.contains("Duplicate entry 'sched-0-1' for key") && said.contains("ALTER TABLE"),
            "{said}"
        );
        for rows in [
            vec![],
            vec![row("sched-0", "10.0.0.7", 2)],
            vec![row("sched-0", "10.0.0.7", 1), row("sched-0", "10.0.0.8", 1)],
        ] {
            assert_eq!(old_key(&key, &rows), None, "{rows:?}");
        }
    }
}
