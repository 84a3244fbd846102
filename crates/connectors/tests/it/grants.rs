//! Describing a query finds permissions that are missing, and names the GRANT.

use std::sync::Arc;
use std::time::Duration;

use warren_connectors::kit::setting::Secret;
use warren_connectors::postgres::{Config, source};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::ports::Source;
use warren_testkit::pg::{self, Database};

use crate::reading::{model, read};

/// A database of `warren`, and a source that reads as a role without rights (`SET ROLE` by the connection's options).
struct Place {
    database: Database,
    role: String,
    source: Arc<dyn Source>,
}

impl Place {
    fn new() -> Place {
        let database = pg::database();
        let role = format!("limited_{}", database.name());
        pg::sql(&database.admin_url(), &format!("CREATE ROLE {role}; GRANT {role} TO warren"));
        let url = database.url();
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}options=-c%20role%3D{role}");
        let source = source("shop", &Config { url: Some(Secret::new(url)), ..Config::default() }).unwrap();
        Place { database, role, source }
    }

    async fn described(&self, sql: &str) -> Result<(), Failure> {
        self.source.describe(&model(sql)).await.map(drop)
    }

    /// Describing fails with this GRANT, and works once it was given.
    async fn needs(&self, sql: &str, grant: &str) {
        let grant = grant.replace("ROLE", &self.role);
        let failure = self.described(sql).await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.code),
            (FailureKind::Refused, codes::QUERY_FAILED),
            "{sql}: {failure}"
        );
        assert!(failure.to_string().contains("SQLSTATE 42501"), "{sql}: {failure}");
        assert_eq!(failure.remedy.as_deref(), Some(&*format!("Let the user read: {grant}.")), "{sql}");
        pg::sql(&self.database.admin_url(), &grant);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let role = &self.role;
        // Roles outlive databases.
        pg::sql(&self.database.admin_url(), &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[tokio::test]
async fn what_a_role_may_not_read_is_found_and_named() {
    let place = Place::new();
    pg::sql(&place.database.admin_url(), "CREATE EXTENSION postgres_fdw");
    place.database.sql(
        "CREATE TABLE pr (id int PRIMARY KEY, secret text);
         CREATE TABLE \"Odd name\" (id int);
         CREATE SCHEMA app;
         CREATE TABLE app.t (id int);
         CREATE VIEW v AS SELECT id FROM pr;
         CREATE MATERIALIZED VIEW m AS SELECT 1 AS id;
         CREATE FUNCTION f(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1';
         REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
    );
    pg::sql(
        &place.database.admin_url(),
        "CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE ft (id int) SERVER other",
    );
    place.needs("SELECT id FROM pr", "GRANT SELECT ON public.pr TO ROLE").await;
    place.described("SELECT id FROM pr").await.unwrap();
    place.needs("SELECT id FROM \"Odd name\"", "GRANT SELECT ON public.\"Odd name\" TO ROLE").await;
    place.needs("SELECT id FROM v", "GRANT SELECT ON public.v TO ROLE").await;
    place.needs("SELECT id FROM m", "GRANT SELECT ON public.m TO ROLE").await;
    place.needs("SELECT id FROM ft", "GRANT SELECT ON public.ft TO ROLE").await;
    place.needs("SELECT id FROM app.t;", "GRANT USAGE ON SCHEMA app TO ROLE").await;
    place.needs("SELECT id FROM app.t;", "GRANT SELECT ON app.t TO ROLE").await;
    place.needs("SELECT f(id) AS id FROM v", "GRANT EXECUTE ON FUNCTION public.f(integer) TO ROLE").await;
    // All at once, and inside of what is cast.
    place
        .described("SELECT f(v.id) AS id, ROW(t.id) AS r FROM v JOIN app.t USING (id) JOIN m USING (id)")
        .await
        .unwrap();
    assert!(
        read(&*place.source, "SELECT f(v.id) AS id FROM v JOIN app.t USING (id)")
            .await
            .unwrap()
            .rows
            .is_empty()
    );
}

#[tokio::test]
async fn a_column_and_the_owner_of_a_view_may_lack_the_right() {
    let place = Place::new();
    place.database.sql("CREATE TABLE base (id int, secret text)");
    pg::sql(&place.database.admin_url(), &format!("GRANT SELECT (id) ON base TO {}", place.role));
    place.described("SELECT id FROM base").await.unwrap();
    place.needs("SELECT id, secret FROM base", "GRANT SELECT ON public.base TO ROLE").await;
    // The view's owner is another role, which may not read its table.
    let owner = format!("owner_{}", place.database.name());
    pg::sql(
        &place.database.admin_url(),
        &format!(
            "CREATE ROLE {owner}; GRANT SELECT ON base TO {owner}; CREATE VIEW over AS SELECT id FROM base;
             ALTER VIEW over OWNER TO {owner}; GRANT SELECT ON over TO {}; REVOKE SELECT ON base FROM {owner}",
            place.role
        ),
    );
    place.needs("SELECT id FROM over", &format!("GRANT SELECT ON public.base TO {owner}")).await;
    place.described("SELECT id FROM over").await.unwrap();
    pg::sql(
        &place.database.admin_url(),
        &format!("DROP VIEW over; DROP OWNED BY {owner}; DROP ROLE {owner}"),
    );
}

#[tokio::test]
async fn describing_reads_no_row_however_slow_the_query_is() {
    let place = Place::new();
    for sql in [
        "SELECT 1 AS id FROM pg_sleep(600)",
        "SELECT pg_sleep(600)::text AS id",
        "SELECT count(*) AS id FROM generate_series(1, 1000000000000)",
        "WITH slow AS MATERIALIZED (SELECT pg_sleep(600)::text AS id) SELECT id FROM slow",
        "SELECT generate_series(1, 1000000000000) AS id ORDER BY 1 DESC",
    ] {
        let described = tokio::time::timeout(Duration::from_secs(60), place.described(sql)).await;
        described.unwrap_or_else(|_| panic!("{sql} was run")).unwrap();
    }
}

#[tokio::test]
async fn what_a_run_would_refuse_is_refused_when_it_is_described() {
    let place = Place::new();
    place.database.sql(&format!("CREATE TABLE t (id int); GRANT ALL ON t TO {}", place.role));
    for sql in [
        "INSERT INTO t VALUES (1) RETURNING id",
        "WITH w AS (DELETE FROM t RETURNING id) SELECT id FROM w",
        "SELECT id FROM t FOR UPDATE",
        "SHOW search_path",
    ] {
        let failure = place.described(sql).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{sql}: {failure}");
        assert!(failure.remedy.as_deref().unwrap().contains("Warren only reads"), "{sql}: {failure}");
    }
}
