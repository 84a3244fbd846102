//! A door between a client and the broker that closes at a named frame: before a publish reaches the broker, before its confirm
//! reaches the client, before an acknowledgement reaches the broker, after a queue was bound. What was held when the client died never arrives.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::wait_until;

/// Where the door closes: this frame, and what follows it that way on its connection, is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// `basic.publish`, on its way to the broker.
    Publish,
    /// `basic.ack` of the broker: the confirm of a publish.
    Confirm,
    /// `basic.ack` of the client: a message is done.
    Ack,
    /// `basic.reject` or `basic.nack` of the client.
    Reject,
    /// `queue.bind-ok` of the broker: a queue is bound.
    Bound,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToBroker,
    ToClient,
}

impl Point {
    fn is(self, way: Way, method: (u16, u16)) -> bool {
        match self {
            Point::Publish => way == Way::ToBroker && method == (60, 40),
            Point::Confirm => way == Way::ToClient && method == (60, 80),
            Point::Ack => way == Way::ToBroker && method == (60, 80),
            Point::Reject => way == Way::ToBroker && matches!(method, (60, 90 | 120)),
            Point::Bound => way == Way::ToClient && method == (50, 21),
        }
    }
}

/// See the module; without TLS. Ends when dropped.
pub struct Gate {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    broker: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    point: Option<Point>,
    /// How many frames of the point pass before the door closes.
    passes: u64,
    /// Frames of the point that passed.
    passed: u64,
    /// Frames that the door closed at.
    held: u64,
    /// How often what was held was let through.
    releases: u64,
    over: bool,
    open: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// A door before the broker of an `amqp://…` URL.
    ///
    /// # Panics
    /// When the URL has no address, or there is no free port.
    #[must_use]
    pub fn before(url: &str) -> Gate {
        let broker = authority(url).rsplit('@').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { broker, state: Mutex::default(), changed: Condvar::new() });
        let own = shared.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &own));
        Gate { shared, address, accepting: Some(accepting) }
    }

    /// The URL with this door's address.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let authority = authority(url);
        let own = match authority.rsplit_once('@') {
            Some((user, _)) => format!("{user}@{}", self.address),
            None => self.address.to_string(),
        };
        url.replacen(authority, &own, 1)
    }

    /// Closes at the next such frame.
    pub fn close_at(&self, point: Point) {
        self.close_after(point, 0);
    }

    /// Closes after `frames` more such frames, counted over all connections. What is held now is let through and counts.
    pub fn close_after(&self, point: Point, frames: u64) {
        let mut state = self.shared.state();
        (state.point, state.passes, state.passed, state.held) = (Some(point), frames, 0, 0);
        state.releases += 1;
        self.shared.changed.notify_all();
    }

    /// Waits until `frames` such frames have passed since the door was set.
    ///
    /// # Panics
    /// When they do not pass within `deadline`.
    pub fn wait_for(&self, frames: u64, deadline: Duration) {
        let what = format!("{frames} frames pass the door");
        wait_until(&what, deadline, || self.shared.state().passed >= frames);
    }

    /// Lets through what is held, and stays open.
    pub fn release(&self) {
        let mut state = self.shared.state();
        state.point = None;
        state.releases += 1;
        self.shared.changed.notify_all();
    }

    /// Waits until a frame is held.
    ///
    /// # Panics
    /// When none comes within `deadline`.
    pub fn wait(&self, deadline: Duration) {
        wait_until("the door closes", deadline, || self.shared.state().held > 0);
    }

    /// Stays open from now on. What is held stays held, for the client that sent it or waits for it is dead: its connections are cut.
    pub fn open(&self) {
        let mut state = self.shared.state();
        state.point = None;
        for stream in state.open.drain(..) {
            stream.shutdown(Shutdown::Both).ok(); // it may be closed
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.open();
        TcpStream::connect(self.address).ok(); // wakes `accept`
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok(); // a panic in there was printed
        }
    }
}

fn authority(url: &str) -> &str {
    let (_, rest) = url.split_once("://").expect("the URL has a scheme");
    rest.split('/').next().unwrap_or_default()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.state().over {
            return;
        }
        let Ok(client) = client else { continue };
        let Ok(broker) = TcpStream::connect(&shared.broker) else { continue };
        for stream in [&client, &broker] {
            stream.set_nodelay(true).ok(); // it may be closed
        }
        let (Ok(client_too), Ok(broker_too)) = (client.try_clone(), broker.try_clone()) else { continue };
        if let (Ok(one), Ok(two)) = (client.try_clone(), broker.try_clone()) {
            shared.state().open.extend([one, two]);
        }
        // Both end with their connection, which either side, `open` or `drop` closes.
        for (way, from, to) in [(Way::ToBroker, client, broker), (Way::ToClient, broker_too, client_too)] {
            let shared = shared.clone();
            std::thread::spawn(move || {
                pass(&shared, way, &from, &to).ok(); // one side is gone
                from.shutdown(Shutdown::Both).ok();
                to.shutdown(Shutdown::Both).ok();
            });
        }
    }
}

/// Passes frames on until one side is gone.
fn pass(shared: &Shared, way: Way, mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
    if way == Way::ToBroker {
        let mut greeting = [0; 8];
        from.read_exact(&mut greeting)?;
        to.write_all(&greeting)?;
    }
    loop {
        let mut head = [0; 7];
        from.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut rest = vec![0; length + 1];
        from.read_exact(&mut rest)?;
        let method = match (head[0], &rest[..]) {
            (1, [a, b, c, d, ..]) => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
            _ => (0, 0),
        };
        let mut state = shared.state();
        while state.point.is_some_and(|point| point.is(way, method)) {
            if state.passed < state.passes {
                state.passed += 1;
                break;
            }
            state.held += 1;
            let releases = state.releases;
            let waits =
                |state: &mut State| state.point.is_some() && !state.over && state.releases == releases;
            state = shared.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
            if state.releases == releases {
                return Ok(()); // the door was opened for a client that is dead
            }
        }
        drop(state);
        to.write_all(&head)?;
        to.write_all(&rest)?;
    }
}
