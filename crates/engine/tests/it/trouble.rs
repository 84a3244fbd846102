//! The state that cannot be written: the run fails, what was accepted counts, and nothing is lost.

use warren_engine::run::RunState;

use crate::world::{World, per_op};

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_written_ends_the_run_and_loses_nothing() {
    for appends in 0..4 {
        let world = World::new();
        world.many(12);
        world.records.fail_after(Some(appends));
        let failed = world.run().await;
        assert_eq!(
            (failed.state, failed.error.unwrap().code.as_str()),
            (RunState::Failed, "state-unwritable")
        );
        // Two batches were under way when the first failed; both were accepted, so both count.
        let sent = world.said().len();
        assert_eq!(sent, ((appends + 2) * 3).min(12));
        assert_eq!((failed.counts.sent.added, world.baseline.rows()), (sent as u64, sent));
        world.records.fail_after(None);
        assert_eq!(world.run().await.counts.sent.added, 12 - sent as u64);
        assert_eq!(world.said().len(), 12);
    }
}

#[tokio::test(start_paused = true)]
async fn a_baseline_that_cannot_be_written_ends_the_run_and_loses_nothing() {
    for advances in 0..4 {
        let world = World::new();
        world.many(12);
        world.baseline.fail_after(Some(advances));
        let failed = world.run().await;
        assert_eq!(
            (failed.state, failed.error.unwrap().code.as_str()),
            (RunState::Failed, "state-unwritable")
        );
        let sent = world.said().len();
        assert_eq!(failed.counts.sent.added, sent as u64);
        assert_eq!(world.baseline.rows(), advances * 3);
        // What was accepted and is not in the baseline goes again, under its old id.
        world.baseline.fail_after(None);
        assert_eq!(world.run().await.counts.sent.added as usize, 12 - advances * 3);
        let ids = world.ids();
        assert_eq!(ids.len(), 12);
        assert!(ids.values().all(|ids| ids.iter().all(|id| *id == ids[0])), "{ids:?}");
        // Two batches in flight, and two that stood ready.
        assert!(ids.values().map(|ids| ids.len() - 1).sum::<usize>() <= 12);
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_that_cannot_be_recorded_end_the_run_before_it_goes_on() {
    let mut world = World::new();
    world.on_all(crate::world::says_json("{{ row.size }}"));
    let mut rows = [1, 2, 3, 4].map(|id| crate::world::row(id, "a"));
    rows[0][3] = warren_engine::row::Value::Float(f64::NAN);
    world.source.set(rows);
    world.records.fail_after(Some(0));
    let failed = world.run().await;
    assert_eq!((failed.state, failed.error.unwrap().code.as_str()), (RunState::Failed, "state-unwritable"));
    assert_eq!((world.said().len(), world.baseline.rows()), (0, 0));
    world.records.fail_after(None);
    let next = world.run().await;
    assert_eq!((next.counts.sent, next.counts.rejected), (per_op(3, 0, 0), per_op(1, 0, 0)));
}
