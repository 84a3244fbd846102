//! The task of a connection: reads frames and tells the channels, writes what the outbox has, keeps both sides sure that
//! the other is alive, and at the end tells everybody how it ended.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use warren_engine::message::Properties;

use super::Shared;
use super::channel::{Channel, Content, Listener, Reply};
use super::handshake::Stream;
use super::outbox::Next;
use crate::rabbitmq::failures::Gone;
use crate::rabbitmq::wire::frame::{self, BODY, Frame, HEADER, HEARTBEAT, HEARTBEAT_FRAME, METHOD};
use crate::rabbitmq::wire::method::{Call, Method, method};
use crate::rabbitmq::wire::{Malformed, content};

/// How much is read at once.
const READ_BYTES: usize = 128 * 1024;
/// A buffer that held more than this is not kept.
const BUFFER_BYTES_KEPT: usize = 1 << 20;
/// The most that RabbitMQ can be set to take in one message; more is nonsense, and no reason to run out of memory.
const BODY_BYTES_MAX: u64 = 512 << 20;
/// Chunks given to one system call.
const SLICES: usize = 64;
/// How long to listen for the broker's reason after writing failed, and to write the last frames.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) async fn drive(stream: Box<dyn Stream>, unread: BytesMut, shared: Arc<Shared>) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut reader = Reader {
        shared: shared.clone(),
        unread,
        partial: Vec::new(),
        channel: None,
        told: Vec::new(),
        heartbeat: shared.agreed.heartbeat,
    };
    let mut sending = VecDeque::new();
    // Both loops run in this one task, so the one that is dropped is dropped at a point where it waits: the count of
    // written bytes is exact, and no frame is half handled.
    let gone = tokio::select! {
        gone = reader.run(&mut reading) => gone,
        error = write(&mut writing, &shared, &mut sending) => {
            // Often the broker said why before it hung up, and that lies unread.
            match timeout(LAST_WORDS, reader.run(&mut reading)).await {
                Ok(gone @ (Gone::Connection(_) | Gone::Ended)) => gone,
                Ok(_) | Err(_) => Gone::Lost(error.to_string()),
            }
        }
        () = shared.cancel.cancelled() => Gone::Ended,
    };
    if matches!(gone, Gone::Connection(_)) {
        // The broker waits for our close-ok. If it cannot be written, it is no loss.
        shared.outbox.take(&mut sending);
        timeout(LAST_WORDS, write_out(&mut writing, &shared, &mut sending)).await.ok();
    }
    finish(&shared, gone);
    timeout(LAST_WORDS, writing.shutdown()).await.ok(); // the connection is over in any case
}

fn finish(shared: &Shared, gone: Gone) {
    let gone = Arc::new(gone);
    shared.gone.set(gone.clone()).ok(); // only set here
    shared.outbox.shut();
    let written = shared.outbox.written();
    for channel in shared.channels.drain() {
        channel.end(&gone, written);
    }
}

async fn write(
    writing: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    sending: &mut VecDeque<Bytes>,
) -> io::Error {
    // Half of what was agreed, so that one late heartbeat is no silence.
    let beat = (!shared.agreed.heartbeat.is_zero()).then(|| shared.agreed.heartbeat / 2);
    let mut last = Instant::now();
    // Timers that are set and run out, rather than one for each wait: a timer that is the next of all wakes the thread that waits for the
    // sockets, only to tell it so.
    let mut beats = pin!(sleep_until(last + beat.unwrap_or_default()));
    let (mut lazy, mut lazy_is_set) = (pin!(sleep_until(last)), false);
    loop {
        match shared.outbox.take(sending) {
            Next::Write => {
                if let Err(error) = write_out(writing, shared, sending).await {
                    return error;
                }
                shared.outbox.drained();
                last = Instant::now();
            }
            Next::Idle(until) => {
                if let Some(until) = until
                    && !lazy_is_set
                {
                    lazy.as_mut().reset(until);
                    lazy_is_set = true;
                }
                // No branch takes anything: dropping the others loses nothing.
                tokio::select! {
                    // Whoever else is about to say something says it first: one write for all costs us less, and the broker, which
                    // reads them together.
                    () = shared.outbox.ready() => yield_now().await,
                    () = &mut lazy, if lazy_is_set => lazy_is_set = false,
                    () = &mut beats, if beat.is_some() => {
                        let beat = beat.unwrap_or_default();
                        if last.elapsed() >= beat {
                            // Not of the outbox: its offsets count only what it was given.
                            let beaten = writing.write_all(&HEARTBEAT_FRAME).await;
                            if let Err(error) = flushed(writing, beaten).await {
                                return error;
                            }
                            last = Instant::now();
                        }
                        beats.as_mut().reset(last + beat);
                    }
                }
            }
        }
    }
}

async fn flushed(writing: &mut (impl AsyncWrite + Unpin), written: io::Result<()>) -> io::Result<()> {
    written?;
    writing.flush().await
}

async fn write_out(
    writing: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    sending: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !sending.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(sending.iter()) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        let mut count = writing.write_vectored(&slices[..filled]).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        shared.outbox.wrote(count);
        while let Some(chunk) = sending.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                break;
            }
            count -= chunk.len();
            sending.pop_front();
        }
    }
    writing.flush().await // TLS keeps records back until told
}

struct Reader {
    shared: Arc<Shared>,
    unread: BytesMut,
    /// Contents of which frames are missing: of each channel one at most, and hardly ever more than one.
    partial: Vec<Partial>,
    /// The channel of the last frame: nearly always that of the next one.
    channel: Option<Arc<Channel>>,
    /// Who was told of messages since the last read: mostly one, and a waiting consumer is woken once for all of them.
    told: Vec<Arc<dyn Listener>>,
    heartbeat: Duration,
}

/// A content that is not there whole yet.
struct Partial {
    channel: u16,
    method: Method,
    header: Option<Header>,
}

struct Header {
    properties: Properties,
    size: usize,
    body: BytesMut,
}

impl Reader {
    async fn run(&mut self, reading: &mut (impl AsyncRead + Unpin)) -> Gone {
        let silence = self.heartbeat * 2;
        let mut last = Instant::now();
        let mut alarm = pin!(sleep_until(last + silence));
        loop {
            match self.frames() {
                Ok(None) => {}
                Ok(Some(gone)) => return gone,
                Err(Malformed(why)) => return Gone::Protocol(why.to_owned()),
            }
            self.unread.reserve(READ_BYTES);
            tokio::select! {
                read = reading.read_buf(&mut self.unread) => match read {
                    Ok(0) => return Gone::Lost("the broker hung up".to_owned()),
                    Ok(_) => last = Instant::now(),
                    Err(error) => return Gone::Lost(error.to_string()),
                },
                () = &mut alarm, if !silence.is_zero() => {
                    if last.elapsed() >= silence {
                        return Gone::Silent;
                    }
                    alarm.as_mut().reset(last + silence);
                }
            }
        }
    }

    /// Handles all frames that are there whole. `Some`: the connection has ended.
    fn frames(&mut self) -> Result<Option<Gone>, Malformed> {
        let mut buffer = std::mem::take(&mut self.unread);
        let mut at = 0;
        let mut result = Ok(None);
        while let Some((frame, taken)) = frame::first(&buffer[at..], frame::READ_BYTES_MAX)? {
            at += taken;
            match self.frame(frame) {
                Ok(None) => {}
                ended => {
                    result = ended;
                    break;
                }
            }
        }
        buffer.advance(at);
        // A large frame has come and gone: its memory is given back.
        self.unread = if buffer.is_empty() && at > BUFFER_BYTES_KEPT { BytesMut::new() } else { buffer };
        for listener in self.told.drain(..) {
            listener.caught_up();
        }
        result
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<Option<Gone>, Malformed> {
        match frame.kind {
            METHOD => self.method(frame.channel, method(frame.payload)?),
            HEADER => self.header(frame.channel, frame.payload).map(|()| None),
            BODY => self.body(frame.channel, frame.payload).map(|()| None),
            HEARTBEAT => Ok(None),
            _ => Err(Malformed("a frame is of no kind")),
        }
    }

    fn method(&mut self, number: u16, method: Method) -> Result<Option<Gone>, Malformed> {
        match method {
            Method::Ack { tag, multiple } => self.answered(number, tag, multiple, true)?,
            Method::Nack { tag, multiple } => self.answered(number, tag, multiple, false)?,
            Method::Deliver { .. } | Method::Return { .. } | Method::GetOk { .. } => {
                if self.partial(number).is_some() {
                    return Err(Malformed("a content begins before the last one has ended"));
                }
                self.partial.push(Partial { channel: number, method, header: None });
            }
            Method::Answer(answer) => {
                if let Some(channel) = self.channel(number) {
                    channel.reply(Reply::Plain(answer));
                }
            }
            Method::Cancel => {
                if let Some(listener) = self.channel(number).and_then(|channel| channel.listener().cloned()) {
                    listener.cancelled();
                }
            }
            Method::ChannelClose(close) => {
                self.send(number, Call::ChannelCloseOk);
                let gone = Arc::new(Gone::Channel(close));
                if let Some(channel) = self.forget(number) {
                    channel.end(&gone, self.shared.outbox.written());
                }
            }
            Method::ChannelCloseOk => {
                if let Some(channel) = self.forget(number) {
                    channel.reply(Reply::Closed);
                }
            }
            Method::ChannelFlow { active } => self.send(number, Call::ChannelFlowOk { active }),
            Method::ConnectionBlocked { reason } => self.shared.outbox.set_blocked(Some(reason)),
            Method::ConnectionUnblocked => self.shared.outbox.set_blocked(None),
            Method::ConnectionClose(close) => {
                self.send(0, Call::ConnectionCloseOk);
                return Ok(Some(Gone::Connection(close)));
            }
            Method::ConnectionCloseOk => return Ok(Some(Gone::Ended)),
            Method::ConnectionStart { .. }
            | Method::ConnectionSecure
            | Method::ConnectionTune { .. }
            | Method::ConnectionOpenOk => {
                return Err(Malformed("the broker greets again"));
            }
        }
        Ok(None)
    }

    fn answered(&mut self, number: u16, tag: u64, multiple: bool, positive: bool) -> Result<(), Malformed> {
        match self.channel(number).and_then(Channel::listener) {
            Some(listener) => listener.answered(tag, multiple, positive),
            None => Ok(()), // a channel that we have closed
        }
    }

    fn header(&mut self, number: u16, payload: &[u8]) -> Result<(), Malformed> {
        let Some(partial) = self.partial(number) else {
            return Err(Malformed("a content header comes without its method"));
        };
        if partial.header.is_some() {
            return Err(Malformed("a content has two headers"));
        }
        let (size, properties) = content::header(payload)?;
        if size > BODY_BYTES_MAX {
            return Err(Malformed("a message is larger than RabbitMQ can hold"));
        }
        let size = size as usize;
        // What the broker announces is not trusted with memory before it comes.
        partial.header =
            Some(Header { properties, size, body: BytesMut::with_capacity(size.min(READ_BYTES)) });
        if size == 0 { self.whole(number) } else { Ok(()) }
    }

    fn body(&mut self, number: u16, payload: &[u8]) -> Result<(), Malformed> {
        let Some(header) = self.partial(number).and_then(|partial| partial.header.as_mut()) else {
            return Err(Malformed("a body comes without its header"));
        };
        // Copied out of the read buffer: a small message would otherwise keep all of the buffer in memory.
        header.body.extend_from_slice(payload);
        if header.body.len() > header.size {
            return Err(Malformed("a body is longer than its header says"));
        }
        if header.body.len() == header.size { self.whole(number) } else { Ok(()) }
    }

    fn whole(&mut self, number: u16) -> Result<(), Malformed> {
        let Some(Partial { method, header: Some(header), .. }) = self.forget_partial(number) else {
            return Ok(());
        };
        let content = Content { method, properties: header.properties, body: header.body.freeze() };
        let Some(channel) = self.channel(number) else { return Ok(()) };
        if matches!(content.method, Method::GetOk { .. }) {
            channel.reply(Reply::Content(Box::new(content)));
            return Ok(());
        }
        let Some(listener) = channel.listener().cloned() else { return Ok(()) };
        listener.content(content)?;
        if !self.told.iter().any(|told| Arc::ptr_eq(told, &listener)) {
            self.told.push(listener);
        }
        Ok(())
    }

    fn partial(&mut self, number: u16) -> Option<&mut Partial> {
        self.partial.iter_mut().find(|partial| partial.channel == number)
    }

    fn forget_partial(&mut self, number: u16) -> Option<Partial> {
        let at = self.partial.iter().position(|partial| partial.channel == number)?;
        Some(self.partial.swap_remove(at))
    }

    /// The channel of a number; `None` if we have none, such as one that the broker has just closed.
    fn channel(&mut self, number: u16) -> Option<&Channel> {
        if self.channel.as_ref().is_none_or(|channel| channel.number != number) {
            self.channel = self.shared.channels.get(number);
        }
        self.channel.as_deref()
    }

    fn forget(&mut self, number: u16) -> Option<Arc<Channel>> {
        self.channel = None;
        self.forget_partial(number);
        self.shared.channels.free(number)
    }

    fn send(&self, number: u16, call: Call<'_>) {
        let mut frames = Vec::with_capacity(32);
        if call.put(&mut frames, number).is_ok() {
            self.shared.outbox.push(frames.into()).ok(); // shut: the connection is over, and nobody waits for it
        }
    }
}
