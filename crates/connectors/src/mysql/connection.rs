//! One connection for one query: opened, put into a read-only transaction, and closed or killed.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::time::timeout;
use warren_engine::failure::Failure;

use super::config::Settings;
use super::fault;

/// Connects and logs in.
pub(super) async fn open(settings: &Settings) -> Result<Conn, Failure> {
    match timeout(settings.connect_timeout, Conn::new(settings.driver.clone())).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(fault::connect(error, settings)),
        Err(_) => Err(fault::connect_timeout(settings)),
    }
}

/// Begins the one transaction this connection is for.
pub(super) async fn begin(connection: &mut Conn, limit: Option<Duration>) -> Result<(), Error> {
    connection.query_drop("SET NAMES utf8mb4").await?;
    // So that a TIMESTAMP says which moment it is, whatever the server's zone.
    connection.query_drop("SET SESSION time_zone = '+00:00'").await?;
    // How long the server waits for us to take rows: a taker may be busy for longer than the default of a minute.
    connection.query_drop("SET SESSION net_write_timeout = 3600").await?;
    if let Some(limit) = limit {
        set_limit(connection, limit).await?;
    }
    connection.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    connection.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
}

/// Each kind of server has a variable of its own. One that has neither is held to the limit by us alone.
pub(super) async fn set_limit(connection: &mut Conn, limit: Duration) -> Result<(), Error> {
    let version: Option<String> = connection.query_first("SELECT VERSION()").await?;
    let set = if version.is_some_and(|version| version.contains("MariaDB")) {
        format!("SET SESSION max_statement_time = {:.3}", limit.as_secs_f64().max(0.001))
    } else {
        // 0 would mean no limit.
        format!("SET SESSION max_execution_time = {}", limit.as_millis().clamp(1, u128::from(u32::MAX)))
    };
    match connection.query_drop(set).await {
        // ER_UNKNOWN_SYSTEM_VARIABLE
        Err(Error::Server(refusal)) if refusal.code == 1193 => Ok(()),
        result => result,
    }
}

/// How long a farewell may take.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// Says goodbye after a result that was read to its end.
pub(super) async fn close(connection: Conn) {
    // The result stands already; a connection that does not end well has nothing left to tell.
    timeout(FAREWELL_MAX, connection.disconnect()).await.ok();
}

/// Ends what the server is doing for a connection, and the connection, without reading the rest of the result: dropping
/// the connection would first read it to its end.
pub(super) async fn kill(connection: Conn, settings: &Settings) {
    let id = connection.id();
    let killed = async {
        let mut second = Conn::new(settings.driver.clone()).await?;
        second.query_drop(format!("KILL {id}")).await?;
        second.disconnect().await
    };
    // If the server cannot be asked, it sees the closed socket when it next sends something.
    timeout(FAREWELL_MAX, killed).await.ok();
    close(connection).await;
}
