//! Subscribers and clients of the hub.

use std::time::Duration;

use super::{BODY_BYTES, Bad, QUEUE, Sent, World, rate_at};
use crate::figures::rate;
use crate::hub::Served;
use crate::hub_wire::{Manner, Receiver, guess, post_all};
use crate::sync::{Fault, anew};

/// Subscribers that are good, one queue each.
const SUBSCRIBERS: u64 = 8;
/// After so many guesses some must have been refused unchecked.
const GUESSES_MAX: u64 = 1_000;

/// Subscribers, with one among them that answers 503.
pub(super) async fn subscribers(world: &World<'_>, bad: Bad) -> Result<f64, Fault> {
    let (receiver, refusing) = (Receiver::start().await?, Receiver::with(Manner::RefusesBad).await?);
    let each = (world.args.messages / SUBSCRIBERS).max(1);
    let good: Vec<String> = (0..SUBSCRIBERS).map(|number| format!("{QUEUE}-{number}")).collect();
    let refused = format!("{QUEUE}-refused");
    for queue in &good {
        anew(&world.side, queue).await?;
        world.publish(queue, (0..each).map(Sent::Good)).await?;
    }
    anew(&world.side, &refused).await?;
    let hub = start(world).await?;
    if bad == Bad::Present {
        world.publish(&refused, (0..each).map(|_| Sent::Bad)).await?;
        hub.subscribe(&refused, "bench", &format!("http://{}/", refusing.address())).await?;
    }
    for queue in &good {
        hub.subscribe(queue, "bench", &format!("http://{}/{queue}", receiver.address())).await?;
    }
    let rate = rate_at(&receiver, each * SUBSCRIBERS).await;
    hub.stop().await?;
    for queue in good.iter().chain([&refused]) {
        world.side.delete_queue(queue).await?;
    }
    if bad == Bad::Present && refusing.refused() == 0 {
        return Err("nothing was delivered to the bad subscriber".into());
    }
    Ok(rate)
}

/// A client that publishes, with another one that guesses its password and has used up what it may guess at once.
pub(super) async fn logins(world: &World<'_>, bad: Bad) -> Result<f64, Fault> {
    let args = world.args;
    anew(&world.side, QUEUE).await?;
    let hub = start(world).await?;
    let path = format!("{}?hub.persistmsg=1", hub.path("endpoint", QUEUE));
    let publishing = async {
        let took = post_all(hub.address(), &path, args.at_once, args.messages, BODY_BYTES, 202).await?;
        Ok::<f64, Fault>(rate(args.messages, took))
    };
    let rate = match bad {
        Bad::Absent => publishing.await?,
        Bad::Present => {
            let mut number = 0;
            while guess(hub.address(), &path, number).await? != 429 {
                number += 1;
                if number == GUESSES_MAX {
                    return Err(format!("{number} wrong passwords were all checked").into());
                }
            }
            tokio::select! {
                rate = publishing => rate?,
                failed = guesses(world, &hub, &path, number) => return failed,
            }
        }
    };
    hub.stop().await?;
    world.side.delete_queue(QUEUE).await?;
    Ok(rate)
}

/// Guesses until the hub takes a guess.
async fn guesses(world: &World<'_>, hub: &Served, path: &str, first: u64) -> Result<f64, Fault> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / world.args.bad_per_second.max(1));
    for number in first.. {
        ticks.tick().await;
        let status = guess(hub.address(), path, number).await?;
        if !matches!(status, 401 | 429) {
            return Err(format!("a wrong password was answered with {status}").into());
        }
    }
    Err("there are no more numbers".into())
}

async fn start(world: &World<'_>) -> Result<Served, Fault> {
    Served::start(world.args.warren.as_deref(), &world.args.rabbit, world.args.at_once).await
}
