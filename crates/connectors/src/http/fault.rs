//! What went wrong with a call, as failures with a code and a way out.

use std::error::Error;
use std::io;
use std::time::Duration;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::coding::Undecodable;
use super::connect::{NotAllowed, NotResolved};

/// A URL that cannot be called.
pub(super) fn url(what: &str, why: &str) -> Failure {
    Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what)
        .detail(format!("the URL cannot be called: {why}"))
        .remedy("give an absolute http or https URL; write `| url_encode` behind what comes from a message")
}

/// An address that is not allowed.
pub(super) fn address(what: &str, address: &str) -> Failure {
    Failure::new(FailureKind::Refused, codes::ADDRESS_REFUSED, what)
        .detail(format!(
            "the URL comes from message data and leads to {address}, which is not a public address"
        ))
        .remedy("write the host into the configuration, or name it, its network or the URL's beginning under `allow`, for callbacks of a hub under \
                 `hub.allow_callbacks`")
}

/// A connection that could not be made.
pub(super) fn connecting(error: io::Error, what: &str) -> Failure {
    let causes = chain(&error);
    let causes = || causes.iter().copied();
    if let Some(refused) = causes().find_map(not_allowed) {
        return address(what, &refused.0.to_string());
    }
    if let Some(tls) = causes().find_map(tls) {
        return untrusted(tls, what).because(error);
    }
    let innermost = causes().last().map(ToString::to_string).unwrap_or_default();
    if let Some(unresolved) = causes().find_map(within::<NotResolved>) {
        return Failure::new(FailureKind::Disconnected, codes::NAME_NOT_RESOLVED, what)
            .detail(format!("{unresolved}: {innermost}"))
            .remedy("check the host name, and the name server this machine asks")
            .because(error);
    }
    let (kind, code) = match error.kind() {
        io::ErrorKind::TimedOut => (FailureKind::Timeout, codes::HTTP_FAILED),
        io::ErrorKind::ConnectionRefused => (FailureKind::Disconnected, codes::CONNECTION_REFUSED),
        _ => (FailureKind::Disconnected, codes::HTTP_FAILED),
    };
    Failure::new(kind, code, what)
        .detail(format!("cannot connect: {innermost}"))
        .remedy("check host and port, that the server runs, and the firewalls between")
        .because(error)
}

/// A call without an answer.
pub(super) fn unanswered(error: hyper::Error, what: &str) -> Failure {
    let causes = chain(&error);
    let causes = || causes.iter().copied();
    if let Some(tls) = causes().find_map(tls) {
        return untrusted(tls, what).because(error);
    }
    let innermost = causes().last().map(ToString::to_string).unwrap_or_default();
    Failure::new(FailureKind::Disconnected, codes::HTTP_FAILED, what)
        .detail(format!("no answer came: {innermost}"))
        .remedy("it is tried again; the server may have done what it was asked")
        .because(error)
}

fn untrusted(why: String, what: &str) -> Failure {
    Failure::new(FailureKind::Refused, codes::TLS_FAILED, what).detail(why).remedy(
        "check that the server's certificate is for this host and signed by an authority the system trusts",
    )
}

/// A call that took too long.
pub(super) fn late(what: &str, after: Duration) -> Failure {
    Failure::new(FailureKind::Timeout, codes::HTTP_FAILED, what)
        .detail(format!("no answer came within {after:?}"))
        .remedy("it is tried again; the server may have done what it was asked")
}

/// An answer that broke off.
pub(super) fn broken(error: hyper::Error, what: &str) -> Failure {
    Failure::new(FailureKind::Disconnected, codes::HTTP_FAILED, what)
        .detail("the answer broke off")
        .remedy("it is tried again; the server may have done what it was asked")
        .because(error)
}

/// An answer that is larger than may be read.
pub(super) fn too_large(what: &str, detail: String) -> Failure {
    Failure::new(FailureKind::Invalid, codes::ANSWER_TOO_LARGE, what)
        .detail(detail)
        .remedy("raise `max_answer`, or ask for less")
}

/// An answer whose content coding cannot be decoded.
pub(super) fn undecodable(error: Undecodable, what: &str) -> Failure {
    let detail = error.to_string();
    match error {
        Undecodable::TooLarge(_) => too_large(what, detail),
        Undecodable::Broken { .. } => Failure::new(FailureKind::Disconnected, codes::HTTP_FAILED, what)
            .detail(detail)
            .remedy("check that the server's `Content-Encoding` is what it sends")
            .because(error),
    }
}

/// An error with all its causes.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut causes = vec![error];
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        causes.push(cause);
        innermost = cause;
    }
    causes
}

/// I/O errors hold what they were made of, often within each other, and do not name it as their cause.
fn within<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        error = error.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

fn not_allowed<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e NotAllowed> {
    within::<NotAllowed>(error)
}

fn tls(error: &(dyn Error + 'static)) -> Option<String> {
    within::<rustls::Error>(error).map(ToString::to_string)
}

/// A URL without what may be secret: user, password and query.
pub(super) fn shown(url: &str) -> String {
    warren_engine::pipeline::shown_url(url)
}
