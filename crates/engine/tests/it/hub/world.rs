//! A hub with everything it needs in memory, and a web of callbacks and topics that do as they are told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::delivering::{Delivering, DeliveringPorts};
use warren_engine::hub::request::{Mode, SubscribeRequest, Verify};
use warren_engine::hub::resource::Resource;
use warren_engine::hub::settings::HubSettings;
use warren_engine::hub::subscription::{Protocol, Signing, Subscription, SubscriptionKey};
use warren_engine::hub::{Hub, HubPorts, websub};
use warren_engine::memory::{
    MemoryEstate, MemoryHost, MemoryIdSlots, MemoryInFlight, MemoryMessageRecords, MemoryParking,
    MemorySubscriptions,
};
use warren_engine::message::{Headers, Message, Outbound, Properties, Receipt, Route};
use warren_engine::pipeline::outside::{HttpAnswer, HttpRequest};
use warren_engine::ports::{Broker, Clock, HttpCaller};

/// The wall clock goes with tokio's, which tests hold.
#[derive(Clone, Copy)]
pub struct TestClock(Instant);

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.elapsed().as_millis() as i64 + 1_700_000_000_000
    }
}

/// How a host answers.
#[derive(Debug, Clone)]
pub enum Act {
    /// A verification with its challenge, a delivery with 200.
    Well,
    /// With this status.
    Status(u16),
    /// With this status, and how long to wait.
    Busy(u16, u64),
    /// With 200 and something else than what was asked for.
    Wrongly,
    /// Not at all: no connection.
    Down,
    /// Not at all: the request fails in this way.
    Fails(FailureKind),
    /// Never.
    Hangs,
    /// A bug of ours ends whoever asks.
    Panics,
}

/// All hosts. Those that nobody spoke of answer well.
#[derive(Default)]
pub struct Web {
    gets: Mutex<HashMap<String, Act>>,
    posts: Mutex<HashMap<String, Act>>,
    topics: Mutex<HashMap<String, Result<HttpAnswer, Failure>>>,
    requests: Mutex<Vec<HttpRequest>>,
    taken: Mutex<Vec<(Instant, String, Bytes)>>,
}

impl Web {
    /// How a host answers verifications.
    pub fn asked(&self, host: &str, act: Act) {
        self.gets.lock().unwrap().insert(host.to_owned(), act);
    }

    /// How a host answers deliveries.
    pub fn posted(&self, host: &str, act: Act) {
        self.posts.lock().unwrap().insert(host.to_owned(), act);
    }

    /// What stands under a URL.
    pub fn topic(&self, url: &str, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = HttpAnswer { status, headers, body: Bytes::from(body.to_owned()) };
        self.topics.lock().unwrap().insert(url.to_owned(), Ok(answer));
    }

    /// What fetching a URL fails with.
    pub fn topic_fails(&self, url: &str, failure: Failure) {
        self.topics.lock().unwrap().insert(url.to_owned(), Err(failure));
    }

    /// All requests of a method to a host, in order.
    pub fn requests(&self, method: &str, host: &str) -> Vec<HttpRequest> {
        let requests = self.requests.lock().unwrap();
        let of = |request: &&HttpRequest| {
            request.method == method && Url::parse(&request.url).unwrap().host_str() == Some(host)
        };
        requests.iter().filter(of).cloned().collect()
    }

    /// The value of a parameter of the last request of a method to a host.
    pub fn parameter(&self, method: &str, host: &str, name: &str) -> Option<String> {
        let request = self.requests(method, host).pop()?;
        let url = Url::parse(&request.url).unwrap();
        url.query_pairs().find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
    }

    /// The bodies that a host took, in order.
    pub fn taken(&self, host: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let of = taken.iter().filter(|(_, other, _)| other == host);
        of.map(|(_, _, body)| String::from_utf8_lossy(body).into_owned()).collect()
    }

    /// When a host took them.
    pub fn taken_at(&self, host: &str) -> Vec<Instant> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(_, other, _)| other == host).map(|(at, ..)| *at).collect()
    }
}

#[async_trait]
impl HttpCaller for Web {
    async fn call(&self, request: &HttpRequest) -> Result<HttpAnswer, Failure> {
        self.requests.lock().unwrap().push(request.clone());
        let url = Url::parse(&request.url).unwrap();
        let host = url.host_str().unwrap().to_owned();
        if let Some(answer) = self.topics.lock().unwrap().get(&request.url).cloned() {
            let answer = answer?;
            let known = request.headers.iter().find(|(name, _)| name == "if-none-match");
            if known.is_some_and(|(_, etag)| answer.header("etag") == Some(etag)) {
                return Ok(HttpAnswer { status: 304, ..HttpAnswer::default() });
            }
            return Ok(answer);
        }
        let acts = if request.method == "POST" { &self.posts } else { &self.gets };
        let act = acts.lock().unwrap().get(&host).cloned().unwrap_or(Act::Well);
        let answered =
            |status, body: String| Ok(HttpAnswer { status, headers: Vec::new(), body: Bytes::from(body) });
        match act {
            Act::Well if request.method == "POST" => {
                let taken = (Instant::now(), host, request.body.clone());
                self.taken.lock().unwrap().push(taken);
                answered(200, String::new())
            }
            Act::Well => {
                let challenge = url.query_pairs().find(|(name, _)| name == "hub.challenge");
                answered(200, challenge.map(|(_, value)| value.into_owned()).unwrap_or_default())
            }
            Act::Status(status) => answered(status, "says the receiver".to_owned()),
            Act::Busy(status, seconds) => {
                let headers = vec![("retry-after".to_owned(), seconds.to_string())];
                Ok(HttpAnswer { status, headers, body: Bytes::new() })
            }
            Act::Wrongly => answered(200, "hello".to_owned()),
            Act::Down => {
                Err(Failure::new(FailureKind::Disconnected, codes::HTTP_FAILED, format!("call {host}")))
            }
            Act::Fails(kind) => Err(Failure::new(kind, codes::HTTP_FAILED, format!("call {host}"))),
            Act::Hangs => std::future::pending().await,
            Act::Panics => panic!("on purpose"),
        }
    }
}

pub struct World {
    pub settings: HubSettings,
    pub estate: Arc<MemoryEstate>,
    pub store: Arc<MemorySubscriptions>,
    pub web: Arc<Web>,
    pub parking: Arc<MemoryParking>,
    pub records: Arc<MemoryMessageRecords>,
    pub in_flight: Arc<MemoryInFlight>,
    pub ids: Arc<MemoryIdSlots>,
    pub hub: Arc<Hub>,
    pub delivering: Arc<Delivering>,
    pub began: Instant,
    clock: TestClock,
    random: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    /// A hub with default settings that runs, with queue `q`, topic exchange `x` and headers exchange `h` in vhost `/`.
    pub async fn new() -> World {
        World::with(HubSettings::new(false)).await
    }

    /// The same in compatibility mode.
    pub async fn compat() -> World {
        World::with(HubSettings::new(true)).await
    }

    pub async fn with(settings: HubSettings) -> World {
        let estate = Arc::new(MemoryEstate::with_vhosts(["/", "web"]));
        estate.host("/").queues.declare("q");
        estate.host("/").declare_exchange("x", "topic");
        estate.host("/").declare_exchange("h", "headers");
        let began = Instant::now();
        let clock = TestClock(began);
        let (store, web, random) =
            (Arc::<MemorySubscriptions>::default(), Arc::<Web>::default(), Arc::<AtomicU64>::default());
        let (parking, records, in_flight) = (Arc::default(), Arc::default(), Arc::default());
        let ids = Arc::default();
        let ports = ports(&estate, &store, &web, clock, &random);
        let hub = Hub::open(settings.clone(), ports).await.unwrap();
        let delivering = delivering(&hub, &parking, &records, &in_flight, &ids);
        let mut world = World {
            settings,
            estate,
            store,
            web,
            parking,
            records,
            in_flight,
            ids,
            hub,
            delivering,
            began,
            clock,
            random,
            stop: CancellationToken::new(),
            tasks: Vec::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.stop = CancellationToken::new();
        #[allow(clippy::disallowed_methods, reason = "tests")]
        {
            self.tasks = vec![
                tokio::spawn(self.hub.clone().run(self.stop.clone())),
                tokio::spawn(self.delivering.clone().run(self.stop.clone())),
            ];
        }
    }

    /// Ends in good order.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }

    /// The process dies, and another takes over with other settings perhaps.
    pub async fn restart(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            task.await.ok();
        }
        self.in_flight.crash();
        for vhost in ["/", "web"] {
            self.estate.host(vhost).queues.disconnect();
        }
        let ports = ports(&self.estate, &self.store, &self.web, self.clock, &self.random);
        self.hub = Hub::open(self.settings.clone(), ports).await.unwrap();
        self.delivering = delivering(&self.hub, &self.parking, &self.records, &self.in_flight, &self.ids);
        self.start();
    }

    pub fn host(&self) -> Arc<MemoryHost> {
        self.estate.host("/")
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Subscribes, and waits for the end of it.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Arc<Subscription> {
        self.hub.subscribe(request.clone()).await.unwrap();
        self.until("the subscription", || self.hub.get(&request.key).is_some_and(|held| held.is_active()))
            .await;
        self.hub.get(&request.key).unwrap()
    }

    pub async fn publish(&self, queue: &str, bodies: impl IntoIterator<Item = impl Into<String>>) {
        for body in bodies {
            let message = Message { body: Bytes::from(body.into()), properties: Properties::default() };
            self.send(Route::Queue(queue.into()), message).await;
        }
    }

    pub async fn send(&self, route: Route, message: Message) {
        let receipts = self.host().publish(&[Outbound { route, message }]).await;
        assert!(matches!(receipts[..], [Receipt::Accepted(_)]), "{receipts:?}");
    }

    /// Messages in a queue of vhost `/`, taken by nobody.
    pub fn depth(&self, queue: &str) -> usize {
        self.host().queues.messages(queue).len()
    }

    /// Waits for a state, which must come within days of the test's clock.
    pub async fn until(&self, what: &str, state: impl Fn() -> bool) {
        let began = Instant::now();
        while !state() {
            let shown = || format!("{:?}; {} chores", self.hub.all(), self.hub.chores());
            assert!(began.elapsed() < Duration::from_secs(4 * 86_400), "{what} never came: {}", shown());
            // The clock stands still while anything can run, and then goes on to what happens next.
            passes(Duration::from_millis(20) + began.elapsed() / 100).await;
        }
    }

    /// Waits until a host has taken so many messages.
    pub async fn until_taken(&self, host: &str, count: usize) {
        self.until("the messages", || self.web.taken(host).len() >= count).await;
    }

    /// The state of the consumer of a subscription.
    pub fn consumer(&self, key: &SubscriptionKey) -> String {
        let status = self.hub.consumer(key.id());
        status.map_or("none".to_owned(), |status| status.state().as_str().to_owned())
    }
}

fn ports(
    estate: &Arc<MemoryEstate>,
    store: &Arc<MemorySubscriptions>,
    web: &Arc<Web>,
    clock: TestClock,
    random: &Arc<AtomicU64>,
) -> HubPorts {
    let random = random.clone();
    HubPorts {
        estate: estate.clone(),
        store: store.clone(),
        http: web.clone(),
        clock: Arc::new(clock),
        random: Arc::new(move |bytes: &mut [u8]| {
            let next = random.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            bytes.iter_mut().zip(next.iter().cycle()).for_each(|(byte, next)| *byte = *next);
        }),
    }
}

fn delivering(
    hub: &Arc<Hub>,
    parking: &Arc<MemoryParking>,
    records: &Arc<MemoryMessageRecords>,
    in_flight: &Arc<MemoryInFlight>,
    ids: &Arc<MemoryIdSlots>,
) -> Arc<Delivering> {
    let ports = DeliveringPorts {
        records: records.clone(),
        parking: parking.clone(),
        in_flight: in_flight.clone(),
        ids: ids.clone(),
        dice: Arc::new(|| 0.5),
    };
    Delivering::new(hub.clone(), ports, Duration::from_secs(30), true)
}

/// Time passes on the test's clock, which stands still while anything can run.
pub async fn passes(time: Duration) {
    tokio::time::timeout(time, std::future::pending::<()>()).await.unwrap_err();
}

/// A request for queue `q`, verified before the answer.
pub fn to_queue(callback: &str) -> SubscribeRequest {
    to(Resource::queue("/", "q"), "all", callback)
}

pub fn to(resource: Resource, topic: &str, callback: &str) -> SubscribeRequest {
    let key = SubscriptionKey { resource, topic: topic.into(), callback: callback.into() };
    SubscribeRequest {
        key,
        protocol: Protocol::Rabbithub,
        mode: Mode::Subscribe,
        verify: Verify::Sync,
        verify_token: None,
        lease_seconds: None,
        max_tps: 0,
        max_in_flight: None,
        final_statuses: None,
        ha_mode: None,
        basic_auth: None,
        secret: None,
        signing: Signing::Sha256,
        contact: None,
        arguments: Headers::default(),
        user: None,
    }
}

/// A request to the WebSub hub.
pub fn to_topic(settings: &HubSettings, topic: &str, callback: &str) -> SubscribeRequest {
    SubscribeRequest {
        key: websub::key(settings, topic, callback),
        protocol: Protocol::Websub,
        verify: Verify::Async,
        ..to_queue(callback)
    }
}

pub fn unsubscribe(request: &SubscribeRequest) -> SubscribeRequest {
    SubscribeRequest { mode: Mode::Unsubscribe, ..request.clone() }
}
