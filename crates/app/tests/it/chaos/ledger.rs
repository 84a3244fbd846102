//! What the receiver saw against what is on record, message by message.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What a request was answered with, as far as it matters for the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was done, and that was said.
    Done,
    /// It was done, and something else was said.
    Lied,
    /// It failed, or nothing was said.
    Failed,
    /// It was refused for good.
    Refused,
}

/// A request as the receiver saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub message: String,
    pub attempt: u64,
    pub kind: Kind,
}

/// All that is known of one message.
#[derive(Debug, Default)]
pub struct Account {
    /// Requests seen, by the attempt they said they were, and what they were answered with.
    pub seen: BTreeMap<u64, Vec<Kind>>,
    /// Requests on record by attempt: those that succeeded, and those that did not.
    pub told: BTreeMap<u64, (u64, u64)>,
    /// The statuses on record.
    pub statuses: Vec<String>,
}

impl Account {
    /// How often the receiver did what it was asked.
    pub fn done(&self) -> u64 {
        self.seen.values().flatten().filter(|kind| matches!(kind, Kind::Done | Kind::Lied)).count() as u64
    }

    /// Requests that the record does not know of: those of attempts that the process died in.
    pub fn unknown(&self) -> u64 {
        let unknown = self.seen.iter().map(|(attempt, seen)| {
            let (good, bad) = self.told.get(attempt).copied().unwrap_or_default();
            (seen.len() as u64).saturating_sub(good + bad)
        });
        unknown.sum()
    }

    /// Successes on record that the receiver does not know of: there must be none.
    pub fn invented(&self) -> u64 {
        let invented = self.told.iter().map(|(attempt, (good, _))| {
            let seen = self.seen.get(attempt).map_or(&[][..], Vec::as_slice);
            let done = seen.iter().filter(|kind| **kind == Kind::Done).count() as u64;
            good.saturating_sub(done)
        });
        invented.sum()
    }

    fn ended(&self, how: &str) -> bool {
        self.statuses.iter().any(|status| status == how)
    }
}

/// All accounts, by the message's id.
#[derive(Debug, Default)]
pub struct Ledger {
    pub accounts: BTreeMap<String, Account>,
    /// Attempts on record by status.
    pub statuses: BTreeMap<String, u64>,
}

impl Ledger {
    pub fn of(seen: &[Seen], attempts: &[Value]) -> Ledger {
        let mut ledger = Ledger::default();
        for seen in seen {
            let account = ledger.accounts.entry(seen.message.clone()).or_default();
            account.seen.entry(seen.attempt).or_default().push(seen.kind);
        }
        for attempt in attempts {
            let message = attempt["message"].as_str().unwrap();
            let account = ledger.accounts.entry(message.to_owned()).or_default();
            let told = account.told.entry(attempt["attempt"].as_u64().unwrap()).or_default();
            for step in attempt["steps"].as_array().unwrap() {
                if step["error"].is_null() {
                    told.0 += 1;
                } else {
                    told.1 += 1;
                }
            }
            let status = attempt["status"].as_str().unwrap();
            account.statuses.push(status.to_owned());
            *ledger.statuses.entry(status.to_owned()).or_default() += 1;
        }
        ledger
    }

    /// The sum of a figure over all messages.
    pub fn sum(&self, figure: impl Fn(&Account) -> u64) -> u64 {
        self.accounts.values().map(figure).sum()
    }

    /// Messages that were neither done nor dead-lettered.
    pub fn lost<'a>(
        &'a self,
        sent: &'a BTreeSet<String>,
        dead: &'a BTreeMap<String, String>,
    ) -> Vec<&'a String> {
        let kept =
            |id: &String| dead.contains_key(id) || self.accounts.get(id).is_some_and(|of| of.done() > 0);
        sent.iter().filter(|id| !kept(id)).collect()
    }

    /// Messages whose end is not on record.
    pub fn untold<'a>(&'a self, sent: &'a BTreeSet<String>) -> Vec<&'a String> {
        let told = |id: &String| {
            self.accounts.get(id).is_some_and(|account| account.ended("ok") || account.ended("dead_lettered"))
        };
        sent.iter().filter(|id| !told(id)).collect()
    }

    pub fn status(&self, name: &str) -> u64 {
        self.statuses.get(name).copied().unwrap_or(0)
    }
}
