//! Names to addresses, refused where one of them is not allowed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::net::lookup_host;
use tower_service::Service;

use crate::kit::guard::Allowed;

/// Looks names up with the system's resolver. What it yields is what is connected to.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    /// What is allowed besides public addresses; anything where there is none.
    pub(super) allowed: Option<Arc<Allowed>>,
}

/// A name that leads to an address that is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotAllowed(pub(super) SocketAddr);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allowed = self.allowed.clone();
        Box::pin(async move {
            // The connector puts the port in.
            let addresses: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            let guarded = allowed.filter(|allowed| !allowed.host(name.as_str()));
            // One bad address is enough: a name that leads here and there is not to be trusted.
            match guarded
                .and_then(|allowed| addresses.iter().find(|address| !allowed.address(address.ip())).copied())
            {
                Some(refused) => Err(io::Error::new(io::ErrorKind::PermissionDenied, NotAllowed(refused))),
                None => Ok(addresses.into_iter()),
            }
        })
    }
}
