//! Which keys and changes a block may hold: a Bloom filter of twelve bits for each key and each change id.
//!
//! About one block in 300 is read in vain. A search for one key over 15 million rows looks at some 50 MB of filters,
//! which takes tens of milliseconds; two trees of random hashes would answer in microseconds, and cost several times
//! what everything else about a row costs, for every row, whether or not anybody ever asks.

use warren_engine::change::ChangeId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const BITS_EACH: usize = 12;
const PROBES: u32 = 7;

/// What stands for a key.
pub(crate) fn of_key(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// What stands for a change.
pub(crate) fn of_change(change: ChangeId) -> u64 {
    xxh3_64_with_seed(&change.0.to_le_bytes(), 1)
}

/// The filter of some hashes.
pub(crate) fn filter(hashes: &[u64]) -> Vec<u8> {
    let mut filter = vec![0; (hashes.len() * BITS_EACH).div_ceil(8).max(8)];
    let bits = filter.len() as u64 * 8;
    for hash in hashes {
        for bit in probes(*hash, bits) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Whether the hash may be among those the filter was made of; false is certain. A filter of no size holds anything.
pub(crate) fn may_hold(filter: &[u8], hash: u64) -> bool {
    let bits = filter.len() as u64 * 8;
    filter.is_empty() || probes(hash, bits).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

fn probes(hash: u64, bits: u64) -> impl Iterator<Item = usize> {
    let (first, step) = (hash as u32, (hash >> 32) as u32 | 1);
    (0..PROBES).map(move |turn| {
        let place = first.wrapping_add(step.wrapping_mul(turn));
        ((u64::from(place) * bits) >> 32) as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_strangers_pass() {
        let hashes: Vec<u64> = (0..1000).map(|key: u32| of_key(&key.to_string())).collect();
        let filter = filter(&hashes);
        assert!(hashes.iter().all(|hash| may_hold(&filter, *hash)));
        let passed = (1000..101_000).filter(|key: &u32| may_hold(&filter, of_key(&key.to_string()))).count();
        assert!(passed < 1000, "{passed} of 100,000 strangers passed");
    }
}
