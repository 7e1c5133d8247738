//! What others ask of the shell, and when it came: while the shell waits for a disk, a signal waits for the shell.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Clock,
    lifecycle::Event,
    moment::Moment,
    socket::{PreStopAnswer, Status},
};
use crate::identity::Settings;

/// What others ask of the shell.
pub enum Command {
    /// Something happened.
    Event(Event),
    /// Something happened of what one shell began.
    EventOf {
        /// Which.
        shell: u64,
        /// What.
        event: Event,
    },
    /// A pre-stop hook: drain, and answer.
    PreStop {
        /// How long the hook waits; without it, until the reserve before the deadline.
        wait: Option<Duration>,
        /// Where the answer goes.
        answer: oneshot::Sender<PreStopAnswer>,
    },
    /// The scheduler registers another key, or is watched elsewhere, than this shell knows.
    TakeUp(Box<TakeUp>),
    /// What is known.
    Status(oneshot::Sender<Box<Status>>),
}

/// What an agent is to go on with.
#[derive(Debug, Clone)]
pub struct TakeUp {
    /// The settings from now on.
    pub settings: Settings,
    /// The row of the key that was answered for so far is inactive: nothing is left to be signed off.
    pub is_signed_off: bool,
    /// Else when that row was last written (`updated_at`), as the look shows that proved the other key.
    pub old_updated: Option<String>,
}

/// The shell has ended.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Gone;

/// Where commands are sent to, each with the moment at which it came.
#[derive(Clone)]
pub struct Commands {
    clock: Clock,
    tell: mpsc::UnboundedSender<(Moment, Command)>,
}

/// Where they come out, in order.
pub type Inbox = mpsc::UnboundedReceiver<(Moment, Command)>;

impl Commands {
    /// Two ends of one queue. The clock is the shell's.
    pub fn new(clock: Clock) -> (Self, Inbox) {
        let (tell, inbox) = mpsc::unbounded_channel();
        (Self { clock, tell }, inbox)
    }

    /// It came just now.
    pub fn send(&self, command: Command) -> Result<(), Gone> {
        self.tell.send((self.clock.now().at, command)).map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn g4_a_command_carries_the_moment_at_which_it_came() {
        let clock = Clock::start();
        let (commands, mut inbox) = Commands::new(clock);
        let came = clock.now().at;
        commands.send(Command::Event(Event::Terminate)).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(inbox.recv().await.unwrap().0, came);
    }
}
