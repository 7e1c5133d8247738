//! The rows in the manager's own database (MySQL, MariaDB, PostgreSQL), read-only: the one source that shows every row for
//! certain, whatever is written meanwhile, and none of a manager's memories stand before it.
//!
//! **The URL**: `mysql://USER[:PASSWORD]@HOST[:3306]/DATABASE[?ssl-mode=MODE&ssl-ca=FILE]` (`mariadb://` too), or
//! `postgres://USER[:PASSWORD]@HOST[:5432]/DATABASE[?sslmode=MODE&sslrootcert=FILE]`. A password file wins over the URL's
//! password; it is read at each connection, at most 4096 bytes, without the newline at its end.
//!
//! **TLS**: `disabled`, `preferred` (the default: where the server offers it), `required` (encrypted, to whoever answers),
//! `verify_ca`, `verify_identity`; PostgreSQL's words are `disable`, `prefer`, `require`, `verify-ca`, `verify-full`. Naming
//! a CA file means `verify_identity`. The CAs of Mozilla's list are trusted beside the file's (sqlx has no way around that),
//! so `verify_ca`, which checks no name, takes a public CA's certificate for any name: prefer `verify_identity`.
//!
//! **Rights**, all that are needed (without `config` and `last_keep_alive_at` on a manager before v2.3.1):
//! ```sql
//! -- MySQL, MariaDB
//! GRANT SELECT (id, host_name, ip, port, state, scheduler_cluster_id, is_del, config, last_keep_alive_at, updated_at, created_at)
//!   ON manager.scheduler TO 'signoff'@'%';
//! -- PostgreSQL, in the manager's database
//! GRANT SELECT (id, host_name, ip, port, state, scheduler_cluster_id, is_del, config, last_keep_alive_at, updated_at, created_at)
//!   ON scheduler TO signoff;
//! ```
//! Without `created_at`, which earlier releases didn't read, it can't be told whether a row was made after its namesake was last
//! heard of.
//!
//! **What it doesn't do**: write (its sessions are read-only as well); compare a time with any clock (times are taken as
//! text, in a session whose zone is UTC, so that two connections show a `timestamp` alike); notice that it reads a replica
//! that stands still (the judge does: nothing moves there). A server that hangs costs 5 s to connect and 30 s a statement.
//! There is one connection at most, a new one for each look.
//!
//! MySQL's caching_sha2_password sends the password RSA-encrypted where there is no TLS. That is left out (sqlx's
//! `mysql-rsa`): the key comes from whoever answers, so it protects from none who can answer in the server's place, and it
//! would bring the crate `rsa` with its open advisory RUSTSEC-2023-0071 (which concerns private keys, not this use). MySQL 8
//! offers TLS as it is installed, and `preferred` takes it.

use std::{fmt, path::PathBuf};

use async_trait::async_trait;
use tokio::sync::Mutex;

use self::{
    connection::{Cells, Connection, Trouble},
    table::{Columns, Found, Interval, PAGE, Unreadable},
    url::{Kind, Place},
};
use super::{Names, Scope, Source};
use crate::{manager::Failure, repair::sighting::Sighting};

mod connection;
mod table;
pub(crate) mod url;

pub use url::DatabaseUrlError;

/// The rows in the manager's database.
pub struct DatabaseSource {
    place: Place,
    password_file: Option<PathBuf>,
    /// The last look's, for reading single rows again. Taken out while it is used: one that was given up on isn't put back.
    kept: Mutex<Option<Session>>,
}

struct Session {
    connection: Connection,
    columns: Columns,
}

impl fmt::Debug for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseSource").field(&self.name()).finish()
    }
}

impl DatabaseSource {
    /// The database of this URL (see the module's text). Nothing is connected, resolved or read before it is needed.
    pub fn new(url: &str, password_file: Option<PathBuf>) -> Result<Self, DatabaseUrlError> {
        Ok(Self { place: Place::parse(url)?, password_file, kept: Mutex::default() })
    }

    async fn session(&self) -> Result<Session, Failure> {
        let opened = Connection::open(&self.place, self.password_file.as_ref()).await;
        let mut connection = opened.map_err(|e| self.failure(e))?;
        let mut found = Vec::new();
        let each = &mut |cells: &Cells<'_>| {
            found.push(Found::from(cells));
            Ok(())
        };
        connection.each(table::find(self.place.kind), each).await.map_err(|e| self.failure(e))?;
        let columns = Columns::of(&found).map_err(|e| self.unreadable(&e))?;
        if !columns.new_ones() {
            tracing::info!(
                database = %self.place,
                "The table shows no config or no last_keep_alive_at: a manager before v2.3.1, or a right that is missing."
            );
        }
        Ok(Session { connection, columns })
    }

    async fn one(&self, session: &mut Session, id: u64) -> Result<Option<Sighting>, Failure> {
        let statement = session.columns.one(self.place.kind, id);
        let mut found = None;
        let each = &mut |cells: &Cells<'_>| {
            found = Some(sighting(cells, &mut Interval::default())?);
            Ok(())
        };
        session.connection.each(statement, each).await.map_err(|e| self.failure(e))?;
        Ok(found)
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        Failure::new(match trouble {
            Trouble::Other(why) => format!("{}: {why}", self.place),
            Trouble::Forbidden(why) => format!("{}: {why}; {}", self.place, self.cure()),
        })
    }

    fn unreadable(&self, unreadable: &Unreadable) -> Failure {
        let (place, user, cure) = (&self.place, &self.place.user, self.cure());
        Failure::new(match unreadable {
            Unreadable::Missing => format!(
                "{place}: the user {user} sees no table scheduler there: it is another database, or the user may not read it; {cure}"
            ),
            Unreadable::Columns(names) => {
                format!("{place}: the user {user} may not read scheduler's {}; {cure}", names.join(", "))
            }
        })
    }

    fn cure(&self) -> String {
        format!(
            "what is needed: {} (without config and last_keep_alive_at where the table has none)",
            table::grant(&self.place)
        )
    }
}

fn sighting(cells: &Cells<'_>, interval: &mut Interval) -> Result<Sighting, Trouble> {
    table::sighting(cells, interval).ok_or_else(|| Trouble::Other("a row's id is no number".to_owned()))
}

#[async_trait]
impl Source for DatabaseSource {
    fn name(&self) -> String {
        self.place.to_string()
    }

    fn names(&self) -> Names {
        match self.place.kind {
            Kind::MySql | Kind::MariaDb => Names::IgnoreCase,
            Kind::Postgres => Names::Exact,
        }
    }

    fn fresh(&self) -> bool {
        true
    }

    async fn look(&self, scope: &Scope, each: &mut (dyn FnMut(Sighting) + Send)) -> Result<(), Failure> {
        let mut kept = self.kept.lock().await;
        // The one before goes first: there is never more than one.
        *kept = None;
        let mut session = self.session().await?;
        let (mut after, mut interval) = (0, Interval::default());
        loop {
            let statement = session.columns.page(self.place.kind, scope, after);
            let mut rows = 0;
            let each = &mut |cells: &Cells<'_>| {
                let row = sighting(cells, &mut interval)?;
                rows += 1;
                after = after.max(row.id);
                each(row);
                Ok(())
            };
            session.connection.each(statement, each).await.map_err(|e| self.failure(e))?;
            if rows < PAGE {
                break;
            }
        }
        *kept = Some(session);
        Ok(())
    }

    async fn again(&self, row: &Sighting) -> Result<Option<Sighting>, Failure> {
        let mut kept = self.kept.lock().await;
        if let Some(mut session) = kept.take()
            && let Ok(found) = self.one(&mut session, row.id).await
        {
            *kept = Some(session);
            return Ok(found);
        }
        // None was kept, or it has ended meanwhile.
        let mut session = self.session().await?;
        let found = self.one(&mut session, row.id).await?;
        *kept = Some(session);
        Ok(found)
    }
}
