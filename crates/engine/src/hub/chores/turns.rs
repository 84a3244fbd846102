//! Whose turn it is: how many chores are done at once, and how much of that one asker and one host may have.
//!
//! Anybody may have a callback called that never answers, and each such call lasts until its timeout. So each asker has a share; in it a
//! host is called once at a time until it has answered soon; and those that did not may take a part of the share only, and go last. Of
//! what waits that goes first whose host is called by fewest.
//!
//! A host is looked at for each asker by itself: nobody makes another's host slow by asking for a page of it that hangs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// So many that call a host are done at once. One that hangs costs little more than a connection.
const AT_ONCE: usize = 256;
/// So many of one asker are done at once: others have their turn without waiting.
pub(super) const OF_ASKER_MAX: usize = 64;
/// So many of these call hosts that are slow.
pub(super) const SLOW_MAX: usize = 32;
/// So many call one host that is quick.
pub(super) const OF_HOST_MAX: usize = 8;
/// A host is slow when the last try took longer than this. Who is well answers in a fraction of it.
pub(super) const SLOW: Duration = Duration::from_secs(2);

/// By whose wish a chore is done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asker {
    /// The hub's own. What it does calls nobody's host, and waits for none that do.
    Ourselves,
    /// Whoever publishes topics that the operator allows.
    Publishers,
    /// Anybody who did not log in: all of them together.
    Strangers,
    /// Who logged in.
    User(String),
}

/// Where a chore waits: by whose wish, and for which host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// By whose wish it is done.
    pub asker: Asker,
    /// The host that it calls.
    pub host: String,
}

/// What waits and what is being done, by asker and host.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Asker, Share>);

/// What one asker has.
#[derive(Debug, Default)]
struct Share {
    hosts: HashMap<String, Host>,
    /// Of each host that may be called once more, what is next.
    heads: BTreeSet<Head>,
    waiting: usize,
    under_way: usize,
    /// How many of those that are under way call slow hosts.
    slow: usize,
}

/// In the order of turns, but for the time when it is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    slow: bool,
    under_way: usize,
    due_ms: i64,
    host: String,
}

#[derive(Debug, Default)]
struct Host {
    /// When each is due, and its name.
    waiting: BTreeSet<(i64, String)>,
    under_way: usize,
    standing: Standing,
}

/// What is known of a host, for as long as there is something to be done with it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    #[default]
    New,
    /// The last try ended soon.
    Quick,
    /// It did not.
    Slow,
}

impl Turns {
    /// Notes one that waits.
    pub fn wait(&mut self, line: &Line, due_ms: i64, name: &str) {
        self.change(line, |host| host.waiting.insert((due_ms, name.to_owned())));
    }

    /// Notes that one waits no more.
    pub fn leave(&mut self, line: &Line, due_ms: i64, name: &str) {
        self.change(line, |host| host.waiting.remove(&(due_ms, name.to_owned())));
    }

    /// The name of the one whose turn it is, which is under way from now on until [`Turns::end`].
    pub fn begin(&mut self, now_ms: i64) -> Option<String> {
        let firsts = self.with_room().filter_map(|(asker, share)| {
            let head = share.heads().find(|head| head.due_ms <= now_ms)?;
            Some((share.under_way, asker, head))
        });
        let (_, asker, head) = firsts.min_by_key(|(under_way, ..)| *under_way)?;
        let line = Line { asker: asker.clone(), host: head.host.clone() };
        self.change(&line, |host| {
            host.under_way += 1;
            host.waiting.pop_first().map(|(_, name)| name)
        })
    }

    /// Notes that one is over that was under way.
    pub fn end(&mut self, line: &Line, took: Duration) {
        self.change(line, |host| {
            host.under_way -= 1;
            host.standing = if took > SLOW { Standing::Slow } else { Standing::Quick };
        });
    }

    /// When the next is due that may begin, in milliseconds since the epoch.
    pub fn next_ms(&self) -> Option<i64> {
        let heads = self.with_room().flat_map(|(_, share)| share.heads());
        heads.map(|head| head.due_ms).min()
    }

    /// How many there are of one asker.
    pub fn of(&self, asker: &Asker) -> usize {
        self.0.get(asker).map_or(0, |share| share.waiting + share.under_way)
    }

    /// The askers that may have one more under way.
    fn with_room(&self) -> impl Iterator<Item = (&Asker, &Share)> {
        let calls = |asker: &Asker| *asker != Asker::Ourselves;
        let calling: usize =
            self.0.iter().filter(|(asker, _)| calls(asker)).map(|(_, share)| share.under_way).sum();
        self.0.iter().filter(move |(asker, share)| {
            share.under_way < OF_ASKER_MAX && (calling < AT_ONCE || !calls(asker))
        })
    }

    fn change<T>(&mut self, line: &Line, change: impl FnOnce(&mut Host) -> T) -> T {
        let share = self.0.entry(line.asker.clone()).or_default();
        let changed = share.change(&line.host, change);
        if share.hosts.is_empty() {
            self.0.remove(&line.asker);
        }
        changed
    }
}

impl Share {
    /// The first of each kind and number under way, in the order of turns.
    fn heads(&self) -> impl Iterator<Item = &Head> {
        let slow = (self.slow < SLOW_MAX).then_some(true);
        [false].into_iter().chain(slow).flat_map(move |slow| {
            (0..OF_HOST_MAX).filter_map(move |under_way| {
                let least = Head { slow, under_way, due_ms: i64::MIN, host: String::new() };
                let first = self.heads.range(least..).next();
                first.filter(|head| (head.slow, head.under_way) == (slow, under_way))
            })
        })
    }

    /// Changes a host, and what is counted and sorted by it.
    fn change<T>(&mut self, name: &str, change: impl FnOnce(&mut Host) -> T) -> T {
        let host = self.hosts.entry(name.to_owned()).or_default();
        if let Some(head) = host.head(name) {
            self.heads.remove(&head);
        }
        self.waiting -= host.waiting.len();
        self.under_way -= host.under_way;
        self.slow -= host.slow_under_way();
        let changed = change(host);
        self.heads.extend(host.head(name));
        self.waiting += host.waiting.len();
        self.under_way += host.under_way;
        self.slow += host.slow_under_way();
        if host.waiting.is_empty() && host.under_way == 0 {
            self.hosts.remove(name);
        }
        changed
    }
}

impl Host {
    fn head(&self, name: &str) -> Option<Head> {
        let room = match self.standing {
            Standing::New | Standing::Slow => 1,
            Standing::Quick => OF_HOST_MAX,
        };
        let (due_ms, _) = self.waiting.first().filter(|_| self.under_way < room)?;
        Some(Head {
            slow: self.standing == Standing::Slow,
            under_way: self.under_way,
            due_ms: *due_ms,
            host: name.to_owned(),
        })
    }

    fn slow_under_way(&self) -> usize {
        match self.standing {
            Standing::New | Standing::Quick => 0,
            Standing::Slow => self.under_way,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUNG: Duration = Duration::from_secs(15);
    const SOON: Duration = Duration::from_millis(100);

    fn line(asker: Asker, host: &str) -> Line {
        Line { asker, host: host.to_owned() }
    }

    fn stranger(host: &str) -> Line {
        line(Asker::Strangers, host)
    }

    fn user(name: &str, host: &str) -> Line {
        line(Asker::User(name.to_owned()), host)
    }

    fn all(turns: &mut Turns) -> Vec<String> {
        std::iter::from_fn(|| turns.begin(0)).collect()
    }

    #[test]
    fn a_host_is_called_once_at_a_time_until_it_answers_soon_and_again_when_it_does_not() {
        let mut turns = Turns::default();
        let host = stranger("h");
        for number in 10..40 {
            turns.wait(&host, 0, &number.to_string());
        }
        assert_eq!(all(&mut turns), ["10"]);
        assert_eq!(turns.next_ms(), None, "nothing to wake up for");
        turns.end(&host, SOON);
        assert_eq!(all(&mut turns).len(), OF_HOST_MAX);
        turns.end(&host, HUNG);
        assert_eq!(turns.begin(0), None, "seven are under way still");
        for _ in 0..7 {
            turns.end(&host, HUNG);
        }
        assert_eq!(all(&mut turns).len(), 1);
    }

    #[test]
    fn each_asker_has_a_share_and_what_is_ours_waits_for_nobody() {
        let mut turns = Turns::default();
        for number in 0..100 {
            turns.wait(&stranger(&format!("a{number}")), 0, "a");
        }
        assert_eq!(all(&mut turns).len(), OF_ASKER_MAX);
        assert_eq!((turns.of(&Asker::Strangers), turns.of(&Asker::Ourselves)), (100, 0));
        for (name, number) in (0..300).map(|number| (number % 3, number)) {
            turns.wait(&user(&name.to_string(), &format!("b{number}")), 0, "b");
        }
        assert_eq!(all(&mut turns).len(), AT_ONCE - OF_ASKER_MAX);
        turns.wait(&line(Asker::Ourselves, "r"), 0, "r");
        assert_eq!(all(&mut turns), ["r"]);
        // The next place is for who has the fewest.
        turns.wait(&user("new", "c"), 0, "c");
        turns.end(&stranger("a0"), SOON);
        assert_eq!(all(&mut turns), ["c"]);
    }

    #[test]
    fn slow_hosts_have_a_part_of_a_share_and_go_last() {
        let mut turns = Turns::default();
        let hosts: Vec<Line> = (0..OF_ASKER_MAX).map(|number| stranger(&format!("s{number}"))).collect();
        for host in &hosts {
            turns.wait(host, 0, "first");
            turns.wait(host, 1, "second");
        }
        assert_eq!(all(&mut turns).len(), OF_ASKER_MAX);
        for host in &hosts {
            turns.end(host, HUNG);
        }
        turns.wait(&stranger("new"), 1, "new");
        assert_eq!(turns.begin(1).as_deref(), Some("new"), "before those that are due for longer");
        let second: Vec<_> = std::iter::from_fn(|| turns.begin(1)).collect();
        assert_eq!(second.len(), SLOW_MAX);
        assert_eq!(turns.next_ms(), None);
        // There is room for whoever comes meanwhile.
        for number in 0..OF_ASKER_MAX - SLOW_MAX - 1 {
            turns.wait(&stranger(&format!("n{number}")), 1, "n");
            assert_eq!(turns.begin(1).as_deref(), Some("n"));
        }
    }

    #[test]
    fn the_host_that_is_called_by_fewest_has_its_turn_and_of_one_host_the_one_due_first() {
        let mut turns = Turns::default();
        let (one, other) = (stranger("one"), stranger("other"));
        for number in 10..15 {
            turns.wait(&one, 0, &format!("one{number}"));
            turns.wait(&other, 5, &format!("other{number}"));
        }
        assert_eq!(turns.begin(9).as_deref(), Some("one10"));
        turns.end(&one, SOON);
        let names: Vec<_> = (0..3).filter_map(|_| turns.begin(9)).collect();
        assert_eq!(names, ["one11", "other10", "one12"]);
        // What is not due is not begun, whoever is called by fewest.
        turns.wait(&stranger("later"), 100, "later");
        assert_eq!(turns.begin(9).as_deref(), Some("one13"));
        assert_eq!(turns.next_ms(), Some(0));
    }

    #[test]
    fn nothing_is_kept_of_a_host_with_which_there_is_nothing_to_do() {
        let mut turns = Turns::default();
        let host = stranger("h");
        turns.wait(&host, 3, "a");
        turns.leave(&host, 3, "a");
        assert!(turns.0.is_empty() && turns.next_ms().is_none());
        turns.wait(&host, 0, "a");
        all(&mut turns);
        turns.end(&host, HUNG);
        assert!(turns.0.is_empty());
    }
}
