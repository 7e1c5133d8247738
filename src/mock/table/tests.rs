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

/// A state file with the row `a` in cluster 1, and the database over it.
fn with_file() -> (tempfile::TempDir, PathBuf, Arc<Database>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.json");
    let table = Database::open(&path, Collation::MySql).unwrap();
    table.register(registration("a", "10.0.0.1", 8002)).unwrap();
    (dir, path, table)
}

fn names(table: &Database) -> Vec<String> {
    table.rows().unwrap().into_iter().map(|row| row.host_name).collect()
}

/// The file with `b` in the place of `a`: as long as before.
fn renamed(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().replace(r#""host_name": "a""#, r#""host_name": "b""#)
}

fn modified(path: &Path) -> std::time::SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

fn set_modified(path: &Path, at: std::time::SystemTime) {
    std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

#[test]
fn a_state_file_is_read_again_only_when_it_is_another_one_or_was_written() {
    let (_dir, path, table) = with_file();
    let (text, at) = (renamed(&path), modified(&path));
    // Nothing tells that it was written: it is not read.
    std::fs::write(&path, &text).unwrap();
    set_modified(&path, at);
    assert_eq!(names(&table), ["a"]);
    // Its time does.
    set_modified(&path, at + Duration::from_secs(1));
    assert_eq!(names(&table), ["b"]);
    // A file of the same length and time in its place, as another process leaves it; twice, so that an inode may come again.
    for name in ["c", "d"] {
        let (new, at) = (path.with_extension("new"), modified(&path));
        std::fs::write(&new, text.replace(r#""b""#, &format!("{name:?}"))).unwrap();
        set_modified(&new, at);
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(names(&table), [name]);
    }
    // Its length.
    let at = modified(&path);
    std::fs::write(&path, text.replace(r#""b""#, r#""longer""#)).unwrap();
    set_modified(&path, at);
    assert_eq!(names(&table), ["longer"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(names(&table), Vec::<String>::new());
}

#[test]
fn what_can_not_be_written_to_the_file_was_not_done() {
    let (_dir, path, table) = with_file();
    let in_the_way = path.with_file_name("state.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(table.set_state(&selector("a", None), State::Active, By::Hand).is_err());
    assert_eq!(table.rows().unwrap()[0].state, State::Inactive);
    assert_eq!(table.history().len(), 1, "its creation alone");
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(table.set_state(&selector("a", None), State::Active, By::Hand).unwrap());
    assert_eq!(table.rows().unwrap()[0].state, State::Active);
}
