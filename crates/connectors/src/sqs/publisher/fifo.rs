//! A FIFO queue's messages: group by group, each group in order, and no further than its first failure.

use std::collections::{HashMap, VecDeque};

use futures_util::stream::{FuturesUnordered, StreamExt};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::Receipt;

use super::entry::Entry;
use super::lanes::{Lane, Turn};
use super::pack::ENTRIES_MAX;
use super::{Answers, Publisher};
use crate::sqs::queues::Queue;

/// A group, and what of it is still to be sent.
struct Group<'b> {
    lane: Lane,
    left: VecDeque<Entry<'b>>,
}

impl Publisher {
    /// Sends the messages of a FIFO queue.
    pub(super) async fn in_order(&self, queue: &Queue, entries: Vec<Entry<'_>>, turn: &Turn<'_>) -> Answers {
        let count = entries.len();
        let mut groups = by_group(queue, entries);
        let mut answers = Vec::with_capacity(count);
        // Groups whose turn it is not yet; those that could go; and requests under way with the groups in them.
        let mut waiting: Vec<usize> = (0..groups.len()).collect();
        let mut ready: VecDeque<usize> = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let moved = turn.moved();
            tokio::pin!(moved);
            moved.as_mut().enable();
            waiting.retain(|group| {
                let now = turn.is_now(&groups[*group].lane);
                if now {
                    ready.push_back(*group);
                }
                !now
            });
            while !ready.is_empty() {
                let (members, taken) =
                    fill(&mut groups, &mut ready, queue.bytes_max(), self.link.target.group_batch);
                under_way.push(async move {
                    let (groups, entries): (Vec<usize>, Vec<Entry<'_>>) = taken.into_iter().unzip();
                    let answers = self.request(queue, &entries).await;
                    let answers = answers.into_iter().zip(groups);
                    let answers = answers.map(|((at, receipt), group)| (group, at, receipt));
                    (members, answers.collect::<Vec<_>>())
                });
            }
            if under_way.is_empty() && waiting.is_empty() {
                return answers;
            }
            // A request goes on when the other branch ends; who left a lane is looked at anew in the next round.
            tokio::select! {
                Some((members, some)) = under_way.next() => {
                    for group in members {
                        let held = go_on(queue, &mut groups[group], group, &some);
                        if groups[group].left.is_empty() {
                            turn.leave(&groups[group].lane);
                        } else {
                            ready.push_back(group);
                        }
                        answers.extend(held);
                    }
                    answers.extend(some.into_iter().map(|(_, at, receipt)| (at, receipt)));
                }
                () = &mut moved, if !waiting.is_empty() => {}
            }
        }
    }
}

/// The messages by group, the groups in the order of their first messages.
fn by_group<'b>(queue: &Queue, entries: Vec<Entry<'b>>) -> Vec<Group<'b>> {
    let mut groups: Vec<Group<'b>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for entry in entries {
        // The rules were checked: there is one.
        let name = entry.group().unwrap_or_default();
        let place = *places.entry(name).or_insert_with(|| {
            groups.push(Group { lane: (queue.name.clone(), name.to_owned()), left: VecDeque::new() });
            groups.len() - 1
        });
        groups[place].left.push_back(entry);
    }
    groups
}

/// Takes the next messages of as many ready groups as fit one request. The groups that were taken from are ready no more.
fn fill<'b>(
    groups: &mut [Group<'b>],
    ready: &mut VecDeque<usize>,
    bytes_max: u64,
    of_each: usize,
) -> (Vec<usize>, Vec<(usize, Entry<'b>)>) {
    let (mut members, mut taken, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(group) = ready.front().copied()
        && taken.len() < ENTRIES_MAX
    {
        let mut some = false;
        for _ in 0..of_each.min(ENTRIES_MAX - taken.len()) {
            let fits = |entry: &Entry<'_>| taken.is_empty() || bytes + entry.bytes <= bytes_max;
            let left = &mut groups[group].left;
            let Some(entry) = left.front().is_some_and(fits).then(|| left.pop_front()).flatten() else {
                break;
            };
            bytes += entry.bytes;
            taken.push((group, entry));
            some = true;
        }
        if !some {
            break; // it begins the next request
        }
        ready.pop_front();
        members.push(group);
    }
    (members, taken)
}

/// What is left of a group whose request was answered is held if a message of it failed.
fn go_on(
    queue: &Queue,
    group: &mut Group<'_>,
    number: usize,
    answered: &[(usize, usize, Receipt)],
) -> Answers {
    let failed =
        answered.iter().any(|(of, _, receipt)| *of == number && !matches!(receipt, Receipt::Accepted(_)));
    if !failed {
        return Vec::new();
    }
    let held =
        Failure::new(FailureKind::Throttled, codes::HELD, format!("publish to queue `{}`", queue.name))
            .detail(format!("an earlier message of group `{}` was not accepted", group.lane.1))
            .remedy("it goes once the earlier one went");
    group.left.drain(..).map(|entry| (entry.at, Receipt::Refused(held.clone()))).collect()
}
