//! One connection to the database: read-only, times shown in UTC, and never waited for without an end.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Either, Row, ValueRef,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode},
    postgres::{PgConnectOptions, PgConnection, PgSslMode},
    raw_sql,
};
use tokio::time::timeout;

use super::{
    table::WIDEST,
    url::{Kind, Place, TlsMode},
};
use crate::{
    files,
    net::{Tls, TlsFiles, chain},
    secret::{FileError, Secret},
};

/// How long a connection may take to be made: name, TCP, TLS, sign-in and settings.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a statement may take, its rows included.
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// A row's values as text, whatever they are in the table; none for NULL.
pub(super) type Cells<'r> = [Option<&'r [u8]>];

/// Why the database gave no rows.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It refuses that this user reads what was asked for.
    Forbidden(String),
    /// Anything else, in words.
    Other(String),
}

/// A connection. One that failed, or was dropped with a statement under way, is not to be used again.
pub(super) enum Connection {
    MySql(MySqlConnection),
    Postgres(PgConnection),
}

impl Connection {
    /// Connects, with the password as it is in its file now.
    pub(super) async fn open(place: &Place, password_file: Option<&PathBuf>) -> Result<Self, Trouble> {
        let password = match password_file {
            Some(path) => Some(password(path).await.map_err(|e| Trouble::Other(e.to_string()))?),
            None => place.password.clone(),
        };
        let ca = match &place.ca {
            Some(path) => Some(certificates(path).await?),
            None => None,
        };
        let connect = async {
            match place.kind {
                Kind::MySql | Kind::MariaDb => mysql(place, password.as_ref(), ca).await.map(Self::MySql),
                Kind::Postgres => postgres(place, password.as_ref(), ca).await.map(Self::Postgres),
            }
        };
        match timeout(CONNECT_LIMIT, connect).await {
            Ok(connected) => connected.map_err(|e| trouble("connect", &e)),
            Err(_) => Err(Trouble::Other(format!("connect: no answer within {CONNECT_LIMIT:?}"))),
        }
    }

    /// Hands over the rows of one statement as they come. One that is refused ends it: the connection is not to be used again.
    pub(super) async fn each(
        &mut self,
        statement: String,
        each: &mut (dyn FnMut(&Cells<'_>) -> Result<(), Trouble> + Send),
    ) -> Result<(), Trouble> {
        let sql = raw_sql(AssertSqlSafe(statement));
        let read = async {
            match self {
                Self::MySql(connection) => {
                    let mut rows = sql.fetch_many(connection);
                    while let Some(got) = rows.try_next().await.map_err(unread)? {
                        if let Either::Right(row) = got {
                            each(&mysql_cells(&row).map_err(unread)?)?;
                        }
                    }
                }
                Self::Postgres(connection) => {
                    let mut rows = sql.fetch(connection);
                    while let Some(row) = rows.try_next().await.map_err(unread)? {
                        each(&postgres_cells(&row).map_err(unread)?)?;
                    }
                }
            }
            Ok(())
        };
        match timeout(STATEMENT_LIMIT, read).await {
            Ok(done) => done,
            Err(_) => Err(Trouble::Other(format!("read: no answer within {STATEMENT_LIMIT:?}"))),
        }
    }
}

fn unread(error: sqlx::Error) -> Trouble {
    trouble("read", &error)
}

async fn password(path: &Path) -> Result<Secret, FileError> {
    let file = path.to_owned();
    let read = files::within(files::LIMIT, move || Secret::from_file(&file)).await;
    read.unwrap_or_else(|why| Err(FileError::new(path, &why)))
}

/// The CA's certificates, checked here: sqlx names no file, and takes one without any certificate for none.
async fn certificates(path: &Path) -> Result<Vec<u8>, Trouble> {
    let wrong = |why: String| Trouble::Other(why);
    let tls = TlsFiles { ca: Some(path.to_owned()), ..TlsFiles::default() };
    Tls::new(tls).http1().await.map_err(|e| wrong(e.to_string()))?;
    let file = path.to_owned();
    let read = files::within(files::LIMIT, move || std::fs::read(file)).await;
    let read = read.unwrap_or_else(|why| Err(why.into()));
    read.map_err(|e| wrong(format!("TLS: {}: {e}", path.display())))
}

async fn mysql(
    place: &Place,
    password: Option<&Secret>,
    ca: Option<Vec<u8>>,
) -> Result<MySqlConnection, sqlx::Error> {
    let mut options = MySqlConnectOptions::new()
        .host(&place.host)
        .port(place.port)
        .username(&place.user)
        .database(&place.database)
        .ssl_mode(match place.tls {
            TlsMode::Never => MySqlSslMode::Disabled,
            TlsMode::Preferred => MySqlSslMode::Preferred,
            TlsMode::Required => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
        })
        // `timestamp` columns are shown in the session's zone: all sessions have the same one. `datetime` has none.
        .timezone(Some("+00:00".to_owned()))
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .disable_statement_logging();
    if let Some(password) = password {
        options = options.password(password.expose());
    }
    if let Some(ca) = ca {
        options = options.ssl_ca_from_pem(ca);
    }
    let mut connection = options.connect().await?;
    raw_sql("SET SESSION TRANSACTION READ ONLY").execute(&mut connection).await?;
    Ok(connection)
}

async fn postgres(
    place: &Place,
    password: Option<&Secret>,
    ca: Option<Vec<u8>>,
) -> Result<PgConnection, sqlx::Error> {
    // Nothing of what PG* variables could say is left to them, but client certificates. sqlx sets the zone to UTC.
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&place.host)
        .port(place.port)
        .username(&place.user)
        .password(password.map_or("", Secret::expose))
        .database(&place.database)
        .ssl_mode(match place.tls {
            TlsMode::Never => PgSslMode::Disable,
            TlsMode::Preferred => PgSslMode::Prefer,
            TlsMode::Required => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyIdentity => PgSslMode::VerifyFull,
        })
        .application_name("signoff")
        .disable_statement_logging();
    if let Some(ca) = ca {
        options = options.ssl_root_cert_from_pem(ca);
    }
    let mut connection = options.connect().await?;
    raw_sql("SET default_transaction_read_only = on; SET statement_timeout = '30s'")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

fn mysql_cells(row: &sqlx::mysql::MySqlRow) -> Result<[Option<&[u8]>; WIDEST], sqlx::Error> {
    let mut cells = [None; WIDEST];
    for (i, cell) in cells.iter_mut().enumerate().take(row.len()) {
        *cell = row.try_get_unchecked(i)?;
    }
    Ok(cells)
}

fn postgres_cells(row: &sqlx::postgres::PgRow) -> Result<[Option<&[u8]>; WIDEST], sqlx::Error> {
    let mut cells = [None; WIDEST];
    for (i, cell) in cells.iter_mut().enumerate().take(row.len()) {
        let value = row.try_get_raw(i)?;
        if !value.is_null() {
            *cell = Some(value.as_bytes().map_err(sqlx::Error::Decode)?);
        }
    }
    Ok(cells)
}

/// sqlx's words on one line. It knows the URL in parts alone, and none of its words quotes a password.
fn trouble(what: &str, error: &sqlx::Error) -> Trouble {
    let (words, forbidden) = match error {
        sqlx::Error::Database(said) => (said.to_string(), is_forbidden(said.as_ref())),
        // sqlx's own words here are advice to those who build it.
        sqlx::Error::Configuration(why) if why.to_string().contains("RSA") => (
            "the server asks for the password in a way that needs TLS (caching_sha2_password or sha256_password): offer TLS there, or ask for it with ssl-mode=required".to_owned(),
            false,
        ),
        other => (chain(other), false),
    };
    let line: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    let line = format!("{what}: {line}");
    if forbidden { Trouble::Forbidden(line) } else { Trouble::Other(line) }
}

fn is_forbidden(said: &dyn sqlx::error::DatabaseError) -> bool {
    match said.try_downcast_ref::<MySqlDatabaseError>() {
        // The database, the table, a column.
        Some(mysql) => [1044, 1142, 1143].contains(&mysql.number()),
        None => said.code().as_deref() == Some("42501"),
    }
}
