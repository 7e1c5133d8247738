use super::*;

fn registration(hostname: &str, ip: &str, port: i32) -> Registration {
    Registration {
        hostname: hostname.to_owned(),
        ip: ip.to_owned(),
        port,
        cluster_id: 1,
        ..Registration::default()
    }
}

fn selector(hostname: &str, ip: Option<&str>) -> Selector {
    Selector { hostname: hostname.to_owned(), ip: ip.map(str::to_owned), cluster_id: 1 }
}

#[test]
fn a_new_row_is_inactive_and_registering_again_never_sets_the_state() {
    let table = Database::in_memory(Collation::MySql);
    assert_eq!(table.register(registration("a", "10.0.0.1", 8002)).unwrap().state, State::Inactive);
    assert!(table.set_state(&selector("a", Some("10.0.0.1")), State::Active, By::Hand).unwrap());
    let again = table.register(registration("a", "10.0.0.1", 8002)).unwrap();
    assert_eq!((again.id, again.state), (1, State::Active));
    assert_eq!(table.rows().unwrap().len(), 1);
}

#[test]
fn the_same_key_with_another_port_is_a_duplicate() {
    let table = Database::in_memory(Collation::MySql);
    table.register(registration("a", "10.0.0.1", 8002)).unwrap();
    let said = table.register(registration("A", "10.0.0.1", 8003)).unwrap_err().to_string();
    assert_eq!(said, "Error 1062 (23000): Duplicate entry 'a-10.0.0.1-1' for key 'scheduler.uk_scheduler'");
}

#[test]
fn hostnames_match_without_regard_to_case_on_mysql_and_exactly_on_postgresql() {
    for (collation, found) in [(Collation::MySql, true), (Collation::PostgreSql, false)] {
        let table = Database::in_memory(collation);
        table.register(registration("sched-A", "10.0.0.1", 8002)).unwrap();
        let set = table.set_state(&selector("SCHED-a", Some("10.0.0.1")), State::Active, By::Hand).unwrap();
        assert_eq!(set, found, "{collation:?}");
    }
}

#[test]
fn without_an_ip_the_lowest_id_is_found() {
    let table = Database::in_memory(Collation::MySql);
    table.register(registration("a", "10.0.0.1", 8002)).unwrap();
    table.register(registration("a", "10.0.0.2", 8002)).unwrap();
    table.set_state(&selector("a", None), State::Active, By::Hand).unwrap();
    let states: Vec<_> = table.rows().unwrap().iter().map(|r| r.state).collect();
    assert_eq!(states, [State::Active, State::Inactive]);
}

#[test]
fn the_history_numbers_every_write_of_a_state_without_a_gap() {
    let table = Database::in_memory(Collation::MySql);
    table.register(registration("a", "10.0.0.1", 8002)).unwrap();
    table.set_state(&selector("a", None), State::Active, By::FirstMessage).unwrap();
    table.touch(&selector("a", None)).unwrap();
    table.delete(1, By::Rest).unwrap();
    let history: Vec<_> = table.history().iter().map(|c| (c.seq, c.from, c.to)).collect();
    assert_eq!(
        history,
        [
            (1, None, Some(State::Inactive)),
            (2, Some(State::Inactive), Some(State::Active)),
            (3, Some(State::Active), None),
        ]
    );
}

#[test]
fn two_databases_over_one_file_see_each_others_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let (a, b) =
        (Database::open(&path, Collation::MySql).unwrap(), Database::open(&path, Collation::MySql).unwrap());
    std::thread::scope(|scope| {
        for (table, net) in [(&a, 1), (&b, 2)] {
            scope.spawn(move || {
                for host in 1..=20 {
                    table.register(registration("h", &format!("10.0.{net}.{host}"), 8002)).unwrap();
                }
            });
        }
    });
    let rows = a.rows().unwrap();
    assert_eq!(rows, b.rows().unwrap());
    let mut ids: Vec<_> = rows.iter().map(|r| r.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 40, "no write was lost and no id given twice");
}

#[test]
fn a_file_that_is_no_table_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    std::fs::write(&path, "hello").unwrap();
    let said = Database::open(&path, Collation::MySql).unwrap_err().to_string();
    assert!(said.contains("state.json") && said.contains("no table"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
}
