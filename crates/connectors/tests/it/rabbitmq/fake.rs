//! Brokers that are none: garbage, half frames, wrong ends, silence, hang-ups. Nothing panics, nothing hangs, each is told.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warren_connectors::rabbitmq::{Config, Rabbit};
use warren_engine::codes;
use warren_engine::failure::FailureKind;
use warren_engine::message::Receipt;
use warren_engine::ports::Broker;

use super::{SOON, config, named, queue, span};

/// Frames a method on a channel.
fn method(channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![1];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xCE);
    frame
}

/// connection.start with no properties, offering PLAIN.
fn start() -> Vec<u8> {
    let mut payload = vec![0, 10, 0, 10, 0, 9, 0, 0, 0, 0];
    payload.extend_from_slice(&[0, 0, 0, 5]);
    payload.extend_from_slice(b"PLAIN");
    payload.extend_from_slice(&[0, 0, 0, 5]);
    payload.extend_from_slice(b"en_US");
    method(0, &payload)
}

/// connection.tune: 10 channels, frames of 8 KiB, a heartbeat each second.
fn tune() -> Vec<u8> {
    method(0, &[0, 10, 0, 30, 0, 10, 0, 0, 0x20, 0, 0, 1])
}

fn open_ok() -> Vec<u8> {
    method(0, &[0, 10, 0, 41, 0])
}

/// Serves every connection with a script, and tells where.
async fn serve(script: impl AsyncFn(TcpStream) + 'static) -> (u16, tokio::task::LocalSet) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let set = tokio::task::LocalSet::new();
    let script = Rc::new(script);
    set.spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::task::spawn_local(async move { script(stream).await });
        }
    });
    (port, set)
}

fn target(port: u16) -> Config {
    Config {
        channels: Some(1), // the scripts answer on channel 1 only
        connect_timeout: Some(span(2)),
        publish_timeout: Some(span(5)),
        heartbeat: Some(span(1)),
        ..config(&format!("amqp://guest:guest@127.0.0.1:{port}"))
    }
}

/// One publish against a script; the receipt comes in time whatever the script does.
async fn publish(script: impl AsyncFn(TcpStream) + 'static) -> Receipt {
    let (port, set) = serve(script).await;
    set.run_until(async move {
        let rabbit = Rabbit::new("rabbit", &target(port)).unwrap();
        let receipts =
            tokio::time::timeout(Duration::from_secs(20), rabbit.publish(&[named(queue("q"), "1")]))
                .await
                .expect("an answer comes in time");
        tokio::time::timeout(Duration::from_secs(20), rabbit.close()).await.expect("it closes in time");
        receipts.into_iter().next().unwrap()
    })
    .await
}

/// Reads and throws away until the other side hangs up.
async fn swallow(stream: &mut TcpStream) {
    let mut buffer = vec![0; 65_536];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

/// Waits until the client has said something, or is gone.
async fn hear(stream: &mut TcpStream, buffer: &mut [u8]) {
    assert!(stream.read(buffer).await.unwrap_or(0) <= buffer.len());
}

async fn say(stream: &mut TcpStream, parts: &[Vec<u8>]) {
    for part in parts {
        stream.write_all(part).await.ok(); // the client may be gone
    }
}

#[tokio::test]
async fn a_server_of_something_else_is_told() {
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"AMQP\x00\x01\x00\x00".to_vec(),
        b"-ERR unknown command\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
    ] {
        let receipt = publish(async move |mut stream| {
            say(&mut stream, std::slice::from_ref(&answer)).await;
            swallow(&mut stream).await;
        })
        .await;
        let Receipt::Refused(failure) = receipt else { panic!("{receipt:?}") };
        assert_eq!(
            (failure.kind, failure.code),
            (FailureKind::Disconnected, codes::PROTOCOL_ERROR),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn silence_at_each_step_of_the_greeting_ends_in_time() {
    let steps = [vec![], vec![start()], vec![start(), tune()], vec![start()[..10].to_vec()]];
    for step in steps {
        let receipt = publish(async move |mut stream| {
            say(&mut stream, &step).await;
            swallow(&mut stream).await;
        })
        .await;
        let Receipt::Refused(failure) = receipt else { panic!("{receipt:?}") };
        assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, codes::BROKER_UNREACHABLE));
    }
}

#[tokio::test]
async fn hanging_up_at_each_step_is_told() {
    for (steps, code) in [
        (vec![], codes::PROTOCOL_ERROR),
        (vec![start()], codes::BROKER_REFUSED_LOGIN), // what old brokers do with a wrong password
        (vec![start(), tune()], codes::PROTOCOL_ERROR),
    ] {
        let receipt = publish(async move |mut stream| {
            // Each answer after having heard something, so that the client has spoken when it is hung up on.
            let mut buffer = [0; 4096];
            hear(&mut stream, &mut buffer).await;
            for step in &steps {
                stream.write_all(step).await.ok();
                hear(&mut stream, &mut buffer).await;
            }
        })
        .await;
        let Receipt::Refused(failure) = receipt else { panic!("{receipt:?}") };
        assert_eq!((failure.kind, failure.code), (FailureKind::Disconnected, code), "{failure:?}");
    }
}

/// A greeting that ends well, then this.
async fn after_greeting(then: Vec<u8>) -> Receipt {
    publish(async move |mut stream| {
        say(&mut stream, &[start(), tune(), open_ok()]).await;
        let channel_open_ok = method(1, &[0, 20, 0, 11, 0, 0, 0, 0]);
        let select_ok = method(1, &[0, 85, 0, 11]);
        let asked: [(&[u8], &[u8]); 3] = [
            (&[1, 0, 1, 0, 0, 0, 5, 0, 20, 0, 10], &channel_open_ok),
            (&[1, 0, 1, 0, 0, 0, 5, 0, 85, 0, 10], &select_ok),
            (&[3, 0, 1, 0, 0, 0, 1, b'1', 0xCE], &[]), // the publish's body
        ];
        let mut heard = Vec::new();
        for (question, answer) in asked {
            let mut buffer = [0; 4096];
            while !heard.windows(question.len()).any(|window| window == question) {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => heard.extend_from_slice(&buffer[..count]),
                    _ => return,
                }
            }
            stream.write_all(answer).await.ok(); // the client may be gone
        }
        say(&mut stream, std::slice::from_ref(&then)).await;
        swallow(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_confirm_is_a_confirm() {
    let ack = method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert!(matches!(after_greeting(ack).await, Receipt::Accepted(_)));
    let all = method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(matches!(after_greeting(all).await, Receipt::Accepted(_)));
    let nack = method(1, &[0, 60, 0, 120, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert!(matches!(after_greeting(nack).await, Receipt::Refused(_)));
}

#[tokio::test]
async fn what_is_against_the_protocol_leaves_the_message_unknown() {
    let mut wrong_end = method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    *wrong_end.last_mut().unwrap() = 0;
    let mut returned = method(1, &[0, 60, 0, 50, 1, 56, 2, b'n', b'o', 0, 5, b'o', b't', b'h', b'e', b'r']);
    returned.extend([2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xCE]);
    let cases: Vec<Vec<u8>> = vec![
        wrong_end,
        returned,                                              // of a message that was not sent
        method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 2, 0]), // confirms what was not sent
        method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0]), // confirms nothing
        method(1, &[0, 60, 0, 80, 0, 0]),                      // cut short
        method(1, &[0, 99, 0, 99]),                            // no such method
        vec![3, 0, 1, 0, 0, 0, 1, b'x', 0xCE],                 // a body of nothing
        vec![2, 0, 1, 0, 0, 0, 1, b'x', 0xCE],                 // a header of nothing
        vec![1, 0, 1, 0xff, 0xff, 0xff, 0xff],                 // a frame of 4 GiB
        vec![9, 0, 1, 0, 0, 0, 0, 0xCE],                       // no kind of frame
        open_ok(),                                             // greets again
    ];
    for case in cases {
        let receipt = after_greeting(case.clone()).await;
        let Receipt::Unknown(failure) = &receipt else { panic!("{case:?}: {receipt:?}") };
        assert_eq!(
            (failure.kind, failure.code),
            (FailureKind::Disconnected, codes::CONNECTION_LOST),
            "{case:?}"
        );
        assert!(failure.detail.as_deref().unwrap().contains("protocol"), "{failure:?}");
    }
}

#[tokio::test]
async fn half_an_answer_and_silence_is_given_up_after_two_heartbeats() {
    let half = method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let started = std::time::Instant::now();
    let receipt = after_greeting(half[..7].to_vec()).await;
    let Receipt::Unknown(failure) = &receipt else { panic!("{receipt:?}") };
    assert!(failure.detail.as_deref().unwrap().contains("heartbeats"), "{failure:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// Bytes that begin as a broker's would and then are anything: no panic, and an answer in time.
#[tokio::test]
async fn random_bytes_are_survived() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..8) {
            let class = [10u16, 20, 40, 50, 60, 85][random.usize(..6)];
            let id = [10u16, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 61, 71, 72, 80, 90, 111, 120]
                [random.usize(..18)];
            let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
            payload.extend((0..random.usize(..40)).map(|_| if random.bool() { 0 } else { random.u8(..) }));
            let mut frame = method(random.u16(..3), &payload);
            if random.u8(..4) == 0 {
                frame[0] = random.u8(1..4);
            }
            if random.u8(..8) == 0 {
                let at = random.usize(..frame.len());
                frame[at] = random.u8(..);
            }
            bytes.extend(frame);
        }
        // Ends the connection, so that nobody waits for the timeout.
        bytes.extend([0; 8]);
        let receipt = after_greeting(bytes.clone()).await;
        assert!(
            !matches!(receipt, Receipt::Refused(failure) if failure.code == codes::INTERNAL),
            "{bytes:?}"
        );
    }
}

/// The question that a broker answers with 506 on all channels but the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Opening,
    Consuming,
}

/// A message on channel 1, to the consumer `c`.
fn delivery(tag: u8) -> Vec<u8> {
    let deliver = method(1, &[0, 60, 0, 60, 1, b'c', 0, 0, 0, 0, 0, 0, 0, tag, 0, 0, 1, b'q']);
    let header = [2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xCE];
    [&deliver[..], &header, &[3, 0, 1, 0, 0, 0, 1, b'x', 0xCE]].concat()
}

/// Serves the consumer on channel 1, which gets a message for each channel that was refused.
async fn serves_channel_1(mut stream: TcpStream, refused: Refused) {
    let tune = method(0, &[0, 10, 0, 30, 0, 10, 0, 0, 0x20, 0, 0, 60]);
    say(&mut stream, &[start(), tune, open_ok()]).await;
    let mut preamble = [0; 8];
    stream.read_exact(&mut preamble).await.unwrap();
    let mut delivered = 0;
    loop {
        let mut head = [0; 7];
        if stream.read_exact(&mut head).await.is_err() {
            return; // the client closed the connection
        }
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        stream.read_exact(&mut payload).await.unwrap();
        let close = || {
            let close = [0, 20, 0, 40, 0x01, 0xFA, 14];
            method(channel, &[&close[..], b"RESOURCE_ERROR", &[0; 4]].concat())
        };
        let answer = match (head[0], payload.get(..4)) {
            (1, Some([0, 20, 0, 10])) if channel > 1 && refused == Refused::Opening => close(),
            (1, Some([0, 20, 0, 10])) => method(channel, &[0, 20, 0, 11, 0, 0, 0, 0]),
            (1, Some([0, 60, 0, 10])) => method(channel, &[0, 60, 0, 11]),
            (1, Some([0, 60, 0, 20])) if channel > 1 && refused == Refused::Consuming => close(),
            (1, Some([0, 60, 0, 20])) => method(channel, &[0, 60, 0, 21, 1, b'c']),
            (1, Some([0, 20, 0, 41])) => {
                delivered += 1;
                delivery(delivered)
            }
            _ => continue,
        };
        say(&mut stream, &[answer]).await;
    }
}

#[tokio::test]
async fn a_throttled_consumer_opens_no_further_connection_and_its_neighbour_is_served() {
    for refused in [Refused::Opening, Refused::Consuming] {
        let connections = Rc::new(Cell::new(0));
        let counted = connections.clone();
        let (port, set) = serve(async move |stream| {
            counted.set(counted.get() + 1);
            serves_channel_1(stream, refused).await;
        })
        .await;
        set.run_until(async move {
            let rabbit = Rabbit::new("rabbit", &target(port)).unwrap();
            let mut neighbour = rabbit.consume("good", 10).await.unwrap();
            for round in 1..=3 {
                let failure = rabbit.consume("bad", 10).await.err().unwrap();
                assert_eq!(failure.kind, FailureKind::Throttled, "{refused:?}: {failure:?}");
                assert!(failure.to_string().contains("506 RESOURCE_ERROR"), "{failure:?}");
                let next = tokio::time::timeout(SOON, neighbour.next()).await.expect("a message comes");
                assert_eq!(next.unwrap().unwrap().job().envelope.delivery_tag, round);
                assert_eq!(connections.get(), 1, "{refused:?}");
            }
            drop(neighbour);
            rabbit.close().await;
        })
        .await;
    }
}
