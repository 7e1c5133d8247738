//! One run: survey, judge, plan, and with `--apply` the writes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    apply::{Became, Done, Writer},
    guard::{self, Limits, Plan},
    judge::{Judgement, Seen, Verdict, judge},
    memory::Memory,
    pods::{Says, Told, Watch},
    sighting::Stamp,
    sources::{Scope, Source},
    survey::{Options, Progress, Survey, survey},
    withdraw::{self, Candidates},
};
use crate::{
    exit::Exit,
    manager::{Failure, State, Withdraw},
    net::Prober,
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
    /// How much may be written, and on what evidence.
    pub limits: Limits,
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
    /// What may be signed off and withdrawn.
    pub plan: Plan,
    /// Why nothing of the plan is withdrawn, where it can't be.
    pub no_withdrawal: Option<String>,
    /// Why Kubernetes' pods say nothing in this run, where they were to be asked.
    pub no_pods: Option<String>,
    /// How many rows are none of the pods' that were asked, and whose these are (`NAMESPACE.svc.DOMAIN`); none where all are.
    pub beside_pods: Option<(usize, String)>,
    /// What became of the rows that were to be written, by place. Empty in a dry run.
    pub done: BTreeMap<usize, Done>,
    /// It was a dry run.
    pub dry: bool,
    /// Clusters that were asked for and have no row.
    pub empty: Vec<Empty>,
}

/// A cluster that was asked for and has no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Empty {
    /// Its id.
    pub cluster_id: u64,
    /// The manager's clusters, where it has no such one; none where it has, or where that isn't shown.
    pub instead: Option<Vec<u64>>,
}

impl std::fmt::Display for Empty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cluster_id, instead } = self;
        match instead {
            None => write!(f, "cluster {cluster_id} has no row"),
            Some(others) => {
                let others: Vec<String> = others.iter().map(u64::to_string).collect();
                write!(f, "the manager has no cluster {cluster_id}; its clusters are {}", others.join(", "))
            }
        }
    }
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
    /// Rows that peers naming their cluster are given after this run, though nobody is there: inactive, or dead.
    pub given: usize,
    /// Taken out of the table.
    pub withdrawn: usize,
    /// Not taken out.
    pub not_withdrawn: usize,
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
        counts.given = self.given().count();
        for done in self.done.values() {
            match done {
                Done::SignedOff => counts.signed_off += 1,
                Done::Lives(_) => counts.lives += 1,
                Done::CameBack(_) => counts.came_back += 1,
                Done::Failed(_) | Done::Unanswered(_) => counts.failed += 1,
                Done::Withdrawn { .. } => counts.withdrawn += 1,
                Done::NotWithdrawn(_) => counts.not_withdrawn += 1,
                Done::Gone => {}
            }
        }
        counts
    }

    /// Where the rows are that peers are given after this run, though nobody is there.
    pub fn given(&self) -> impl Iterator<Item = usize> {
        (0..self.judged.len()).filter(|at| {
            let is_dead = matches!(self.judged[*at].verdict, Verdict::Dead | Verdict::Replaced);
            let has_pod = self.survey.rows[*at].pod.lives();
            is_dead && !has_pod && !matches!(self.done.get(at), Some(Done::Withdrawn { .. } | Done::Gone))
        })
    }

    /// How long ago, by the table's own clock, the manager last heard of the one that peers are given for the longest.
    pub fn given_for(&self) -> Duration {
        let heard = |at: usize| self.survey.rows[at].now.keep_alive;
        let living = (0..self.judged.len()).filter(|at| self.judged[*at].alive);
        let newest = Stamp::latest(living.filter_map(heard));
        let ages = self.given().filter_map(|at| newest?.after(heard(at)?));
        ages.max().unwrap_or_default()
    }

    /// Clusters that were asked for, and that the manager doesn't have.
    pub fn no_such_clusters(&self) -> impl Iterator<Item = &Empty> {
        self.empty.iter().filter(|empty| empty.instead.is_some())
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        let counts = self.counts();
        if self.no_such_clusters().next().is_some() {
            return Outcome::HeldBack;
        }
        let left = counts.contested + counts.wrongly_inactive;
        if self.dry {
            // What it would have been held back from is no matter, unless it could not even see.
            let blind = self
                .plan
                .held
                .iter()
                .any(|held| matches!(held, guard::Held::Blind { .. } | guard::Held::Probes { .. }));
            let wrong = counts.dead + counts.replaced + left + self.plan.withdraw.len();
            return match (blind, wrong) {
                (true, _) => Outcome::HeldBack,
                (false, 0) => Outcome::Consistent,
                (false, _) => Outcome::Inconsistent,
            };
        }
        if counts.failed + counts.not_withdrawn > 0 {
            Outcome::Incomplete
        } else if !self.plan.held.is_empty() {
            Outcome::HeldBack
        } else if left + counts.lives + counts.came_back > 0 || self.no_withdrawal.is_some() {
            Outcome::Inconsistent
        } else if counts.signed_off + counts.withdrawn > 0 {
            Outcome::Repaired
        } else {
            Outcome::Consistent
        }
    }

    /// The exit code of this run.
    pub fn exit(&self) -> Exit {
        if self.no_such_clusters().next().is_some() {
            return Exit::Usage;
        }
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
    pub manager: Option<Arc<dyn Withdraw>>,
    /// Who looks at addresses.
    pub prober: Prober,
    /// What may be done.
    pub policy: Policy,
    /// Kubernetes' pods, where they are to be asked.
    pub pods: Option<Watch>,
    memory: Memory,
    said_timeless: bool,
    said_no_withdrawal: bool,
    said_no_pods: bool,
}

impl Reconciler {
    /// Nothing was signed off yet.
    pub fn new(
        source: Box<dyn Source>,
        manager: Option<Arc<dyn Withdraw>>,
        prober: Prober,
        policy: Policy,
    ) -> Self {
        Self {
            source,
            manager,
            prober,
            policy,
            pods: None,
            memory: Memory::default(),
            said_timeless: false,
            said_no_withdrawal: false,
            said_no_pods: false,
        }
    }

    /// One run. Fails where the rows can't be read.
    pub async fn run(&mut self, progress: &dyn Progress) -> Result<Report, Failure> {
        let policy = &self.policy;
        let until = Instant::now() + policy.deadline;
        let looked = survey(self.source.as_ref(), &self.prober, &policy.look, &self.memory, progress);
        let mut survey = timeout_at(until, looked).await.map_err(|_| {
            Failure::new(format!(
                "{}: the looks were not done within --deadline {}",
                self.source.name(),
                crate::identity::duration::format(policy.deadline)
            ))
        })??;
        let told = match &mut self.pods {
            None => Ok(Told::default()),
            Some(pods) => pods.tell(&mut survey.rows, until).await,
        };
        let (told, no_pods) = match told {
            Ok(told) => (told, None),
            Err(failure) => (Told::default(), Some(failure.why)),
        };
        if let (Some(why), false) = (&no_pods, self.said_no_pods) {
            tracing::warn!(reason = %why, "The pods can't be listed: rows of this namespace are judged without them, and none is withdrawn.");
        }
        self.said_no_pods = no_pods.is_some();
        let judged = judge(&survey.rows, &survey.given);
        self.memory.forget(&survey.rows, &judged, self.source.shows_inactive(), Instant::now());
        let empty = empty(self.source.as_ref(), &policy.look.scope, &survey.rows).await;
        if !self.said_timeless && is_timeless(&survey.rows) {
            self.said_timeless = true;
            tracing::warn!(
                rows.source = self.source.name(),
                "No keep-alive times are shown (gRPC, or a manager before v2.3.1): only a row whose hostname lives elsewhere can be \
                 judged dead, and one that lives and can't be reached from here looks the same. Give a REST endpoint with a user (a \
                 guest may read) of a manager from v2.3.1 on, or --database-url."
            );
        }
        let wanted =
            |row: &Seen| policy.pattern.as_ref().is_none_or(|pattern| pattern.0.matches(&row.now.hostname));
        let now = Instant::now();
        let before = |row: &Seen| self.memory.was_withdrawn(&row.now, now);
        let found = withdraw::plan(&survey.rows, &judged, &survey.given, policy.look.wanted, before, wanted);
        let found = Candidates { withdrew: self.memory.withdrawn_lately(now), ..found };
        let plan = guard::plan(&survey.rows, &judged, &survey.given, policy.limits, wanted, &found);
        let Candidates { replaced, came_back, .. } = found;
        let mut report = Report {
            source: self.source.name(),
            survey,
            judged,
            plan,
            no_withdrawal: None,
            no_pods,
            beside_pods: (told.others > 0).then(|| (told.others, told.zone.clone())),
            done: BTreeMap::new(),
            dry: !policy.apply,
            empty,
        };
        let mistaken = report.no_such_clusters().next().is_some();
        if let (true, false, Some(manager)) = (policy.apply, mistaken, &self.manager) {
            let (manager, source, prober) = (Arc::clone(manager), self.source.as_ref(), &self.prober);
            if !report.plan.withdraw.is_empty() {
                report.no_withdrawal = no_withdrawal(manager.as_ref(), report.plan.withdraw.len()).await;
                let is_new = report.no_withdrawal.is_some() && !self.said_no_withdrawal;
                self.said_no_withdrawal = report.no_withdrawal.is_some();
                if let (true, Some(why)) = (is_new, &report.no_withdrawal) {
                    tracing::warn!(reason = %why, "Rows that are nobody's stay in the table, and peers are given them.");
                }
            }
            let writer = Writer { manager, source, prober, until, progress, managers: &told.managers };
            let Report { survey, plan, done, no_withdrawal, .. } = &mut report;
            let memory = &mut self.memory;
            writer
                .sign_off(survey, &plan.sign_off, |at, Became { done: became, begun, .. }| {
                    let row = &survey.rows[at].now;
                    say(row, &became);
                    if let Some(begun) = begun {
                        memory.began(row, begun);
                    }
                    done.insert(at, became);
                })
                .await;
            // What was to be signed off, and wasn't, is no row that may go.
            let may_go = |at: &usize| {
                survey.rows[*at].now.state == State::Inactive || matches!(done.get(at), Some(Done::SignedOff))
            };
            let go: Vec<usize> = plan.withdraw.iter().copied().filter(may_go).collect();
            if no_withdrawal.is_none() {
                writer
                    .withdraw(survey, &go, |at, Became { done: became, begun, deleted }| {
                        let row = &survey.rows[at].now;
                        say(row, &became);
                        if let Some(begun) = begun {
                            memory.began(row, begun);
                        }
                        if deleted {
                            let counts = replaced.contains(&at) && survey.rows[at].pod != Says::Went;
                            memory.withdrew(row, counts, Instant::now());
                        }
                        done.insert(at, became);
                    })
                    .await;
            }
            for at in came_back.into_iter().filter(|at| memory.is_news(&survey.rows[*at].now)) {
                let why = "this process withdrew it before, and it is back in the table".to_owned();
                say(&survey.rows[at].now, &Done::CameBack(why.clone()));
                done.insert(at, Done::CameBack(why));
            }
        }
        Ok(report)
    }
}

/// Why nothing can be taken out of the table, if so: what is to be done.
async fn no_withdrawal(manager: &dyn Withdraw, rows: usize) -> Option<String> {
    let why = match manager.may_delete().await {
        Ok(true) => return None,
        Ok(false) => "the user may not delete schedulers".to_owned(),
        Err(failure) => failure.why,
    };
    Some(format!("{rows} row(s) can't be withdrawn: {why}; `signoff grant` makes a user who may"))
}

/// Whether there are active rows, and none shows when it was last heard of.
fn is_timeless(rows: &[Seen]) -> bool {
    let mut active = rows.iter().filter(|row| row.now.state == State::Active).peekable();
    active.peek().is_some() && active.all(|row| row.now.keep_alive.is_none())
}

/// The clusters of the scope that have no row.
async fn empty(source: &dyn Source, scope: &Scope, rows: &[Seen]) -> Vec<Empty> {
    let Scope::Clusters(ids) = scope else { return Vec::new() };
    let empty = ids.iter().map(|id| id.get()).filter(|id| !rows.iter().any(|row| row.now.cluster_id == *id));
    let empty: Vec<u64> = empty.collect();
    if empty.is_empty() {
        return Vec::new();
    }
    let clusters = source.clusters().await;
    let one = |cluster_id: u64| {
        let instead = clusters.clone().filter(|clusters| !clusters.contains(&cluster_id));
        Empty { cluster_id, instead }
    };
    empty.into_iter().map(one).collect()
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
                "A row that was signed off, or may have been, is active again: it is contested, and left alone."
            )
        }
        Done::Failed(why) => say!(warn, why.as_str(), "A dead scheduler's row could not be signed off."),
        Done::Unanswered(why) => {
            say!(warn, why.as_str(), "A dead scheduler's row may have been signed off: there was no answer.")
        }
        Done::Withdrawn { still_given: None } => {
            say!(
                info,
                None::<&str>,
                "Took a row that was nobody's out of the table: peers are not given it any more."
            )
        }
        Done::Withdrawn { still_given: Some(why) } => {
            say!(
                warn,
                why.as_str(),
                "Took a row that was nobody's out of the table; peers may be given it for some minutes more."
            )
        }
        Done::NotWithdrawn(why) => {
            say!(warn, why.as_str(), "A row that is nobody's could not be taken out of the table.")
        }
    }
}
