//! A bare confirmed publisher: frames made beforehand, one socket, a window, and acks counted. Persistent and mandatory as
//! Warren's are.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::Fault;

/// What is published, and how.
pub struct Load<'l> {
    /// `amqp://user:password@host:port/vhost`
    pub url: &'l str,
    /// The queue.
    pub queue: &'l str,
    /// How many messages.
    pub messages: u64,
    /// How many are unconfirmed at once, over all channels.
    pub window: u64,
    /// How many go in one write.
    pub batch: u64,
    /// How many channels take turns.
    pub channels: u16,
    /// The body.
    pub body: &'l [u8],
}

/// Publishes and waits for the last confirm. Returns how long it took.
pub fn publish(load: &Load<'_>) -> Result<Duration, Fault> {
    let url = url::Url::parse(load.url)?;
    let host = url.host_str().ok_or("the URL has no host")?;
    let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672)))?;
    stream.set_nodelay(true)?;
    open(&mut stream, &url, load.channels)?;
    let reader = stream.try_clone()?;
    let confirmed = Arc::new((Mutex::new(Confirmed::new(load.channels)), Condvar::new()));
    let counting = Arc::clone(&confirmed);
    let channels: Vec<Vec<u8>> = (1..=load.channels).map(|channel| batch(load, channel)).collect();
    let began = Instant::now();
    let thread = std::thread::spawn(move || count(reader, &counting));
    let mut sent = 0;
    for channel in channels.iter().cycle() {
        if sent >= load.messages {
            break;
        }
        let (lock, changed) = &*confirmed;
        let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
        while sent + load.batch - state.total() > load.window && !state.closed {
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        stream.write_all(channel)?;
        sent += load.batch;
    }
    let (lock, changed) = &*confirmed;
    let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
    while state.total() < sent && !state.closed {
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    let (took, all) = (began.elapsed(), state.total() == sent && state.returned == 0);
    drop(state);
    stream.shutdown(std::net::Shutdown::Both).ok(); // the broker may have closed first
    thread.join().ok(); // it ends with the socket
    if all { Ok(took) } else { Err("the bare publisher was not confirmed".into()) }
}

#[derive(Default)]
struct Confirmed {
    channels: Vec<Channel>,
    returned: u64,
    closed: bool,
}

/// What was confirmed on one channel.
#[derive(Default)]
struct Channel {
    /// All up to this tag are.
    up_to: u64,
    /// These above it are.
    beyond: BTreeSet<u64>,
}

impl Channel {
    fn confirm(&mut self, tag: u64, multiple: bool) {
        if multiple {
            self.up_to = self.up_to.max(tag);
            self.beyond = self.beyond.split_off(&(self.up_to + 1));
        } else if tag > self.up_to {
            self.beyond.insert(tag);
        }
        while self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
    }

    fn total(&self) -> u64 {
        self.up_to + self.beyond.len() as u64
    }
}

impl Confirmed {
    fn new(channels: u16) -> Confirmed {
        let channels = (0..=channels).map(|_| Channel::default()).collect();
        Confirmed { channels, ..Confirmed::default() }
    }

    /// How many were confirmed, each of them. Acks come out of order, so the highest tag alone would say more than there are, and
    /// widen the window.
    fn total(&self) -> u64 {
        self.channels.iter().map(Channel::total).sum()
    }
}

fn count(stream: TcpStream, confirmed: &(Mutex<Confirmed>, Condvar)) {
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    while let Ok((channel, kind, payload)) = frame(&mut stream) {
        let (lock, changed) = confirmed;
        let mut state = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if kind == 1 && payload.len() >= 13 && payload[..4] == [0, 60, 0, 80] {
            let mut tag = [0; 8];
            tag.copy_from_slice(&payload[4..12]);
            let tag = u64::from_be_bytes(tag);
            if let Some(channel) = state.channels.get_mut(usize::from(channel)) {
                channel.confirm(tag, payload[12] == 1);
            }
            changed.notify_one();
        } else if kind == 1 && payload.len() >= 4 && payload[..4] == [0, 60, 0, 50] {
            state.returned += 1;
        }
    }
    let (lock, changed) = confirmed;
    lock.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    changed.notify_one();
}

fn frame(stream: &mut impl Read) -> std::io::Result<(u16, u8, Vec<u8>)> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload)?;
    payload.pop();
    Ok((u16::from_be_bytes([head[1], head[2]]), head[0], payload))
}

fn put(out: &mut Vec<u8>, channel: u16, kind: u8, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
}

fn short(text: &str) -> Vec<u8> {
    let mut out = vec![text.len() as u8];
    out.extend_from_slice(text.as_bytes());
    out
}

fn open(stream: &mut TcpStream, url: &url::Url, channels: u16) -> Result<(), Fault> {
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    frame(stream)?; // start
    let text = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = format!("\0{}\0{}", text(url.username()), text(url.password().unwrap_or_default()));
    let mut payload = vec![0, 10, 0, 11, 0, 0, 0, 0];
    payload.extend(short("PLAIN"));
    payload.extend_from_slice(&(login.len() as u32).to_be_bytes());
    payload.extend_from_slice(login.as_bytes());
    payload.extend(short("en_US"));
    let mut out = Vec::new();
    put(&mut out, 0, 1, &payload);
    stream.write_all(&out)?;
    let (_, _, tune) = frame(stream)?;
    if tune.get(..4) != Some(&[0, 10, 0, 30]) {
        return Err("the broker refused the login".into());
    }
    let mut payload = vec![0, 10, 0, 31];
    payload.extend_from_slice(&tune[4..10]);
    payload.extend_from_slice(&[0, 0]); // no heartbeat
    out.clear();
    put(&mut out, 0, 1, &payload);
    let vhost = text(url.path().trim_start_matches('/'));
    let mut payload = vec![0, 10, 0, 40];
    payload.extend(short(if vhost.is_empty() { "/" } else { &vhost }));
    payload.extend_from_slice(&[0, 0]);
    put(&mut out, 0, 1, &payload);
    stream.write_all(&out)?;
    frame(stream)?; // open-ok
    for channel in 1..=channels {
        out.clear();
        put(&mut out, channel, 1, &[0, 20, 0, 10, 0]);
        stream.write_all(&out)?;
        frame(stream)?; // open-ok
        out.clear();
        put(&mut out, channel, 1, &[0, 85, 0, 10, 0]);
        stream.write_all(&out)?;
        frame(stream)?; // select-ok
    }
    Ok(())
}

/// A socket on which the deliveries of a queue come, of a connection that does nothing else, on channel 1. They are to be
/// acknowledged. A frame of the answer to `basic.consume` may come first.
pub fn deliveries(url: &str, queue: &str, prefetch: u16) -> Result<TcpStream, Fault> {
    let url = url::Url::parse(url)?;
    let host = url.host_str().ok_or("the URL has no host")?;
    let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672)))?;
    stream.set_nodelay(true)?;
    open(&mut stream, &url, 1)?;
    let mut out = Vec::new();
    let mut qos = vec![0, 60, 0, 10, 0, 0, 0, 0];
    qos.extend_from_slice(&prefetch.to_be_bytes());
    qos.push(0);
    put(&mut out, 1, 1, &qos);
    stream.write_all(&out)?;
    frame(&mut stream)?; // qos-ok
    let mut consume = vec![0, 60, 0, 20, 0, 0];
    consume.extend(short(queue));
    consume.extend(short(""));
    consume.extend_from_slice(&[0, 0, 0, 0, 0]); // no option, no argument
    out.clear();
    put(&mut out, 1, 1, &consume);
    stream.write_all(&out)?;
    Ok(stream)
}

/// The frames of a batch: default exchange, mandatory, persistent, with a content type, a message id and a time as Warren
/// sends them.
fn batch(load: &Load<'_>, channel: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..load.batch {
        let mut method = vec![0, 60, 0, 40, 0, 0, 0];
        method.extend(short(load.queue));
        method.push(1); // mandatory
        put(&mut out, channel, 1, &method);
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(load.body.len() as u64).to_be_bytes());
        // content type, delivery mode, message id, timestamp
        header.extend_from_slice(&((1u16 << 15) | (1 << 12) | (1 << 7) | (1 << 6)).to_be_bytes());
        header.extend(short("application/json"));
        header.push(2);
        header.extend(short(&format!("{number:032x}")));
        header.extend_from_slice(&1_700_000_000u64.to_be_bytes());
        put(&mut out, channel, 2, &header);
        put(&mut out, channel, 3, load.body);
    }
    out
}
