//! What may be started beside what: one after another within a lane, lanes beside each other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The name of a lane; `None` for what may run beside anything.
pub type Lane = Option<Arc<str>>;

/// What waits to be started, in order.
#[derive(Debug)]
pub struct Lanes<T> {
    /// What may start now. At most one of each lane, which is then busy.
    ready: VecDeque<(Lane, T)>,
    /// Lanes that are busy, with what waits behind.
    busy: HashMap<Arc<str>, VecDeque<T>>,
    /// How many wait behind busy ones.
    behind: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Lanes { ready: VecDeque::new(), busy: HashMap::new(), behind: 0 }
    }
}

impl<T> Lanes<T> {
    /// Adds what came last.
    pub fn push(&mut self, lane: Lane, item: T) {
        if let Some(name) = &lane {
            if let Some(behind) = self.busy.get_mut(name) {
                behind.push_back(item);
                self.behind += 1;
                return;
            }
            self.busy.insert(name.clone(), VecDeque::new());
        }
        self.ready.push_back((lane, item));
    }

    /// Adds what has its lane already and comes before all else: it was started before, or its lane was kept for it.
    pub fn push_first(&mut self, lane: Lane, item: T) {
        if let Some(name) = &lane {
            self.busy.entry(name.clone()).or_default();
        }
        self.ready.push_front((lane, item));
    }

    /// The next that may start. Its lane is busy until [`Lanes::done`].
    pub fn take(&mut self) -> Option<(Lane, T)> {
        self.ready.pop_front()
    }

    /// The first of those that may start which is such. Its lane is busy until [`Lanes::done`].
    pub fn take_first(&mut self, is: impl Fn(&T) -> bool) -> Option<(Lane, T)> {
        let at = self.ready.iter().position(|(_, item)| is(item))?;
        self.ready.remove(at)
    }

    /// Makes a lane busy without anything running in it.
    pub fn keep(&mut self, lane: &Arc<str>) {
        self.busy.entry(lane.clone()).or_default();
    }

    /// A lane is free: what waits in it may start.
    pub fn done(&mut self, lane: &Lane) {
        let Some(name) = lane else { return };
        let Some(behind) = self.busy.get_mut(name) else { return };
        match behind.pop_front() {
            Some(item) => {
                self.behind -= 1;
                self.ready.push_back((lane.clone(), item));
            }
            None => drop(self.busy.remove(name)),
        }
    }

    /// Takes out what waits behind the busy one of a lane, in order.
    pub fn take_behind(&mut self, lane: &Arc<str>) -> VecDeque<T> {
        let behind = self.busy.get_mut(lane).map(std::mem::take).unwrap_or_default();
        self.behind -= behind.len();
        behind
    }

    /// Takes out all that waits. Busy lanes stay busy until they are done.
    pub fn take_all(&mut self) -> Vec<T> {
        let mut all = Vec::new();
        for (lane, item) in std::mem::take(&mut self.ready) {
            all.push(item);
            if let Some(name) = lane
                && let Some(behind) = self.busy.remove(&name)
            {
                all.extend(behind);
            }
        }
        for behind in self.busy.values_mut() {
            all.extend(std::mem::take(behind));
        }
        self.behind = 0;
        all
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.ready.len() + self.behind
    }

    /// How many may start now.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever ends when: within a lane nothing overtakes and nothing runs twice at once, nothing is forgotten, and
        /// nothing waits for another lane.
        #[test]
        fn lanes_keep_their_order_and_wait_for_nobody_else(
            keys in proptest::collection::vec(proptest::option::of(0u8..4), 1..60),
            ends in proptest::collection::vec(any::<proptest::sample::Index>(), 200),
        ) {
            let lane = |key: u8| -> Arc<str> { key.to_string().into() };
            let mut lanes = Lanes::default();
            for (at, key) in keys.iter().enumerate() {
                lanes.push(key.map(lane), (at, *key));
            }
            let mut running: Vec<(usize, Option<u8>)> = Vec::new();
            let mut started: BTreeMap<u8, usize> = BTreeMap::new();
            let mut count = 0;
            let mut ends = ends.into_iter();
            loop {
                while let Some((name, (at, key))) = lanes.take() {
                    prop_assert_eq!(name, key.map(lane));
                    if let Some(key) = key {
                        prop_assert!(running.iter().all(|(_, other)| *other != Some(key)));
                        prop_assert!(started.insert(key, at).is_none_or(|before| before < at));
                    }
                    running.push((at, key));
                    count += 1;
                }
                // All that waits does so behind one that runs.
                prop_assert!(lanes.waiting() == 0 || !running.is_empty());
                prop_assert_eq!(lanes.waiting(), lanes.busy.values().map(VecDeque::len).sum::<usize>());
                let Some(index) = ends.next() else { break };
                if running.is_empty() { break }
                let (_, key) = running.swap_remove(index.index(running.len()));
                lanes.done(&key.map(lane));
            }
            prop_assert_eq!(count, keys.len());
        }
    }

    #[test]
    fn a_lane_that_is_kept_holds_back_what_comes() {
        let mut lanes = Lanes::default();
        let lane: Arc<str> = "a".into();
        lanes.keep(&lane);
        lanes.push(Some(lane.clone()), 1);
        lanes.push(Some("b".into()), 2);
        assert_eq!(lanes.take().map(|(_, item)| item), Some(2));
        assert_eq!(lanes.take(), None);
        lanes.done(&Some(lane));
        assert_eq!(lanes.take().map(|(_, item)| item), Some(1));
    }

    #[test]
    fn all_that_waits_can_be_taken_out() {
        let mut lanes = Lanes::default();
        for (key, item) in [("a", 1), ("a", 2), ("b", 3)] {
            lanes.push(Some(key.into()), item);
        }
        assert_eq!(lanes.take().map(|(_, item)| item), Some(1));
        let mut all = lanes.take_all();
        all.sort_unstable();
        assert_eq!((all, lanes.waiting()), (vec![2, 3], 0));
        lanes.done(&Some("a".into()));
        lanes.push(Some("a".into()), 4);
        assert_eq!(lanes.take().map(|(_, item)| item), Some(4));
    }
}
