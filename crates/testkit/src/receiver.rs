//! An HTTP server that answers, fails, hangs, resets and lies as a test tells it. What it was sent is on record in the order of
//! arrival. One thread a connection, so that an answer may block: a test holds a request by not answering it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which it is, from 0, in the order of arrival.
    pub number: u64,
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer with a body and, before it, header lines (`retry-after: 1\r\n`).
    Status(u16, &'static str, String),
    /// No answer for so long, and then the connection is closed.
    Hang(Duration),
    /// The connection is reset.
    Reset,
    /// The connection is closed in good order, without an answer.
    Close,
    /// 200 with a body that ends before its length.
    Short,
    /// Something that is not HTTP.
    Noise,
}

impl Answer {
    /// 200 without a body.
    #[must_use]
    pub fn ok() -> Answer {
        Answer::Status(200, "", String::new())
    }

    /// A status without a body.
    #[must_use]
    pub fn status(status: u16) -> Answer {
        Answer::Status(status, "", String::new())
    }
}

type Judge = dyn Fn(&Call) -> Answer + Send + Sync;

/// A server on loopback; ends when dropped.
pub struct Receiver {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    judge: Box<Judge>,
    over: AtomicBool,
    seen: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Receiver {
    /// Starts it. `judge` says what becomes of each request; it may block, and is called from many threads.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start(judge: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            judge: Box::new(judge),
            over: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let own = shared.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &own));
        Receiver { shared, address, accepting: Some(accepting) }
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests came.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        TcpStream::connect(self.address).ok(); // wakes `accept`
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok(); // a panic in there was printed
        }
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok(); // it may be closed
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.over.load(SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(copy) = stream.try_clone() {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|stream| stream.peer_addr().is_ok());
            open.push(copy);
        }
        let shared = shared.clone();
        // Ends with its connection, which the client or `drop` closes.
        std::thread::spawn(move || {
            serve(&shared, stream).ok(); // the client is gone: so is the connection
        });
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(call) = read(&mut reader, &shared.seen)? {
        match (shared.judge)(&call) {
            Answer::Status(status, head, body) => {
                let length = body.len();
                write!(stream, "HTTP/1.1 {status} x\r\n{head}content-length: {length}\r\n\r\n{body}")?;
            }
            Answer::Hang(duration) => {
                crate::wait::pause("a server that hangs", duration);
                return Ok(());
            }
            Answer::Reset => {
                // Unsent and unread data is thrown away, and the client told so.
                set_socket_linger(&stream, Some(Duration::ZERO)).map_err(std::io::Error::from)?;
                shared
                    .open
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|held| held.peer_addr().ok() != stream.peer_addr().ok());
                return Ok(());
            }
            Answer::Close => return stream.shutdown(std::net::Shutdown::Both),
            Answer::Short => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789")?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
            Answer::Noise => {
                stream.write_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n")?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }
    Ok(())
}

/// The next request; `None` where the client closed.
fn read(reader: &mut BufReader<TcpStream>, seen: &AtomicU64) -> std::io::Result<Option<Call>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Call { number: seen.fetch_add(1, SeqCst), method, path, headers, body }))
}
