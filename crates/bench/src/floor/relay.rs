//! A bare relay: takes deliveries, posts each over one of as many connections as there may be deliveries at once, and acknowledges what was
//! answered. Bytes on sockets; nothing is looked at, and nothing on record. It is what a machine has room for beside its broker and receiver.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::amqp::deliveries;
use super::post::ANSWER;
use crate::amqp::size;
use crate::sync::Fault;

/// Relays so many messages.
pub async fn relay(
    url: &str,
    queue: &str,
    to: SocketAddr,
    messages: u64,
    prefetch: u16,
) -> Result<(), Fault> {
    let stream = deliveries(url, queue, prefetch)?;
    stream.set_nonblocking(true)?;
    let (mut reading, mut writing) = TcpStream::from_std(stream)?.into_split();
    let (answered, mut answers) = mpsc::channel::<(usize, u64)>(usize::from(prefetch));
    let mut posters = JoinSet::new();
    let mut bodies = Vec::new();
    for poster in 0..usize::from(prefetch) {
        let (give, take) = mpsc::channel(1);
        bodies.push(give);
        posters.spawn(post(to, poster, take, answered.clone()));
    }
    let mut free: Vec<usize> = (0..bodies.len()).collect();
    let (mut buffer, mut filled, mut tag) = (vec![0_u8; 256 << 10], 0, 0_u64);
    // All up to the first are answered; of those behind it, these are.
    let (mut watermark, mut beyond) = (0_u64, std::collections::BTreeSet::new());
    while watermark < messages {
        tokio::select! {
            read = reading.read(&mut buffer[filled..]) => {
                let count = read?;
                if count == 0 {
                    return Err("the broker hung up".into());
                }
                filled += count;
                let mut at = 0;
                while let Some(size) = size(&buffer[at..filled]) {
                    let frame = &buffer[at..at + size];
                    if frame[0] == 3 {
                        tag += 1; // a channel's tags count up from 1
                        let poster = free.pop().ok_or("more came than may be under way")?;
                        bodies[poster].try_send((tag, frame[7..size - 1].to_vec()))?;
                    }
                    at += size;
                }
                buffer.copy_within(at..filled, 0);
                filled -= at;
            }
            Some(first) = answers.recv() => {
                let before = watermark;
                let mut next = Some(first);
                while let Some((poster, tag)) = next {
                    free.push(poster);
                    beyond.insert(tag);
                    next = answers.try_recv().ok();
                }
                while beyond.remove(&(watermark + 1)) {
                    watermark += 1;
                }
                if watermark > before {
                    let mut ack = vec![1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80];
                    ack.extend_from_slice(&watermark.to_be_bytes());
                    ack.extend_from_slice(&[1, 0xce]);
                    writing.write_all(&ack).await?;
                }
            }
        }
    }
    Ok(())
}

async fn post(
    to: SocketAddr,
    poster: usize,
    mut bodies: mpsc::Receiver<(u64, Vec<u8>)>,
    answered: mpsc::Sender<(usize, u64)>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; ANSWER.len()];
    while let Some((tag, body)) = bodies.recv().await {
        let mut request =
            format!("POST / HTTP/1.1\r\nhost: {to}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(&body);
        stream.write_all(&request).await?;
        stream.read_exact(&mut answer).await?;
        if answered.send((poster, tag)).await.is_err() {
            break;
        }
    }
    Ok(())
}
