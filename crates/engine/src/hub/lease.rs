//! Leases: what is granted, when it ends, and when that is announced.

use super::settings::{
    HubSettings, LEASE_SECONDS_MAX_COMPAT, WEBSUB_LEASE_SECONDS, WEBSUB_LEASE_SECONDS_MAX,
};
use super::subscription::{Protocol, Subscription};

/// How long before the end of a lease that is announced, in seconds, longest first.
const WARNINGS: [u64; 3] = [7 * 86_400, 86_400, 3_600];

/// What happens next to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Its end is announced.
    Warns,
    /// It ends.
    Ends,
}

/// The lease that is granted, in seconds: what was asked, within the protocol's bounds.
pub fn granted(settings: &HubSettings, protocol: Protocol, asked: Option<u64>) -> u64 {
    let asked = asked.filter(|seconds| *seconds > 0);
    match protocol {
        Protocol::Rabbithub => {
            asked.unwrap_or(settings.default_lease_seconds).clamp(1, LEASE_SECONDS_MAX_COMPAT)
        }
        Protocol::Websub => asked.unwrap_or(WEBSUB_LEASE_SECONDS).min(WEBSUB_LEASE_SECONDS_MAX),
    }
}

/// When a lease that begins now ends, in milliseconds since the epoch.
pub fn end_ms(now_ms: i64, lease_seconds: u64) -> i64 {
    let millis = i64::try_from(lease_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    now_ms.saturating_add(millis)
}

/// What happens next to the lease of an active subscription after that moment, and when. A lease is announced only at times that lie
/// in its second half.
pub fn next(subscription: &Subscription, after_ms: i64) -> (i64, Event) {
    let ends = subscription.expires_at_ms;
    let warns = WARNINGS.iter().filter(|before| **before <= subscription.lease_seconds / 2);
    let warns = warns.map(|before| ends.saturating_sub(end_ms(0, *before))).find(|at| *at > after_ms);
    match warns {
        Some(at) => (at, Event::Warns),
        None => (ends, Event::Ends),
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::LEASE_SECONDS;
    use super::*;
    use crate::hub::resource::Resource;
    use crate::hub::subscription::SubscriptionKey;

    #[test]
    fn each_protocol_has_its_leases() {
        let settings = HubSettings::new(true);
        let table = [
            (Protocol::Rabbithub, None, LEASE_SECONDS),
            (Protocol::Rabbithub, Some(0), LEASE_SECONDS),
            (Protocol::Rabbithub, Some(1), 1),
            (Protocol::Rabbithub, Some(u64::MAX), 31_536_000_000),
            (Protocol::Websub, None, 864_000),
            (Protocol::Websub, Some(300), 300),
            (Protocol::Websub, Some(u64::MAX), 31_536_000),
        ];
        for (protocol, asked, lease) in table {
            assert_eq!(granted(&settings, protocol, asked), lease, "{protocol:?} {asked:?}");
        }
        assert_eq!(end_ms(5, u64::MAX), i64::MAX);
    }

    #[test]
    fn the_end_is_announced_before_it_comes() {
        let key = SubscriptionKey {
            resource: Resource::queue("/", "q"),
            topic: "t".into(),
            callback: "http://h/".into(),
        };
        let mut subscription = Subscription::new(key, Protocol::Rabbithub, 0);
        subscription.lease_seconds = 30 * 86_400;
        subscription.expires_at_ms = end_ms(0, subscription.lease_seconds);
        let mut events = Vec::new();
        let mut after = 0;
        while events.last().is_none_or(|(_, event)| *event != Event::Ends) {
            let (at, event) = next(&subscription, after);
            events.push((at / 3_600_000, event));
            after = at;
        }
        let day = 24;
        assert_eq!(
            events,
            [
                (23 * day, Event::Warns),
                (29 * day, Event::Warns),
                (30 * day - 1, Event::Warns),
                (30 * day, Event::Ends)
            ]
        );
        subscription.lease_seconds = 60;
        subscription.expires_at_ms = 60_000;
        assert_eq!(next(&subscription, 0), (60_000, Event::Ends), "a short one is not");
    }
}
