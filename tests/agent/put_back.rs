//! Somebody deletes the row of a scheduler that lives.

use std::time::{Duration, Instant};

use signoff::{
    manager::State,
    mock::table::{By, TableRow},
};

use crate::{
    harness::{INTERVAL, Process, World, eventually, run},
    hook::{metric, own_address},
};

/// The row, as an operator has changed it in the console.
fn changed(world: &World) -> TableRow {
    let table = world.manager.table();
    let mut row = table.find(&world.key).unwrap().unwrap();
    table.delete(row.id, By::Hand).unwrap();
    (row.idc, row.location) = ("idc-7".to_owned(), "here|there".to_owned());
    row.features = vec!["schedule".to_owned()];
    table.put([row.clone()]).unwrap();
    row
}

fn delete(world: &World) {
    let table = world.manager.table();
    let row = table.find(&world.key).unwrap().unwrap();
    assert!(table.delete(row.id, By::Hand).unwrap());
}

#[tokio::test]
async fn g2_a_row_that_somebody_deletes_is_back_as_it_was_within_75_seconds_over_rest_and_lasts() {
    let world = World::new().await;
    let before = changed(&world);
    let listen = own_address();
    let mut command = world.agent_with_rest();
    command.env("SIGNOFF_LISTEN", listen.to_string());
    let agent = Process::watching(command).await;
    agent.says_times("Read the row.", 2).await;
    delete(&world);
    let began = Instant::now();
    world.until(State::Active).await;
    let took = began.elapsed();
    println!("back after {took:?}");
    assert!(took < Duration::from_secs(75), "{took:?}: {}", agent.log());
    tokio::time::sleep(INTERVAL * 4).await;
    let after = world.manager.table().find(&world.key).unwrap().unwrap();
    let registered = |row: &TableRow| {
        let features = row.features.clone();
        (row.port, row.idc.clone(), row.location.clone(), features, row.config.clone())
    };
    assert_eq!(registered(&after), registered(&before));
    assert_eq!(after.state, State::Active, "{}", agent.log());
    assert_ne!(after.id, before.id, "it was gone");
    assert_eq!(metric(listen, "signoff_put_back_total").await, "1");
    let (code, shown, _) = run(world.command(&["status"])).await;
    assert!(code == 0 && shown.contains("Put back    somebody deleted the row"), "{shown}");
    let (code, shown, _) = run(world.command(&["check"])).await;
    assert!(code == 0 && shown.contains("agent: put back"), "{code} {shown}");
}

#[tokio::test]
async fn g2_a_row_is_not_put_back_where_the_schedulers_file_names_another_port() {
    let world = World::new().await;
    let agent = Process::watching(world.agent_with_rest()).await;
    agent.says_times("Read the row.", 2).await;
    let (path, port) = (world.path("scheduler.yaml"), world.scheduler.addr().port());
    let text = std::fs::read_to_string(&path).unwrap();
    let named = text.replace(&format!("advertisePort: {port}"), "advertisePort: 2345");
    assert_ne!(named, text);
    std::fs::write(&path, named).unwrap();
    delete(&world);
    agent.says("The scheduler's row could not be registered again.").await;
    assert!(agent.log().contains("names port 2345 by now"), "{}", agent.log());
    let gone = world.manager.table().find(&world.key).unwrap().is_none();
    assert!(gone, "whoever deleted it to have the scheduler register another port wins: {}", agent.log());
    // Its old port is named again.
    std::fs::write(&path, text).unwrap();
    eventually("the row", async || world.manager.table().find(&world.key).unwrap()).await;
}

#[tokio::test]
async fn with_repair_report_a_row_that_is_gone_is_only_said() {
    let world = World::new().await;
    let mut command = world.agent_with_rest();
    command.arg("--repair=report");
    let agent = Process::watching(command).await;
    agent.says_times("Read the row.", 2).await;
    delete(&world);
    agent.says("it is left so, since repair is not on").await;
    tokio::time::sleep(INTERVAL * 4).await;
    assert!(world.manager.table().find(&world.key).unwrap().is_none(), "{}", agent.log());
}
