//! The paths of RabbitHub's routes: `/[{vhost}/]{facet}/{q|x}/{name}`, and the two that name no resource.
//!
//! A path is split as it came and its parts are percent-decoded after that, so a name may hold a `/` as `%2F`. RabbitHub decoded the
//! virtual host only.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::resource::{DEFAULT_VHOST, Resource, ResourceKind};

/// The longest name of AMQP 0-9-1, in bytes (a short string).
pub const NAME_BYTES_MAX: usize = 255;

/// What stays as it is in a segment of a path (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facet {
    /// Make, delete, publish to, describe.
    Endpoint,
    /// Subscribe and unsubscribe.
    Subscribe,
    /// The subscriptions there are.
    Subscriptions,
}

impl Facet {
    /// The word for it in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Facet::Endpoint => "endpoint",
            Facet::Subscribe => "subscribe",
            Facet::Subscriptions => "subscriptions",
        }
    }

    fn of(word: &str) -> Option<Facet> {
        [Facet::Endpoint, Facet::Subscribe, Facet::Subscriptions]
            .into_iter()
            .find(|facet| facet.as_str() == word)
    }
}

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A facet of a queue or an exchange.
    Resource {
        /// Which facet.
        facet: Facet,
        /// Of what.
        resource: Resource,
        /// Whether the path names the virtual host.
        vhost_named: bool,
    },
    /// `/subscriptions`
    Subscriptions,
    /// `/subscriptions/errors`
    Errors,
}

/// Why a path names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Astray {
    /// No route looks like that: 404 `Not found.`
    NotFound,
    /// A facet that nobody knows: 400 `Invalid operation`
    InvalidOperation,
    /// A name that is not UTF-8, is longer than [`NAME_BYTES_MAX`], or holds control characters: 400 `Invalid name`
    InvalidName,
}

impl Target {
    /// Reads a path, which begins with `/` and has no query.
    ///
    /// # Errors
    /// It names nothing.
    pub fn parse(path: &str) -> Result<Target, Astray> {
        let rest = path.strip_prefix('/').ok_or(Astray::NotFound)?;
        let parts: Vec<&str> = rest.splitn(4, '/').collect();
        match parts[..] {
            ["subscriptions"] => Ok(Target::Subscriptions),
            ["subscriptions", "errors"] => Ok(Target::Errors),
            [facet, kind, name] => resource(None, facet, kind, name),
            [vhost, facet, kind, name] => resource(Some(vhost), facet, kind, name),
            _ => Err(Astray::NotFound),
        }
    }
}

fn resource(vhost: Option<&str>, facet: &str, kind: &str, name: &str) -> Result<Target, Astray> {
    let kind = match kind {
        "q" => ResourceKind::Queue,
        "x" => ResourceKind::Exchange,
        _ => return Err(Astray::NotFound),
    };
    let facet = Facet::of(facet).ok_or(Astray::InvalidOperation)?;
    let resource = Resource {
        vhost: vhost.map_or_else(|| Ok(DEFAULT_VHOST.to_owned()), decoded)?,
        kind,
        name: decoded(name)?,
    };
    Ok(Target::Resource { facet, resource, vhost_named: vhost.is_some() })
}

/// A name as it stands in a path, decoded.
///
/// # Errors
/// It is no name.
pub fn decoded(segment: &str) -> Result<String, Astray> {
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| Astray::InvalidName)?;
    // Control characters would stand in logs and header lines.
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Astray::InvalidName);
    }
    Ok(name.into_owned())
}

/// A name as a segment of a path.
pub fn encoded(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// The path of a facet of a resource. The default virtual host is named only where it is asked for.
pub fn of(facet: Facet, resource: &Resource, vhost_named: bool) -> String {
    let Resource { vhost, kind, name } = resource;
    let (facet, letter, name) = (facet.as_str(), kind.letter(), encoded(name));
    if vhost_named || vhost != DEFAULT_VHOST {
        format!("/{}/{facet}/{letter}/{name}", encoded(vhost))
    } else {
        format!("/{facet}/{letter}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(resource: Resource, vhost_named: bool) -> Target {
        Target::Resource { facet: Facet::Endpoint, resource, vhost_named }
    }

    #[test]
    fn the_grammar_of_the_reference() {
        let cases = [
            ("/endpoint/q/foo", Ok(endpoint(Resource::queue("/", "foo"), false))),
            ("/endpoint/q/", Ok(endpoint(Resource::queue("/", ""), false))),
            ("/endpoint/x/", Ok(endpoint(Resource::exchange("/", ""), false))),
            ("/%2F/endpoint/q/a/b", Ok(endpoint(Resource::queue("/", "a/b"), true))),
            ("/v%20w/endpoint/x/y", Ok(endpoint(Resource::exchange("v w", "y"), true))),
            ("/endpoint/q/a%20b%2Fc", Ok(endpoint(Resource::queue("/", "a b/c"), false))),
            ("/subscriptions", Ok(Target::Subscriptions)),
            ("/subscriptions/errors", Ok(Target::Errors)),
            ("/subscriptions/", Err(Astray::NotFound)),
            ("/subscriptions/q", Err(Astray::NotFound)),
            ("/v/subscriptions", Err(Astray::NotFound)),
            ("/foo", Err(Astray::NotFound)),
            ("/", Err(Astray::NotFound)),
            ("", Err(Astray::NotFound)),
            ("*", Err(Astray::NotFound)),
            ("/nonsense/q/foo", Err(Astray::InvalidOperation)),
            ("/v/nonsense/x/foo", Err(Astray::InvalidOperation)),
            ("/endpoint/z/foo", Err(Astray::NotFound)),
            ("/endpoint/q/%FF", Err(Astray::InvalidName)),
            ("/endpoint/q/a%0d%0ab", Err(Astray::InvalidName)),
            // Served by mistake once, with an echo of the request.
            ("/endpoint/errors/x", Err(Astray::NotFound)),
            ("/endpoint//x", Err(Astray::NotFound)),
        ];
        for (path, expected) in cases {
            assert_eq!(Target::parse(path), expected, "{path}");
        }
        assert_eq!(Target::parse(&format!("/endpoint/q/{}", "n".repeat(256))), Err(Astray::InvalidName));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(path in "\\PC*") {
            Target::parse(&path).ok();
        }

        #[test]
        fn a_path_comes_back(vhost in "[^\\x00-\\x1f\\x7f-\\x9f]{1,40}", name in "[^\\x00-\\x1f\\x7f-\\x9f]{0,60}") {
            let resource = Resource::exchange(&vhost, &name);
            let path = of(Facet::Subscribe, &resource, false);
            let vhost_named = vhost != DEFAULT_VHOST;
            let target = Target::Resource { facet: Facet::Subscribe, resource, vhost_named };
            prop_assert_eq!(Target::parse(&path), Ok(target));
        }
    }
}
