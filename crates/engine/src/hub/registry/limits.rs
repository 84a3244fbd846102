//! How much one user, and one host of callbacks, may have of a hub: so that nobody takes all of it, and nobody makes it call somebody else
//! without end.
//!
//! Counted are active subscriptions. Renewing one is no new one, and what an administrator imports or activates is taken whatever there is.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use super::{Held, Hub};
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::hub::callback;
use crate::hub::subscription::{Subscription, SubscriptionKey};

const MINUTE_MS: i64 = 60_000;

/// How many active subscriptions there are, by who made them and by the host that they are posted to.
#[derive(Debug, Default)]
pub(super) struct Counts {
    by_user: HashMap<String, usize>,
    by_host: HashMap<String, usize>,
}

impl Counts {
    pub fn add(&mut self, subscription: &Subscription) {
        if subscription.is_active() {
            *self.by_user.entry(user(subscription.user.as_deref())).or_default() += 1;
            *self.by_host.entry(callback::host(&subscription.key.callback)).or_default() += 1;
        }
    }

    pub fn take(&mut self, subscription: &Subscription) {
        if subscription.is_active() {
            less(&mut self.by_user, &user(subscription.user.as_deref()));
            less(&mut self.by_host, &callback::host(&subscription.key.callback));
        }
    }
}

fn less(counts: &mut HashMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

/// Those without a login count as one user, whose name is empty: nobody else's is.
fn user(name: Option<&str>) -> String {
    name.unwrap_or_default().to_owned()
}

/// How often each host was asked for its agreement in the present minute.
#[derive(Debug, Default)]
pub(super) struct Asked {
    minute: i64,
    by_host: HashMap<String, u32>,
}

impl Asked {
    /// Notes one more question to a host. `Err`: there were as many as may be; so long until the next minute.
    fn note(&mut self, host: String, most: u32, now_ms: i64) -> Result<(), Duration> {
        let minute = now_ms.div_euclid(MINUTE_MS);
        if self.minute != minute {
            *self = Asked { minute, by_host: HashMap::new() };
        }
        let count = self.by_host.entry(host).or_default();
        if *count >= most {
            let left = MINUTE_MS - now_ms.rem_euclid(MINUTE_MS);
            return Err(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        }
        *count += 1;
        Ok(())
    }
}

impl Hub {
    /// Whether a subscription may become active. What is being granted at this moment is not counted yet.
    pub(super) fn room(&self, key: &SubscriptionKey, asks: Option<&str>) -> Result<(), Failure> {
        let held = self.held();
        if held.is_active(key) {
            return Ok(());
        }
        let count = |counts: &HashMap<String, usize>, name: &str| counts.get(name).copied().unwrap_or(0);
        let host = callback::host(&key.callback);
        let of_user = match asks {
            Some(name) => format!("of user `{name}`"),
            None => "without a login".to_owned(),
        };
        let limits = [
            (
                count(&held.counts.by_user, &user(asks)),
                self.settings.subscriptions_per_user_max,
                of_user,
                "max_subscriptions_per_user",
            ),
            (
                count(&held.counts.by_host, &host),
                self.settings.subscriptions_per_host_max,
                format!("to host `{host}`"),
                "max_subscriptions_per_host",
            ),
        ];
        drop(held);
        for (count, most, whose, setting) in limits {
            if count >= most as usize {
                let what = format!("take another subscription {whose}");
                return Err(Failure::new(FailureKind::Refused, codes::TOO_MANY_SUBSCRIPTIONS, what)
                    .detail(format!("{count} are active"))
                    .remedy(format!("end some that are not needed, or raise `hub.{setting}`")));
            }
        }
        Ok(())
    }

    /// Notes that a callback is about to be asked, or told, by somebody's wish.
    pub(super) fn may_ask(&self, callback: &str) -> Result<(), Failure> {
        let host = callback::host(callback);
        let most = self.settings.verifications_per_minute_max;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = asked.note(host.clone(), most, self.ports.clock.now_ms());
        drop(asked);
        noted.map_err(|left| {
            let what = format!("ask host `{host}` now");
            let failure = Failure::new(FailureKind::Throttled, codes::TOO_MANY_VERIFICATIONS, what)
                .detail(format!("it was asked {most} times in this minute"))
                .remedy("come again in the next one, or raise `hub.max_verifications_per_minute`");
            Failure { retry_after: Some(left), ..failure }
        })
    }
}

impl Held {
    fn is_active(&self, key: &SubscriptionKey) -> bool {
        let held = self.by_id.get(&key.id());
        held.is_some_and(|entry| entry.subscription.is_active() && entry.subscription.key == *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_questions_in_each_minute() {
        let mut asked = Asked::default();
        let mut note = |host: &str, at| asked.note(host.to_owned(), 2, at);
        assert_eq!(note("a", 60_000), Ok(()));
        assert_eq!(note("a", 61_000), Ok(()));
        assert_eq!(note("a", 119_000), Err(Duration::from_secs(1)));
        assert_eq!(note("b", 119_000), Ok(()), "another host");
        assert_eq!(note("a", 120_000), Ok(()), "another minute");
    }
}
