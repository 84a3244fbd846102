//! Finding what became of rows.

use warren_engine::codes;
use warren_engine::message::Route;
use warren_engine::ports::Records;
use warren_engine::run::{RowStatus, RunKind};
use warren_store::state::{Order, OutcomeFilter, Recorded, State};

use super::{NOW, World, many, rejected, sent};

fn filter() -> OutcomeFilter {
    OutcomeFilter::default()
}

#[tokio::test]
async fn a_row_comes_back_whole() {
    let world = World::new();
    let mut outcome = sent("1", NOW + 7);
    outcome.attempts.insert(0, warren_engine::run::Attempt { at: NOW, answer: "nack".into() });
    let run = world.run_of("customers", vec![outcome.clone()]).await;
    let expected = Recorded { run, sync: "customers".into(), at: NOW + 7, outcome };
    assert_eq!(world.all(OutcomeFilter { key: Some("1".into()), ..filter() }).await, [expected]);
}

#[tokio::test]
async fn rows_are_found_by_key_and_change_among_many() {
    let world = World::new();
    for day in 0..3 {
        world.run_of("customers", many(0, 2500, NOW + day)).await;
    }
    let by_key = world.all(OutcomeFilter { key: Some("1234".into()), ..filter() }).await;
    let times: Vec<i64> = by_key.iter().map(|recorded| recorded.at - NOW).collect();
    assert_eq!(times, [2, 1, 0]);
    let change = by_key[1].outcome.change;
    assert_eq!(world.all(OutcomeFilter { change, ..filter() }).await, by_key[1..2]);
    assert_eq!(
        world.keys(OutcomeFilter { key: Some("123".into()), limit: Some(2), ..filter() }).await.len(),
        2
    );
    assert!(world.keys(OutcomeFilter { key: Some("2500".into()), ..filter() }).await.is_empty());
}

#[tokio::test]
async fn each_filter_narrows() {
    let world = World::new();
    let first =
        world.run_of("customers", vec![sent("a", NOW), rejected("b", NOW + 1), sent("c", NOW + 2)]).await;
    let mut to_exchange = sent("d", NOW + 3);
    to_exchange.outbound.as_mut().unwrap().route =
        Route::Exchange { exchange: "crm".into(), routing_key: "north".into() };
    let second = world.run_of("orders", vec![to_exchange]).await;
    assert_eq!(world.keys(filter()).await, ["d", "c", "b", "a"]);
    assert_eq!(
        world.keys(OutcomeFilter { order: Order::OldestFirst, ..filter() }).await,
        ["a", "b", "c", "d"]
    );
    assert_eq!(world.keys(OutcomeFilter { run: Some(first), ..filter() }).await, ["c", "b", "a"]);
    assert_eq!(world.keys(OutcomeFilter { run: Some(second), ..filter() }).await, ["d"]);
    assert_eq!(world.keys(OutcomeFilter { sync: Some("orders".into()), ..filter() }).await, ["d"]);
    assert_eq!(world.keys(OutcomeFilter { status: Some(RowStatus::Rejected), ..filter() }).await, ["b"]);
    assert_eq!(world.keys(OutcomeFilter { code: Some(codes::NO_SUCH_QUEUE), ..filter() }).await, ["b"]);
    assert_eq!(
        world.keys(OutcomeFilter { destination: Some("crm.customers".into()), ..filter() }).await,
        ["c", "a"]
    );
    assert_eq!(world.keys(OutcomeFilter { destination: Some("crm".into()), ..filter() }).await, ["d"]);
    let between = OutcomeFilter { since: Some(NOW + 1), until: Some(NOW + 3), ..filter() };
    assert_eq!(world.keys(between).await, ["c", "b"]);
    assert_eq!(world.keys(OutcomeFilter { limit: Some(3), ..filter() }).await, ["d", "c", "b"]);
    assert!(world.keys(OutcomeFilter { status: Some(RowStatus::Held), ..filter() }).await.is_empty());
}

#[tokio::test]
async fn a_replay_gets_every_rejected_row_of_a_run_in_order() {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let noise = world.state.begin("orders", RunKind::Changes).await.unwrap();
    let mut expected = Vec::new();
    for turn in 0..400u64 {
        let key = format!("r{turn}");
        let mut rows = many(turn * 100, 9, NOW);
        rows.push(rejected(&key, NOW));
        expected.push(key);
        world.state.append(run, rows).await.unwrap();
        world.state.append(noise, vec![rejected("other", NOW)]).await.unwrap();
    }
    let wanted = OutcomeFilter {
        run: Some(run),
        status: Some(RowStatus::Rejected),
        order: Order::OldestFirst,
        ..filter()
    };
    assert_eq!(world.keys(wanted).await, expected);
}

#[tokio::test]
async fn pieces_are_bounded_and_complete() {
    let world = World::new();
    world.run_of("customers", many(0, 10_000, NOW)).await;
    let mut outcomes = world.state.find(filter());
    let (mut pieces, mut rows) = (0, 0);
    loop {
        let found = outcomes.next().await.unwrap();
        if found.is_empty() {
            break;
        }
        assert!(found.len() <= 2048, "{} rows at once", found.len());
        pieces += 1;
        rows += found.len();
    }
    assert_eq!(rows, 10_000);
    assert!(pieces > 3);
    assert!(outcomes.next().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_large_body_comes_back() {
    let world = World::new();
    let mut outcome = rejected("1", NOW);
    let mut random = fastrand::Rng::with_seed(1);
    let body: Vec<u8> = (0..20 << 20).map(|_| random.u8(..)).collect();
    outcome.outbound.as_mut().unwrap().message.body = body.into();
    world.run_of("customers", vec![sent("0", NOW), outcome.clone(), sent("2", NOW)]).await;
    let found = world.all(OutcomeFilter { key: Some("1".into()), ..filter() }).await;
    assert!(found[0].outcome == outcome);
}

#[tokio::test]
async fn a_run_is_read_while_it_is_written() {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let state = world.state.clone();
    let mut writing = tokio::task::JoinSet::new();
    writing.spawn(async move {
        for turn in 0..200 {
            state.append(run, many(turn * 50, 50, NOW)).await.unwrap();
        }
    });
    let mut seen = 0;
    while writing.try_join_next().transpose().unwrap().is_none() {
        let rows = world.keys(OutcomeFilter { order: Order::OldestFirst, ..filter() }).await;
        assert!(rows.len() >= seen, "{} after {seen}", rows.len());
        assert!(rows.iter().enumerate().all(|(at, key)| *key == at.to_string()));
        seen = rows.len();
    }
    assert_eq!(world.keys(filter()).await.len(), 10_000);
}
