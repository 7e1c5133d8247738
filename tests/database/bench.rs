//! A database of its own for a test, with the manager's table, and a user who may read it.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use signoff::{
    manager::Failure,
    repair::{
        sighting::Sighting,
        sources::{Scope, Source, database::DatabaseSource},
    },
};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, Row, raw_sql};

use crate::server::{Engine, Server, server};

/// The table as the manager's releases make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schema {
    V2_2,
    V2_5,
}

pub(crate) const PASSWORD: &str = "s3cr3t-horse%";
const ENCODED: &str = "s3cr3t-horse%25";

/// Word for word what the documents say is needed.
const GRANT_MARIADB: &str = "GRANT SELECT (id, host_name, ip, port, state, scheduler_cluster_id, is_del, config, last_keep_alive_at, updated_at) ON manager.scheduler TO 'signoff'@'%'";
const GRANT_POSTGRES: &str = "GRANT SELECT (id, host_name, ip, port, state, scheduler_cluster_id, is_del, config, last_keep_alive_at, updated_at) ON scheduler TO signoff";

pub(crate) enum Admin {
    MariaDb(MySqlConnection),
    Postgres(PgConnection),
}

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) server: &'static Server,
    admin: Admin,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    /// One for each engine that is installed, with that table and a user who has no rights.
    pub(crate) async fn without_rights(schema: Schema) -> Vec<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let mut all = Vec::new();
        for engine in [Engine::MariaDb, Engine::Postgres] {
            let Some(server) = server(engine) else { continue };
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let (database, user) = (format!("manager_{n}"), format!("signoff_{n}"));
            let first = match engine {
                Engine::MariaDb => "mysql",
                Engine::Postgres => "postgres",
            };
            let dir = tempfile::tempdir().unwrap();
            let mut admin = Admin::connect(engine, server, first).await;
            admin.run(&format!("CREATE DATABASE {database}")).await;
            let create = match engine {
                Engine::MariaDb => format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{PASSWORD}'"),
                Engine::Postgres => format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"),
            };
            admin.run(&create).await;
            let admin = Admin::connect(engine, server, &database).await;
            let mut bench = Self { engine, server, admin, database, user, dir };
            bench
                .run(match (engine, schema) {
                    (Engine::MariaDb, Schema::V2_2) => include_str!("schema-mysql-v2.2.sql"),
                    (Engine::MariaDb, Schema::V2_5) => include_str!("schema-mysql-v2.5.sql"),
                    (Engine::Postgres, Schema::V2_2) => include_str!("schema-postgres-v2.2.sql"),
                    (Engine::Postgres, Schema::V2_5) => include_str!("schema-postgres-v2.5.sql"),
                })
                .await;
            all.push(bench);
        }
        all
    }

    /// One for each engine that is installed, with that table and a user who has the rights that are needed, no more.
    pub(crate) async fn each(schema: Schema) -> Vec<Self> {
        let mut all = Self::without_rights(schema).await;
        for bench in &mut all {
            let grant = match bench.engine {
                Engine::MariaDb => GRANT_MARIADB,
                Engine::Postgres => GRANT_POSTGRES,
            };
            let grant = match schema {
                Schema::V2_5 => grant.to_owned(),
                Schema::V2_2 => grant.replace(" config, last_keep_alive_at,", ""),
            };
            let grant = grant.replace("manager.", &format!("{}.", bench.database));
            bench.run(&grant.replace("signoff", &bench.user)).await;
        }
        all
    }

    /// Runs statements as the administrator, whose sessions show times in UTC.
    pub(crate) async fn run(&mut self, sql: &str) {
        self.admin.run(sql).await;
    }

    /// [`Bench::run`] on a thread and a connection of its own, while this one waits.
    pub(crate) fn run_meanwhile(&self, sql: &str) {
        let work = async || self.second().await.run(sql).await;
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime().block_on(work())).join().unwrap());
    }

    /// The one number that a query gives the administrator.
    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
        match &mut self.admin {
            Admin::MariaDb(connection) => sql.fetch_one(connection).await.unwrap().get(0),
            Admin::Postgres(connection) => sql.fetch_one(connection).await.unwrap().get(0),
        }
    }

    /// A second session of the administrator's.
    pub(crate) async fn second(&self) -> Admin {
        Admin::connect(self.engine, self.server, &self.database).await
    }

    /// Waits until a query gives a number that is wanted.
    pub(crate) async fn eventually(&mut self, sql: &str, wanted: impl Fn(i64) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !wanted(self.number(sql).await) {
            assert!(Instant::now() < end, "never came to be: {sql}");
            std::thread::yield_now();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Counts this bench's user's sessions.
    pub(crate) fn sessions(&self) -> String {
        match self.engine {
            Engine::MariaDb => {
                format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{}'", self.user)
            }
            Engine::Postgres => {
                format!("SELECT COUNT(*) FROM pg_stat_activity WHERE usename = '{}'", self.user)
            }
        }
    }

    pub(crate) fn url(&self, password: &str, host: &str, parameters: &str) -> String {
        let scheme = match self.engine {
            Engine::MariaDb => "mysql",
            Engine::Postgres => "postgres",
        };
        let (user, port, database) = (&self.user, self.server.port, &self.database);
        format!("{scheme}://{user}:{password}@{host}:{port}/{database}{parameters}")
    }

    pub(crate) fn source(&self) -> DatabaseSource {
        self.source_with("")
    }

    pub(crate) fn source_with(&self, parameters: &str) -> DatabaseSource {
        DatabaseSource::new(&self.url(ENCODED, "127.0.0.1", parameters), None).unwrap()
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `count` rows with the ids from 1, in the clusters 1 to 3.
    pub(crate) async fn fill(&mut self, count: u32) {
        let (numbers, times) = match self.engine {
            Engine::MariaDb => (format!("SELECT seq AS n FROM seq_1_to_{count}"), "'2026-11-23 20:54:32'"),
            Engine::Postgres => {
                (format!("SELECT n FROM generate_series(1, {count}) AS n"), "timestamp '2026-11-23 20:54:32'")
            }
        };
        self.run(&format!(
            "INSERT INTO scheduler (id, host_name, ip, port, state, scheduler_cluster_id, is_del, updated_at) \
             SELECT n, CONCAT('s-', n), CONCAT('10.0.', n / 256 - MOD(n, 256) / 256.0, '.', MOD(n, 256)), 8002, 'active', \
             1 + MOD(n, 3), 0, {times} FROM ({numbers}) AS numbers"
        ))
        .await;
    }
}

impl Admin {
    async fn connect(engine: Engine, server: &Server, database: &str) -> Self {
        let at = format!("127.0.0.1:{}/{database}", server.port);
        match engine {
            Engine::MariaDb => {
                Self::MariaDb(MySqlConnection::connect(&format!("mysql://admin:admin@{at}")).await.unwrap())
            }
            Engine::Postgres => {
                Self::Postgres(PgConnection::connect(&format!("postgres://admin@{at}")).await.unwrap())
            }
        }
    }

    pub(crate) async fn run(&mut self, sql: &str) {
        let statement = raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match self {
            Self::MariaDb(connection) => connection.execute(statement).await.map(drop),
            Self::Postgres(connection) => connection.execute(statement).await.map(drop),
        };
        done.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

/// All rows of one look.
pub(crate) async fn seen(source: &DatabaseSource, scope: &Scope) -> Result<Vec<Sighting>, Failure> {
    let mut all = Vec::new();
    source.look(scope, &mut |row| all.push(row)).await?;
    Ok(all)
}

/// Why a look fails.
pub(crate) async fn refusal(source: &DatabaseSource) -> String {
    let why = seen(source, &Scope::All).await.expect_err("a refusal").why;
    crate::secret::none_in(&why, "a refusal");
    why
}
