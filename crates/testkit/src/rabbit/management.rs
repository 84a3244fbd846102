//! The management API: requests that must succeed.

use serde_json::Value;

use crate::http::Base;

/// The management API of one broker.
#[derive(Clone, Debug)]
pub struct Management {
    base: Base,
    url: String,
}

impl Management {
    /// `url` is `http://user:password@host:port`.
    #[must_use]
    pub fn new(url: &str) -> Management {
        Management { base: Base::parse(url), url: url.to_owned() }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL with another user.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.base.url_as(user, password)
    }

    /// One request, for instance `("PUT", "/api/vhosts/x", &json!({}))`. An empty answer is `Null`.
    ///
    /// # Panics
    /// When the broker does not answer with 2xx.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, body) = self.try_request(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        if body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{method} {path}: no JSON: {error}"))
    }

    /// GET; `None` for 404.
    pub fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.try_request("GET", path, &Value::Null);
        if status == 404 {
            return None;
        }
        assert_eq!(status, 200, "GET {path}: {}", String::from_utf8_lossy(&body));
        Some(serde_json::from_slice(&body).unwrap_or_else(|error| panic!("GET {path}: no JSON: {error}")))
    }

    /// Status and body, whatever they are; status 0 when the broker cannot be reached.
    pub(crate) fn try_request(&self, method: &str, path: &str, body: &Value) -> (u16, Vec<u8>) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        match self.base.request(method, path, &text) {
            Ok(response) => (response.status, response.body),
            Err(error) => (0, error.to_string().into_bytes()),
        }
    }
}
