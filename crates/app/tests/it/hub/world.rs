//! A hub with ports in memory, behind the listener that the product uses.

use std::net::SocketAddr;
use std::sync::Arc;

use rand_bytes::fill;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use warren_connectors::kit::tls::TlsSettings;
use warren_engine::hub::delivering::{Delivering, DeliveringPorts};
use warren_engine::hub::ports::{Right, Users};
use warren_engine::hub::settings::{HubSettings, WebsubSettings};
use warren_engine::hub::{Hub, HubPorts};
use warren_engine::memory::{
    MemoryEstate, MemoryIdSlots, MemoryInFlight, MemoryMessageRecords, MemoryParking, MemorySubscriptions,
    MemoryUsers,
};
use warren_engine::ports::Clock;
use warren_server::hub::{Scheme, router};
use warren_server::listen::{self, Listener};
use warren_store::state::SystemClock;

use super::client::{Ask, PATIENCE, Reply};

/// A hub and all around it.
pub struct World {
    pub address: SocketAddr,
    pub hub: Arc<Hub>,
    pub estate: Arc<MemoryEstate>,
    pub users: Arc<MemoryUsers>,
    tasks: JoinSet<()>,
    token: CancellationToken,
    _stop: DropGuard,
}

mod rand_bytes {
    /// Good enough for tests.
    pub fn fill(bytes: &mut [u8]) {
        for byte in bytes {
            *byte = fastrand::u8(..);
        }
    }
}

/// `boss` may everything and has both tags; `half` has one of them; `reader`, `writer` and `maker` have one right each, in `/`; `nobody`
/// has none.
fn users() -> MemoryUsers {
    let users = MemoryUsers::default();
    users.add("boss", "secret", &["administrator", "rabbithub_admin"]);
    users.add("half", "secret", &["administrator"]);
    users.add("nobody", "secret", &[]);
    for vhost in ["/", "V"] {
        users.grant_all("boss", vhost);
    }
    for (name, right) in [("reader", Right::Read), ("writer", Right::Write), ("maker", Right::Configure)] {
        users.add(name, "secret", &[]);
        users.grant(name, right, "/", "");
    }
    users
}

impl World {
    /// A hub in compatibility mode or not.
    pub async fn start(compat: bool) -> World {
        World::with(compat, |_| ()).await
    }

    /// A hub with settings that are changed before.
    pub async fn with(compat: bool, change: impl FnOnce(&mut HubSettings)) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = HubSettings::new(compat);
        settings.allow_callbacks = vec!["127.0.0.1/32".to_owned()];
        settings.public_url = Some(format!("http://{address}"));
        settings.websub = Some(WebsubSettings {
            topics: vec!["http://127.0.0.1".to_owned()],
            exchanges: vec![("/".to_owned(), "news".to_owned())],
            redirects: Vec::new(),
            vhost: "/".to_owned(),
        });
        change(&mut settings);
        let estate = Arc::new(MemoryEstate::with_vhosts(["/", "V"]));
        let users = Arc::new(users());
        let ports = HubPorts {
            estate: estate.clone(),
            store: Arc::<MemorySubscriptions>::default(),
            http: warren_connectors::http::caller(&TlsSettings::default()).unwrap(),
            clock: Arc::new(SystemClock) as Arc<dyn Clock>,
            random: Arc::new(fill),
        };
        let hub = Hub::open(settings, ports).await.unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(hub.clone().run(stop.clone()));
        let routes = router(hub.clone(), users.clone(), Scheme::Http);
        tasks.spawn(listen::serve(Listener::new(listener), routes, stop.clone()));
        World { address, hub, estate, users, tasks, token: stop.clone(), _stop: stop.drop_guard() }
    }

    /// Delivers from now on what waits for callbacks.
    pub fn deliver(&mut self) {
        let ports = DeliveringPorts {
            records: Arc::<MemoryMessageRecords>::default(),
            parking: Arc::<MemoryParking>::default(),
            in_flight: Arc::<MemoryInFlight>::default(),
            ids: Arc::<MemoryIdSlots>::default(),
            dice: Arc::new(|| 0.5),
        };
        let delivering = Delivering::new(self.hub.clone(), ports, PATIENCE, true);
        self.tasks.spawn(delivering.run(self.token.clone()));
    }

    /// Ends it, as the process would.
    pub async fn end(mut self) {
        self.token.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Another listener of the same hub, with these users.
    pub async fn listen_for(&mut self, users: Arc<dyn Users>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = router(self.hub.clone(), users, Scheme::Http);
        self.tasks.spawn(listen::serve(Listener::new(listener), routes, self.token.clone()));
        address
    }

    /// Sends a request as it is.
    pub async fn send(&self, ask: Ask) -> Reply {
        ask.send(self.address).await
    }

    /// Sends a request as `boss`.
    pub async fn boss(&self, ask: Ask) -> Reply {
        ask.login("boss", "secret").send(self.address).await
    }

    /// Status and text of a request by `boss` without a body.
    pub async fn said(&self, method: &str, target: &str) -> (u16, String) {
        self.boss(Ask::new(method, target)).await.said()
    }

    /// Makes queues in `/`.
    pub fn queues(&self, names: &[&str]) {
        let host = self.estate.host("/");
        for name in names {
            host.queues.declare(name);
        }
    }

    /// Makes an exchange in `/`, and a queue that gets all of it.
    pub async fn bound(&self, exchange: &str, queue: &str) {
        use warren_engine::hub::ports::{Estate as _, HubBinding};
        let host = self.estate.host("/");
        host.declare_exchange(exchange, "topic");
        host.queues.declare(queue);
        let binding = HubBinding {
            vhost: "/".to_owned(),
            exchange: exchange.to_owned(),
            queue: queue.to_owned(),
            routing_key: "#".to_owned(),
            arguments: warren_engine::message::Headers::default(),
        };
        self.estate.bind(&binding).await.unwrap();
    }
}

/// A text as a value of a form.
pub fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
