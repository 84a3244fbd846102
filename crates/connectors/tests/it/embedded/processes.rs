//! Several processes at one file, and their deaths. The children are this test program again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tokio::task::JoinSet;
use warren_connectors::embedded::Embedded;
use warren_engine::message::{Outbound, Receipt};
use warren_engine::ports::Broker;

use super::{World, message, next, queue, receive, text};

const FOLDER: &str = "WARREN_TEST_BROKER_FOLDER";
const CONFIG: &str = r#"{"queues": {"q": {}, "other": {}}}"#;

fn child(test: &str, folder: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("embedded::processes::{test}"), "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn in_child() -> Embedded {
    let folder = std::env::var(FOLDER).expect("set by the parent");
    Embedded::open("test", &serde_json::from_str(CONFIG).unwrap(), Path::new(&folder)).unwrap()
}

/// A line in one write, so that a kill cannot tear it.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run as a child process by a_killed_publisher_loses_nothing_it_was_told"]
async fn child_publishes_for_ever() {
    let broker = in_child();
    let mut publishers = JoinSet::new();
    for publisher in 0..4 {
        let broker = broker.clone();
        publishers.spawn(async move {
            for round in 0_u64.. {
                let batch: Vec<Outbound> = (0..8)
                    .map(|part| Outbound {
                        route: queue("q"),
                        message: message(&format!("{publisher}/{round}/{part}")),
                    })
                    .collect();
                for (outbound, receipt) in batch.iter().zip(broker.publish(&batch).await) {
                    assert!(matches!(receipt, Receipt::Accepted(_)), "{receipt:?}");
                    say(&format!("accepted {}", text(&outbound.message.body)));
                }
            }
        });
    }
    publishers.join_all().await;
}

#[tokio::test]
async fn a_killed_publisher_loses_nothing_it_was_told() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(CONFIG);
    for round in 0..8 {
        // 1. A child publishes and says what was accepted. 2. It is killed at a random moment. 3. All that is there.
        let (mut child, mut lines) = child("child_publishes_for_ever", world.folder.path());
        let after = random.usize(1..1500);
        let mut accepted = Vec::new();
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 {
            if let Some(body) = line.trim_end().strip_prefix("accepted ") {
                accepted.push(body.to_owned());
            }
            line.clear();
            if accepted.len() == after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(accepted.len() >= after, "1: round {round}: {} of {after}", accepted.len());
        let there: std::collections::HashSet<String> = world.bodies("q").await.into_iter().collect();
        let lost: Vec<_> = accepted.iter().filter(|body| !there.contains(*body)).collect();
        assert!(lost.is_empty(), "3: round {round}: lost {lost:?}");
        let state = world.broker.queue_state("q").await.unwrap();
        assert_eq!(state.ready, there.len() as u64, "3: the count is true");
        world.broker.purge("q").await.unwrap();
    }
}

#[tokio::test]
#[ignore = "run as a child process by what_a_killed_consumer_held_comes_back"]
async fn child_holds_messages() {
    let broker = in_child();
    let mut consumer = broker.consume("q", 5).await.unwrap();
    let mut held = Vec::new();
    loop {
        let (job, unsettled) = consumer.next().await.unwrap().unwrap().split();
        say(&format!("holding {}", text(&job.message.body)));
        held.push(unsettled);
    }
}

#[tokio::test]
async fn what_a_killed_consumer_held_comes_back() {
    let world = World::new(CONFIG);
    for number in 1..=7 {
        world.send(queue("q"), &number.to_string()).await;
    }
    let (mut child, lines) = child("child_holds_messages", world.folder.path());
    let holding =
        lines.lines().map(Result::unwrap).filter(|line| line.starts_with("holding ")).take(5).count();
    assert_eq!(holding, 5);
    let state = world.broker.queue_state("q").await.unwrap();
    assert_eq!((state.ready, state.unsettled, state.consumers), (2, 5, 1));
    // 1. While the child lives we get what it does not hold. 2. Killed, the rest comes, in order, marked.
    let mut consumer = world.broker.consume("q", 10).await.unwrap();
    for body in ["6", "7"] {
        assert_eq!(text(&receive(&mut consumer).await.message.body), body, "1");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for number in 1..=5 {
        let job = receive(&mut consumer).await;
        assert_eq!(text(&job.message.body), number.to_string(), "2");
        assert_eq!((job.envelope.redelivered, job.envelope.delivery_count), (true, Some(1)), "2");
    }
    let state = world.broker.queue_state("q").await.unwrap();
    assert_eq!((state.ready, state.unsettled, state.consumers), (0, 0, 1));
    let folder = world.folder.path().join("test.broker.holders");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "the dead process's lock file is removed");
}

#[tokio::test]
async fn a_consumer_hears_of_what_another_opening_publishes() {
    let world = World::new(CONFIG);
    let other = world.another();
    let mut consumer = other.consume("q", 1).await.unwrap();
    for round in 0..20 {
        let body = round.to_string();
        let (job, ()) = tokio::join!(receive(&mut consumer), world.send(queue("q"), &body));
        assert_eq!(text(&job.message.body), body);
    }
}

#[tokio::test]
async fn openings_see_each_others_declarations() {
    let world = World::new(CONFIG);
    let other = world.another();
    let mut consumer = other.consume("q", 1).await.unwrap();
    world.broker.declare_queue("new", &warren_connectors::embedded::QueueSettings::default()).await.unwrap();
    let outbound = Outbound { route: queue("new"), message: message("m") };
    assert!(matches!(other.publish(&[outbound]).await[..], [Receipt::Accepted(_)]));
    world.broker.delete_queue("q").await.unwrap();
    let ended = tokio::time::timeout(super::PATIENCE, consumer.next()).await.unwrap();
    assert_eq!(ended.unwrap_err().code, warren_engine::codes::NO_SUCH_QUEUE);
}

#[tokio::test]
async fn an_opening_that_closes_hands_back() {
    let world = World::new(CONFIG);
    world.send(queue("q"), "m").await;
    let other = world.another();
    let mut theirs = other.consume("q", 1).await.unwrap();
    let _held = next(&mut theirs).await;
    let mut ours = world.broker.consume("q", 1).await.unwrap();
    other.close().await;
    assert!(next(&mut ours).await.0.envelope.redelivered);
}
