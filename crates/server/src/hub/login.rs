//! Who asks (HTTP Basic, RFC 7617), and whether they may.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::response::Response;
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::hub::ports::{Right, User, Users};
use warren_engine::hub::resource::{Resource, ResourceKind};
use warren_engine::pipeline::outside::Hidden;

use super::Web;
use super::answer::{Meaning, OPERATOR_MUST_ACT, meaning, with_retry};
use crate::client_address::client_address;

/// Both are needed for what concerns all subscriptions.
pub(super) const ADMIN_TAGS: [&str; 2] = ["administrator", "rabbithub_admin"];

/// With or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why somebody may not.
#[derive(Debug, Clone)]
pub(super) enum Denied {
    /// Nobody logged in.
    Nobody,
    /// The login is wrong.
    WrongLogin,
    /// The one who logged in may not.
    Forbidden,
    /// Nobody can tell now.
    Unknown(Failure),
}

/// What stands in `Authorization`.
enum Credentials {
    None,
    Basic(String, Hidden),
    Unreadable,
}

/// A password may hold any character, `:` too.
fn credentials(headers: &HeaderMap) -> Credentials {
    let Some(value) = headers.get(AUTHORIZATION) else { return Credentials::None };
    let read = || {
        let (scheme, encoded) = value.to_str().ok()?.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        (!name.is_empty()).then(|| Credentials::Basic(name.to_owned(), Hidden(password.to_owned())))
    };
    read().unwrap_or(Credentials::Unreadable)
}

/// Who asks.
pub(super) async fn login(web: &Web, parts: &Parts) -> Result<User, Denied> {
    match credentials(&parts.headers) {
        Credentials::Basic(name, password) => {
            let from = client_address(parts);
            let user = web.users.login(from, &name, &password).await.map_err(Denied::Unknown)?;
            user.ok_or(Denied::WrongLogin)
        }
        Credentials::Unreadable => Err(Denied::WrongLogin),
        Credentials::None => {
            let name = web.hub.settings().default_username.as_deref().ok_or(Denied::Nobody)?;
            web.users.named(name).await.map_err(Denied::Unknown)?.ok_or(Denied::Nobody)
        }
    }
}

/// Who asks, where they may do that with the resource.
pub(super) async fn allowed(
    web: &Web,
    parts: &Parts,
    right: Right,
    resource: &Resource,
) -> Result<User, Denied> {
    let user = login(web, parts).await?;
    may(&web.users, &user, right, resource).await?;
    Ok(user)
}

/// Whether a user may do that with a resource.
pub(super) async fn may(
    users: &Arc<dyn Users>,
    user: &User,
    right: Right,
    resource: &Resource,
) -> Result<(), Denied> {
    match users.may(user, right, resource).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Denied::Forbidden),
        Err(failure) => Err(Denied::Unknown(failure)),
    }
}

/// Whether a user may do that with a resource, and with that key where it is an exchange.
pub(super) async fn may_with_key(
    users: &Arc<dyn Users>,
    user: &User,
    right: Right,
    resource: &Resource,
    key: &str,
) -> Result<(), Denied> {
    may(users, user, right, resource).await?;
    match resource.kind {
        ResourceKind::Queue => Ok(()),
        ResourceKind::Exchange => match users.may_key(user, right, resource, key).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denied::Forbidden),
            Err(failure) => Err(Denied::Unknown(failure)),
        },
    }
}

/// Who asks, where they may do anything at all with the resource: enough to know that it is there.
pub(super) async fn knows(web: &Web, parts: &Parts, resource: &Resource) -> Result<User, Denied> {
    let user = login(web, parts).await?;
    for right in [Right::Read, Right::Write, Right::Configure] {
        match may(&web.users, &user, right, resource).await {
            Err(Denied::Forbidden) => {}
            other => return other.map(|()| user),
        }
    }
    Err(Denied::Forbidden)
}

/// Who asks, where they have both tags.
pub(super) async fn admin(web: &Web, parts: &Parts) -> Result<User, Denied> {
    let user = login(web, parts).await?;
    if user.has_tags(&ADMIN_TAGS) { Ok(user) } else { Err(Denied::Forbidden) }
}

impl Denied {
    /// The status. RabbitHub answered a wrong login with 403.
    fn status(&self, compat: bool) -> StatusCode {
        match self {
            Denied::Nobody => StatusCode::UNAUTHORIZED,
            Denied::WrongLogin if compat => StatusCode::FORBIDDEN,
            Denied::WrongLogin => StatusCode::UNAUTHORIZED,
            Denied::Forbidden => StatusCode::FORBIDDEN,
            Denied::Unknown(failure) => match meaning(failure) {
                Meaning::Later(status) => status,
                // It is not this request that is refused, but ours to who knows the users.
                Meaning::Operator | Meaning::Refused(_) => StatusCode::BAD_GATEWAY,
                Meaning::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// The answer of RabbitHub's routes.
    pub(super) fn text(&self, compat: bool) -> Response {
        let status = self.status(compat);
        let answer = match self {
            Denied::Unknown(failure) => unknown(status, failure, super::answer::text),
            Denied::Nobody | Denied::WrongLogin | Denied::Forbidden => {
                let text =
                    if status == StatusCode::FORBIDDEN { "Forbidden" } else { "Authentication required." };
                super::answer::text(status, text)
            }
        };
        challenged(answer, compat)
    }

    /// The answer of the API.
    pub(super) fn problem(&self) -> Response {
        let status = self.status(false);
        let answer = match self {
            Denied::Nobody => super::answer::problem(status, "log in"),
            Denied::WrongLogin => super::answer::problem(status, "no user with that password"),
            Denied::Forbidden => super::answer::problem(status, "this user may not do that"),
            Denied::Unknown(failure) => unknown(status, failure, super::answer::problem),
        };
        challenged(answer, false)
    }
}

fn unknown(status: StatusCode, failure: &Failure, answer: fn(StatusCode, String) -> Response) -> Response {
    if failure.code == codes::TOO_MANY_LOGINS {
        // Guesses must not fill the log.
        tracing::debug!(failure = failure.line(), "a login is not checked now");
        let text = format!("too many failed logins ({}); retry later", failure.code);
        return with_retry(answer(status, text), failure);
    }
    tracing::warn!(failure = failure.line(), "cannot check a login or a permission");
    let text = match status {
        StatusCode::BAD_GATEWAY => {
            format!("cannot check the login or its permissions ({}): {OPERATOR_MUST_ACT}", failure.code)
        }
        StatusCode::INTERNAL_SERVER_ERROR => "internal error; see the server log".to_owned(),
        _ => "cannot check the login or its permissions now".to_owned(),
    };
    with_retry(answer(status, text), failure)
}

fn challenged(mut answer: Response, compat: bool) -> Response {
    if answer.status() == StatusCode::UNAUTHORIZED {
        let realm =
            if compat { r#"Basic realm="rabbitmq""# } else { r#"Basic realm="warren", charset="UTF-8""# };
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(realm));
    }
    answer
}
