//! One run: survey, judge, plan, and with `--apply` the writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{
    apply::{Done, Writer},
    guard::{self, MaxShare, Plan},
    judge::{Judgement, Seen, Verdict, judge},
    purge,
    sources::Source,
    survey::{Options, Progress, Survey, survey},
};
use crate::{
    exit::Exit,
    manager::{Failure, Manager, State},
};

#[cfg(test)]
mod tests;

/// Which hostnames may be written: `*` stands for any text, `?` for one character.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(wildmatch::WildMatch);

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty; write a pattern such as scheduler-* (* is any text, ? one character)"
                .to_owned());
        }
        Ok(Self(wildmatch::WildMatch::new(text.trim())))
    }
}

/// What a run may do.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What is looked at.
    pub look: Options,
    /// Only rows whose hostname matches are written, or counted for the share.
    pub pattern: Option<Pattern>,
    /// `--max-share`.
    pub max_share: MaxShare,
    /// Write; else only say what would be.
    pub apply: bool,
    /// `--deadline`: a run ends after this.
    pub deadline: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All rows say what is true, as far as can be told.
    Consistent,
    /// Some don't: a dry run, or what is not for a reconcile to repair.
    Inconsistent,
    /// All that was wrong was repaired.
    Repaired,
    /// Some writes failed.
    Incomplete,
    /// A guard held something back.
    HeldBack,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Consistent, Self::Inconsistent, Self::Repaired, Self::Incomplete, Self::HeldBack];

    /// The label of `signoff_reconcile_runs_total{result}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Inconsistent => "inconsistent",
            Self::Repaired => "repaired",
            Self::Incomplete => "incomplete",
            Self::HeldBack => "held-back",
        }
    }
}

/// What a run found and did.
#[derive(Debug)]
pub struct Report {
    /// The source's name.
    pub source: String,
    /// What is known of each row.
    pub survey: Survey,
    /// What each is.
    pub judged: Vec<Judgement>,
    /// What may be signed off and deleted.
    pub plan: Plan,
    /// What became of the rows that were to be written, by place. Empty in a dry run.
    pub done: BTreeMap<usize, Done>,
    /// It was a dry run.
    pub dry: bool,
}

/// How many rows of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// All rows.
    pub rows: usize,
    /// Active ones; those have the verdicts.
    pub active: usize,
    /// Live.
    pub live: usize,
    /// Dead.
    pub dead: usize,
    /// Replaced.
    pub replaced: usize,
    /// Contested.
    pub contested: usize,
    /// Undecided.
    pub undecided: usize,
    /// Inactive ones whose schedulers live.
    pub wrongly_inactive: usize,
    /// Signed off in this run.
    pub signed_off: usize,
    /// Showed life right before they were to be written, and were not.
    pub lives: usize,
    /// Signed off, and active again.
    pub came_back: usize,
    /// Not written.
    pub failed: usize,
    /// Deleted.
    pub deleted: usize,
    /// Not deleted.
    pub not_deleted: usize,
}

impl Counts {
    /// The number of active rows with that verdict.
    pub fn of(&self, verdict: Verdict) -> usize {
        match verdict {
            Verdict::Live => self.live,
            Verdict::Dead => self.dead,
            Verdict::Replaced => self.replaced,
            Verdict::Contested => self.contested,
            Verdict::Undecided => self.undecided,
        }
    }

    fn of_mut(&mut self, verdict: Verdict) -> &mut usize {
        match verdict {
            Verdict::Live => &mut self.live,
            Verdict::Dead => &mut self.dead,
            Verdict::Replaced => &mut self.replaced,
            Verdict::Contested => &mut self.contested,
            Verdict::Undecided => &mut self.undecided,
        }
    }
}

impl Report {
    /// How many rows of each kind.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { rows: self.survey.rows.len(), ..Counts::default() };
        for (row, judgement) in self.survey.rows.iter().zip(&self.judged) {
            if row.now.state == State::Active {
                counts.active += 1;
                *counts.of_mut(judgement.verdict) += 1;
            } else {
                counts.wrongly_inactive += usize::from(judgement.wrongly_inactive());
            }
        }
        for done in self.done.values() {
            match done {
                Done::SignedOff => counts.signed_off += 1,
                Done::Lives(_) => counts.lives += 1,
                Done::CameBack(_) => counts.came_back += 1,
                Done::Failed(_) => counts.failed += 1,
                Done::Deleted => counts.deleted += 1,
                Done::NotDeleted(_) => counts.not_deleted += 1,
                Done::Gone => {}
            }
        }
        counts
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        let counts = self.counts();
        let left = counts.contested + counts.wrongly_inactive;
        if self.dry {
            // What it would have been held back from is no matter, unless it could not even see.
            let blind = self.plan.held.iter().any(|held| matches!(held, guard::Held::Blind { .. }));
            let wrong = counts.dead + counts.replaced + left + self.plan.purge.len();
            return match (blind, wrong) {
                (true, _) => Outcome::HeldBack,
                (false, 0) => Outcome::Consistent,
                (false, _) => Outcome::Inconsistent,
            };
        }
        if counts.failed + counts.not_deleted > 0 {
            Outcome::Incomplete
        } else if !self.plan.held.is_empty() {
            Outcome::HeldBack
        } else if left + counts.lives + counts.came_back > 0 {
            Outcome::Inconsistent
        } else if counts.signed_off + counts.deleted > 0 {
            Outcome::Repaired
        } else {
            Outcome::Consistent
        }
    }

    /// The exit code of this run.
    pub fn exit(&self) -> Exit {
        match self.outcome() {
            Outcome::Inconsistent if self.dry => Exit::Inconsistent,
            // What is left is for a person, or for an agent, and was said.
            Outcome::Inconsistent | Outcome::Consistent | Outcome::Repaired => Exit::Done,
            Outcome::Incomplete => Exit::CheckFailed,
            Outcome::HeldBack => Exit::HeldBack,
        }
    }
}

/// Runs over a table again and again.
pub struct Reconciler {
    /// Where the rows are read.
    pub source: Box<dyn Source>,
    /// Who writes; a dry run needs nobody.
    pub manager: Option<Arc<dyn Manager>>,
    /// What may be done.
    pub policy: Policy,
    /// Rows that this process has signed off, by id.
    ours: BTreeSet<u64>,
}

impl Reconciler {
    /// Nothing was signed off yet.
    pub fn new(source: Box<dyn Source>, manager: Option<Arc<dyn Manager>>, policy: Policy) -> Self {
        Self { source, manager, policy, ours: BTreeSet::new() }
    }

    /// One run. Fails where the rows can't be read.
    pub async fn run(&mut self, progress: &dyn Progress) -> Result<Report, Failure> {
        let policy = &self.policy;
        let until = Instant::now() + policy.deadline;
        let looked = survey(self.source.as_ref(), &policy.look, &self.ours, progress);
        let survey = timeout_at(until, looked).await.map_err(|_| {
            Failure::new(format!(
                "{}: the looks were not done within --deadline {}",
                self.source.name(),
                crate::identity::duration::format(policy.deadline)
            ))
        })??;
        let judged = judge(&survey.rows, &survey.given);
        let wanted =
            |row: &Seen| policy.pattern.as_ref().is_none_or(|pattern| pattern.0.matches(&row.now.hostname));
        let purge = match policy.look.purge_after {
            Some(after) => purge::plan(&survey.rows, &judged, &survey.given, after, wanted),
            None => Vec::new(),
        };
        let plan = guard::plan(&survey.rows, &judged, policy.max_share, wanted, &purge);
        let mut report = Report {
            source: self.source.name(),
            survey,
            judged,
            plan,
            done: BTreeMap::new(),
            dry: !policy.apply,
        };
        if let (true, Some(manager)) = (policy.apply, &self.manager) {
            let writer =
                Writer { manager: Arc::clone(manager), source: self.source.as_ref(), until, progress };
            let Report { survey, plan, done, .. } = &mut report;
            let ours = &mut self.ours;
            writer
                .sign_off(survey, &plan.sign_off, |at, became| {
                    let row = &survey.rows[at].now;
                    say(row, &became);
                    if matches!(became, Done::SignedOff | Done::CameBack(_)) {
                        ours.insert(row.id);
                    }
                    done.insert(at, became);
                })
                .await;
            writer
                .delete(survey, &plan.purge, |at, became| {
                    say(&survey.rows[at].now, &became);
                    done.insert(at, became);
                })
                .await;
        }
        Ok(report)
    }
}

fn say(row: &super::sighting::Sighting, became: &Done) {
    let ip = row.ip.map(|ip| ip.to_string()).unwrap_or_default();
    macro_rules! say {
        ($level:ident, $why:expr, $text:literal) => {
            tracing::$level!(
                row.id = row.id,
                scheduler.cluster = row.cluster_id,
                scheduler.hostname = %row.hostname,
                scheduler.ip = ip,
                reason = $why,
                $text
            )
        };
    }
    match became {
        Done::SignedOff => say!(info, None::<&str>, "Signed a dead scheduler's row off."),
        Done::Gone => say!(info, None::<&str>, "A dead scheduler's row was settled by another meanwhile."),
        Done::Lives(why) => {
            say!(warn, why.as_str(), "A row that was taken for dead shows life: it is left alone.")
        }
        Done::CameBack(why) => {
            say!(
                error,
                why.as_str(),
                "A row that was signed off is active again: it is contested, and left alone."
            )
        }
        Done::Failed(why) => say!(warn, why.as_str(), "A dead scheduler's row could not be signed off."),
        Done::Deleted => say!(info, None::<&str>, "Deleted a row that was inactive for long."),
        Done::NotDeleted(why) => {
            say!(warn, why.as_str(), "A row that was inactive for long could not be deleted.")
        }
    }
}
