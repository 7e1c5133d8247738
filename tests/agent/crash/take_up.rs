//! A scheduler that comes back under another key, and its agent, which takes that up and signs the old row off; then the next agent,
//! which has to leave both rows right.

use std::time::{Duration, Instant};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::scheduler::{MockScheduler, SchedulerConfig},
    spool::record::What,
};

use super::{
    judge::{End, Recovered},
    scene::Scene,
    subject::{Subject, Tracing},
    world::{PATIENCE, SLOWER, World},
};
use crate::{
    clock::FastClock,
    harness::{INTERVAL, PASSWORD, eventually},
};

impl Scene {
    /// The key that its scheduler comes back under.
    pub(super) fn moved(&self) -> SchedulerKey {
        SchedulerKey { cluster_id: 2.try_into().unwrap(), ..self.own.clone() }
    }

    /// A mark says that the scheduler was seen to serve under its new key, and its row.
    fn has_seen_its_row(&self) -> bool {
        let (marks, moved) = (self.listing().marks, self.moved());
        let records = marks.iter().map(|mark| &mark.record);
        records.filter(|record| record.key == moved && record.what == What::Seen).any(|record| record.listed)
    }
}

impl World {
    /// The scheduler starts, its file names its key, and an agent has its configuration from there.
    async fn begin_to_take_up(&self, scene: &Scene) -> Vec<(&'static str, String)> {
        let config = SchedulerConfig::new(scene.own.clone(), self.manager).every(INTERVAL);
        let scheduler = MockScheduler::start(config).await.unwrap();
        let address = scheduler.addr().to_string();
        *scene.scheduler.borrow_mut() = Some(scheduler);
        self.name(scene, &scene.own, &address, INTERVAL);
        std::fs::write(scene.path("password"), format!("{PASSWORD}\n")).unwrap();
        let mut environment = self.environment(scene, address);
        let from_the_file =
            ["SIGNOFF_HOSTNAME", "SIGNOFF_IP", "SIGNOFF_CLUSTER_ID", "SIGNOFF_SCHEDULER_ADDR"];
        environment.retain(|(name, _)| !from_the_file.contains(name));
        for (name, value) in &mut environment {
            if *name == "SIGNOFF_MANAGER" {
                *value = format!("{},http://{}", self.manager, self.rest);
            }
        }
        environment.extend([
            ("SIGNOFF_SCHEDULER_CONFIG", scene.path("scheduler.yaml").display().to_string()),
            ("SIGNOFF_USERNAME", self.viewer()),
            ("SIGNOFF_PASSWORD_FILE", scene.path("password").display().to_string()),
        ]);
        environment
    }

    /// The scheduler's file names this key from now on.
    fn name(&self, scene: &Scene, key: &SchedulerKey, address: &str, interval: Duration) {
        let (ip, port) = address.rsplit_once(':').unwrap();
        let config = format!(
            "server:\n  advertiseIP: {ip}\n  advertisePort: {port}\n  listenIP: {ip}\n  port: {port}\n  host: {host}\n\
             manager:\n  addr: {manager}\n  schedulerClusterID: {cluster}\n  keepAlive:\n    interval: {interval}ms\n",
            host = key.hostname,
            manager = self.manager,
            cluster = key.cluster_id,
            interval = interval.as_millis(),
        );
        std::fs::write(scene.path("scheduler.yaml"), config).unwrap();
    }

    /// From the moment at which the scheduler comes back under its other key; its old row is active again, as where the manager was
    /// away when it stopped.
    pub(super) async fn take_up(
        &self,
        scene: &Scene,
        tracing: &Tracing<'_>,
    ) -> (End, String, Option<signoff::agent::socket::PreStopAnswer>) {
        let environment = self.begin_to_take_up(scene).await;
        scene.environment.replace(environment.clone());
        let mut subject = Subject::start(&["agent"], &environment, scene.path("output"), None, None);
        subject.says(&["Read the row.", "The scheduler serves."]).await;
        let is_active = async || (self.table.state(&scene.own).unwrap() == Some(State::Active)).then_some(());
        eventually("its own message", is_active).await;
        let mut scheduler = scene.scheduler.take().unwrap();
        scheduler.stop().await;
        subject.says(&["Settled a sign-off."]).await;
        let read = |output: &str| {
            output.rsplit_once("Settled a sign-off.").is_some_and(|(_, then)| then.contains("Read the row."))
        };
        eventually("a read of the row", async || read(&subject.output()).then_some(())).await;
        let strace = subject.attach(tracing).await;
        assert!(self.table.set_by_hand(&scene.own, State::Active).unwrap());
        let listen = scheduler.addr();
        drop(scheduler);
        self.name(scene, &scene.moved(), &listen.to_string(), INTERVAL);
        let config =
            SchedulerConfig { listen, ..SchedulerConfig::new(scene.moved(), self.manager).every(INTERVAL) };
        let again = async || MockScheduler::start(config.clone()).await.ok();
        *scene.scheduler.borrow_mut() = Some(eventually("the port again", again).await);
        let began = Instant::now();
        let end = subject
            .runs_until(tracing, |subject| {
                let output = subject.output();
                // All is written then that this writes; what a disk refuses may be missing.
                let is_written = || {
                    output.contains("Settled a sign-off of another key.") && scene.has_seen_its_row()
                        || tracing.has_refused()
                };
                began.elapsed() > PATIENCE || self.is_taken_up(scene, &output) && is_written()
            })
            .await;
        drop(strace);
        (end, subject.output(), None)
    }

    /// The agent answers for the new key, has read its row, and nothing is pending for the old one.
    fn is_taken_up(&self, scene: &Scene, output: &str) -> bool {
        let answers = output.rsplit_once("Answering for this scheduler.");
        let is_read = answers.is_some_and(|(_, then)| then.contains("Read the row."));
        let new = format!("\"scheduler.key\":\"{}\"", scene.moved());
        let line = output.lines().rfind(|line| line.contains("Answering for this scheduler."));
        is_read
            && line.is_some_and(|line| line.contains(&new))
            && scene.files().is_empty()
            && self.rows(scene).is_empty()
    }

    /// Those that are not as they should be.
    fn rows(&self, scene: &Scene) -> Vec<String> {
        let each = [(&scene.own, State::Inactive), (&scene.moved(), State::Active)];
        let wrong = each.into_iter().filter(|(key, state)| self.table.state(key).unwrap() != Some(*state));
        wrong.map(|(key, state)| format!("{key} should be {state:?}")).collect()
    }

    /// The next agent, with all well.
    pub(super) async fn comes_after_a_take_up(&self, scene: &Scene) -> Recovered {
        let (output, mut environment) = (scene.path("output-of-recovery"), scene.environment.take());
        environment.retain(|(name, _)| *name != "SIGNOFF_USERNAME");
        environment.push(("SIGNOFF_USERNAME", self.viewer()));
        let address = scene.scheduler.borrow().as_ref().map(|scheduler| scheduler.addr().to_string());
        // By its fast clock it is the scheduler's interval that is so long.
        self.name(scene, &scene.moved(), &address.unwrap(), INTERVAL * SLOWER);
        // A manager that is too slow for it to show times makes an inherited sign-off one that is never tried again.
        let clock = FastClock::of(SLOWER);
        let mut next = Subject::start(&["agent"], &environment, output, clock.as_ref(), None);
        let began = Instant::now();
        let (end, is_taken_up) = eventually("both rows", async || {
            let (ended, is_taken_up) = (next.ended(), self.is_taken_up(scene, &next.output()));
            let done = is_taken_up || began.elapsed() > 2 * PATIENCE;
            ended.or(done.then_some(End::Stopped)).map(|end| (end, is_taken_up))
        })
        .await;
        let code = if let End::Code(code) = end { Some(code) } else { None };
        // What it is about to write is no leftover.
        let (mut wrong, files) =
            if is_taken_up { (Vec::new(), Vec::new()) } else { (self.rows(scene), scene.files()) };
        if !is_taken_up && wrong.is_empty() && files.is_empty() {
            wrong.push("the agent answers for another key".to_owned());
        }
        next.stop().await;
        Recovered { code, wrong, files, output: next.output() }
    }
}
