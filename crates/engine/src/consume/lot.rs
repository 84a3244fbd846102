//! The end of a consumer that has messages in the parking lot: they go back to their queue.

use super::copies::{self, Received};
use crate::failure::Failure;
use crate::message::{Receipt, Route};
use crate::ports::{Broker, NewParked, Parked, Parking};

/// So many are taken at once.
const BATCH: usize = 100;

/// Publishes what is parked of a consumer that runs no more to its queue, and forgets it here; how many that were. The copies say how
/// often the message was tried, and how it came first.
///
/// # Errors
/// One was not confirmed, or the state cannot be used; what is left stays parked.
pub async fn give_back(
    parking: &dyn Parking,
    broker: &dyn Broker,
    consumer: &str,
    queue: &str,
) -> Result<u64, Failure> {
    let mut given = 0;
    loop {
        let due = parking.due(consumer, i64::MAX, BATCH).await?;
        if due.is_empty() {
            return Ok(given);
        }
        for Parked { id, parked } in due {
            let NewParked { job, spent, first_at_ms, dead_lettered, .. } = parked;
            let received = Received {
                job,
                spent,
                first_at_ms,
                received_at_ms: first_at_ms,
                again: true,
                given_up: None,
            };
            let copy = match dead_lettered {
                Some(reason) => copies::given_up_copy(&received, spent, &reason.into()),
                None => copies::retry_copy(&received, spent, Route::Queue(queue.to_owned())),
            };
            match broker.publish(&[copy]).await.into_iter().next() {
                Some(Receipt::Accepted(_)) => {}
                Some(Receipt::Refused(failure) | Receipt::Unknown(failure)) => return Err(failure),
                None => {
                    let what = "publish a parked message";
                    return Err(Failure::internal(what).detail("the broker gave no receipt"));
                }
            }
            parking.remove(id).await?;
            given += 1;
        }
    }
}
