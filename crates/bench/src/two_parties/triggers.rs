//! Keys of one trigger, and two triggers on one connection.

use std::time::Duration;

use super::{Bad, QUEUE, Sent, World, rate_at};
use crate::hub_wire::{Manner, Receiver};
use crate::program::Program;
use crate::sync::{Fault, anew};

/// Keys that are good.
const KEYS: u64 = 100;
/// One message in so many belongs to the key that fails.
const BAD_ONE_IN: u64 = 100;

/// The messages of a hundred keys, with those of a key that the receiver refuses among them.
pub(super) async fn keys(world: &World<'_>, bad: Bad) -> Result<f64, Fault> {
    let args = world.args;
    let receiver = Receiver::with(Manner::RefusesBad).await?;
    anew(&world.side, QUEUE).await?;
    let messages = (0..args.messages).flat_map(|number| {
        let refused = bad == Bad::Present && number % BAD_ONE_IN == 0;
        refused.then_some(Sent::Bad).into_iter().chain([Sent::Good(number % KEYS)])
    });
    world.publish(QUEUE, messages).await?;
    let trigger = serde_json::json!({
        "from": "mq", "queue": QUEUE, "concurrency": args.at_once, "dead_letter": "drop",
        "ordering": {"key": ".headers.key"}, "pipeline": post_to(&receiver),
    });
    let program = start(world, serde_json::json!({ "good": trigger })).await?;
    let rate = rate_at(&receiver, args.messages).await;
    program.kill().await?;
    world.side.delete_queue(QUEUE).await?;
    if bad == Bad::Present && receiver.refused() == 0 {
        return Err("no message of the bad key was tried".into());
    }
    Ok(rate)
}

/// Two triggers, one of which dead-letters what comes.
pub(super) async fn consumers(world: &World<'_>, bad: Bad) -> Result<f64, Fault> {
    let args = world.args;
    let receiver = Receiver::start().await?;
    let (poison, dead) = (format!("{QUEUE}-poison"), format!("{QUEUE}-dead"));
    for queue in [QUEUE, &poison, &dead] {
        anew(&world.side, queue).await?;
    }
    world.publish(QUEUE, (0..args.messages).map(Sent::Good)).await?;
    let triggers = serde_json::json!({
        "good": {
            "from": "mq", "queue": QUEUE, "concurrency": args.at_once, "dead_letter": "drop",
            "pipeline": post_to(&receiver),
        },
        "bad": {
            "from": "mq", "queue": poison, "concurrency": args.at_once, "dead_letter": {"queue": dead},
            "pipeline": [{"fail": "poison"}],
        },
    });
    let program = start(world, triggers).await?;
    let rate = match bad {
        Bad::Absent => rate_at(&receiver, args.messages).await,
        Bad::Present => tokio::select! {
            rate = rate_at(&receiver, args.messages) => rate,
            failed = poisoned(world, &poison) => return failed,
        },
    };
    program.kill().await?;
    let dead_letters = world.side.take_one(&dead).await?.is_some();
    for queue in [QUEUE, &poison, &dead] {
        world.side.delete_queue(queue).await?;
    }
    if dead_letters != (bad == Bad::Present) {
        return Err("the dead letters are not those of the bad party".into());
    }
    Ok(rate)
}

/// Publishes poison until it fails.
async fn poisoned(world: &World<'_>, queue: &str) -> Result<f64, Fault> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / world.args.bad_per_second.max(1));
    loop {
        ticks.tick().await;
        world.publish(queue, std::iter::once(Sent::Bad)).await?;
    }
}

fn post_to(receiver: &Receiver) -> serde_json::Value {
    serde_json::json!([{"http": {"url": format!("http://{}/", receiver.address()), "body": ".body"}}])
}

async fn start(world: &World<'_>, triggers: serde_json::Value) -> Result<Program, Fault> {
    let config = serde_json::json!({
        "brokers": {"mq": {"type": "rabbitmq", "url": world.args.rabbit}},
        "http": {"listen": "127.0.0.1:0"},
        "state": {"folder": "state"},
        "triggers": triggers,
    });
    // JSON is YAML.
    Program::start(world.args.warren.as_deref(), &config.to_string()).await
}
