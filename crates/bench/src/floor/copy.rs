//! A bare binary COPY, drained by the driver that Warren uses, and thrown away.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio_postgres::NoTls;

use crate::sync::Fault;

/// Drains a query. Returns the time from BEGIN to the end, and the bytes.
pub async fn drain(url: &str, sql: &str) -> Result<(Duration, u64), Fault> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let began = Instant::now();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let stream = client.copy_out(&format!("COPY ({sql}) TO STDOUT (FORMAT binary)")).await?;
    let mut stream = std::pin::pin!(stream);
    let mut bytes = 0;
    while let Some(chunk) = stream.next().await {
        bytes += chunk?.len() as u64;
    }
    Ok((began.elapsed(), bytes))
}
