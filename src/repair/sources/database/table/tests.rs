use super::*;
use crate::repair::sighting::Stamp;

fn cells<'r>(values: &[Option<&'r str>]) -> Vec<Option<&'r [u8]>> {
    values.iter().map(|value| value.map(str::as_bytes)).collect()
}

fn of(cells: &Cells<'_>) -> Option<Sighting> {
    sighting(cells, &mut Interval::default())
}

fn column(name: &str, readable: &str) -> Found {
    Found::from(&*cells(&[Some(name), Some(readable)]))
}

fn columns(names: &[&str]) -> Vec<Found> {
    names.iter().map(|name| column(name, "1")).collect()
}

const OLD: [&str; 8] =
    ["ID", "host_name", "ip", "port", "state", "scheduler_cluster_id", "updated_at", "is_del"];

#[test]
fn an_old_table_is_read_without_what_it_lacks() {
    let found = Columns::of(&columns(&OLD)).unwrap();
    assert!(!found.new_ones());
    let statement = found.one(Kind::Postgres, 7);
    assert!(statement.contains("updated_at::text, NULL, NULL, NULL FROM scheduler"), "{statement}");
    let new = Columns::of(&columns(&[&OLD[..], &NEW[..]].concat())).unwrap();
    assert!(new.new_ones());
    assert!(new.one(Kind::MySql, 7).contains("updated_at, config, last_keep_alive_at, NULL FROM scheduler"));
    let all = Columns::of(&columns(&[&OLD[..], &NEW[..], &[SPARED]].concat())).unwrap();
    assert!(all.one(Kind::MySql, 7).contains("last_keep_alive_at, created_at FROM scheduler"));
}

#[test]
fn what_can_not_be_read_is_named() {
    assert_eq!(Columns::of(&[]), Err(Unreadable::Missing));
    assert_eq!(Columns::of(&columns(&OLD[..6])), Err(Unreadable::Columns(vec!["updated_at", "is_del"])));
    let mut rows = columns(&OLD);
    rows[2] = column("ip", "0");
    rows.push(column("config", "0"));
    assert_eq!(Columns::of(&rows), Err(Unreadable::Columns(vec!["ip", "config"])), "there, and kept from us");
}

#[test]
fn odd_values_cost_a_row_nothing_but_themselves() {
    let row = of(&cells(&[Some("7"), None, None, None, None, None, None, None, None])).unwrap();
    assert_eq!((row.id, &*row.hostname, row.ip, row.port, row.cluster_id), (7, "", None, 0, 0));
    assert_eq!(
        (row.state, row.updated, row.interval_ms, row.keep_alive),
        (State::Inactive, None, None, None)
    );
    for config in ["", "null", "x", "[]", "{\"manager_keep_alive_interval\":\"5s\"}"] {
        let odd = [Some("7"), Some("h"), Some("fd00:0::1"), Some("70000"), Some("on"), Some("-1"), Some("")];
        let row = of(&cells(&[&odd[..], &[Some(config), Some("never")]].concat())).unwrap();
        assert_eq!((row.ip, row.port, row.state, row.cluster_id), (None, 0, State::Inactive, 0));
        assert_eq!((row.updated, row.interval_ms), (None, None));
        assert_eq!(row.keep_alive, Some(Stamp::of("never")));
    }
    assert_eq!(of(&cells(&[None])), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn a_config_is_read_anew_wherever_it_is_another() {
    let mut interval = Interval::default();
    let configs = [
        "",
        "{\"manager_keep_alive_interval\":3000000000}",
        "{\"manager_keep_alive_interval\":5000000000}",
        "x",
    ];
    let read = [0, 1, 1, 2, 1, 3, 3, 2, 0].map(|at: usize| interval.of(configs[at].as_bytes()));
    assert_eq!(
        read,
        [None, Some(3), Some(3), Some(5), Some(3), None, None, Some(5), None]
            .map(|s: Option<u32>| s.and_then(|s| std::num::NonZeroU32::new(s * 1_000)))
    );
}

#[test]
fn a_grant_names_the_user_and_the_database_quoted_where_they_must_be() {
    let of = |url: &str| grant(&Place::parse(url).unwrap());
    let said = of("mysql://signoff:hunter2@h/manager");
    assert!(said.starts_with("GRANT SELECT (id, host_name,") && !said.contains("hunter2"), "{said}");
    assert!(said.ends_with("is_del) ON manager.scheduler TO 'signoff'@'%'"), "{said}");
    assert!(of("mysql://o'x@h/my-db").ends_with("ON `my-db`.scheduler TO 'o''x'@'%'"));
    assert!(of("postgres://signoff@h/manager").ends_with("is_del) ON scheduler TO signoff"));
    assert!(of("postgres://sign-off@h/manager").ends_with("ON scheduler TO \"sign-off\""));
}
