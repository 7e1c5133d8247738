//! All rows, or all of some clusters, page by page, in a memory that holds one page and the ids that were seen.
//!
//! The manager's `SELECT ... LIMIT n OFFSET m` has no `ORDER BY`: what is written meanwhile can move a row from one page
//! to another, and a look then meets it twice (dropped here) or not at all. Rows that fit one page can't be missed so.
//! Each look asks with a size of page that no manager has an answer in memory for.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Rest, row::Whole};
use crate::{
    key::ClusterId,
    manager::{Failure, Row},
};

/// Rows a page: one of these stays far below the cap on an answer, whatever schedulers report. Wide, so that another process
/// seldom takes the same.
const SIZES: std::ops::Range<usize> = 300..1300;
/// A manager keeps a query's answer for 30 s; a look takes its time as well.
const IN_USE: Duration = Duration::from_secs(60);
/// More rows than this are not looked at: no installation has as many, and their ids alone would take 20 MB.
const ROWS_CAP: usize = 1_000_000;

/// The sizes that this process asked with of late, oldest first.
#[derive(Default)]
pub(super) struct Sizes(VecDeque<(Instant, usize)>);

impl Sizes {
    /// One that was not asked with within a minute; where all were, the one that is the longest ago.
    fn next(&mut self, now: Instant, random: impl Fn(std::ops::Range<usize>) -> usize) -> usize {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > IN_USE) {
            self.0.pop_front();
        }
        let free = SIZES.len() - self.0.len();
        let size = if free == 0 {
            self.0.pop_front().map_or(SIZES.start, |(_, size)| size)
        } else {
            let used: HashSet<_> = self.0.iter().map(|(_, size)| *size).collect();
            SIZES.filter(|size| !used.contains(size)).nth(random(0..free)).unwrap_or(SIZES.start)
        };
        self.0.push_back((now, size));
        size
    }
}

/// Shared by all clients of this process: they may ask the same managers.
static USED: Mutex<Sizes> = Mutex::new(Sizes(VecDeque::new()));

/// A size of page for one look.
pub(super) fn size() -> usize {
    USED.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now(), fastrand::usize)
}

impl Rest {
    /// One look at all rows, or those of `clusters`: hands each over once. An error means that rows may be missing: also
    /// where pages repeat each other, and past 1,000,000 rows. Each page goes to whichever endpoint answers.
    pub async fn each(
        &self,
        clusters: Option<&[ClusterId]>,
        each: &mut (dyn FnMut(&Row) + Send),
    ) -> Result<(), Failure> {
        let (per_page, mut seen) = (size(), HashSet::new());
        match clusters {
            None => self.pages(None, per_page, &mut seen, each).await,
            Some(ids) => {
                for (_, id) in ids.iter().enumerate().filter(|(n, id)| !ids[..*n].contains(id)) {
                    self.pages(Some(*id), per_page, &mut seen, each).await?;
                }
                Ok(())
            }
        }
    }

    async fn pages(
        &self,
        cluster: Option<ClusterId>,
        per_page: usize,
        seen: &mut HashSet<u64>,
        each: &mut (dyn FnMut(&Row) + Send),
    ) -> Result<(), Failure> {
        for page in 1_u64.. {
            let mut query = vec![("page", page.to_string()), ("per_page", per_page.to_string())];
            query.extend(cluster.map(|id| ("scheduler_cluster_id", id.to_string())));
            let (at, rows) = self.page_at(&query).await?;
            let before = seen.len();
            for row in &rows {
                if cluster.is_none_or(|id| row.cluster_id == id.get()) && seen.insert(row.id) {
                    each(row);
                }
            }
            if rows.len() < per_page {
                break;
            }
            if seen.len() == before {
                return Err(Failure::new(format!(
                    "{at}: page {page} of the schedulers shows no row that is new: not the manager's answer, and rows may be missing"
                )));
            }
            if seen.len() > ROWS_CAP {
                return Err(Failure::new(format!(
                    "{at}: more than {ROWS_CAP} schedulers; they are not looked at"
                )));
            }
        }
        Ok(())
    }

    /// This one row as it is in the database now; `None` if it is gone. Found by its cluster and hostname and, where that is
    /// known, its ip; a row without a hostname by its id, which a manager may answer from its memory (at most 30 s old).
    pub async fn one(
        &self,
        id: u64,
        cluster_id: u64,
        hostname: &str,
        ip: Option<std::net::IpAddr>,
    ) -> Result<Option<Row>, Failure> {
        if hostname.is_empty() {
            return self.by_id(id).await;
        }
        let query = of_one(cluster_id, hostname, ip);
        Ok(self.page(&query).await?.into_iter().find(|row| row.id == id))
    }

    /// The same, and the whole row as the JSON that the manager shows.
    pub async fn whole(
        &self,
        id: u64,
        (cluster_id, hostname, ip): (u64, &str, Option<std::net::IpAddr>),
    ) -> Result<Option<(Row, String)>, Failure> {
        // Without a hostname all rows of the cluster are asked for.
        let (at, answer) = self.get_page(&of_one(cluster_id, hostname, ip)).await?;
        let rows: Vec<Whole> = answer.page(&at)?;
        Ok(rows.into_iter().find(|Whole(row, _)| row.id == id).map(|Whole(row, whole)| (row, whole)))
    }
}

/// Asks for the rows of a hostname in a way that no cache holds, and so that all of them fit.
fn of_one(cluster_id: u64, hostname: &str, ip: Option<std::net::IpAddr>) -> Vec<(&'static str, String)> {
    let mut query = vec![
        ("scheduler_cluster_id", cluster_id.to_string()),
        ("page", "1".to_owned()),
        ("per_page", fastrand::u32(10_000..10_000_000).to_string()),
    ];
    query.extend((!hostname.is_empty()).then(|| ("host_name", hostname.to_owned())));
    query.extend(ip.map(|ip| ("ip", ip.to_string())));
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn g5_no_size_comes_twice_within_a_minute_while_another_is_left() {
        let mut sizes = Sizes::default();
        let one_look = |sizes: &mut Sizes| sizes.next(Instant::now(), fastrand::usize);
        let taken: Vec<_> = SIZES.map(|_| one_look(&mut sizes)).collect();
        assert_eq!(taken.iter().collect::<HashSet<_>>().len(), SIZES.len());
        assert!(taken.iter().all(|size| SIZES.contains(size)));
        // All are in use: the oldest one comes again, and no minute's end is needed.
        assert_eq!(one_look(&mut sizes), taken[0]);
        tokio::time::advance(IN_USE + Duration::from_secs(1)).await;
        assert_eq!((0..100).map(|_| one_look(&mut sizes)).collect::<HashSet<_>>().len(), 100);
        assert_eq!(sizes.0.len(), 100, "what is out of use is forgotten");
    }
}
