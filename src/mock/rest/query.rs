//! The query of a list: filters and paging, in the manager's words where it refuses.

use std::net::IpAddr;

use crate::{
    manager::State,
    mock::table::{Collation, TableRow},
};

pub(super) const PER_PAGE: u64 = 10;
pub(super) const MAX_PER_PAGE: u64 = 10_000_000;

/// What a list asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    page: u64,
    per_page: u64,
    host_name: Option<String>,
    ip: Option<String>,
    state: Option<State>,
    idc: Option<String>,
    location: Option<String>,
    cluster_id: Option<u64>,
}

fn failed(field: &str, tag: &str) -> String {
    format!(
        "Key: 'GetSchedulersQuery.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
    )
}

pub(super) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

/// `%XX` and `+`, as a query has them.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match (first, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(other),
        }
        rest = more;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As Go's `url.QueryEscape` does.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The names of a query and their values.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (decode(n), decode(v)))
        .collect()
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self { page: 1, per_page: PER_PAGE, ..Self::default() };
        for (name, value) in pairs(text) {
            if value.is_empty() {
                continue;
            }
            match name.as_str() {
                "page" => query.page = Some(number(&value)?).filter(|p| *p > 0).unwrap_or(1),
                "per_page" => {
                    query.per_page = Some(number(&value)?).filter(|p| *p > 0).unwrap_or(PER_PAGE);
                    if query.per_page > MAX_PER_PAGE {
                        return Err(failed("PerPage", "lte"));
                    }
                }
                "host_name" => query.host_name = Some(value),
                "ip" => {
                    value.parse::<IpAddr>().map_err(|_| failed("IP", "ip"))?;
                    query.ip = Some(value);
                }
                "state" => {
                    query.state = Some(match value.as_str() {
                        "active" => State::Active,
                        "inactive" => State::Inactive,
                        _ => return Err(failed("State", "oneof")),
                    });
                }
                "idc" => query.idc = Some(value),
                "location" => query.location = Some(value),
                "scheduler_cluster_id" => query.cluster_id = Some(number(&value)?).filter(|id| *id > 0),
                _ => {}
            }
        }
        Ok(query)
    }

    /// What the database is asked: what the query cache goes by.
    pub(super) fn statement(&self) -> String {
        format!("SELECT * FROM scheduler {self:?}")
    }

    /// The count of all pages: the same for every page.
    pub(super) fn count_statement(&self) -> String {
        let all = Self { page: 0, per_page: 0, ..self.clone() };
        format!("SELECT count(*) FROM scheduler {all:?}")
    }

    /// All rows that it is about.
    pub(super) fn matching<'a>(
        &self,
        rows: &'a [TableRow],
        collation: Collation,
    ) -> impl Iterator<Item = &'a TableRow> {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
        rows.iter().filter(move |row| {
            self.host_name.as_ref().is_none_or(|name| match collation {
                Collation::MySql => row.host_name.eq_ignore_ascii_case(name),
                Collation::PostgreSql => row.host_name == *name,
            }) && is(&self.ip, &row.ip)
                && is(&self.idc, &row.idc)
                && is(&self.location, &row.location)
                && self.state.is_none_or(|s| row.state == s)
                && self.cluster_id.is_none_or(|id| row.scheduler_cluster_id == id)
        })
    }

    /// Those of its page.
    pub(super) fn page(&self, rows: &[TableRow], collation: Collation) -> Vec<TableRow> {
        let per_page = usize::try_from(self.per_page).unwrap_or(usize::MAX);
        let skip = usize::try_from(self.page - 1).unwrap_or(usize::MAX).saturating_mul(per_page);
        self.matching(rows, collation).skip(skip).take(per_page).cloned().collect()
    }

    /// The `Link` header: the request's own query, `asked`, with each page in it, sorted by name as Go's `url.Values` writes it.
    pub(super) fn link(&self, asked: &str, total: usize) -> String {
        let last = (total as u64).div_ceil(self.per_page);
        let prev = self.page.saturating_sub(1).max(1);
        let next = if self.page == last { self.page } else { self.page + 1 };
        let mut others = pairs(asked);
        others.retain(|(name, _)| name != "page" && name != "per_page");
        [(prev, "prev"), (next, "next"), (1, "first"), (last, "last")]
            .map(|(page, rel)| {
                let mut all = others.clone();
                all.push(("page".to_owned(), page.to_string()));
                all.push(("per_page".to_owned(), self.per_page.to_string()));
                // Stable: values of one name stay in their order.
                all.sort_by(|one, other| one.0.cmp(&other.0));
                let query: Vec<_> =
                    all.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
                format!("</api/v1/schedulers?{}>;rel={rel}", query.join("&"))
            })
            .join(",")
    }
}
