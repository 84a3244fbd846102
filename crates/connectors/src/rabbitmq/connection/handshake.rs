//! From a name to an opened vhost: TCP, TLS, login, limits, vhost. Each way to fail gets its own code and way out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers};

use super::super::config::{Login, Protocol, Target};
use super::super::failures::{text, unsayable};
use super::super::wire::frame::{self, METHOD, PROTOCOL_HEADER};
use super::super::wire::method::{Call, Close, Method, method};
use super::{Agreed, Server};

/// A byte stream, in the clear or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is open and not used yet.
pub(super) struct Greeted {
    pub(super) stream: Box<dyn Stream>,
    /// What was read beyond the greeting.
    pub(super) unread: BytesMut,
    pub(super) agreed: Agreed,
    pub(super) server: Server,
}

/// What we would use if the broker left it to us; RabbitMQ's own defaults.
const FRAME_MAX: u32 = 131_072;
const CHANNEL_MAX: u16 = 2_047;
/// The protocol's smallest.
const FRAME_MIN: u32 = 4_096;

pub(super) async fn open(
    target: &Target,
    tls: Option<&(Arc<ClientConfig>, String)>,
    name: &str,
) -> Result<Greeted, Failure> {
    let attempt = async {
        let tcp = connect(target).await?;
        let stream: Box<dyn Stream> = match tls {
            Some((config, server_name)) => Box::new(secure(target, config, server_name, tcp).await?),
            None => Box::new(tcp),
        };
        greet(target, stream, name).await
    };
    match tokio::time::timeout(target.connect_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(FailureKind::Disconnected, codes::BROKER_UNREACHABLE, what(target))
            .detail(format!("it did not answer within {:?}", target.connect_timeout))
            .remedy("Check host, port and firewall, or raise `connect_timeout`.")),
    }
}

fn what(target: &Target) -> String {
    format!("connect to RabbitMQ at {}:{}", target.host, target.port)
}

fn fault(target: &Target, kind: FailureKind, code: Code) -> Failure {
    Failure::new(kind, code, what(target))
}

async fn connect(target: &Target) -> Result<TcpStream, Failure> {
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| {
        fault(target, FailureKind::Disconnected, codes::BROKER_UNREACHABLE)
            .detail(error.to_string())
            .remedy("Check that RabbitMQ runs there and that host and port are right.")
            .because(error)
    })?;
    // We coalesce ourselves; Nagle's delay would only hold back the last frames of a batch. It is a matter of speed.
    tcp.set_nodelay(true).ok();
    Ok(tcp)
}

async fn secure(
    target: &Target,
    config: &Arc<ClientConfig>,
    server_name: &str,
    tcp: TcpStream,
) -> Result<impl Stream + use<>, Failure> {
    let failed = || fault(target, FailureKind::Refused, codes::TLS_FAILED);
    let name = ServerName::try_from(server_name.to_owned()).map_err(|error| {
        failed()
            .detail(format!("`{server_name}` is no name a certificate can be for"))
            .remedy("Give the certificate's name in `tls.server_name`.")
            .because(error)
    })?;
    TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(|error| {
        failed()
            .detail(error.to_string())
            .remedy(
                "Check that the port is the TLS one, that `tls.ca` signed the broker's certificate, that it is for \
                 the host or `tls.server_name`, and, if the broker asks for one, `tls.cert` and `tls.key`.",
            )
            .because(error)
    })
}

/// Reads methods one after another, before there is a task for it.
struct Talk {
    stream: Box<dyn Stream>,
    unread: BytesMut,
}

impl Talk {
    async fn send(&mut self, channel_zero: &[u8]) -> io::Result<()> {
        self.stream.write_all(channel_zero).await?;
        self.stream.flush().await
    }

    async fn call(&mut self, target: &Target, call: Call<'_>) -> Result<(), Failure> {
        let mut frames = Vec::with_capacity(1024);
        call.put(&mut frames, 0).map_err(|fault| unsayable(&fault, what(target)))?;
        self.send(&frames).await.map_err(|error| lost(target, &error))
    }

    /// The next method. `Ok(None)`: the broker hung up.
    async fn next(&mut self, target: &Target) -> Result<Option<Method>, Failure> {
        loop {
            let first =
                frame::first(&self.unread, FRAME_MAX as usize).map_err(|error| strange(target, error.0))?;
            if let Some((frame, taken)) = first {
                let read = (frame.kind == METHOD).then(|| method(frame.payload));
                self.unread.advance(taken);
                match read {
                    Some(read) => return read.map(Some).map_err(|error| strange(target, error.0)),
                    None => continue, // a heartbeat; nothing else can come yet that would matter
                }
            }
            match self.stream.read_buf(&mut self.unread).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // A broker that hangs up while we still speak shows as a reset.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(lost(target, &error)),
            }
        }
    }
}

async fn greet(target: &Target, stream: Box<dyn Stream>, name: &str) -> Result<Greeted, Failure> {
    let mut talk = Talk { stream, unread: BytesMut::with_capacity(8192) };
    talk.send(&PROTOCOL_HEADER).await.map_err(|error| lost(target, &error))?;
    let (server, mechanisms) = match talk.next(target).await? {
        Some(Method::ConnectionStart { server, mechanisms }) => (server, mechanisms),
        Some(_) => return Err(strange(target, "its first word is not connection.start")),
        None => return Err(strange(target, "it hung up at once").remedy(look_at_port(target))),
    };
    let (mechanism, response) = login(target, &mechanisms)?;
    let client = client_properties(name);
    talk.call(target, Call::StartOk { client: &client, mechanism, response: &response }).await?;
    let agreed = match talk.next(target).await? {
        Some(Method::ConnectionTune { channel_max, frame_max, heartbeat }) => {
            agree(target, channel_max, frame_max, heartbeat)
        }
        Some(Method::ConnectionClose(close)) => return Err(login_refused(target, &close)),
        Some(Method::ConnectionSecure) => {
            return Err(strange(
                target,
                "it asks for a second step of login, which PLAIN and EXTERNAL do not have",
            ));
        }
        Some(_) => return Err(strange(target, "it answered the login with something else")),
        // What a broker does that lacks `authentication_failure_close`.
        None => return Err(login_fault(target, "it hung up on the login")),
    };
    let tune_ok = Call::TuneOk {
        channel_max: agreed.channel_max,
        frame_max: agreed.frame_max as u32,
        heartbeat: agreed.heartbeat.as_secs() as u16,
    };
    talk.call(target, tune_ok).await?;
    talk.call(target, Call::Open { vhost: &target.vhost }).await?;
    match talk.next(target).await? {
        Some(Method::ConnectionOpenOk) => {}
        Some(Method::ConnectionClose(close)) => return Err(vhost_refused(target, &close)),
        Some(_) => return Err(strange(target, "it answered the opening of the vhost with something else")),
        None => return Err(strange(target, "it hung up when the vhost was opened")),
    }
    let of_server = |name: &str| match server.get(name) {
        Some(HeaderValue::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let server = Server { product: of_server("product"), version: of_server("version") };
    Ok(Greeted { stream: talk.stream, unread: talk.unread, agreed, server })
}

fn login(target: &Target, mechanisms: &str) -> Result<(&'static str, Vec<u8>), Failure> {
    let (mechanism, response) = match &target.login {
        Login::Plain { username, password } => {
            ("PLAIN", format!("\0{username}\0{}", password.reveal()).into_bytes())
        }
        Login::External => ("EXTERNAL", Vec::new()),
    };
    if mechanisms.split_ascii_whitespace().any(|offered| offered == mechanism) {
        return Ok((mechanism, response));
    }
    let remedy = match &target.login {
        Login::Plain { .. } => "Let the broker offer PLAIN (`auth_mechanisms.1 = PLAIN`).",
        Login::External => {
            "Enable the plugin `rabbitmq_auth_mechanism_ssl` and `auth_mechanisms.1 = EXTERNAL`, or give a username."
        }
    };
    Err(fault(target, FailureKind::Refused, codes::BROKER_REFUSED_LOGIN)
        .detail(format!("it offers the login mechanisms `{mechanisms}`, and not {mechanism}"))
        .remedy(remedy))
}

fn client_properties(name: &str) -> Headers {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let capabilities: Headers = [
        "publisher_confirms",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
        "basic.nack",
    ]
    .into_iter()
    .map(|capability| (capability.to_owned(), HeaderValue::Bool(true)))
    .collect();
    [
        ("product".to_owned(), text("Warren")),
        ("version".to_owned(), text(env!("CARGO_PKG_VERSION"))),
        ("platform".to_owned(), text("Rust")),
        ("connection_name".to_owned(), text(name)),
        ("capabilities".to_owned(), HeaderValue::Table(capabilities)),
    ]
    .into_iter()
    .collect()
}

fn agree(target: &Target, channel_max: u16, frame_max: u32, heartbeat: u16) -> Agreed {
    // Zero means "no limit" for the first two, and "none" for the heartbeat: whoever wants one gets it.
    let smaller = |theirs: u64, ours: u64| if theirs == 0 { ours } else { theirs.min(ours) };
    let ours = target.heartbeat.as_secs();
    Agreed {
        channel_max: smaller(channel_max.into(), CHANNEL_MAX.into()) as u16,
        frame_max: smaller(frame_max.into(), FRAME_MAX.into()).max(FRAME_MIN.into()) as usize,
        heartbeat: Duration::from_secs(if ours == 0 { 0 } else { smaller(heartbeat.into(), ours) }),
    }
}

fn lost(target: &Target, error: &io::Error) -> Failure {
    // With TLS 1.3 a server says only after the handshake that it does not take us.
    if refuses_certificate(error) {
        return fault(target, FailureKind::Refused, codes::TLS_FAILED).detail(error.to_string()).remedy(
            "Give the certificate that the broker asks for in `tls.cert` and `tls.key`, signed by an authority it trusts.",
        );
    }
    fault(target, FailureKind::Disconnected, codes::BROKER_UNREACHABLE)
        .detail(format!("the connection broke during the greeting: {error}"))
        .remedy(look_at_port(target))
}

fn look_at_port(target: &Target) -> &'static str {
    match target.protocol {
        // Where the broker refuses a certificate, the connection may break before its word reaches us.
        Protocol::Amqps => {
            "Check that the port is RabbitMQ's TLS port; if it asks for a certificate, give `tls.cert` and `tls.key`, signed by an authority it trusts."
        }
        Protocol::Amqp => "Check that the port is RabbitMQ's, and whether it wants TLS.",
    }
}

/// Whether the broker said that our certificate, or that we have none, is why it ends the connection.
fn refuses_certificate(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return false };
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

fn strange(target: &Target, why: &str) -> Failure {
    fault(target, FailureKind::Disconnected, codes::PROTOCOL_ERROR)
        .detail(why)
        .remedy("Check that the port is RabbitMQ's AMQP port, and whether it wants TLS.")
}

fn login_fault(target: &Target, detail: &str) -> Failure {
    let remedy = match &target.login {
        Login::Plain { username, .. } if username == "guest" => {
            "Correct the password; from another machine than the broker's, give another user: RabbitMQ lets `guest` in from its own only."
        }
        Login::Plain { .. } => {
            "Correct `username` and `password`; `rabbitmqctl authenticate_user` tries them."
        }
        Login::External => {
            "Let the broker know a user of the certificate's name, without a password: its common name with `ssl_cert_login_from = common_name`, else its whole subject."
        }
    };
    fault(target, FailureKind::Refused, codes::BROKER_REFUSED_LOGIN).detail(detail).remedy(remedy)
}

fn login_refused(target: &Target, close: &Close) -> Failure {
    match close.code {
        403 => login_fault(target, &text(close)),
        // 530 here: too many connections of the user. 320: it is about to stop.
        _ => fault(target, FailureKind::Disconnected, codes::BROKER_UNREACHABLE)
            .detail(text(close))
            .remedy("See the broker's log for what it says about it."),
    }
}

fn vhost_refused(target: &Target, close: &Close) -> Failure {
    let vhost = &target.vhost;
    let failure = |kind, code| fault(target, kind, code).detail(text(close));
    match close.code {
        530 if close.text.contains("limit") => failure(FailureKind::Throttled, codes::BROKER_UNREACHABLE)
            .remedy("Close other connections, or raise the limit of the vhost or user."),
        530 if close.text.contains("not found") => failure(FailureKind::NotFound, codes::UNKNOWN_VHOST)
            .remedy(format!("Correct `vhost` (now `{vhost}`; a `/` in a url is written %2F), or create it with `rabbitmqctl add_vhost`.")),
        402 | 403 | 530 => failure(FailureKind::Refused, codes::UNKNOWN_VHOST).remedy(format!(
            "Give the user rights in the vhost `{vhost}` with `rabbitmqctl set_permissions`, or use another vhost or user."
        )),
        _ => failure(FailureKind::Disconnected, codes::BROKER_UNREACHABLE)
            .remedy("See the broker's log for what it says about it."),
    }
}
