use super::*;

const INTERVAL: Duration = Duration::from_secs(5);

fn key(cluster: u64) -> SchedulerKey {
    SchedulerKey::new(cluster.try_into().unwrap(), "sched-0".parse().unwrap(), "10.0.0.1".parse().unwrap())
}

fn row(cluster: u64, state: State, heard: Option<&str>) -> Row {
    Row {
        id: cluster,
        hostname: "sched-0".to_owned(),
        ip: "10.0.0.1".to_owned(),
        port: 8002,
        state,
        cluster_id: cluster,
        created_at: None,
        last_keep_alive_at: heard.map(str::to_owned),
        keep_alive_interval: None,
        updated_at: None,
    }
}

/// The looks, one each interval from the scheduler's appearance on: what came of each.
fn looks(cause: Cause, freshness: Freshness, looks: &[&[Row]]) -> Vec<Decision> {
    let appeared = Moment(Duration::from_secs(100));
    let mut registration = Registration::new(key(1), key(2), 8002, cause, appeared, INTERVAL);
    let look = |(n, rows): (usize, &&[Row])| {
        let asked = appeared + INTERVAL * u32::try_from(n).unwrap();
        registration.listed(asked, (Some(rows), rows), freshness, true)
    };
    looks.iter().enumerate().map(look).collect()
}

use Decision::{New, Old, Open};
use State::{Active, Inactive};

#[test]
fn g2_a_new_key_is_taken_up_once_its_row_becomes_active_after_the_scheduler_came_back() {
    let (gone, registered) = (row(1, Inactive, Some("t1")), row(2, Inactive, Some("t2")));
    let serving = row(2, Active, Some("t2"));
    let (registered, serving) = ([gone.clone(), registered], [gone.clone(), serving]);
    let gone = [gone];
    let over_rest: [&[Row]; 3] = [&gone, &registered, &serving];
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Fresh, &over_rest), [Open, Open, New]);
    // A list may be half a minute old: what it shows before that may be older than the scheduler's return.
    let mut over_grpc: Vec<&[Row]> = vec![&[]; 3];
    over_grpc.extend([&serving[1..]; 7]);
    let came = looks(Cause::SchedulerCameBack, Freshness::Within30s, &over_grpc);
    assert_eq!(came[..7], [Open; 7]);
    assert_eq!(came[7], New, "though the list showed it sooner");
}

#[test]
fn g2_a_file_that_changed_is_no_new_key_while_the_scheduler_goes_on_as_before() {
    // The agent alone was restarted, and had signed the row off: its keep-alives still move its time.
    let by_time: [&[Row]; 2] = [&[row(1, Inactive, Some("t1"))], &[row(1, Inactive, Some("t2"))]];
    assert_eq!(looks(Cause::MayHaveRestarted, Freshness::Fresh, &by_time), [Open, Old]);
    // A manager without times: the new key is nowhere.
    let one = [row(1, Active, None)];
    let without: [&[Row]; 3] = [&one, &one, &one];
    assert_eq!(looks(Cause::MayHaveRestarted, Freshness::Fresh, &without), [Open, Open, Old]);
}

#[test]
fn an_agent_that_was_restarted_answers_as_before_over_grpc_unless_another_row_at_the_address_is_in_use() {
    let over_grpc = |rows: &[Row]| looks(Cause::MayHaveRestarted, Freshness::Within30s, &[rows; 10]);
    assert_eq!(over_grpc(&[]).last(), Some(&Old), "the agent before signed it off");
    assert_eq!(over_grpc(&[row(2, Active, None)]).last(), Some(&New));
    assert_eq!(over_grpc(&[row(3, Active, None)]).last(), Some(&Open), "it changed twice");
    let neighbour = Row { port: 8003, ..row(3, Active, None) };
    assert_eq!(over_grpc(&[neighbour]).last(), Some(&Old), "another scheduler of this node");
}

#[test]
fn g2_a_key_in_doubt_is_the_one_that_the_manager_shows() {
    let over = |freshness, rows: &[Row]| looks(Cause::Doubt, freshness, &[rows; 10]).pop();
    for freshness in [Freshness::Fresh, Freshness::Within30s] {
        assert_eq!(over(freshness, &[row(1, Active, None)]), Some(Old));
        assert_eq!(over(freshness, &[row(2, Active, None)]), Some(New));
        // The scheduler still waits for its manager.
        assert_eq!(over(freshness, &[]), Some(Open));
        assert_eq!(over(freshness, &[row(1, Active, None), row(2, Active, None)]), Some(Open));
    }
}

#[test]
fn g2_a_scheduler_that_came_back_under_its_old_key_keeps_it_whatever_the_file_says() {
    let rows: [&[Row]; 3] = [&[row(1, Inactive, None)], &[row(1, Inactive, None)], &[row(1, Active, None)]];
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Fresh, &rows), [Open, Open, Old]);
}

#[test]
fn g2_while_neither_key_is_proven_nothing_is_decided() {
    // It came back, and could not register yet: nothing says that it is as before.
    let one = [row(1, Inactive, Some("t1"))];
    let rows: [&[Row]; 4] = [&one; 4];
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Fresh, &rows), [Open; 4]);
    // The old row was never signed off, since the manager was away: that it is active proves nothing.
    let one = [row(1, Active, Some("t1")), row(2, Inactive, Some("t2"))];
    let rows: [&[Row]; 4] = [&one; 4];
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Fresh, &rows), [Open; 4]);
}

#[test]
fn the_agents_own_sign_off_is_not_taken_for_the_schedulers_message() {
    let appeared = Moment(Duration::from_secs(100));
    let mut registration =
        Registration::new(key(1), key(2), 8002, Cause::SchedulerCameBack, appeared, INTERVAL);
    let (before, after) = ([row(1, Inactive, None)], [row(1, Active, None)]);
    for (asked, rows) in [(appeared, &before), (appeared + INTERVAL, &after)] {
        assert_eq!(registration.listed(asked, (Some(rows), rows), Freshness::Fresh, false), Open);
    }
}

#[test]
fn a_row_that_was_active_at_the_first_look_is_the_new_one_where_the_old_one_is_not() {
    // A slow look: the first message was there before it.
    let one = [row(1, Inactive, None), row(2, Active, None)];
    let rows: [&[Row]; 3] = [&one; 3];
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Fresh, &rows), [Open, Open, New]);
    let mut over_grpc = vec![&one[1..]; 10];
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Within30s, &over_grpc).last(), Some(&New));
    over_grpc.truncate(5);
    assert_eq!(looks(Cause::SchedulerCameBack, Freshness::Within30s, &over_grpc), [Open; 5]);
}

/// As [`looks`], of one key at two managers: what the old one lists, if it can be asked, and the new one.
fn moved(cause: Cause, looks: &[(Option<&[Row]>, &[Row])]) -> Vec<Decision> {
    let appeared = Moment(Duration::from_secs(100));
    let mut registration = Registration::new(key(1), key(1), 8002, cause, appeared, INTERVAL);
    let look = |(n, rows): (usize, &(Option<&[Row]>, &[Row]))| {
        let asked = appeared + INTERVAL * u32::try_from(n).unwrap();
        registration.listed(asked, *rows, Freshness::Within30s, true)
    };
    looks.iter().enumerate().map(look).collect()
}

#[test]
fn g2_a_scheduler_that_comes_back_at_another_manager_is_answered_for_there_once_that_lists_it() {
    let (active, nothing): ([Row; 1], [Row; 0]) = ([row(1, Active, None)], []);
    for old in [Some(&active[..]), Some(&nothing[..]), None] {
        let there = [(old, &active[..]); 10];
        assert_eq!(moved(Cause::SchedulerCameBack, &there).last(), Some(&New), "{old:?}");
        let not_yet = [(old, &nothing[..]); 10];
        assert!(!moved(Cause::SchedulerCameBack, &not_yet).contains(&New), "{old:?}");
    }
}

#[test]
fn g2_a_manager_that_gets_another_name_beside_a_scheduler_that_goes_on_changes_nothing() {
    let active = [row(1, Active, None)];
    assert_eq!(moved(Cause::MayHaveRestarted, &[(Some(&active[..]), &active[..]); 10]).last(), Some(&Old));
    // The old one may only be away; not for ever.
    let gone: Vec<Decision> = moved(Cause::MayHaveRestarted, &[(None, &active[..]); 40]);
    assert_eq!((gone[9], gone.last()), (Open, Some(&New)));
}

#[test]
fn a_first_look_that_showed_no_times_does_not_keep_the_question_open_for_ever() {
    // Over gRPC, while REST can't be reached; both rows are active, and later only the one's time moves.
    for (moves, expected) in [(2, New), (1, Old)] {
        let appeared = Moment(Duration::from_secs(100));
        let mut registration =
            Registration::new(key(1), key(2), 8002, Cause::MayHaveRestarted, appeared, INTERVAL);
        let mut look = |n: u32, times: Option<[&str; 2]>| {
            let heard = |at: usize| times.map(|times| times[at]);
            let rows = [row(1, Active, heard(0)), row(2, Active, heard(1))];
            let freshness = if times.is_some() { Freshness::Fresh } else { Freshness::Within30s };
            registration.listed(appeared + INTERVAL * n, (Some(&rows), &rows), freshness, true)
        };
        assert_eq!(look(0, None), Open);
        assert_eq!(look(10, Some(["t1", "t1"])), Open);
        assert_eq!(look(11, Some(if moves == 1 { ["t2", "t1"] } else { ["t1", "t2"] })), expected);
    }
}

/// A manager that was away as the scheduler came back: it shows what was before, until the scheduler has found it again.
#[test]
fn g2_a_manager_that_is_back_is_not_believed_at_once_that_the_scheduler_goes_on() {
    let appeared = Moment(Duration::from_secs(100));
    let mut registration =
        Registration::new(key(1), key(2), 8002, Cause::MayHaveRestarted, appeared, INTERVAL);
    let stale = [row(1, Active, None)];
    let mut look = |after: Duration, rows: &[Row]| {
        registration.listed(appeared + after, (Some(rows), rows), Freshness::Within30s, true)
    };
    let back = Duration::from_secs(300);
    assert_eq!(look(back, &stale), Open);
    assert_eq!(look(back + INTERVAL, &stale), Open);
    assert_eq!(look(back + INTERVAL * 2, &[row(1, Active, None), row(2, Active, None)]), New);
    registration.not_listed();
    let mut look = |after: Duration| {
        registration.listed(appeared + after, (Some(&stale), &stale), Freshness::Within30s, true)
    };
    let again = back * 2;
    assert_eq!(look(again), Open);
    assert_eq!(look(again + IDENTITY_GRACE + crate::manager::LIST_AGE), Old);
}
