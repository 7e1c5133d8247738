//! What dead agents asked for schedulers that never registered: no row was ever there, and a minute after the manager said so first it is
//! settled.

use signoff::{
    key::SchedulerKey,
    spool::{Limits, Spool, record::RecordId},
};

use super::{
    judge::End,
    scene::Scene,
    subject::{Subject, Tracing},
    world::{PATIENCE, World},
};
use crate::{harness::key, record};

/// Whether it was said that this key's scheduler never registered.
pub(super) fn said_never(output: &str, key: &SchedulerKey) -> bool {
    let about = |line: &&str| line.contains("Settled a sign-off") && line.contains(key.hostname.as_str());
    output.lines().filter(about).any(|line| line.contains("never-registered"))
}

impl World {
    /// The ask of an agent whose scheduler never started.
    pub(super) fn write_what_never_was(&self, scene: &mut Scene, name: &str) {
        let (spool, manager) = (scene.spool(), format!("grpc://{}", self.manager));
        drop(Spool::open(&spool, Limits::default()).unwrap());
        let key = key(&format!("other-{name}"));
        let id = u64::from_str_radix(&RecordId::random().0, 16).unwrap();
        let mut ask = record::ask(&key, id, &Scene::silent(), 1_800_000_000_000);
        ask["listed"] = false.into();
        ask["managers"] = [&*manager].as_slice().into();
        record::write(&spool, 1, &key, id, &ask).unwrap();
        scene.before.push(key.clone());
        scene.others.push(key);
    }

    /// The next pod's agent finds it, and is traced from there.
    pub(super) async fn finds_what_never_was(
        &self,
        scene: &Scene,
        tracing: &Tracing<'_>,
    ) -> (End, String, Option<signoff::agent::socket::PreStopAnswer>) {
        let environment = self.environment(scene, self.scheduler.to_string());
        let mut subject =
            Subject::start(&["agent"], &environment, scene.path("output"), Some(&self.clock), None);
        subject.says(&["Found sign-offs of another scheduler in the spool."]).await;
        let strace = subject.attach(tracing).await;
        let began = std::time::Instant::now();
        let end = subject
            .runs_until(tracing, |subject| {
                let settled = said_never(&subject.output(), &scene.others[0]);
                began.elapsed() > PATIENCE || (settled && scene.listing().asks.is_empty())
            })
            .await;
        drop(strace);
        (end, subject.output(), None)
    }
}
