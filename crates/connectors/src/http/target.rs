//! From the text of a URL to what a request needs of it. Most requests go where one before them went, so what was read is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Uri;
use hyper::header::HeaderValue;
use url::{Host, Url};
use warren_engine::failure::Failure;
use warren_engine::pipeline::outside::HttpRequest;

use super::connect::Place;
use super::fault;

/// URLs that are kept; when there are more, they are forgotten and kept anew.
const KEPT_MAX: usize = 1024;
/// Longer ones are not kept.
const KEPT_BYTES_MAX: usize = 2048;

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) place: Place,
    /// For the server itself.
    pub(super) path: Uri,
    /// For a proxy.
    pub(super) whole: Uri,
    /// The value of `Host`.
    pub(super) host: HeaderValue,
}

/// Targets by their URLs.
#[derive(Default)]
pub(super) struct Targets(Mutex<HashMap<String, Arc<Target>>>);

/// A request in a few words, for failures.
pub(super) fn what(request: &HttpRequest) -> String {
    format!("{} {}", request.method, fault::shown(&request.url))
}

impl Targets {
    /// Where a request goes.
    ///
    /// # Errors
    /// Its URL is none that can be called.
    pub(super) fn get(&self, request: &HttpRequest) -> Result<Arc<Target>, Failure> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = kept().get(&request.url) {
            return Ok(target.clone());
        }
        let target = read(&request.url).map_err(|why| fault::url(&what(request), &why))?;
        let target = Arc::new(target);
        if request.url.len() <= KEPT_BYTES_MAX {
            let mut kept = kept();
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
            kept.insert(request.url.clone(), target.clone());
        }
        Ok(target)
    }
}

/// The reason why it is none is for people.
fn read(text: &str) -> Result<Target, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err("it must be http or https, and hold no user".to_owned());
    }
    let cannot = || "it cannot be sent".to_owned();
    let whole: Uri = url.as_str().parse().map_err(|_| cannot())?;
    let path = whole.path_and_query().map_or("/", |path| path.as_str());
    let path: Uri = path.parse().map_err(|_| cannot())?;
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err("it has no host".to_owned()),
    };
    let https = url.scheme() == "https";
    let place = Place { https, host, port: url.port().unwrap_or(if https { 443 } else { 80 }) };
    let shown = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{shown}:{port}"),
        None => shown.to_owned(),
    };
    let host = HeaderValue::from_str(&host).map_err(|_| cannot())?;
    Ok(Target { url, place, path, whole, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_as_http_wants_it() {
        for (text, host, port, https, path, header) in [
            ("http://a.example", "a.example", 80, false, "/", "a.example"),
            ("http://a.example:80/x?y=1#z", "a.example", 80, false, "/x?y=1", "a.example"),
            ("https://A.example:8443/x%20y", "a.example", 8443, true, "/x%20y", "a.example:8443"),
            ("https://[::1]/", "::1", 443, true, "/", "[::1]"),
            ("http://[::1]:81?q", "::1", 81, false, "/?q", "[::1]:81"),
        ] {
            let target = read(text).unwrap();
            let place = Place { https, host: host.to_owned(), port };
            assert_eq!((target.place, target.path.to_string()), (place, path.to_owned()), "{text}");
            assert_eq!(target.host, header, "{text}");
        }
        for text in ["ftp://a", "http://u:p@a/", "http://u@a", "a/b", "http://"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let targets = Targets::default();
        let request = |url: String| HttpRequest {
            method: "POST".into(),
            url,
            headers: Vec::new(),
            authorization: None,
            body: bytes::Bytes::new(),
            guard: None,
            answer_bytes_max: 0,
            options: warren_engine::pipeline::outside::CallOptions::default(),
        };
        for at in 0..=KEPT_MAX {
            targets.get(&request(format!("http://a/{at}"))).unwrap();
        }
        targets.get(&request(format!("http://a/{}", "x".repeat(KEPT_BYTES_MAX)))).unwrap();
        assert_eq!(targets.0.lock().unwrap().len(), 1);
    }
}
