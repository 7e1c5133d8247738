//! What a run found and did, for people and for machines.

use std::{fmt::Write, io, net::SocketAddr};

use serde::{Serialize, Serializer};

use crate::{
    agent::socket::status::one_line,
    cli::columns,
    manager::State,
    repair::{
        apply::Done,
        judge::{Judgement, Probed, Reason, Seen, Verdict},
        reconcile::{Counts, Report},
    },
};

/// So many rows are shown in a table; all of them in JSON.
const SHOWN: usize = 200;

/// A row that has something to be said of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) id: u64,
    pub(super) cluster_id: u64,
    pub(super) hostname: String,
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) state: State,
    pub(super) verdict: &'static str,
    pub(super) wrongly_inactive: bool,
    pub(super) reason: String,
    /// What was or would be done.
    pub(super) action: String,
}

impl Finding {
    fn of(report: &Report, at: usize) -> Self {
        let (seen, judgement) = (&report.survey.rows[at], &report.judged[at]);
        let row = &seen.now;
        Self {
            id: row.id,
            cluster_id: row.cluster_id,
            hostname: one_line(&row.hostname),
            ip: row.ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string()),
            port: row.port,
            state: row.state,
            verdict: judgement.verdict.label(),
            wrongly_inactive: judgement.wrongly_inactive(),
            reason: judgement.reason.words(seen, &report.survey.given),
            action: action(report, at),
        }
    }

    fn address(&self) -> String {
        match self.ip.parse() {
            Ok(ip) => SocketAddr::new(ip, self.port).to_string(),
            Err(_) => format!("{}:{}", self.ip, self.port),
        }
    }
}

fn action(report: &Report, at: usize) -> String {
    if let Some(done) = report.done.get(&at) {
        return match done {
            Done::SignedOff => "signed off".to_owned(),
            Done::Gone => "settled by another meanwhile".to_owned(),
            Done::Lives(why) => format!("left alone, contested: {why}"),
            Done::CameBack(why) => format!("contested: {why}"),
            Done::Failed(why) => format!("not signed off: {why}"),
            Done::Unanswered(why) => format!("perhaps signed off: {why}"),
            Done::Withdrawn { still_given: None } => "withdrawn".to_owned(),
            Done::Withdrawn { still_given: Some(why) } => format!("withdrawn; {why}"),
            Done::NotWithdrawn(why) => format!("not withdrawn: {why}"),
        };
    }
    let judgement = &report.judged[at];
    let active = report.survey.rows[at].now.state == State::Active;
    let dead = active && matches!(judgement.verdict, Verdict::Dead | Verdict::Replaced);
    let [signed_off, withdrawn] =
        [&report.plan.sign_off, &report.plan.withdraw].map(|plan| plan.binary_search(&at).is_ok());
    let planned = match (signed_off, withdrawn) {
        (true, true) => Some("would be signed off and withdrawn"),
        (true, false) => Some("would be signed off"),
        (false, true) if report.dry => Some("would be withdrawn"),
        (false, true) => Some("not withdrawn"),
        (false, false) => None,
    };
    if let Some(planned) = planned {
        format!("{planned}{}", if report.survey.partial { ", if the guards let it" } else { "" })
    } else if dead && !report.plan.held.is_empty() {
        "held back".to_owned()
    } else if dead {
        "not asked for (--hostname-pattern)".to_owned()
    } else {
        "left alone".to_owned()
    }
}

/// A report, ready to be printed. A table may have 100,000 rows to be spoken of: none is put into words before its turn.
pub(super) struct View<'a> {
    report: &'a Report,
    counts: Counts,
}

impl<'a> View<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        Self { report, counts: report.counts() }
    }

    /// Where the rows are that are not simply live or rightly inactive, or were to be written.
    fn found(&self) -> impl Iterator<Item = usize> {
        let report = self.report;
        (0..report.judged.len()).filter(move |at| {
            let (row, judgement) = (&report.survey.rows[*at].now, &report.judged[*at]);
            let odd = match row.state {
                State::Active => judgement.verdict != Verdict::Live,
                State::Inactive => judgement.wrongly_inactive(),
            };
            odd || report.done.contains_key(at) || report.plan.withdraw.binary_search(at).is_ok()
        })
    }

    /// What there is to be said of those rows.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.found().map(|at| Finding::of(self.report, at))
    }

    /// The one line.
    pub(super) fn summary(&self) -> String {
        let Counts { rows, active, live, dead, replaced, contested, undecided, wrongly_inactive, .. } =
            self.counts;
        let mut text = format!(
            "reconcile: {}: {rows} rows from {}, {active} active: {live} live, {dead} dead, {replaced} replaced, {contested} contested, \
             {undecided} undecided; {wrongly_inactive} wrongly inactive",
            self.report.outcome().label(),
            self.report.source
        );
        let wanted = self.report.plan.sign_off.len();
        let withdraw = self.report.plan.withdraw.len();
        // Writing to a String doesn't fail.
        if self.report.dry {
            let _ = write!(text, "; dry run, {wanted} to be signed off");
            if withdraw > 0 {
                let _ = write!(text, ", {withdraw} to be withdrawn");
            }
        } else {
            let Counts { signed_off, lives, came_back, failed, withdrawn, not_withdrawn, .. } = self.counts;
            let _ = write!(
                text,
                "; {signed_off} signed off, {failed} failed, {lives} left since they show life, {came_back} came back"
            );
            if withdraw > 0 {
                let _ = write!(text, ", {withdrawn} withdrawn, {not_withdrawn} not withdrawn");
            }
        }
        if self.counts.given > 0 {
            let _ = write!(
                text,
                "; peers that name their cluster are given {} where nobody is",
                self.counts.given
            );
        }
        if let Some(why) = &self.report.no_withdrawal {
            let _ = write!(text, "; {why}");
        }
        if let Some(why) = &self.report.no_pods {
            let _ = write!(text, "; the pods can't be listed: {why}");
        }
        if let Some((rows, zone)) = &self.report.beside_pods {
            let _ = write!(text, "; {rows} row(s) are of no pod of {zone}, and judged without pods");
        }
        if self.report.survey.not_probed > 0 {
            let _ = write!(text, "; {} not looked at, there are too many", self.report.survey.not_probed);
        }
        for empty in &self.report.empty {
            let _ = write!(text, "; {empty}");
        }
        for held in &self.report.plan.held {
            let _ = write!(
                text,
                "; {}: {held}",
                if self.report.dry { "would be held back" } else { "HELD BACK" }
            );
        }
        text
    }

    /// For people: the findings, and the summary below them.
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let found = self.found().count();
        if found > 0 {
            let head = ["ID", "CLUSTER", "HOSTNAME", "ADDRESS", "STATE", "VERDICT", "ACTION", "REASON"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            rows.extend(self.findings().take(SHOWN).map(|finding| {
                vec![
                    finding.id.to_string(),
                    finding.cluster_id.to_string(),
                    finding.hostname.clone(),
                    finding.address(),
                    finding.state.word().to_owned(),
                    finding.verdict.to_owned(),
                    one_line(&finding.action),
                    one_line(&finding.reason),
                ]
            }));
            out = columns(&rows);
            if found > SHOWN {
                let _ = writeln!(out, "… and {} more: see -o json", found - SHOWN);
            }
        }
        let _ = write!(out, "{}", self.summary());
        out
    }

    /// For machines.
    pub(super) fn json(&self, pretty: bool, out: &mut dyn io::Write) -> io::Result<()> {
        #[derive(Serialize)]
        struct Held {
            guard: &'static str,
            reason: String,
        }
        #[derive(Serialize)]
        struct Json<'a> {
            result: &'static str,
            exit: u8,
            source: &'a str,
            apply: bool,
            counts: &'a Counts,
            held_back: Vec<Held>,
            not_probed: usize,
            #[serde(serialize_with = "each")]
            rows: &'a View<'a>,
        }
        fn each<S: Serializer>(view: &View<'_>, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(view.findings())
        }
        let report = self.report;
        let held = report.plan.held.iter();
        let json = Json {
            result: report.outcome().label(),
            exit: report.exit().code(),
            source: &report.source,
            apply: !report.dry,
            counts: &self.counts,
            held_back: held.map(|held| Held { guard: held.guard(), reason: held.to_string() }).collect(),
            not_probed: report.survey.not_probed,
            rows: self,
        };
        let written =
            if pretty { serde_json::to_writer_pretty(out, &json) } else { serde_json::to_writer(out, &json) };
        written.map_err(io::Error::from)
    }
}

/// One row, explained.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    #[serde(flatten)]
    finding: Finding,
    /// What was found at its address.
    probe: String,
    /// What the two looks say.
    looks: String,
    /// How many active rows its cluster has, and how many of them are known to live.
    cluster: String,
    source: String,
}

impl Explained {
    /// `None` where there is no such row.
    pub(super) fn of(report: &Report, id: u64) -> Option<Self> {
        let at = report.survey.rows.binary_search_by_key(&id, |row| row.now.id).ok()?;
        let (seen, judgement) = (&report.survey.rows[at], &report.judged[at]);
        Some(Self {
            finding: Finding::of(report, at),
            probe: probe(report, seen),
            looks: looks(report, seen, judgement),
            cluster: cluster(report, seen.now.cluster_id),
            source: report.source.clone(),
        })
    }

    /// Whether the row says what isn't so, or is contested.
    pub(super) fn wrong(&self) -> bool {
        let verdict = self.finding.verdict;
        let dead = [Verdict::Dead, Verdict::Replaced, Verdict::Contested].map(Verdict::label);
        self.finding.wrongly_inactive || (self.finding.state == State::Active && dead.contains(&verdict))
    }

    pub(super) fn text(&self) -> String {
        let finding = &self.finding;
        let state = if finding.wrongly_inactive { "inactive, wrongly" } else { finding.state.word() };
        let lines = [
            ("row", finding.id.to_string()),
            ("scheduler", format!("{} at {}", finding.hostname, finding.address())),
            ("cluster", format!("{}: {}", finding.cluster_id, self.cluster)),
            ("state", state.to_owned()),
            ("verdict", finding.verdict.to_owned()),
            ("because", finding.reason.clone()),
            ("looks", self.looks.clone()),
            ("probe", self.probe.clone()),
            ("--apply", finding.action.clone()),
            ("source", self.source.clone()),
        ];
        let rows: Vec<Vec<String>> =
            lines.into_iter().map(|(name, value)| vec![name.to_owned(), one_line(&value)]).collect();
        columns(&rows).trim_end().to_owned()
    }

    pub(super) fn json(&self) -> String {
        // Plain data: there is nothing in it that JSON can't say.
        serde_json::to_string_pretty(self).unwrap_or_else(|error| error.to_string())
    }
}

fn probe(report: &Report, seen: &Seen) -> String {
    match (seen.probe, report.survey.probe_words.get(&seen.now.id)) {
        (Probed::Answers, _) => "something answers".to_owned(),
        (_, Some(words)) => words.clone(),
        _ => "not made: nothing hangs on it".to_owned(),
    }
}

fn looks(report: &Report, seen: &Seen, judgement: &Judgement) -> String {
    let apart = report.survey.given.apart.as_secs_f32();
    let interval = seen.now.interval().as_secs_f32();
    let Some(before) = &seen.before else {
        return format!("{apart:.1} s apart; it was not there at the first");
    };
    let heard = match (before.keep_alive, seen.now.keep_alive) {
        (Some(before), Some(now)) if now.moved_since(before) => "its keep-alive time moved",
        (Some(_), Some(_)) => "its keep-alive time did not move",
        (None, None) => "no keep-alive time is shown for it",
        _ => "its keep-alive time is shown at one of them only",
    };
    let came_back =
        if judgement.reason == Reason::CameBack { ", after this process signed it off" } else { "" };
    format!(
        "{apart:.1} s apart, its interval is {interval:.1} s; {} then {}{came_back}; {heard}",
        before.state.word(),
        seen.now.state.word()
    )
}

fn cluster(report: &Report, cluster_id: u64) -> String {
    let rows = report.survey.rows.iter().zip(&report.judged);
    let active: Vec<bool> = rows
        .filter(|(row, _)| row.now.cluster_id == cluster_id && row.now.state == State::Active)
        .map(|(_, judgement)| judgement.alive)
        .collect();
    format!("{} active rows, {} known to live", active.len(), active.iter().filter(|alive| **alive).count())
}
