//! Rows of a run, one of which makes RabbitMQ close the channel: its `user_id` is not that of the login.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use warren_connectors::kit::setting::Secret;
use warren_connectors::{rabbitmq, sqlite};
use warren_engine::ports::{Broker, Leases, Records};
use warren_engine::sync::plan::{Dynamic, PropertyPlan};
use warren_engine::sync::run::{Ask, Ports};
use warren_engine::sync::watch::Silent;
use warren_store::baseline::{BaselineOptions, FileBaseline};
use warren_store::state::{Retention, SqliteState, SystemClock};

use super::{Bad, QUEUE, World};
use crate::figures::rate;
use crate::sync::{Fault, anew, plan};

/// A first run of rows that the database makes up.
pub(super) async fn rows(world: &World<'_>, bad: Bad) -> Result<f64, Fault> {
    let folder = tempfile::Builder::new().prefix("warren-bench-").tempdir()?;
    anew(&world.side, QUEUE).await?;
    let rows = world.args.messages;
    let refused = if bad == Bad::Present { rows / 2 } else { 0 };
    let sql = format!(
        "WITH RECURSIVE rows (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM rows WHERE id < {rows})
         SELECT id, 'Customer ' || id AS name, 'customer' || id || '@example.com' AS email, 'emea' AS region,
                id % 100000 AS balance, CASE WHEN id = {refused} THEN 'nobody' END AS sender FROM rows"
    );
    let properties =
        PropertyPlan { user_id: Some(Dynamic::Column("sender".to_owned())), ..PropertyPlan::default() };
    let plan = plan(&sql, QUEUE, properties)?;
    // An empty file is an empty database.
    let path = folder.path().join("empty.db");
    std::fs::File::create(&path)?;
    let source = sqlite::source("bench", &sqlite::Config { path, ..sqlite::Config::default() })?;
    let config = rabbitmq::Config {
        url: Some(Secret::new(world.args.rabbit.as_str())),
        ..rabbitmq::Config::default()
    };
    let broker: Arc<dyn Broker> = Arc::new(rabbitmq::Rabbit::new("bench", &config)?);
    let state = Arc::new(SqliteState::open(&folder.path().join("state"), Retention::default())?);
    let (records, leases): (Arc<dyn Records>, Arc<dyn Leases>) = (state.clone(), state);
    let baseline = FileBaseline::open(folder.path().join("baseline"), BaselineOptions::default());
    let ports = Ports {
        source,
        broker: broker.clone(),
        baseline: Arc::new(baseline),
        records,
        leases,
        clock: Arc::new(SystemClock),
    };
    let cancel = CancellationToken::new();
    let record = warren_engine::sync::run::run(&plan, &ports, Ask::default(), &Silent, &cancel).await?;
    broker.close().await;
    world.side.delete_queue(QUEUE).await?;
    let (sent, rejected) = (record.counts.sent.added, record.counts.rejected.added);
    let bad_rows = u64::from(bad == Bad::Present);
    if (sent, rejected) != (rows - bad_rows, bad_rows) {
        return Err(format!("{sent} rows were sent and {rejected} rejected: {:?}", record.error).into());
    }
    Ok(rate(sent, std::time::Duration::from_millis(record.times.sending_ms)))
}
