//! Which messages travel in one request: at most ten, and no more bytes together than the queue takes of one.

/// The most entries of a request.
pub(super) const ENTRIES_MAX: usize = 10;

/// Messages that travel together, as ranges over their sizes in order.
pub(super) fn pack(sizes: &[u64], bytes_max: u64) -> Vec<std::ops::Range<usize>> {
    let mut packs = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, size) in sizes.iter().enumerate() {
        if at > start && (at - start == ENTRIES_MAX || bytes + size > bytes_max) {
            packs.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < sizes.len() {
        packs.push(start..sizes.len());
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_count_and_by_bytes() {
        assert_eq!(pack(&[], 100), Vec::<std::ops::Range<usize>>::new());
        assert_eq!(pack(&[1; 25], 100), [0..10, 10..20, 20..25]);
        assert_eq!(pack(&[150_000; 10], 1 << 20), [0..6, 6..10]);
        assert_eq!(pack(&[100, 100, 1], 100), [0..1, 1..2, 2..3]);
        assert_eq!(pack(&[50, 50, 1], 100), [0..2, 2..3]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_bound_is_passed(sizes in prop::collection::vec(0u64..200, 0..60)) {
            let packs = pack(&sizes, 200);
            let mut next = 0;
            for pack in packs {
                prop_assert_eq!(pack.start, next);
                prop_assert!(!pack.is_empty() && pack.len() <= ENTRIES_MAX);
                prop_assert!(sizes[pack.clone()].iter().sum::<u64>() <= 200);
                next = pack.end;
            }
            prop_assert_eq!(next, sizes.len());
        }
    }
}
