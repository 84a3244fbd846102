//! One connection for one query: opened, put into a read-only transaction, and closed or cancelled.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{CancelToken, Client, Config, Connection, Error, NoTls, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use warren_engine::failure::Failure;

use super::config::{Settings, Tls};
use super::fault;
use super::merging::{Merging, Plain};

/// A connection in use. Dropping it closes the socket; a server that is busy computing notices only when it next sends
/// something, which is what [`cancel`](Session::cancel) is for.
pub(super) struct Session {
    client: Client,
    wire: Wire,
    token: CancelToken,
    way: Way,
}

/// How the server is reached.
#[derive(Clone)]
enum Way {
    Tls(Tls),
    /// Without TLS, by way of a [`Plain`] stream.
    Plain,
    /// Without TLS, with the driver's own stream.
    Raw,
}

/// The half of the driver that moves bytes. It is polled by the task that waits for the answer, not by one of its own: handing
/// each 8 KiB of rows to another thread and waking it costs more than taking the rows apart.
struct Wire {
    connection: Option<Moving>,
    /// Why the connection ended, if it did so badly.
    error: Option<Error>,
}

type Moving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// How long a farewell may take: a cancel request, or the end of a connection in good order.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

impl Session {
    /// Connects and logs in.
    pub(super) async fn open(settings: &Settings) -> Result<Session, Failure> {
        let opening = async {
            let driver = &settings.driver;
            match &settings.tls {
                Some(tls) => Session::start(driver, Named::new(tls), Way::Tls(tls.clone())).await,
                None if takes_plain(driver) => {
                    let mut driver = driver.clone();
                    driver.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                    Session::start(&driver, Plain, Way::Plain).await
                }
                None => Session::start(driver, NoTls, Way::Raw).await,
            }
        };
        match timeout(settings.connect_timeout, opening).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(fault::connect(error, settings)),
            Err(_) => Err(fault::connect_timeout(settings)),
        }
    }

    async fn start<T>(driver: &Config, tls: T, way: Way) -> Result<Session, Error>
    where
        T: MakeTlsConnect<Socket>,
        Connection<Socket, T::Stream>: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let (client, connection) = driver.connect(tls).await?;
        let token = client.cancel_token();
        let wire = Wire { connection: Some(Box::pin(connection)), error: None };
        Ok(Session { client, wire, token, way })
    }

    /// Begins the one transaction this connection is for. All settings are `LOCAL`: behind a pooler the next user of the server's
    /// connection finds none of them.
    pub(super) async fn begin(&mut self, limit: Option<Duration>) -> Result<(), Error> {
        let limit = match limit {
            // 0 would mean no limit.
            Some(limit) => {
                format!("SET LOCAL statement_timeout = {};\n", limit.as_millis().clamp(1, i32::MAX as u128))
            }
            None => String::new(),
        };
        self.wire.drive(self.client.batch_execute(&format!("{BEGIN}{ANY_BYTES}{limit}"))).await
    }

    /// Has the server parse a query.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        self.wire.drive(self.client.prepare(sql)).await
    }

    /// Does `work` with the client; the connection moves only meanwhile.
    pub(super) async fn work<'a, F: Future>(&'a mut self, work: impl FnOnce(&'a Client) -> F) -> F::Output {
        self.wire.drive(work(&self.client)).await
    }

    /// Ends the transaction. Fails if it did not stay whole, so that a copy that broke after its last row is noticed.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        // In a transaction that failed this is refused, whereas COMMIT would quietly roll back.
        self.wire.drive(self.client.batch_execute("SELECT 1")).await?;
        self.wire.drive(self.client.batch_execute("COMMIT")).await
    }

    /// Says goodbye. What is open is rolled back by the server.
    pub(super) async fn close(self) {
        let Session { client, wire, .. } = self;
        drop(client);
        if let Some(connection) = wire.connection {
            // The result stands already; a connection that does not end well has nothing left to tell.
            timeout(FAREWELL_MAX, connection).await.ok();
        }
    }

    /// Why the connection is gone, where that is more than "closed".
    pub(super) fn why_closed(&mut self) -> Option<Error> {
        self.wire.error.take()
    }

    /// Ends what the server is doing for this connection, and the connection.
    pub(super) async fn cancel(self) {
        let asked = async {
            match &self.way {
                Way::Tls(tls) => self.token.cancel_query(Named::new(tls)).await,
                Way::Plain => self.token.cancel_query(Plain).await,
                Way::Raw => self.token.cancel_query(NoTls).await,
            }
        };
        // If the server cannot be asked, it sees the closed socket when it next sends something.
        timeout(FAREWELL_MAX, asked).await.ok();
    }
}

impl Wire {
    /// Moves bytes until `work` is done. If the connection ends meanwhile, `work` hears that it is closed.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            if let Some(connection) = &mut self.connection
                && let Poll::Ready(end) = connection.as_mut().poll(context)
            {
                self.connection = None;
                self.error = end.err();
            }
            // What came just now is worked on at once.
            work.as_mut().poll(context)
        })
        .await
    }
}

/// `extra_float_digits` and `DateStyle` make what is cast to text the same whatever the server's defaults are, since a changed text is a
/// changed row. The time zone is left alone: what `now()::date` means is the query's business. A server that can is told to look every
/// ten seconds whether we are still there, for the case that we are killed while it sorts. A database in SQL_ASCII has any bytes, and the
/// server would end the query at the first that are not UTF-8; see [`ANY_BYTES`].
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL extra_float_digits = 3;
SET LOCAL DateStyle = 'ISO';
SELECT pg_catalog.set_config(name, '10s', true) FROM pg_catalog.pg_settings
 WHERE name = 'client_connection_check_interval'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name = 'dynamic_shared_memory_type' AND setting = 'windows');
";

/// Has a server whose database is in SQL_ASCII send text as it is, until the transaction ends. Cells tell text from bytes. In all other
/// encodings the server converts to UTF-8.
pub(super) const ANY_BYTES: &str = "\
SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', true) FROM pg_catalog.pg_settings
 WHERE name = 'server_encoding' AND setting = 'SQL_ASCII';
";

/// Whether the driver asks for a stream for each of its hosts, which it does only of those with a name to check.
fn takes_plain(driver: &Config) -> bool {
    let hosts = driver.get_hosts();
    !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Tcp(_)))
}

/// The driver's TLS, with the name the certificate must have where it is not the host's.
#[derive(Clone)]
struct Named {
    tls: MakeRustlsConnect,
    server_name: Option<String>,
}

impl Named {
    fn new(tls: &Tls) -> Named {
        Named {
            tls: MakeRustlsConnect::new(Arc::unwrap_or_clone(tls.config.clone())),
            server_name: tls.server_name.clone(),
        }
    }
}

impl MakeTlsConnect<Socket> for Named {
    type Stream = Merging<RustlsStream>;
    type TlsConnect = Handshake;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        let name = self.server_name.as_deref().unwrap_or(host);
        <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(&mut self.tls, name).map(Handshake)
    }
}

type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// TLS about to be agreed on.
struct Handshake(RustlsConnect);

impl TlsConnect<Socket> for Handshake {
    type Stream = Merging<RustlsStream>;
    type Error = <RustlsConnect as TlsConnect<Socket>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let agreeing = self.0.connect(socket);
        Box::pin(async { Ok(Merging::new(agreeing.await?, TlsStream::channel_binding)) })
    }
}
