//! RabbitHub's routes: which request is for whom. What is no request at all is said before anybody logs in, as it was.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use warren_engine::hub::params::Fault;
use warren_engine::hub::path::{Astray, Facet, Target};

use super::{Web, answer, endpoint, subscribe, subscriptions};

/// Shows a description as a page, in a browser that still can.
const STYLESHEET: &str = include_str!("application.xsl.xml");

pub(super) async fn answer(web: &Web, parts: &Parts, body: Body, target: Result<Target, Astray>) -> Response {
    let (resource, facet) = match target {
        Ok(Target::Resource { facet, resource, vhost_named }) => ((resource, vhost_named), facet),
        Ok(Target::Subscriptions) => return subscriptions::all(web, parts, body).await,
        Ok(Target::Errors) => return subscriptions::errors(web, parts).await,
        Err(astray) => return nowhere(web, parts, astray),
    };
    let (resource, vhost_named) = resource;
    match facet {
        Facet::Endpoint => endpoint::answer(web, parts, body, &resource, vhost_named).await,
        Facet::Subscribe => subscribe::answer(web, parts, body, &resource).await,
        Facet::Subscriptions => subscriptions::one(web, parts, &resource).await,
    }
}

/// Pages that are no routes, and what is nothing.
fn nowhere(web: &Web, parts: &Parts, astray: Astray) -> Response {
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    match (parts.uri.path(), astray) {
        ("/", _) if reads => {
            Html("<!DOCTYPE html><html lang=\"en\"><title>Warren</title></html>\n").into_response()
        }
        ("/", _) if parts.method == Method::POST && web.compat() => {
            answer::text(StatusCode::OK, "You posted!")
        }
        ("/", _) => wrong_method(web, "GET, HEAD"),
        ("/static/application.xsl.xml", _) if reads => {
            ([(CONTENT_TYPE, HeaderValue::from_static("text/xsl; charset=utf-8"))], STYLESHEET)
                .into_response()
        }
        (_, Astray::NotFound) => not_found(),
        (_, Astray::InvalidOperation) => fault(&Fault::InvalidOperation),
        (_, Astray::InvalidName) => answer::text(StatusCode::BAD_REQUEST, "Invalid name"),
    }
}

pub(super) fn not_found() -> Response {
    answer::text(StatusCode::NOT_FOUND, "Not found.")
}

/// What is wrong with a request.
pub(super) fn fault(fault: &Fault) -> Response {
    answer::text(StatusCode::BAD_REQUEST, fault.to_string())
}

/// A method that the path does not take: RabbitHub called it an invalid operation.
pub(super) fn wrong_method(web: &Web, allowed: &'static str) -> Response {
    if web.compat() {
        return fault(&Fault::InvalidOperation);
    }
    answer::with(answer::text(StatusCode::METHOD_NOT_ALLOWED, "Invalid operation"), ALLOW, allowed)
}
