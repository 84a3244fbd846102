//! From a URL to a connection: straight or through a proxy, in the clear or with TLS, and only to addresses that are allowed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::line::Line;
use super::proxy::Proxies;
use crate::kit::guard::Allowed;
use crate::kit::tls::Watched;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Arc<Watched<Arc<ClientConfig>>>,
    /// The name certificates must be for, where it is not the host's.
    pub(super) server_name: Option<String>,
    pub(super) proxies: Arc<Proxies>,
    /// What is allowed besides public addresses; anything where there is none.
    pub(super) allowed: Option<Arc<Allowed>>,
    pub(super) timeout: Duration,
}

/// An address that is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAllowed(pub(super) IpAddr);

/// A host name without an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve the host name `{host}`")]
pub(super) struct NotResolved {
    host: String,
    #[source]
    cause: io::Error,
}

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) https: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Connector {
    /// Opens a connection.
    ///
    /// # Errors
    /// The host cannot be reached in time, or may not be.
    pub(super) async fn open(&self, place: &Place) -> io::Result<Line> {
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.connect(place, deadline)).await {
            Ok(connected) => connected,
            Err(_) => Err(late(self.timeout)),
        }
    }

    async fn connect(&self, place: &Place, deadline: Instant) -> io::Result<Line> {
        let Place { https, host, port } = place;
        let Some(proxy) = self.proxies.of(*https, host) else {
            let stream = reach(self.addresses(host, *port).await?, deadline).await?;
            return if *https { self.secure(stream, host).await } else { Ok(Line::new(stream, false)) };
        };
        self.check_behind_proxy(host, *port).await?;
        let addresses = resolve(&proxy.host, proxy.port).await?;
        let mut stream = reach(addresses, deadline).await?;
        if !https {
            return Ok(Line::new(stream, true));
        }
        proxy.tunnel(&mut stream, host, *port).await?;
        self.secure(stream, host).await
    }

    /// Where a host is. What this yields is what is connected to; nothing is looked up again.
    async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses = resolve(host, port).await?;
        let guarded = self.allowed.as_ref().filter(|allowed| !allowed.host(host));
        // One bad address is enough: a name that leads here and there is not to be trusted.
        match guarded.and_then(|allowed| addresses.iter().find(|address| !allowed.address(address.ip()))) {
            Some(refused) => Err(io::Error::new(io::ErrorKind::PermissionDenied, NotAllowed(refused.ip()))),
            None => Ok(addresses),
        }
    }

    /// Behind a proxy it is the proxy that looks up; a name that is known here as leading to where it may not is refused all the same.
    async fn check_behind_proxy(&self, host: &str, port: u16) -> io::Result<()> {
        match self.addresses(host, port).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            _ => Ok(()),
        }
    }

    async fn secure(&self, stream: TcpStream, host: &str) -> io::Result<Line> {
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let stream = TlsConnector::from(self.tls.now()).connect(name, stream).await?;
        Ok(Line::new(stream, false))
    }
}

/// The addresses of a host, one at least.
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let failed = |cause: io::Error| {
        let kind = cause.kind();
        io::Error::new(kind, NotResolved { host: host.to_owned(), cause })
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the host has no address")));
    }
    Ok(addresses)
}

/// Connects to the first address that answers; each gets its share of the time.
async fn reach(addresses: Vec<SocketAddr>, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let count = addresses.len() as u32;
    for (at, address) in (0..).zip(addresses) {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (count - at);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).ok(); // a matter of speed
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = late(share),
        }
    }
    Err(last)
}

fn late(after: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {after:?}"))
}
