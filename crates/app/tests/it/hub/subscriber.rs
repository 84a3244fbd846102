//! A callback server: what its path says, it does; what it hears, it notes. Also the server of a topic.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::PATIENCE;

/// A request that came.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Heard {
    /// The decoded value of a parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(other, _)| other == name).map(|(_, value)| value.into_owned())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What a topic says: media type and body.
pub type Document = Arc<Mutex<(&'static str, String)>>;

struct Shared {
    heard: Mutex<Vec<Heard>>,
    count: watch::Sender<usize>,
    document: Document,
    /// The coding and the coded bytes that the topic answers with instead, whatever was asked for.
    coded: Mutex<Option<(&'static str, Vec<u8>)>>,
    /// Where the topic sends to, instead of saying anything.
    sends_to: Mutex<Option<String>>,
}

/// A server on loopback, for as long as it is held.
pub struct Subscriber {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Subscriber {
    pub async fn start() -> Subscriber {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            heard: Mutex::default(),
            count: watch::Sender::new(0),
            document: Arc::new(Mutex::new(("text/html; charset=UTF-8", "<p>one</p>".to_owned()))),
            coded: Mutex::default(),
            sends_to: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Subscriber { address, shared, _task: task }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that was heard.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// The requests with this method to a path.
    pub fn of(&self, method: &Method, path: &str) -> Vec<Heard> {
        self.heard().into_iter().filter(|heard| heard.method == *method && heard.path == path).collect()
    }

    /// Waits until so many with this method to a path were heard, and yields them.
    pub async fn hears(&self, method: Method, path: &str, count: usize) -> Vec<Heard> {
        let mut changes = self.shared.count.subscribe();
        let waits = async {
            loop {
                changes.borrow_and_update();
                let heard = self.of(&method, path);
                if heard.len() >= count {
                    return heard;
                }
                changes.changed().await.unwrap();
            }
        };
        let heard = timeout(PATIENCE, waits).await;
        heard.unwrap_or_else(|_| panic!("{method} {path} heard less than {count} times: {:?}", self.heard()))
    }

    /// Where the topic at `/topic` sends to from now on; `None`: nowhere.
    pub fn sends_to(&self, location: Option<&str>) {
        *self.shared.sends_to.lock().unwrap() = location.map(str::to_owned);
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        self.shared.heard.lock().unwrap().clear();
    }

    /// What the topic at `/topic` says from now on, in a coding that nobody asked for.
    pub fn says_coded(&self, coding: &'static str, body: Vec<u8>) {
        *self.shared.coded.lock().unwrap() = Some((coding, body));
    }

    /// What the topic at `/topic` says from now on.
    pub fn says(&self, kind: &'static str, body: &str) {
        *self.shared.document.lock().unwrap() = (kind, body.to_owned());
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let heard = Heard {
        method: method.clone(),
        path: uri.path().to_owned(),
        query: query.unwrap_or_default(),
        headers,
        body: body.to_vec(),
    };
    let challenge = heard.parameter("hub.challenge");
    shared.heard.lock().unwrap().push(heard);
    shared.count.send_modify(|count| *count += 1);
    match (method, uri.path(), challenge) {
        (_, "/topic", _) if shared.sends_to.lock().unwrap().is_some() => {
            let location = shared.sends_to.lock().unwrap().clone().unwrap();
            (StatusCode::FOUND, [("location", location)]).into_response()
        }
        (_, "/topic", _) if shared.coded.lock().unwrap().is_some() => {
            let (coding, body) = shared.coded.lock().unwrap().clone().unwrap();
            ([("content-type", "text/plain"), ("content-encoding", coding)], body).into_response()
        }
        (_, "/topic" | "/topic/new", _) => {
            let (kind, body) = shared.document.lock().unwrap().clone();
            ([("content-type", kind)], body).into_response()
        }
        (_, "/hangs", _) => std::future::pending().await,
        (Method::GET, "/refuses", _) => StatusCode::NOT_FOUND.into_response(),
        (Method::GET, "/wrong", _) => "something else".into_response(),
        (Method::GET, "/redirects", _) => {
            (StatusCode::FOUND, [("location", format!("/agrees?{}", uri.query().unwrap_or_default()))])
                .into_response()
        }
        (Method::GET, _, Some(challenge)) => {
            ([("content-type", "application/octet-stream")], challenge).into_response()
        }
        (Method::POST, _, _) if body.windows(3).any(|window| window == b"bad") => {
            StatusCode::BAD_REQUEST.into_response()
        }
        _ => StatusCode::OK.into_response(),
    }
}
