//! The verdict on one case, from what can be seen from outside: how the process ended, what it said, its spool, the manager's table.

use signoff::{agent::lifecycle::Verdict, agent::socket::PreStopAnswer};

use super::point::Operation;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The fault killed it.
    Killed,
    /// With this code.
    Code(i32),
    /// By the harness, which had seen enough.
    Stopped,
}

/// One key's sign-off, after the run.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) key: String,
    /// So many of its asks were on disk before the run.
    pub(super) before: usize,
    /// So many are there now.
    pub(super) asks: usize,
    /// There is a mark of a sign-off.
    pub(super) mark: bool,
    /// The manager heard of it in this run.
    pub(super) begun: bool,
    /// Its row is inactive.
    pub(super) inactive: bool,
    /// There never was a row, as was said, or as the mark that its ask has become.
    pub(super) never_registered: bool,
}

/// What a run left.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) operation: Operation,
    /// The fault was to kill it.
    pub(super) to_be_killed: bool,
    pub(super) end: End,
    pub(super) output: String,
    /// What the hook heard.
    pub(super) answer: Option<PreStopAnswer>,
    pub(super) asked: Vec<Asked>,
    /// Files that were set aside or can't be read, and why.
    pub(super) odd: Vec<String>,
}

/// What the recovery left.
#[derive(Debug, Clone, Default)]
pub(super) struct Recovered {
    pub(super) output: String,
    /// Of a flush.
    pub(super) code: Option<i32>,
    /// Rows that are not as they should be: of pending asks those that are not inactive.
    pub(super) wrong: Vec<String>,
    /// Files that are neither marks nor the lock.
    pub(super) files: Vec<String>,
}

fn no_panic(output: &str) -> Result<(), String> {
    let panicked = output.contains("panicked") || output.contains("A bug");
    if panicked { Err("it panicked".to_owned()) } else { Ok(()) }
}

impl Left {
    /// The agent said that the disk refused the ask.
    fn refused(&self) -> bool {
        self.output.contains("A sign-off could not be written to the spool")
            || self.answer.as_ref().is_some_and(|answer| !answer.persisted)
    }

    fn ended_well(&self) -> Result<(), String> {
        let well = match (self.end, self.operation) {
            (End::Killed, _) => self.to_be_killed,
            (End::Stopped, operation) => !matches!(operation, Operation::PreStop | Operation::Sigterm),
            (End::Code(code), Operation::PreStop | Operation::Sigterm) => matches!(code, 0 | 75),
            (End::Code(code), Operation::Flush) => matches!(code, 0 | 69 | 75),
            (End::Code(_), Operation::Replay | Operation::TakeUp | Operation::NeverRegistered) => false,
        };
        if well { Ok(()) } else { Err(format!("it ended so: {:?}", self.end)) }
    }

    /// Nothing asked is lost, and what was said is true.
    pub(super) fn judge(&self) -> Result<(), String> {
        no_panic(&self.output)?;
        self.ended_well()?;
        if !self.odd.is_empty() {
            return Err(format!("files are not as they should be: {:?}", self.odd));
        }
        let confirmed = self.answer.as_ref().is_some_and(|answer| answer.result == Verdict::Confirmed);
        for asked in &self.asked {
            let key = &asked.key;
            let accepted = asked.begun || self.answer.is_some() || matches!(self.end, End::Code(0 | 75));
            let accepted = asked.before.max(accepted.into());
            let settled = asked.inactive && asked.begun || asked.never_registered;
            if asked.asks < accepted && !settled && !(self.refused() && self.end == End::Code(75)) {
                return Err(format!("the ask of {key} is lost"));
            }
            if asked.begun && asked.before == 0 && asked.asks == 0 && !asked.mark && !self.refused() {
                return Err(format!("the manager was asked for {key}, and nothing is on disk"));
            }
            if (confirmed || self.end == End::Code(0)) && !settled {
                return Err(format!("{key} was said to be signed off, and is not"));
            }
            if self.operation == Operation::Flush && self.end == End::Code(0) && asked.asks > 0 {
                return Err(format!("the ask of {key} was said to be settled, and is there"));
            }
        }
        Ok(())
    }
}

impl Recovered {
    /// All that was pending is settled, and the spool is clean.
    pub(super) fn judge(&self) -> Result<(), String> {
        no_panic(&self.output)?;
        match self {
            Self { code: Some(code), .. } if *code != 0 => Err(format!("the flush ended with {code}")),
            Self { wrong, .. } if !wrong.is_empty() => {
                Err(format!("rows are not as they should be: {wrong:?}"))
            }
            Self { files, .. } if !files.is_empty() => Err(format!("left in the spool: {files:?}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled() -> Asked {
        Asked {
            key: "k".to_owned(),
            before: 2,
            asks: 0,
            mark: false,
            begun: true,
            inactive: true,
            never_registered: false,
        }
    }

    fn pending() -> Asked {
        Asked { asks: 2, begun: false, inactive: false, ..settled() }
    }

    fn left(operation: Operation, end: End, asked: Asked) -> Left {
        let (output, odd) = (String::new(), Vec::new());
        Left {
            operation,
            to_be_killed: end == End::Killed,
            end,
            output,
            answer: None,
            asked: vec![asked],
            odd,
        }
    }

    #[track_caller]
    fn wrong(left: &Left, why: &str) {
        let judged = left.judge();
        assert!(judged.as_ref().is_err_and(|said| said.contains(why)), "{why}: {judged:?}");
    }

    #[test]
    fn what_is_settled_or_pending_is_well_and_what_is_neither_is_lost() {
        use Operation::{Flush, NeverRegistered, PreStop, Replay, Sigterm};
        for good in [
            left(Flush, End::Code(0), settled()),
            left(Flush, End::Code(75), pending()),
            left(Flush, End::Killed, pending()),
            left(Replay, End::Stopped, settled()),
            left(Sigterm, End::Code(0), Asked { before: 0, mark: true, ..settled() }),
            left(Sigterm, End::Killed, Asked { before: 0, asks: 0, ..pending() }),
            left(PreStop, End::Code(75), Asked { before: 0, ..pending() }),
            left(NeverRegistered, End::Stopped, Asked { never_registered: true, asks: 0, ..pending() }),
        ] {
            assert_eq!(good.judge(), Ok(()), "{good:?}");
        }
        let lost = Asked { asks: 0, ..pending() };
        wrong(&left(Flush, End::Killed, lost.clone()), "lost");
        wrong(&left(Flush, End::Killed, Asked { asks: 1, ..pending() }), "lost");
        wrong(&left(Replay, End::Stopped, lost.clone()), "lost");
        wrong(&left(NeverRegistered, End::Stopped, lost.clone()), "lost");
        wrong(&left(Sigterm, End::Code(75), Asked { before: 0, ..lost.clone() }), "lost");
        // Somebody else made it inactive: that does not settle an ask.
        wrong(&left(Flush, End::Code(75), Asked { begun: false, ..settled() }), "lost");
        wrong(&left(Sigterm, End::Killed, Asked { before: 0, ..settled() }), "nothing is on disk");
        wrong(&left(Flush, End::Code(0), pending()), "said to be signed off");
        wrong(&left(Flush, End::Code(0), Asked { asks: 1, ..settled() }), "said to be settled");
        let refused = Left {
            output: "A sign-off could not be written to the spool".to_owned(),
            ..left(Sigterm, End::Code(75), Asked { before: 0, ..lost })
        };
        assert_eq!(refused.judge(), Ok(()));
        wrong(&Left { end: End::Code(0), ..refused }, "lost");
    }

    #[test]
    fn a_panic_an_unknown_end_and_a_file_set_aside_are_seen() {
        let good = left(Operation::Flush, End::Code(0), settled());
        wrong(&Left { output: "thread 'main' panicked at".to_owned(), ..good.clone() }, "panicked");
        wrong(&Left { end: End::Code(70), ..good.clone() }, "it ended so");
        wrong(&Left { end: End::Killed, ..good.clone() }, "it ended so");
        wrong(&Left { odd: vec!["x.corrupt".to_owned()], ..good }, "not as they should be");
        for agent in [Operation::Replay, Operation::TakeUp, Operation::NeverRegistered] {
            wrong(&left(agent, End::Code(0), settled()), "it ended so");
        }
    }

    #[test]
    fn a_recovery_that_leaves_something_is_seen() {
        assert_eq!(Recovered::default().judge(), Ok(()));
        let some = || vec!["x".to_owned()];
        for bad in [
            Recovered { code: Some(75), ..Recovered::default() },
            Recovered { wrong: some(), ..Recovered::default() },
            Recovered { files: some(), ..Recovered::default() },
            Recovered { output: "A bug: please report it.".to_owned(), ..Recovered::default() },
        ] {
            assert!(bad.judge().is_err(), "{bad:?}");
        }
    }
}
