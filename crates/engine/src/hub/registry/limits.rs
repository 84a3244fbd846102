//! How much one user, and one host of callbacks, may have of a hub: so that nobody takes all of it, and nobody makes it call somebody else
//! without end.
//!
//! Counted are active subscriptions. Renewing one is no new one, and what an administrator imports or activates is taken whatever there is.

use std::collections::HashMap;
use std::hash::Hash;
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
    users: HashMap<String, usize>,
    hosts: HashMap<String, usize>,
    users_at_hosts: HashMap<(String, String), usize>,
}

impl Counts {
    pub fn add(&mut self, subscription: &Subscription) {
        if subscription.is_active() {
            let (user, host) = of(subscription);
            *self.users.entry(user.clone()).or_default() += 1;
            *self.hosts.entry(host.clone()).or_default() += 1;
            *self.users_at_hosts.entry((user, host)).or_default() += 1;
        }
    }

    pub fn take(&mut self, subscription: &Subscription) {
        if subscription.is_active() {
            let (user, host) = of(subscription);
            less(&mut self.users, &user);
            less(&mut self.hosts, &host);
            less(&mut self.users_at_hosts, &(user, host));
        }
    }
}

fn less<N: Hash + Eq>(counts: &mut HashMap<N, usize>, name: &N) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

/// The user and the host of a subscription.
fn of(subscription: &Subscription) -> (String, String) {
    (user(subscription.user.as_deref()), callback::host(&subscription.key.callback))
}

/// How much of what a host has one user gets in any case: what others take of the host does not keep a user from it.
fn reserved(most: u32) -> u32 {
    (most / 100).max(1)
}

/// Those without a login count as one user, whose name is empty: nobody else's is.
fn user(name: Option<&str>) -> String {
    name.unwrap_or_default().to_owned()
}

/// How often each host was asked for its agreement in the present minute, and by which user's wish.
#[derive(Debug, Default)]
pub(super) struct Asked {
    minute: i64,
    by_host: HashMap<String, u32>,
    by_user_at_host: HashMap<(String, String), u32>,
}

impl Asked {
    /// Notes one more question to a host. `Err`: there were as many as may be, and this user's were no less than its share; so long until the
    /// next minute.
    fn note(&mut self, user: String, host: String, most: u32, now_ms: i64) -> Result<(), Duration> {
        let minute = now_ms.div_euclid(MINUTE_MS);
        if self.minute != minute {
            *self = Asked { minute, ..Asked::default() };
        }
        let count = self.by_host.entry(host.clone()).or_default();
        let of_user = self.by_user_at_host.entry((user, host)).or_default();
        if *count >= most && *of_user >= reserved(most) {
            let left = MINUTE_MS - now_ms.rem_euclid(MINUTE_MS);
            return Err(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        }
        (*count, *of_user) = (count.saturating_add(1), of_user.saturating_add(1));
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
        let name = user(asks);
        let of_both = held.counts.users_at_hosts.get(&(name.clone(), host.clone())).copied().unwrap_or(0);
        let has_share = of_both < reserved(self.settings.subscriptions_per_host_max) as usize;
        // Anybody may come without a login: one host has no more than half of what all of them have.
        let half = self.settings.subscriptions_per_user_max.div_ceil(2) as usize;
        let strangers_at_one_host = name.is_empty() && of_both >= half;
        let of_user = match asks {
            Some(name) => format!("of user `{name}`"),
            None => "without a login".to_owned(),
        };
        let limits = [
            (
                count(&held.counts.users, &name),
                self.settings.subscriptions_per_user_max,
                of_user,
                "max_subscriptions_per_user",
            ),
            (
                count(&held.counts.hosts, &host),
                self.settings.subscriptions_per_host_max,
                format!("to host `{host}`"),
                "max_subscriptions_per_host",
            ),
        ];
        drop(held);
        for (at, (count, most, whose, setting)) in limits.into_iter().enumerate() {
            let is_full = match at {
                0 => count >= most as usize || strangers_at_one_host,
                _ => count >= most as usize && !has_share,
            };
            if is_full {
                let what = format!("take another subscription {whose}");
                return Err(Failure::new(FailureKind::Refused, codes::TOO_MANY_SUBSCRIPTIONS, what)
                    .detail(format!("{count} are active"))
                    .remedy(format!("end some that are not needed, or raise `hub.{setting}`")));
            }
        }
        Ok(())
    }

    /// Notes that a callback is about to be asked, or told, by somebody's wish.
    pub(super) fn may_ask(&self, callback: &str, asks: Option<&str>) -> Result<(), Failure> {
        let host = callback::host(callback);
        let most = self.settings.verifications_per_minute_max;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = asked.note(user(asks), host.clone(), most, self.ports.clock.now_ms());
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
        let mut note = |host: &str, at| asked.note("one".to_owned(), host.to_owned(), 2, at);
        assert_eq!(note("a", 60_000), Ok(()));
        assert_eq!(note("a", 61_000), Ok(()));
        assert_eq!(note("a", 119_000), Err(Duration::from_secs(1)));
        assert_eq!(note("b", 119_000), Ok(()), "another host");
        assert_eq!(note("a", 120_000), Ok(()), "another minute");
    }

    #[test]
    fn a_user_who_asks_a_host_without_end_leaves_others_their_share_of_it() {
        let mut asked = Asked::default();
        let mut note = |user: &str| asked.note(user.to_owned(), "a".to_owned(), 1000, 60_000).is_ok();
        assert_eq!((0..5000).filter(|_| note("one")).count(), 1000);
        assert_eq!((0..5000).filter(|_| note("two")).count(), 10);
        assert!(!note("one"));
    }
}
