//! Fetching a foreign topic and handing out what is new (PubSubHubbub 0.3, section 7; WebSub leaves it to the hub).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::Hub;
use super::deeds::topic_name;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::hub::callback;
use crate::hub::chores::Tried;
use crate::hub::sign;
use crate::hub::subscription::SubscriptionId;
use crate::hub::verify;
use crate::hub::websub;
use crate::message::{Message, Outbound, Properties, Receipt, Route};
use crate::pipeline::outside::{CallOptions, HttpAnswer, HttpRequest};

/// So many redirects are followed.
const REDIRECTS_MAX: usize = 5;

/// What is known of a topic since it was last fetched.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    etag: Option<String>,
    last_modified: Option<String>,
    /// Of content type, content encoding and body.
    print: String,
}

/// How fetching topics ended, each time.
#[derive(Debug, Default)]
pub struct Fetches {
    /// The topic was as before.
    pub unchanged: AtomicU64,
    /// What is new was published to the followers.
    pub handed_out: AtomicU64,
    /// The topic cannot be fetched, is too large, or the broker does not take it.
    pub failed: AtomicU64,
}

/// How fetching a topic ended well.
enum Ended {
    Unchanged,
    HandedOut,
}

/// What came of fetching.
enum Fetched {
    Unchanged,
    New(Known, Document),
}

/// The content of a topic, as it is handed out.
struct Document {
    content_type: Option<String>,
    /// The codings that were not decoded on the way: the followers are sent them with the body.
    content_encoding: Option<String>,
    body: Bytes,
}

impl Hub {
    /// Fetches a topic, and publishes it to those who follow it if it is new.
    pub(super) async fn fetch(&self, topic: &str) -> Tried {
        if websub::topic(&self.settings, topic) != Ok(websub::Topic::Foreign) || self.followers(topic) == 0 {
            return Tried::Over;
        }
        match self.fetch_and_hand_out(topic).await {
            Ok(ended) => {
                let count = match ended {
                    Ended::Unchanged => &self.fetches.unchanged,
                    Ended::HandedOut => &self.fetches.handed_out,
                };
                count.fetch_add(1, Relaxed);
                Tried::Over
            }
            Err(failure) => {
                self.fetches.failed.fetch_add(1, Relaxed);
                let topic = callback::shown(topic);
                tracing::warn!(topic, failure = failure.line(), "a topic cannot be handed out");
                Tried::Again(failure.to_string())
            }
        }
    }

    /// Notes at each follower of a topic that its content cannot be had.
    fn note_topic_error(&self, topic: &str, failure: &Failure) {
        let followers: Vec<SubscriptionId> =
            self.held().followers.get(topic).into_iter().flatten().copied().collect();
        for id in followers {
            self.note_error(id, failure.name(), &failure.line());
        }
    }

    async fn fetch_and_hand_out(&self, topic: &str) -> Result<Ended, Failure> {
        let store = &self.ports.store;
        let known = store.value(&topic_name(topic)).await?;
        // What cannot be read was of no use; the topic is handed out once more.
        let known: Known = known.and_then(|known| serde_json::from_slice(&known).ok()).unwrap_or_default();
        let content = self.content(topic, &known).await;
        let content = content.inspect_err(|failure| self.note_topic_error(topic, failure))?;
        let Fetched::New(now, Document { content_type, content_encoding, body }) = content else {
            return Ok(Ended::Unchanged);
        };
        let exchange = websub::foreign(self.settings.websub.as_ref());
        let properties = Properties { content_type, content_encoding, ..Properties::default() };
        let routing_key = websub::print(topic);
        let outbound = Outbound {
            route: Route::Exchange { exchange: exchange.name.clone(), routing_key },
            message: Message { body, properties },
        };
        let broker = self.ports.estate.broker(&exchange.vhost).await?;
        match broker.publish(&[outbound]).await.into_iter().next() {
            Some(Receipt::Accepted(_)) => {}
            // The last of those who followed it is gone.
            Some(Receipt::Refused(failure)) if failure.kind == FailureKind::Unroutable => {}
            Some(Receipt::Refused(failure) | Receipt::Unknown(failure)) => return Err(failure),
            None => return Err(Failure::internal("publish a topic").detail("the broker gave no receipt")),
        }
        // Only now: what was not handed out is fetched again.
        let now = serde_json::to_vec(&now)
            .map_err(|error| Failure::internal("write down a topic").because(error))?;
        store.keep(&topic_name(topic), &now).await?;
        Ok(Ended::HandedOut)
    }

    /// Gets a topic, hop by hop: each address is looked at before it is called.
    async fn content(&self, topic: &str, known: &Known) -> Result<Fetched, Failure> {
        let what = || format!("fetch topic {}", callback::shown(topic));
        let mut url = topic.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let request = self.question(&url, topic, known);
            let asked = tokio::time::timeout(self.settings.request_timeout, self.ports.http.call(&request));
            let answer = asked.await.map_err(|_| {
                Failure::new(FailureKind::Timeout, codes::DEADLINE_PASSED, what())
                    .detail(format!("no answer within {:?}", self.settings.request_timeout))
            })?;
            let answer = answer.map_err(|failure| self.too_large(failure))?;
            match answer.status {
                200 => return Ok(new(known, answer)),
                304 => return Ok(Fetched::Unchanged),
                301 | 302 | 303 | 307 | 308 => {
                    url = target(&url, &answer).map_err(|why| {
                        Failure::new(FailureKind::Invalid, codes::HTTP_STATUS, what()).detail(why)
                    })?
                }
                status => {
                    return Err(Failure::new(FailureKind::Refused, codes::HTTP_STATUS, what())
                        .detail(format!("the answer was {status}")));
                }
            }
        }
        Err(Failure::new(FailureKind::Invalid, codes::HTTP_STATUS, what())
            .detail(format!("it redirects more than {REDIRECTS_MAX} times")))
    }

    /// With the setting that bounds topics, where that is what fails.
    fn too_large(&self, failure: Failure) -> Failure {
        if failure.code != codes::ANSWER_TOO_LARGE {
            return failure;
        }
        let bytes_max = self.settings.body_bytes_max;
        failure.detail(format!("the topic has more than {bytes_max} bytes")).remedy("raise `hub.max_body`")
    }

    fn question(&self, url: &str, topic: &str, known: &Known) -> HttpRequest {
        let followers = self.followers(topic);
        let hub = self.settings.hub_url().unwrap_or_default();
        let noun = if followers == 1 { "subscriber" } else { "subscribers" };
        let agent = format!("Warren/{} (+{hub}; {followers} {noun})", env!("CARGO_PKG_VERSION"));
        let mut headers = vec![("user-agent".to_owned(), agent), ("accept".to_owned(), "*/*".to_owned())];
        // Followers get the content without a coding, where the server can do without one.
        headers.push(("accept-encoding".to_owned(), "identity".to_owned()));
        // Asking on a condition is worth it only where what is known is what was handed out.
        let conditions = [("if-none-match", &known.etag), ("if-modified-since", &known.last_modified)];
        for (name, value) in conditions {
            headers.extend(value.as_ref().map(|value| (name.to_owned(), value.clone())));
        }
        HttpRequest {
            method: "GET".to_owned(),
            url: callback::without_fragment(url).to_owned(),
            headers,
            authorization: None,
            body: Bytes::new(),
            guard: Some(callback::guard(&self.settings.allow_callbacks)),
            answer_bytes_max: self.settings.body_bytes_max,
            options: CallOptions {
                connect_timeout: Some(verify::CONNECT_TIMEOUT),
                timeout: Some(self.settings.request_timeout),
                cut_answer: false,
                again_if_stale: true,
            },
        }
    }
}

fn new(known: &Known, answer: HttpAnswer) -> Fetched {
    let held = |name: &str| answer.header(name).map(str::to_owned);
    let content_type = held("content-type");
    // Each line of the header has codings, in the order in which they were applied.
    let codings = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    let codings: Vec<&str> =
        codings.map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).collect();
    let content_encoding = (!codings.is_empty()).then(|| codings.join(", "));
    let mut digest = Sha256::new();
    digest.update(content_type.as_deref().unwrap_or_default());
    if let Some(content_encoding) = &content_encoding {
        digest.update([1]);
        digest.update(content_encoding);
    }
    digest.update([0]);
    digest.update(&answer.body);
    let print = sign::hex(&digest.finalize());
    if print == known.print {
        return Fetched::Unchanged;
    }
    let now = Known { etag: held("etag"), last_modified: held("last-modified"), print };
    Fetched::New(now, Document { content_type, content_encoding, body: answer.body })
}

/// Where a redirect leads.
fn target(from: &str, answer: &HttpAnswer) -> Result<String, String> {
    let location = answer.header("location").ok_or("a redirect without a target")?;
    let base = Url::parse(from).map_err(|error| error.to_string())?;
    let target = base.join(location).map_err(|error| format!("a redirect to no URL: {error}"))?;
    if base.scheme() == "https" && target.scheme() != "https" {
        return Err("a redirect from `https` to `http`".to_owned());
    }
    callback::parsed(target.as_str())
        .map_err(|why| format!("a redirect to a URL that will not do: {why}"))?;
    Ok(target.into())
}
