//! Subscriptions in the API.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use warren_engine::failure::Failure;
use warren_engine::hub::batch::{HIDDEN, Secrets};
use warren_engine::hub::params::{self, Fault, Fields, Manner, Written};
use warren_engine::hub::ports::Right;
use warren_engine::hub::request::{Answered as Done, Change, NotVerified, Refusal, SubscribeRequest};
use warren_engine::hub::resource::ResourceKind;
use warren_engine::hub::subscription::{
    Contact, Subscription, SubscriptionId, SubscriptionState, WhyInactive,
};
use warren_engine::hub::typed;
use warren_engine::pipeline::document;

use super::publish::{default_vhost, resource};
use super::{Answered, LOCATION, PREFIX, Refused, batch as batch_body, misfit, problem, read};
use crate::hub::login::{self, Denied};
use crate::hub::subscribe::subscribed;
use crate::hub::{Web, answer, query, subscriptions};

/// A page has so many entries at most.
const PAGE_MAX: usize = 1000;
/// And so many, where nobody says.
const PAGE: usize = 100;

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribe {
    #[serde(default = "default_vhost")]
    vhost: String,
    queue: Option<String>,
    exchange: Option<String>,
    topic: Option<String>,
    callback: String,
    verify: Option<String>,
    verify_token: Option<String>,
    lease_seconds: Option<u64>,
    max_tps: Option<u32>,
    max_in_flight: Option<u16>,
    final_statuses: Option<Value>,
    secret: Option<String>,
    signing: Option<String>,
    basic_auth: Option<BasicAuth>,
    contact: Option<GivenContact>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BasicAuth {
    username: String,
    password: String,
}

/// Whom to ask about the subscription.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenContact {
    app_name: String,
    contact_name: Option<String>,
    phone: Option<String>,
    email: Option<String>,
    description: Option<String>,
}

impl From<GivenContact> for Contact {
    fn from(given: GivenContact) -> Contact {
        let GivenContact { app_name, contact_name, phone, email, description } = given;
        Contact { app_name, contact_name, phone, email, description }
    }
}

/// What is changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    state: Option<State>,
    signing: Option<String>,
    /// `null`: none.
    #[serde(default)]
    secret: Member<String>,
    /// `null`: what the settings say.
    #[serde(default)]
    final_statuses: Member<Value>,
}

/// A member of an object that may be absent, or `null`, which says something else.
#[derive(Default)]
enum Member<T> {
    #[default]
    Absent,
    Given(Option<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(from).map(Member::Given)
    }
}

impl<T> Member<T> {
    /// What is read from it, where it is given.
    fn read<U>(self, read: impl FnOnce(Option<T>) -> Result<U, Fault>) -> Result<Option<U>, Fault> {
        match self {
            Member::Absent => Ok(None),
            Member::Given(value) => read(value).map(Some),
        }
    }
}

impl Patch {
    fn change(self) -> Result<Change, Fault> {
        let state = self.state.map(|state| match state {
            State::Active => SubscriptionState::Active,
            State::Inactive => SubscriptionState::Inactive(WhyInactive::Unsubscribed),
        });
        let finals = |value: Option<Value>| value.as_ref().map(params::final_statuses).transpose();
        Ok(Change {
            state,
            signing: self.signing.as_deref().map(|signing| params::signing(Some(signing))).transpose()?,
            secret: self.secret.read(params::secret)?,
            final_statuses: self.final_statuses.read(finals)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Inactive,
}

/// The state of a subscription as the API shows it. `waits_for`: why it is not delivered to at the moment.
fn state(subscription: &Subscription, waits_for: Option<&Failure>) -> &'static str {
    match (subscription.is_active(), waits_for) {
        (true, Some(_)) => "waiting",
        (true, None) => "active",
        (false, _) => "inactive",
    }
}

/// One subscription as the API shows it.
fn view(web: &Web, subscription: &Subscription, secrets: Secrets) -> Value {
    let waits_for = web.hub.waits_for(subscription.id()).filter(|_| subscription.is_active());
    let Subscription { key, errors, .. } = subscription;
    let shown = |secret: &str| match secrets {
        Secrets::Hidden => HIDDEN.to_owned(),
        Secrets::Revealed => secret.to_owned(),
    };
    let kind = key.resource.kind.as_str();
    let mut view = Map::new();
    let mut set = |name: &str, value: Value| {
        view.insert(name.to_owned(), value);
    };
    set("id", subscription.id().to_string().into());
    set("vhost", key.resource.vhost.as_str().into());
    set(kind, key.resource.name.as_str().into());
    set("topic", key.topic.as_str().into());
    set("callback", key.callback.as_str().into());
    set("protocol", json!(subscription.protocol));
    set("state", state(subscription, waits_for.as_ref()).into());
    if let Some(failure) = &waits_for {
        set("waiting_because", subscriptions::waiting_because(failure).into());
    }
    if let SubscriptionState::Inactive(why) = &subscription.state {
        set("inactive_because", json!(why));
    }
    set("lease_seconds", subscription.lease_seconds.into());
    set("expires_at", document::time(subscription.expires_at_ms).into());
    set("created_at", document::time(subscription.created_at_ms).into());
    set("verified_at", subscription.verified_at_ms.map(document::time).into());
    set("max_tps", subscription.max_tps.into());
    set("max_in_flight", json!(subscription.max_in_flight));
    set("final_statuses", json!(subscription.final_statuses));
    set("signing", json!(subscription.signing));
    set("secret", subscription.secret.as_ref().map(|secret| shown(&secret.0)).into());
    set("basic_auth", subscription.basic_auth.as_ref().map(|auth| shown(&auth.0)).into());
    set("contact", json!(subscription.contact));
    set("arguments", typed::json(&subscription.arguments));
    set("own_queue", json!(subscription.pseudo_queue));
    set("user", json!(subscription.user));
    let last_error = (errors.count > 0).then(|| {
        json!({
            "count": errors.count,
            "first_at": document::time(errors.first_at_ms),
            "last_at": document::time(errors.last_at_ms),
            "last_kind": errors.last_kind,
            "last_message": errors.last_message,
        })
    });
    set("errors", json!(last_error));
    Value::Object(view)
}

pub(super) async fn list(web: &Web, parts: &Parts) -> Answered {
    let user = login::login(web, parts).await?;
    let admin = user.has_tags(&login::ADMIN_TAGS);
    let query = query(parts);
    let limit = match query.first("limit").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(limit @ 1..=PAGE_MAX)) => limit,
        Some(_) => return Err(problem(StatusCode::BAD_REQUEST, format!("limit is not 1 to {PAGE_MAX}"))),
    };
    let asked_state = query.first("state");
    if asked_state.is_some_and(|state| !["active", "waiting", "inactive"].contains(&state)) {
        return Err(problem(StatusCode::BAD_REQUEST, "state is not active, waiting or inactive"));
    }
    let asked = |one: &Subscription| {
        let resource = &one.key.resource;
        let named = |kind, name: &str| resource.kind == kind && resource.name == name;
        query.first("vhost").is_none_or(|vhost| resource.vhost == vhost)
            && query.first("queue").is_none_or(|name| named(ResourceKind::Queue, name))
            && query.first("exchange").is_none_or(|name| named(ResourceKind::Exchange, name))
            && asked_state.is_none_or(|asked| asked == state(one, web.hub.waits_for(one.id()).as_ref()))
    };
    let behind = match query.first("after") {
        None => web.hub.all(),
        Some(id) => match by_id(web, id) {
            Some(last) => web.hub.after(&last.key),
            None => {
                return Err(problem(StatusCode::BAD_REQUEST, "there is no subscription of the id in after"));
            }
        },
    };
    let mut readable = HashMap::new();
    let mut page = Vec::new();
    let mut next = None;
    for one in behind.iter().filter(|one| asked(one)) {
        let resource = &one.key.resource;
        let may = match readable.get(resource) {
            _ if admin => true,
            Some(may) => *may,
            None => {
                let may = web.users.may(&user, Right::Read, resource).await.map_err(Denied::Unknown)?;
                readable.insert(resource.clone(), may);
                may
            }
        };
        if may {
            if page.len() == limit {
                next = page.last().map(|last: &Value| last["id"].clone());
                break;
            }
            page.push(view(web, one, Secrets::Hidden));
        }
    }
    Ok(answer::json(StatusCode::OK, json!({ "subscriptions": page, "next": next })))
}

pub(super) async fn subscribe(web: &Web, parts: &Parts, body: Body) -> Answered {
    let user = login::login(web, parts).await?;
    let (asked, _) = read::<Subscribe>(web, parts, body, "Subscribe").await?;
    let resource = resource(&asked.vhost, asked.queue, asked.exchange)?;
    // A queue has no topics: the label may be left out.
    let topic = asked.topic.or_else(|| (resource.kind == ResourceKind::Queue).then(|| resource.name.clone()));
    let key = topic.as_deref().unwrap_or_default();
    login::may_with_key(&web.users, &user, Right::Read, &resource, key).await?;
    let basic_auth =
        asked.basic_auth.map(|auth| STANDARD.encode(format!("{}:{}", auth.username, auth.password)));
    let fields = Fields {
        mode: Some("subscribe".to_owned()),
        callback: Some(asked.callback),
        topic,
        verify: asked.verify.into_iter().collect(),
        verify_token: asked.verify_token,
        lease_seconds: asked.lease_seconds.map(|seconds| seconds.to_string()),
        max_tps: asked.max_tps.map(|count| count.to_string()),
        max_in_flight: asked.max_in_flight.map(|count| count.to_string()),
        final_statuses: asked.final_statuses,
        ha_mode: None,
        basic_auth,
        secret: asked.secret,
        signing: asked.signing,
        arguments: asked.arguments,
        contact: asked.contact.map(Contact::from).unwrap_or_default(),
    };
    let request =
        params::request(&resource, fields, Manner::Own, Written::Json).map_err(|fault| unfit(&fault))?;
    let key = request.key.clone();
    let request = SubscribeRequest { user: Some(user.name), ..request };
    let location = format!("{}{PREFIX}/subscriptions/{}", web.base(parts), key.id());
    match subscribed(web, request).await {
        Ok(Done::Done) => {
            let subscription = web.hub.get(&key).map(|one| view(web, &one, Secrets::Hidden));
            let answered = answer::json(StatusCode::CREATED, json!(subscription));
            Ok(answer::with(answered, LOCATION, &location))
        }
        Ok(Done::Later) => {
            let body = json!({ "id": key.id().to_string(), "state": "pending" });
            Ok(answer::with(answer::json(StatusCode::ACCEPTED, body), LOCATION, &location))
        }
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// The problem of a request with a value that does not fit.
fn unfit(fault: &Fault) -> Refused {
    let detail = match fault {
        Fault::Missing(name) => format!("{} is missing", name.trim_start_matches("hub.")),
        Fault::NoVerify => "verify is neither sync nor async".to_owned(),
        other => other.to_string(),
    };
    problem(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

fn refused(refusal: &Refusal) -> Refused {
    let detail = match refusal {
        Refusal::NoSuchResource => {
            return problem(StatusCode::NOT_FOUND, "the queue or exchange is not there");
        }
        Refusal::NoSuchSubscription => {
            return problem(StatusCode::NOT_FOUND, "there is no such subscription");
        }
        Refusal::Failed(failure) => return Refused::Answer(answer::problem_of(failure)),
        Refusal::BadParameter(name, rule) => {
            let name = name.trim_start_matches("hub.");
            return problem(StatusCode::BAD_REQUEST, format!("{name}: {rule}"));
        }
        Refusal::BadCallback(why) => format!("callback: {why}"),
        Refusal::NotVerified(NotVerified::ChallengeMismatch) => {
            "the callback did not answer with the challenge".to_owned()
        }
        Refusal::NotVerified(NotVerified::Status(status)) => format!("the callback answered {status}"),
        // As little as RabbitHub's routes say.
        Refusal::NotVerified(NotVerified::Unreachable(_)) => "the callback could not be called".to_owned(),
    };
    problem(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// The subscription of an id, as it is written.
fn by_id(web: &Web, id: &str) -> Option<Arc<Subscription>> {
    let plain = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u128::from_str_radix(id, 16).ok().filter(|_| plain)?;
    web.hub.by_id(SubscriptionId(id))
}

/// The subscription of that id, where whoever asks may do that with its resource. What they may not know of is not there.
async fn found(
    web: &Web,
    parts: &Parts,
    id: &str,
    right: Right,
) -> Result<(Arc<Subscription>, bool), Refused> {
    let user = login::login(web, parts).await?;
    let missing = || problem(StatusCode::NOT_FOUND, "there is no such subscription");
    let subscription = by_id(web, id).ok_or_else(missing)?;
    let admin = user.has_tags(&login::ADMIN_TAGS);
    if !admin {
        match login::may(&web.users, &user, right, &subscription.key.resource).await {
            Ok(()) => {}
            Err(Denied::Forbidden) => return Err(missing()),
            Err(denied) => return Err(denied.into()),
        }
    }
    Ok((subscription, admin))
}

pub(super) async fn get(web: &Web, parts: &Parts, id: &str) -> Answered {
    let (subscription, admin) = found(web, parts, id, Right::Read).await?;
    let secrets = if admin { subscriptions::secrets(&query(parts)) } else { Secrets::Hidden };
    Ok(answer::json(StatusCode::OK, view(web, &subscription, secrets)))
}

pub(super) async fn patch(web: &Web, parts: &Parts, body: Body, id: &str) -> Answered {
    login::admin(web, parts).await?;
    let (patch, _) = read::<Patch>(web, parts, body, "Patch").await?;
    let (subscription, _) = found(web, parts, id, Right::Read).await?;
    let change = patch.change().map_err(|fault| unfit(&fault))?;
    match web.hub.change(&subscription.key, change).await {
        Ok(Some(now)) => Ok(answer::json(StatusCode::OK, view(web, &now, Secrets::Hidden))),
        Ok(None) => Err(problem(StatusCode::NOT_FOUND, "there is no such subscription")),
        Err(refusal) => Err(refused(&refusal)),
    }
}

pub(super) async fn delete(web: &Web, parts: &Parts, id: &str) -> Answered {
    let (subscription, _) = found(web, parts, id, Right::Configure).await?;
    match web.hub.remove(&subscription.key).await {
        Ok(true) => Ok(answer::empty(StatusCode::NO_CONTENT)),
        Ok(false) => Err(problem(StatusCode::NOT_FOUND, "there is no such subscription")),
        Err(failure) => Err(Refused::Answer(answer::problem_of(&failure))),
    }
}

pub(super) async fn export(web: &Web, parts: &Parts) -> Answered {
    login::admin(web, parts).await?;
    let secrets = subscriptions::secrets(&query(parts));
    let entries = subscriptions::entries(web, &web.hub.all(), secrets);
    Ok(answer::json(StatusCode::OK, json!({ "subscriptions": entries })))
}

pub(super) async fn import(web: &Web, parts: &Parts, body: Body) -> Answered {
    login::admin(web, parts).await?;
    let bytes = batch_body(web, body).await?;
    let Some(results) = subscriptions::imported(web, &bytes).await else {
        let otherwise = "the body is not an object with a list of subscriptions";
        return Err(misfit(StatusCode::BAD_REQUEST, "Export", &bytes, otherwise));
    };
    Ok(answer::json(StatusCode::OK, json!({ "results": results })))
}

pub(super) async fn errors(web: &Web, parts: &Parts) -> Answered {
    login::admin(web, parts).await?;
    Ok(answer::json(StatusCode::OK, json!({ "errors": subscriptions::error_entries(web) })))
}
