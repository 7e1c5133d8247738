//! The container's last words, as its sign-offs stand: the termination message.

use crate::{
    agent::{
        lifecycle::{Lifecycle, Notice, Verdict},
        socket::status::one_line,
    },
    spool::volume::Durability,
};

/// What the last words are, and were.
#[derive(Debug, Default)]
pub struct Words {
    /// How the last ask was settled.
    settled: Option<Verdict>,
    said: Option<String>,
}

impl Words {
    /// Takes notice of an ask that is settled.
    pub fn learn(&mut self, notice: &Notice) {
        if let Notice::Settled { verdict, .. } = notice {
            self.settled = Some(*verdict);
        }
    }

    /// The words that are true now, where they are others than those before. Follows from what is pending now, however that
    /// came about: an ask is pending only as long as the manager has not acknowledged it. `leaving` adds why it is pending.
    pub fn news(&mut self, core: &Lifecycle, durability: Durability, leaving: bool) -> Option<String> {
        let words = self.now(core, durability, leaving)?;
        if self.said.as_ref() == Some(&words) {
            return None;
        }
        self.said = Some(words.clone());
        Some(words)
    }

    fn now(&self, core: &Lifecycle, durability: Durability, leaving: bool) -> Option<String> {
        let key = core.key();
        let open: Vec<_> = core.pending().iter().filter(|ask| ask.acknowledged.is_none()).collect();
        if !open.is_empty() {
            let where_to = if open.iter().all(|ask| ask.on_disk) {
                durability.queued()
            } else {
                "in memory only, the spool refused it"
            };
            let why = core.attempts().last_failure().filter(|_| leaving);
            let why = why.map(|why| format!("; the last attempt failed: {}", one_line(why)));
            let why = why.unwrap_or_default();
            return Some(format!(
                "sign-off of {key} is pending, the manager has not acknowledged it: {where_to}{why}\n"
            ));
        }
        match core.pending().iter().find_map(|ask| ask.acknowledged) {
            Some(verdict) => Some(format!(
                "sign-off of {key}: {}; its record is kept and watched until no earlier attempt can undo it\n",
                verdict.label()
            )),
            None => self.settled.map(|verdict| format!("sign-off of {key}: {}\n", verdict.label())),
        }
    }
}
