//! `signoff queue flush` says what it left.

use super::{
    judge::End,
    point::{Operation, Place, Since},
    subject::Tracing,
    world::{RATE, World},
};
use crate::{clock::FastClock, strace::can_inject};

#[tokio::test]
async fn an_ask_that_a_flush_can_not_read_or_not_remove_is_left_queued() {
    let Some(clock) = FastClock::of(RATE) else { return };
    if !can_inject() {
        return;
    }
    let world = World::new(clock).await;
    let each = [("read", "1 settled, 1 left queued", 1), ("unlink", "0 settled, 2 left queued", 3)];
    let each = each.map(|(call, says, left)| {
        let world = &world;
        async move {
            let scene = world.scene(call, Operation::Flush);
            let asks = scene.listing().asks;
            let one = asks.iter().find(|ask| ask.record.key == scene.others[0]).unwrap();
            let mut arguments = vec!["-e".to_owned(), format!("inject={call}:error=EIO")];
            if call == "read" {
                arguments.extend(["-P".to_owned(), one.path.display().to_string()]);
            }
            let log = scene.path("strace");
            let place = Place { thread: "spool", since: Since::Birth };
            let tracing = Tracing { place, case: None, arguments, log: &log };
            let (end, output, _) = world.run(&scene, Operation::Flush, &tracing).await;
            assert_eq!(end, End::Code(75), "{call}: {output}");
            assert!(output.contains(says), "{call}: {output}");
            assert_eq!(scene.listing().asks.len(), left, "{call}: {output}");
        }
    });
    futures_util::future::join_all(each).await;
}
