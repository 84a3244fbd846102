//! Fetching a foreign topic and handing out what is new (PubSubHubbub 0.3, section 7; WebSub leaves it to the hub).

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
    /// Of content type and body.
    print: String,
}

/// What came of fetching.
enum Fetched {
    Unchanged,
    New(Known, Option<String>, Bytes),
}

impl Hub {
    /// Fetches a topic, and publishes it to those who follow it if it is new.
    pub(super) async fn fetch(&self, topic: &str) -> Tried {
        if websub::topic(&self.settings, topic) != Ok(websub::Topic::Foreign) || self.followers(topic) == 0 {
            return Tried::Over;
        }
        match self.fetch_and_hand_out(topic).await {
            Ok(()) => Tried::Over,
            Err(failure) => Tried::Again(failure.to_string()),
        }
    }

    async fn fetch_and_hand_out(&self, topic: &str) -> Result<(), Failure> {
        let store = &self.ports.store;
        let known = store.value(&topic_name(topic)).await?;
        // What cannot be read was of no use; the topic is handed out once more.
        let known: Known = known.and_then(|known| serde_json::from_slice(&known).ok()).unwrap_or_default();
        let Fetched::New(now, content_type, body) = self.content(topic, &known).await? else { return Ok(()) };
        let exchange = websub::foreign(self.settings.websub.as_ref());
        let properties = Properties { content_type, ..Properties::default() };
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
        store.keep(&topic_name(topic), &now).await
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
            })??;
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

    fn question(&self, url: &str, topic: &str, known: &Known) -> HttpRequest {
        let followers = self.followers(topic);
        let hub = self.settings.hub_url().unwrap_or_default();
        let noun = if followers == 1 { "subscriber" } else { "subscribers" };
        let agent = format!("Warren/{} (+{hub}; {followers} {noun})", env!("CARGO_PKG_VERSION"));
        let mut headers = vec![("user-agent".to_owned(), agent), ("accept".to_owned(), "*/*".to_owned())];
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
    let mut digest = Sha256::new();
    digest.update(content_type.as_deref().unwrap_or_default());
    digest.update([0]);
    digest.update(&answer.body);
    let print = sign::hex(&digest.finalize());
    if print == known.print {
        return Fetched::Unchanged;
    }
    let now = Known { etag: held("etag"), last_modified: held("last-modified"), print };
    Fetched::New(now, content_type, answer.body)
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
