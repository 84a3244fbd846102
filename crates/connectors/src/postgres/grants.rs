//! Which GRANT is missing where the server denies permission.
//!
//! The server says what kind of object it is and its name without a schema, and ends the transaction. A second connection looks the
//! object up and makes the statement out of it. Where that fails, the failure stays as it is.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Error, SimpleQueryMessage};
use warren_engine::failure::Failure;

use super::config::Settings;
use super::connection::Session;

/// How long the look-up may take, with its connection.
const LOOK_UP_MAX: Duration = Duration::from_secs(10);

/// An object to which access was denied.
#[derive(Debug, PartialEq, Eq)]
enum Denied<'d> {
    Relation(&'d str),
    Sequence(&'d str),
    Schema(&'d str),
    Function(&'d str),
    Server(&'d str),
}

impl<'d> Denied<'d> {
    /// Reads what the server said. `None`: it said something else, or in another language.
    fn of(said: &'d str) -> Option<Denied<'d>> {
        let (said, _) = said.split_once(" (SQLSTATE 42501)")?;
        let object = said.strip_prefix("permission denied for ")?;
        let named =
            |kinds: &[&str]| kinds.iter().find_map(|kind| object.strip_prefix(kind)?.strip_prefix(' '));
        let relations = ["table", "view", "materialized view", "foreign table", "relation"];
        named(&relations)
            .map(Denied::Relation)
            .or_else(|| named(&["sequence"]).map(Denied::Sequence))
            .or_else(|| named(&["schema"]).map(Denied::Schema))
            .or_else(|| named(&["function", "aggregate", "routine"]).map(Denied::Function))
            .or_else(|| named(&["foreign server"]).map(Denied::Server))
    }

    /// The query that makes the statement: one row with one text, or none. `sql` is the model's query.
    fn look_up(&self, sql: &str) -> String {
        match self {
            Denied::Relation(name) => {
                // Through a view its owner's permissions count.
                let direct = sql.to_lowercase().contains(&name.to_lowercase());
                format!(
                    "WITH found AS (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
                     NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') AS denied,
                     pg_catalog.pg_table_is_visible(c.oid) AS visible,
                     (SELECT pg_catalog.pg_get_userbyid(v.relowner)::text
                      FROM pg_catalog.pg_depend d
                      JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
                      JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
                      WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass
                      AND d.refclassid = 'pg_catalog.pg_class'::regclass
                      AND d.refobjid = c.oid AND v.oid <> c.oid
                      AND NOT pg_catalog.has_table_privilege(v.relowner, c.oid, 'SELECT') LIMIT 1) AS owner
                     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relname = {} AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
                     SELECT pg_catalog.format('GRANT SELECT ON %s TO %I', name,
                     CASE WHEN denied AND ({direct} OR owner IS NULL) THEN current_user::text ELSE owner END)
                     FROM found WHERE denied OR owner IS NOT NULL ORDER BY visible DESC, name LIMIT 1",
                    literal(name)
                )
            }
            Denied::Sequence(name) => format!(
                "SELECT pg_catalog.format('GRANT SELECT ON SEQUENCE %I.%I TO %I', n.nspname, c.relname, current_user)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relname = {} AND c.relkind = 'S'
                 ORDER BY pg_catalog.pg_table_is_visible(c.oid) DESC LIMIT 1",
                literal(name)
            ),
            Denied::Schema(name) => format!(
                "SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', {}, current_user)",
                literal(name)
            ),
            Denied::Function(name) => format!(
                "SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %I', n.nspname, p.proname,
                 pg_catalog.pg_get_function_identity_arguments(p.oid), current_user)
                 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                 WHERE p.proname = {} AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
                 ORDER BY pg_catalog.pg_function_is_visible(p.oid) DESC LIMIT 1",
                literal(name)
            ),
            Denied::Server(name) => format!(
                "SELECT pg_catalog.format('GRANT USAGE ON FOREIGN SERVER %I TO %I', {}, current_user)",
                literal(name)
            ),
        }
    }
}

/// A name as a literal, whatever `standard_conforming_strings` is.
fn literal(name: &str) -> String {
    format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''"))
}

/// Names the GRANT in a failure that has denied permission for a query; all others stay as they are.
pub(super) async fn name(failure: Failure, settings: &Settings, sql: &str) -> Failure {
    let Some(denied) = failure.detail.as_deref().and_then(Denied::of) else { return failure };
    let look_up = denied.look_up(sql);
    match timeout(LOOK_UP_MAX, grant(settings, &look_up)).await {
        Ok(Some(grant)) => failure.remedy(format!("Let the user read: {grant}.")),
        Ok(None) | Err(_) => failure,
    }
}

async fn grant(settings: &Settings, look_up: &str) -> Option<String> {
    // Why this fails is of no use to anybody: the failure that is explained has been found.
    let mut session = Session::open(settings).await.ok()?;
    session.begin(Some(LOOK_UP_MAX)).await.ok()?;
    let answer: Result<Vec<SimpleQueryMessage>, Error> =
        session.work(async |client| client.simple_query(look_up).await).await;
    let grant = answer.ok()?.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    session.close().await;
    grant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_denied_is_read_from_what_the_server_said() {
        let said = |object: &str| format!("permission denied for {object} (SQLSTATE 42501), in `select …`");
        let table = [
            ("table pr", Some(Denied::Relation("pr"))),
            ("materialized view m v", Some(Denied::Relation("m v"))),
            ("foreign table f", Some(Denied::Relation("f"))),
            ("schema app", Some(Denied::Schema("app"))),
            ("function f", Some(Denied::Function("f"))),
            ("foreign server s", Some(Denied::Server("s"))),
            ("tablespace t", None),
        ];
        for (object, expected) in table {
            assert_eq!(Denied::of(&said(object)), expected, "{object}");
        }
        assert_eq!(Denied::of("keine Berechtigung für Tabelle pr (SQLSTATE 42501)"), None);
        assert_eq!(Denied::of("permission denied for table pr (SQLSTATE 42502)"), None);
    }

    #[test]
    fn a_name_cannot_end_its_literal() {
        assert_eq!(literal(r"a'b\c"), r"E'a''b\\c'");
    }
}
