//! A connection of the hub's listener: whatever bytes a client sends, each request is answered and the connection ends. Ports are in memory,
//! and nothing is called: callbacks and topics are refused.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};
use warren_server::hub::{Scheme, router};
use warren_server::listen;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::settings::{HubSettings, WebsubSettings};
use warren_engine::hub::{Hub, HubPorts};
use warren_engine::memory::{FixedClock, MemoryEstate, MemorySubscriptions, MemoryUsers};
use warren_engine::pipeline::outside::{HttpAnswer, HttpRequest};
use warren_engine::ports::HttpCaller;

/// Calls nobody.
struct Nobody;

#[async_trait::async_trait]
impl HttpCaller for Nobody {
    async fn call(&self, _: &HttpRequest) -> Result<HttpAnswer, Failure> {
        Err(Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, "call a host"))
    }
}

/// Inputs after which the hub is made anew, so that what earlier inputs stored stays small.
const RENEWED_AFTER: u32 = 2_000;

struct World {
    hub: Arc<Hub>,
    users: Arc<MemoryUsers>,
    used: u32,
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime can be made");
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

async fn world() -> World {
    let mut settings = HubSettings::new(false);
    settings.allow_callbacks = vec!["127.0.0.1/32".to_owned()];
    settings.websub = Some(WebsubSettings {
        topics: vec!["http://127.0.0.1".to_owned()],
        exchanges: vec![("/".to_owned(), "news".to_owned())],
        redirects: Vec::new(),
        vhost: "/".to_owned(),
    });
    let estate = Arc::new(MemoryEstate::with_vhosts(["/", "V"]));
    for name in ["q", "orders"] {
        estate.host("/").queues.declare(name);
    }
    let users = Arc::new(MemoryUsers::default());
    users.add("boss", "secret", &["administrator", "rabbithub_admin"]);
    users.grant_all("boss", "/");
    let ports = HubPorts {
        estate,
        store: Arc::<MemorySubscriptions>::default(),
        http: Arc::new(Nobody),
        clock: Arc::new(FixedClock(1_800_000_000_000)),
        random: Arc::new(|bytes: &mut [u8]| bytes.fill_with(|| fastrand::u8(..))),
    };
    World { hub: Hub::open(settings, ports).await.expect("a hub in memory opens"), users, used: 0 }
}

/// A request of a user who may do everything needs a login that no fuzzer finds: `\x00` stands for it.
fn with_login(bytes: &[u8]) -> Vec<u8> {
    const LOGIN: &[u8] = b"Authorization: Basic Ym9zczpzZWNyZXQ=\r\n";
    let mut out = Vec::with_capacity(bytes.len() + LOGIN.len());
    for byte in bytes {
        match byte {
            0 => out.extend_from_slice(LOGIN),
            other => out.push(*other),
        }
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    let request = with_login(bytes);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let mut world = match WORLD.take() {
                Some(world) if world.used < RENEWED_AFTER => world,
                _ => self::world().await,
            };
            world.used += 1;
            let routes = router(world.hub.clone(), world.users.clone(), Scheme::Http);
            let (mut client, server) = duplex(1 << 20);
            let client = async {
                // The connection may have ended before all was written.
                client.write_all(&request).await.ok();
                client.shutdown().await.ok();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.ok();
                answer
            };
            let (answer, ()) = tokio::join!(client, listen::fuzz(server, routes));
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "an answer is HTTP");
            assert!(!answer.starts_with(b"HTTP/1.1 500"), "a request makes an internal error: {}", answer.escape_ascii());
            WORLD.set(Some(world));
        });
    });
});
