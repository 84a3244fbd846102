//! What the hub's routes name: a queue or an exchange of a virtual host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of the virtual host that paths without one mean.
pub const DEFAULT_VHOST: &str = "/";

/// A queue or an exchange of a virtual host. Names are compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// The virtual host.
    pub vhost: String,
    /// Which of the two.
    pub kind: ResourceKind,
    /// Its name. An empty one is the default exchange.
    pub name: String,
}

/// A queue or an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// A queue: `q` in paths.
    Queue,
    /// An exchange: `x` in paths.
    Exchange,
}

impl ResourceKind {
    /// The letter for it in paths.
    pub fn letter(self) -> &'static str {
        match self {
            ResourceKind::Queue => "q",
            ResourceKind::Exchange => "x",
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceKind::Queue => "queue",
            ResourceKind::Exchange => "exchange",
        }
    }
}

impl Resource {
    /// A queue.
    pub fn queue(vhost: &str, name: &str) -> Resource {
        Resource { vhost: vhost.to_owned(), kind: ResourceKind::Queue, name: name.to_owned() }
    }

    /// An exchange.
    pub fn exchange(vhost: &str, name: &str) -> Resource {
        Resource { vhost: vhost.to_owned(), kind: ResourceKind::Exchange, name: name.to_owned() }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` of vhost `{}`", self.kind.as_str(), self.name, self.vhost)
    }
}
