//! URLs that others give us and we call: which will do, what is appended to them, where they may lead, and how they are shown.

use url::{Host, Url, form_urlencoded};

use super::subscription::Protocol;
use crate::pipeline::outside::AddressGuard;

/// The longest URL that is taken, in bytes.
pub const URL_BYTES_MAX: usize = 8 << 10;

/// Whether a callback may be subscribed, by its form alone.
///
/// PubSubHubbub 0.3, section 6.1, forbids fragments; RabbitHub took them, so its routes do, and they are left out of requests.
///
/// # Errors
/// It may not: why.
pub fn check(callback: &str, protocol: Protocol) -> Result<(), String> {
    let url = parsed(callback)?;
    if protocol == Protocol::Websub && url.fragment().is_some() {
        return Err("it has a fragment (`#…`)".to_owned());
    }
    Ok(())
}

/// A URL that can be called.
///
/// # Errors
/// It cannot: why.
pub fn parsed(text: &str) -> Result<Url, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("it is longer than {URL_BYTES_MAX} bytes"));
    }
    if text.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return Err("it holds white space or control characters".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("it is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its scheme is `{}`, not `http` or `https`", url.scheme()));
    }
    // Browsers, and so the URL standard, read `http:///x`, `http:x` and `http:\\x` as `http://x`; we take nobody's slips for a host.
    let after = text.split_once(':').map_or("", |(_, after)| after);
    let host = after.strip_prefix("//").is_some_and(|rest| !rest.starts_with('/'));
    if !host || text.contains('\\') || url.host_str().is_none_or(str::is_empty) {
        return Err("it names no host behind `//`".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or password: give them as `hub.basic_auth`".to_owned());
    }
    Ok(url)
}

/// A URL with parameters behind its own, which stay as they are. Its fragment is for whoever reads the answer, not for us.
pub fn with_parameters<'p>(url: &str, parameters: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut text = without_fragment(url).to_owned();
    for (name, value) in parameters {
        match text.find('?') {
            None => text.push('?'),
            Some(_) if text.ends_with(['?', '&']) => {}
            Some(_) => text.push('&'),
        }
        text.push_str(name);
        text.push('=');
        text.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }
    text
}

/// A URL as it is requested.
pub fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(before, _)| before)
}

/// The host of a URL, in one spelling and without its port; nothing, where there is none.
pub fn host(text: &str) -> String {
    let url = Url::parse(text).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    host.trim_end_matches('.').to_owned() // `h.` and `h` are one in DNS
}

/// Whether the host of a URL is an address and no name.
pub fn names_address(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_))))
}

/// Where a URL may lead: public addresses, and what the settings allow besides.
pub fn guard(allow: &[String]) -> AddressGuard {
    AddressGuard { allow: allow.to_vec() }
}

/// A URL for logs and errors: without its query, which may hold secrets.
pub fn shown(url: &str) -> String {
    let url = without_fragment(url);
    match url.split_once('?') {
        Some((before, _)) => format!("{before}?…"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_do_as_a_callback() {
        let ok = ["http://h", "https://h:8443/a?b=c", "http://[::1]/x", "http://1.2.3.4"];
        let bad = [
            "",
            "h/x",
            "ftp://h/",
            "http:///x",
            "http:h/x",
            "http:\\\\h\\x",
            "http://h\\@evil/",
            "http://u:p@h/",
            "http://u@h/",
            "http://h/\n",
            "http://h/a b",
            "javascript:x",
        ];
        for url in ok {
            assert_eq!(check(url, Protocol::Websub), Ok(()), "{url}");
        }
        for url in bad {
            assert!(check(url, Protocol::Rabbithub).is_err(), "{url}");
        }
        assert!(check(&format!("http://h/{}", "a".repeat(URL_BYTES_MAX)), Protocol::Rabbithub).is_err());
    }

    #[test]
    fn parameters_stand_behind_those_of_the_callback() {
        let with = |url| with_parameters(url, [("hub.topic", "a b&c"), ("x", "é")]);
        assert_eq!(with("http://h/p"), "http://h/p?hub.topic=a+b%26c&x=%C3%A9");
        assert_eq!(with("http://h/p?q=%41"), "http://h/p?q=%41&hub.topic=a+b%26c&x=%C3%A9");
        assert_eq!(with("http://h/p?"), "http://h/p?hub.topic=a+b%26c&x=%C3%A9");
        assert_eq!(with("http://h/p?q&"), "http://h/p?q&hub.topic=a+b%26c&x=%C3%A9");
        assert_eq!(with("http://h/p#frag?no"), "http://h/p?hub.topic=a+b%26c&x=%C3%A9");
    }

    #[test]
    fn a_host_has_one_spelling() {
        for url in
            ["http://H.Example/a", "https://h.example:8443", "http://h.example./b?c", "http://%68.example"]
        {
            assert_eq!(host(url), "h.example", "{url}");
        }
        assert_eq!(
            (host("http://0x7f.1/").as_str(), host("http://[::0:1]:1/").as_str()),
            ("127.0.0.1", "[::1]")
        );
        assert_eq!(host("nonsense"), "");
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(shown("http://h/p?token=secret#x"), "http://h/p?…");
        assert_eq!(shown("http://h/p"), "http://h/p");
    }
}
