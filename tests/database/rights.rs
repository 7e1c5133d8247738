//! What the user may do, and what is said where that is too little.

use signoff::repair::sources::{Scope, Source, database::DatabaseSource};

use crate::{
    bench::{Bench, PASSWORD, Schema, refusal, seen},
    server::Engine,
};

#[tokio::test]
async fn a_user_without_rights_is_told_the_grant_and_that_grant_suffices() {
    for mut bench in Bench::without_rights(Schema::V2_5).await {
        bench.fill(3).await;
        let source = bench.source();
        let why = refusal(&source).await;
        assert!(why.contains(&source.name()), "{why}");
        let grant = why.split_once("what is needed: ").unwrap().1.split_once(" (without").unwrap().0;
        bench.run(grant).await;
        assert_eq!(seen(&source, &Scope::All).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn columns_that_may_not_be_read_are_named() {
    for mut bench in Bench::without_rights(Schema::V2_5).await {
        let (user, database) = (bench.user.clone(), bench.database.clone());
        let grant = "GRANT SELECT (id, host_name, ip, port, scheduler_cluster_id, updated_at) ON";
        match bench.engine {
            Engine::MariaDb => bench.run(&format!("{grant} {database}.scheduler TO '{user}'@'%'")).await,
            Engine::Postgres => bench.run(&format!("{grant} scheduler TO {user}")).await,
        }
        let why = refusal(&bench.source()).await;
        let columns = match bench.engine {
            // It doesn't show what may not be read: these could be absent, as on an old manager.
            Engine::MariaDb => "state, is_del",
            Engine::Postgres => "state, config, last_keep_alive_at, is_del",
        };
        let words = format!("may not read scheduler's {columns}; what is needed: GRANT SELECT");
        assert!(why.contains(&words), "{why}");
    }
}

#[tokio::test]
async fn a_database_without_the_table_is_told_from_nothing_but_named() {
    for mut bench in Bench::each(Schema::V2_5).await {
        bench.run("DROP TABLE scheduler").await;
        if bench.engine == Engine::MariaDb {
            // Else the server refuses the database before anything is asked.
            let grant = format!("GRANT CREATE ON {}.* TO '{}'@'%'", bench.database, bench.user);
            bench.run(&grant).await;
        }
        let why = refusal(&bench.source()).await;
        assert!(why.contains("sees no table scheduler") && why.contains("GRANT SELECT"), "{why}");
    }
}

#[tokio::test]
async fn a_write_by_its_session_is_refused_whatever_the_user_may() {
    for mut bench in Bench::without_rights(Schema::V2_5).await {
        bench.fill(1).await;
        // The table becomes a view that writes when it is read: the one way to make this session write.
        let (user, database) = (bench.user.clone(), bench.database.clone());
        let columns =
            "id, host_name, ip, port, scheduler_cluster_id, is_del, config, last_keep_alive_at, updated_at";
        bench.run("ALTER TABLE scheduler RENAME TO kept").await;
        let function = match bench.engine {
            Engine::MariaDb => {
                "CREATE FUNCTION touched() RETURNS varchar(8) MODIFIES SQL DATA BEGIN \
                 UPDATE marks SET n = n + 1; RETURN 'active'; END"
            }
            Engine::Postgres => {
                "CREATE FUNCTION touched() RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER AS \
                 $$ UPDATE marks SET n = n + 1; SELECT 'active'::text $$"
            }
        };
        bench.run("CREATE TABLE marks (n bigint); INSERT INTO marks VALUES (0)").await;
        bench.run(function).await;
        bench.run(&format!("CREATE VIEW scheduler AS SELECT {columns}, touched() AS state FROM kept")).await;
        match bench.engine {
            Engine::MariaDb => bench.run(&format!("GRANT ALL ON {database}.* TO '{user}'@'%'")).await,
            Engine::Postgres => bench.run(&format!("GRANT ALL ON scheduler TO {user}")).await,
        }
        let why = refusal(&bench.source()).await;
        // MariaDB hides from a read-only session what would write.
        let words = ["sees no table", "cannot execute UPDATE in a read-only transaction"];
        assert!(words.iter().any(|words| why.contains(words)), "{why}");
        assert_eq!(bench.number("SELECT n FROM marks").await, 0);
        // And it does write, for who may.
        bench.run("SELECT * FROM scheduler").await;
        assert_eq!(bench.number("SELECT n FROM marks").await, 1);
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_without_being_shown_and_a_file_is_read_anew() {
    for bench in Bench::each(Schema::V2_5).await {
        let wrong = DatabaseSource::new(&bench.url("s3cr3t-hunter2", "127.0.0.1", ""), None).unwrap();
        let why = refusal(&wrong).await;
        assert!(why.contains(&bench.user) && why.contains(&wrong.name()), "{why}");
        assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");

        let file = bench.file("password", "s3cr3t-hunter2\n");
        let source = DatabaseSource::new(&bench.url("ignored", "127.0.0.1", ""), Some(file.clone())).unwrap();
        let why = refusal(&source).await;
        assert!(!why.contains("ignored"), "{why}");
        bench.file("password", &format!("{PASSWORD}\n"));
        seen(&source, &Scope::All).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        let why = refusal(&source).await;
        assert!(why.contains(&file.display().to_string()), "{why}");
    }
}
