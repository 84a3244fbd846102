//! Topics that are URLs: those of our own exchanges, and foreign ones that are fetched when somebody says that they changed.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};
use url::Url;

use super::callback;
use super::resource::Resource;
use super::settings::{HubSettings, TopicRedirect, WebsubSettings};
use super::sign;
use super::subscription::SubscriptionKey;
use crate::url_prefix;

/// The durable topic exchange through which the contents of foreign topics go.
pub const EXCHANGE: &str = "warren.websub";
/// What stands before vhost, exchange and routing key in the URL of a topic of ours.
const TOPICS: &str = "/topics/";

/// What a topic URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// An exchange of ours, with the routing key to be followed.
    Own {
        /// The exchange.
        exchange: Resource,
        /// The binding key.
        routing_key: String,
    },
    /// A document somewhere else.
    Foreign,
}

/// What a topic URL names, where it may be followed.
///
/// # Errors
/// It may not: why, for the subscriber.
pub fn topic(settings: &HubSettings, url: &str) -> Result<Topic, String> {
    let Some(websub) = &settings.websub else { return Err("this hub serves no topics".to_owned()) };
    let parsed = callback::parsed(url)?;
    if parsed.fragment().is_some() {
        return Err("it has a fragment (`#…`)".to_owned()); // PubSubHubbub 0.3, section 5
    }
    if let Some((exchange, routing_key)) = own(settings, url) {
        let may = websub.exchanges.iter().any(|(vhost, name)| {
            (vhost.as_str(), name.as_str()) == (exchange.vhost.as_str(), exchange.name.as_str())
        });
        return if may {
            Ok(Topic::Own { exchange, routing_key })
        } else {
            Err("this exchange is not open to subscribers".to_owned())
        };
    }
    let served = websub.topics.iter().filter_map(|prefix| Url::parse(prefix).ok());
    if served.into_iter().any(|prefix| url_prefix::holds(&prefix, &parsed)) {
        Ok(Topic::Foreign)
    } else {
        Err("this hub does not serve that topic".to_owned())
    }
}

/// The hub that has a topic instead of this one, where the settings name one; the first that fits.
pub fn elsewhere<'s>(settings: &'s HubSettings, url: &str) -> Option<&'s TopicRedirect> {
    let url = Url::parse(url).ok()?;
    let redirects = settings.websub.as_ref()?.redirects.iter();
    let fits = |redirect: &&TopicRedirect| {
        Url::parse(&redirect.topics).is_ok_and(|prefix| url_prefix::holds(&prefix, &url))
    };
    redirects.into_iter().find(fits)
}

/// The subscription of a callback to a topic URL. What may not be followed has one too, to be refused under.
pub fn key(settings: &HubSettings, topic: &str, callback: &str) -> SubscriptionKey {
    let resource = match own(settings, topic) {
        Some((exchange, _)) => exchange,
        None => foreign(settings.websub.as_ref()),
    };
    SubscriptionKey { resource, topic: topic.to_owned(), callback: callback.to_owned() }
}

/// The exchange of foreign topics.
pub fn foreign(websub: Option<&WebsubSettings>) -> Resource {
    Resource::exchange(websub.map_or(super::resource::DEFAULT_VHOST, |websub| &websub.vhost), EXCHANGE)
}

/// The URL of a topic of ours; `None` where nobody knows where the hub is reached.
pub fn topic_url(settings: &HubSettings, exchange: &Resource, routing_key: &str) -> Option<String> {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let base = settings.public_url.as_deref()?.trim_end_matches('/');
    let (vhost, name) = (encoded(&exchange.vhost), encoded(&exchange.name));
    Some(format!("{base}{TOPICS}{vhost}/{name}/{}", encoded(routing_key)))
}

/// The exchange and routing key that a topic URL of ours names.
fn own(settings: &HubSettings, url: &str) -> Option<(Resource, String)> {
    let base = settings.public_url.as_deref()?.trim_end_matches('/');
    named(url.strip_prefix(base)?.strip_prefix(TOPICS)?)
}

/// The routing key by which a subscription to a topic URL is bound.
pub fn binding_key(key: &SubscriptionKey) -> String {
    if key.resource.name == EXCHANGE {
        return print(&key.topic);
    }
    // The hub may have moved since: what counts is what stands behind the last `/topics/`.
    let own = key.topic.rsplit_once(TOPICS).and_then(|(_, rest)| named(rest));
    own.map(|(_, routing_key)| routing_key).unwrap_or_default()
}

fn named(rest: &str) -> Option<(Resource, String)> {
    let mut parts = rest.splitn(3, '/').map(|part| percent_decode_str(part).decode_utf8().ok());
    let (vhost, name) = (parts.next()??, parts.next()??);
    let routing_key = parts.next().flatten()?;
    Some((Resource::exchange(&vhost, &name), routing_key.into_owned()))
}

/// A URL as a routing key: anybody may choose URLs, so nobody must find two with one print.
pub fn print(url: &str) -> String {
    sign::hex(&Sha256::digest(url.as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> HubSettings {
        let mut settings = HubSettings::new(false);
        settings.public_url = Some("https://hub.example/warren/".into());
        settings.websub = Some(WebsubSettings {
            topics: vec!["https://blog.example/feeds/".into()],
            exchanges: vec![("/".into(), "news".into())],
            redirects: vec![TopicRedirect {
                topics: "https://blog.example/moved/".into(),
                hub: "https://other.example/hub".into(),
                permanent: true,
            }],
            vhost: "web".into(),
        });
        settings
    }

    #[test]
    fn a_url_of_ours_names_an_exchange() {
        let settings = settings();
        let exchange = Resource::exchange("/", "news");
        let url = topic_url(&settings, &exchange, "a.#/b").unwrap();
        assert_eq!(url, "https://hub.example/warren/topics/%2F/news/a%2E%23%2Fb");
        let named = Topic::Own { exchange: exchange.clone(), routing_key: "a.#/b".into() };
        assert_eq!(topic(&settings, &url), Ok(named));
        let key = key(&settings, &url, "http://h/");
        assert_eq!((&key.resource, binding_key(&key).as_str()), (&exchange, "a.#/b"));
        let closed = topic_url(&settings, &Resource::exchange("/", "secret"), "x").unwrap();
        assert!(topic(&settings, &closed).is_err());
    }

    #[test]
    fn a_topic_may_be_elsewhere() {
        let settings = settings();
        let hub = |url: &str| elsewhere(&settings, url).map(|redirect| redirect.hub.as_str());
        for url in [
            "https://blog.example/moved/1?x",
            "https://BLOG.example:443/moved/",
            "https://blog.example/a/../moved/2",
        ] {
            assert_eq!(hub(url), Some("https://other.example/hub"), "{url}");
        }
        for url in [
            "https://blog.example/movedx",
            "http://blog.example/moved/1",
            "https://blog.example/moved/..%2fadmin",
            "https://blog.example/feeds/1",
            "x",
            "",
        ] {
            assert_eq!(hub(url), None, "{url}");
        }
    }

    #[test]
    fn foreign_topics_are_those_under_the_settings_prefixes() {
        let settings = settings();
        assert_eq!(topic(&settings, "https://blog.example/feeds/1?x=2"), Ok(Topic::Foreign));
        for other in [
            "https://blog.example/feedsx",
            "https://blog.example.evil/feeds/1",
            "https://blog.example/feeds/../admin",
            "https://blog.example/feeds/..%2fadmin",
            "https://blog.example/feeds/%2e%2e%2fadmin",
            "https://blog.example/feeds/..%5cadmin",
            "http://blog.example/feeds/1",
            "https://blog.example/feeds/1#top",
            "x",
            "",
        ] {
            assert!(topic(&settings, other).is_err(), "{other}");
        }
        let key = key(&settings, "https://blog.example/feeds/1", "http://h/");
        assert_eq!(key.resource, Resource::exchange("web", EXCHANGE));
        assert_eq!(binding_key(&key).len(), 32);
        assert_ne!(print("a"), print("b"));
    }
}
