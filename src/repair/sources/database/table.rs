//! The table's columns, the statements that read it, and a row of it.

use super::{
    connection::Cells,
    url::{Kind, Place},
};
use crate::{
    manager::{State, date::number, rest::row::interval_in},
    repair::{
        sighting::{Sighting, Stamp, canonical, interval_ms},
        sources::Scope,
    },
};

/// Rows a page: each is a statement of its own, whose rows are taken as they come.
pub(super) const PAGE: usize = 10_000;

/// No statement here selects more values.
pub(super) const WIDEST: usize = 10;
/// What is read of each row, in this order.
const COLUMNS: [&str; WIDEST] = [
    "id",
    "host_name",
    "ip",
    "port",
    "state",
    "scheduler_cluster_id",
    "updated_at",
    "config",
    "last_keep_alive_at",
    "created_at",
];
/// Those of v2.3.1 and later.
const NEW: [&str; 2] = ["config", "last_keep_alive_at"];
/// What is done without where it may not be read: rights that were given for an earlier release don't name it.
const SPARED: &str = "created_at";
/// What else has to be readable.
const DELETED: &str = "is_del";

/// A table that can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// No column can be seen.
    Missing,
    /// These columns can't be read, or aren't there.
    Columns(Vec<&'static str>),
}

/// Which columns there are, and may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns([bool; COLUMNS.len()]);

/// A column that there is, and whether it may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    name: String,
    readable: bool,
}

impl From<&Cells<'_>> for Found {
    fn from(cells: &Cells<'_>) -> Self {
        Self { name: text(cells, 0).into_owned(), readable: bytes(cells, 1) == Some(b"1") }
    }
}

impl Columns {
    /// From what [`find`] gave.
    pub(super) fn of(found: &[Found]) -> Result<Self, Unreadable> {
        let is = |name: &str, readable: bool| {
            found.iter().any(|column| column.name.eq_ignore_ascii_case(name) && column.readable == readable)
        };
        let has = |name: &str| is(name, true);
        let missing: Vec<_> = COLUMNS
            .into_iter()
            .chain([DELETED])
            .filter(|name| *name != SPARED && if NEW.contains(name) { is(name, false) } else { !has(name) })
            .collect();
        match (found.is_empty(), missing.is_empty()) {
            (true, _) => Err(Unreadable::Missing),
            (false, false) => Err(Unreadable::Columns(missing)),
            (false, true) => Ok(Self(COLUMNS.map(has))),
        }
    }

    /// Whether what v2.3.1 brought is there.
    pub(super) fn new_ones(self) -> bool {
        COLUMNS.iter().zip(self.0).all(|(name, has)| has || !NEW.contains(name))
    }

    fn select(self, kind: Kind) -> String {
        let as_text = |(name, has): (&&str, bool)| match (has, kind) {
            (false, _) => "NULL".to_owned(),
            (true, Kind::Postgres) => format!("{name}::text"),
            // Its answers to such statements are text anyhow, and a CAST takes as long as the rest.
            (true, Kind::MySql | Kind::MariaDb) => (*name).to_owned(),
        };
        let columns: Vec<_> = COLUMNS.iter().zip(self.0).map(as_text).collect();
        format!("SELECT {} FROM scheduler WHERE {DELETED} = 0", columns.join(", "))
    }

    /// The page of rows of a scope with ids above `after`.
    pub(super) fn page(self, kind: Kind, scope: &Scope, after: u64) -> String {
        let clusters = match scope {
            Scope::All => String::new(),
            Scope::Clusters(ids) => {
                let ids: Vec<_> = ids.iter().map(|id| id.get().to_string()).collect();
                format!(" AND scheduler_cluster_id IN ({})", ids.join(", "))
            }
        };
        // Not `id`: in PostgreSQL that would be the text that is selected.
        format!(
            "{} AND scheduler.id > {after}{clusters} ORDER BY scheduler.id LIMIT {PAGE}",
            self.select(kind)
        )
    }

    /// One row.
    pub(super) fn one(self, kind: Kind, id: u64) -> String {
        format!("{} AND scheduler.id = {id}", self.select(kind))
    }
}

/// Name and readability (1) of each column. MySQL and MariaDB show only columns that may be read.
pub(super) fn find(kind: Kind) -> String {
    match kind {
        Kind::MySql | Kind::MariaDb => {
            "SELECT CAST(column_name AS CHAR), '1' FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = 'scheduler'"
                .to_owned()
        }
        // The table that the statements above would find. information_schema doesn't tell absent from forbidden.
        Kind::Postgres => {
            "SELECT attname::text, CASE WHEN has_column_privilege(attrelid, attnum, 'SELECT') THEN '1' \
             ELSE '0' END FROM pg_catalog.pg_attribute \
             WHERE attrelid = to_regclass('scheduler') AND attnum > 0 AND NOT attisdropped"
                .to_owned()
        }
    }
}

/// The statement that gives this user the rights needed, no more.
pub(super) fn grant(place: &Place) -> String {
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let quoted = |name: &str, quote: char| match plain(name) {
        true => name.to_owned(),
        false => format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}"))),
    };
    let columns: Vec<_> = COLUMNS.into_iter().chain([DELETED]).collect();
    let columns = columns.join(", ");
    match place.kind {
        Kind::MySql | Kind::MariaDb => format!(
            "GRANT SELECT ({columns}) ON {}.scheduler TO '{}'@'%'",
            quoted(&place.database, '`'),
            place.user.replace('\\', "\\\\").replace('\'', "''")
        ),
        Kind::Postgres => format!("GRANT SELECT ({columns}) ON scheduler TO {}", quoted(&place.user, '"')),
    }
}

fn bytes<'r>(cells: &Cells<'r>, column: usize) -> Option<&'r [u8]> {
    cells.get(column).copied().flatten()
}

fn text<'r>(cells: &Cells<'r>, column: usize) -> std::borrow::Cow<'r, str> {
    let bytes = bytes(cells, column).unwrap_or_default();
    // Looked through at once: what is no UTF-8 is rare, and to be replaced piece by piece.
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Into::into)
}

/// The keep-alive interval of the config before: those of a fleet are alike, and to parse one takes as long as all else of a row.
#[derive(Default)]
pub(super) struct Interval {
    config: Vec<u8>,
    ms: Option<std::num::NonZeroU32>,
}

impl Interval {
    fn of(&mut self, config: &[u8]) -> Option<std::num::NonZeroU32> {
        if self.config != config {
            self.config.clear();
            self.config.extend_from_slice(config);
            self.ms = interval_in(config).and_then(interval_ms);
        }
        self.ms
    }
}

/// A row; none if its id is no number. Whatever else is odd in it counts as absent.
pub(super) fn sighting(cells: &Cells<'_>, interval: &mut Interval) -> Option<Sighting> {
    let number = |column| bytes(cells, column).and_then(number);
    let time = |column| bytes(cells, column).filter(|text| !text.is_empty()).map(Stamp::read);
    Some(Sighting {
        id: number(0)?,
        hostname: text(cells, 1).into(),
        ip: canonical(&text(cells, 2)),
        port: number(3).and_then(|port| port.try_into().ok()).unwrap_or(0),
        state: if bytes(cells, 4) == Some(b"active") { State::Active } else { State::Inactive },
        cluster_id: number(5).unwrap_or(0),
        updated: time(6),
        interval_ms: bytes(cells, 7).and_then(|config| interval.of(config)),
        keep_alive: time(8),
        created: time(9),
    })
}

#[cfg(test)]
mod tests;
