//! `warren check`: all that would fail later, at once, each with its place and its way out. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;
use warren_connectors::UserIds;
use warren_connectors::kit::setting::Misfit;
use warren_engine::codes::{self, Code};
use warren_engine::consume::plan::{ConsumePlan, DeadLetter, Ordering, RetryMode};
use warren_engine::consume::retry::delay_queue;
use warren_engine::failure::Failure;
use warren_engine::finding::{Finding, Severity};
use warren_engine::message::Route;
use warren_engine::model::{Model, Schema};
use warren_engine::ports::Wanted;
use warren_engine::redact::scrub;
use warren_engine::sync::bind;
use warren_engine::sync::plan::{Dynamic, RoutePlan, SyncPlan};
use warren_store::{in_flight, parking, subscriptions, webhook_ids};

use crate::assemble::{self, Orphan};
use crate::cli::{Context, Stop};
use crate::exit::Exit;
use crate::report::figures::counted;
use crate::report::{Style, line, note};
use warren_config::Project;

/// Check the configuration and what it names: connections, queries, columns, queues, rights, limits. Nothing changes.
///
/// Exit codes: 0 nothing is wrong; 1 something outside is wrong, such as a database that cannot be reached; 2 the
/// configuration is wrong.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look at the configuration only, and connect to nothing.
    #[arg(long)]
    offline: bool,
}

pub async fn run(context: &Context, args: &Args) -> Result<Exit, Stop> {
    let project = context.project()?;
    let mut findings = orphans(&project).await;
    let mut ways = Vec::new();
    if !args.offline {
        let found = gather(&project).await;
        findings.extend(found.findings);
        ways = found.ways;
    }
    if context.style == Style::Json {
        super::tell_faults(context, &project.warnings);
        context.finding_lines(&project, &findings);
        let list: Vec<_> = findings.iter().map(|finding| finding_json(&project, finding)).collect();
        context.document("checked", json!({ "findings": list }));
    } else {
        for way in &ways {
            context.say(way);
        }
        if !project.warnings.is_empty() {
            note(project.warnings.render(context.colours).trim_end());
        }
        if !findings.is_empty() {
            note(project.show(&findings).render(context.colours).trim_end());
        }
        tell(&project, &findings, args.offline);
    }
    Ok(exit(&findings))
}

/// What was found, as an exit code: the configuration is to blame, or something outside.
pub(super) fn exit(findings: &[Finding]) -> Exit {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    Exit::worst(errors.map(|finding| if is_ours(finding) { Exit::Usage } else { Exit::Failed }))
}

/// Whether a finding is a fault of the configuration itself.
fn is_ours(finding: &Finding) -> bool {
    finding.code == codes::UNKNOWN_COLUMN || Exit::of_code(finding.code) == Exit::Usage
}

/// What connecting found.
pub(super) struct Gathered {
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// How the messages of each trigger that could be looked at are tried again.
    pub ways: Vec<String>,
}

/// All that can be found by connecting: every address and login of the configuration, whatever uses it. Each fault once.
pub(super) async fn gather(project: &Project) -> Gathered {
    let mut findings = Vec::new();
    state(project, &mut findings).await;
    let schemas = schemas(project, &mut findings).await;
    for sync in project.syncs.values() {
        if let Some(schema) = schemas.get(&sync.plan.model.name) {
            findings.extend(match bind::bind(&sync.plan, schema) {
                Ok(bound) => bound.findings,
                Err(unbound) => unbound,
            });
        }
    }
    let down = brokers(project, &mut findings).await;
    let ways = triggers(project, &down, &mut findings).await;
    hub(project, &down, &mut findings).await;
    proxies(project, &mut findings).await;
    Gathered { findings, ways }
}

/// What a run or a trigger would find damaged in the state folder.
async fn state(project: &Project, findings: &mut Vec<Finding>) {
    let folder = &project.state.folder;
    if let Err(failure) = assemble::state(project) {
        findings.push(of_file("state", &failure));
    }
    for name in project.syncs.keys() {
        if let Err(failure) = assemble::baseline(project, name).look().await {
            findings.push(of_file(format!("syncs.{name}"), &failure));
        }
    }
    for name in project.triggers.keys() {
        let parked = parking::look(folder, name).await.err();
        let journal = in_flight::look(&folder.join("inflight"), &assemble::folder_name(name)).err();
        let damaged = parked.into_iter().chain(journal);
        findings.extend(damaged.map(|failure| of_file(format!("triggers.{name}"), &failure)));
    }
    if project.hub.is_some() {
        let subscriptions = subscriptions::look(folder).await.err();
        let inflight = folder.join("inflight");
        let ids = webhook_ids::look(&inflight).err();
        let journal = in_flight::look(&inflight, "%hub").err();
        let damaged = subscriptions.into_iter().chain(ids).chain(journal);
        findings.extend(damaged.map(|failure| of_file("hub", &failure)));
    }
}

/// A finding about a file, which it names.
fn of_file(subject: impl Into<String>, failure: &Failure) -> Finding {
    let finding = Finding::from_failure(subject, failure);
    match (&failure.place, &failure.detail) {
        (Some(place), Some(detail)) => finding.detail(format!("{place}: {detail}")),
        (Some(place), None) => finding.detail(place.clone()),
        (None, _) => finding,
    }
}

/// Baselines of syncs that are gone, next to a sync that would begin anew.
pub(super) async fn orphans(project: &Project) -> Vec<Finding> {
    match assemble::orphans(project).await {
        Ok(orphans) => orphans.iter().map(Orphan::finding).collect(),
        Err(failure) => vec![Finding::from_failure("state", &failure)],
    }
}

/// Codes that are about a broker, whoever comes upon them.
const OF_BROKER: [Code; 2] = [codes::BROKER_BLOCKED, codes::MANAGEMENT_FAILED];

/// Adds what a user of a broker found, under its own subject. What is about the broker is the broker's, and told once.
fn add(findings: &mut Vec<Finding>, found: Vec<Finding>, subject: &str, broker: &str) {
    let broker = format!("brokers.{broker}");
    for finding in found {
        let shared = OF_BROKER.contains(&finding.code);
        let known = |other: &Finding| other.code == finding.code && other.subject.starts_with(&broker);
        if !shared {
            findings.push(Finding { subject: subject.to_owned(), ..finding });
        } else if !findings.iter().any(known) {
            findings.push(Finding { subject: broker.clone(), ..finding });
        }
    }
}

/// The codes of a source that cannot be used at all: a fault of the source, not of its models.
const SOURCE_DOWN: [Code; 4] =
    [codes::SOURCE_UNREACHABLE, codes::SOURCE_REFUSED_LOGIN, codes::TLS_FAILED, codes::UNKNOWN_DATABASE];

/// The columns of each model. A source that no model reads is connected to as well.
async fn schemas(project: &Project, findings: &mut Vec<Finding>) -> BTreeMap<String, Arc<Schema>> {
    let mut schemas = BTreeMap::new();
    for source_name in project.sources.keys() {
        let subject = format!("sources.{source_name}");
        let source = match assemble::source(project, source_name) {
            Ok(source) => source,
            Err(failure) => {
                findings.push(Finding::from_failure(subject, &failure));
                continue;
            }
        };
        let models = project.models.iter().filter(|(_, model)| model.source == *source_name);
        let models: Vec<_> = models.map(|(name, model)| (Some(name), (*model.model).clone())).collect();
        let models = if models.is_empty() { vec![(None, connection_test())] } else { models };
        for (name, model) in models {
            match source.describe(&model).await {
                Ok(schema) => schemas.extend(name.map(|name| (name.clone(), schema))),
                Err(failure) => {
                    let down = name.is_none() || SOURCE_DOWN.contains(&failure.code);
                    let of = if down { subject.clone() } else { format!("models.{}", model.name) };
                    findings.push(Finding::from_failure(of, &failure));
                    if down {
                        break; // the other models would find the same
                    }
                }
            }
        }
    }
    schemas
}

/// A query that every database answers without reading anything.
fn connection_test() -> Model {
    Model {
        name: "connection test".to_owned(),
        sql: "SELECT 1 AS one".to_owned(),
        key: vec!["one".to_owned()],
        timeout: None,
    }
}

/// Each broker, with the routes that are the same for every row. Yields those that cannot be used.
async fn brokers(project: &Project, findings: &mut Vec<Finding>) -> BTreeSet<String> {
    let mut routes: BTreeMap<&str, Vec<(String, Route)>> = BTreeMap::new();
    for name in project.brokers.keys() {
        routes.insert(name, Vec::new());
    }
    for (name, sync) in &project.syncs {
        let routes = routes.entry(&sync.broker).or_default();
        for (subject, route) in fixed_routes(name, &sync.plan) {
            if routes.iter().all(|(_, other)| *other != route) {
                routes.push((subject, route));
            }
        }
    }
    for (name, trigger) in &project.triggers {
        for (broker, route) in trigger.pipeline.routes() {
            let routes = routes.entry(broker).or_default();
            if routes.iter().all(|(_, other)| *other != route) {
                routes.push((format!("triggers.{name}.pipeline"), route));
            }
        }
    }
    let mut down = BTreeSet::new();
    for (name, routes) in routes {
        let broker = match assemble::broker(project, name) {
            Ok(broker) => broker,
            Err(failure) => {
                findings.push(Finding::from_failure(format!("brokers.{name}"), &failure));
                down.insert(name.to_owned());
                continue;
            }
        };
        let only: Vec<Route> = routes.iter().map(|(_, route)| route.clone()).collect();
        for mut finding in broker.check(&only).await {
            // The broker names the route; the place in the configuration is ours to know.
            let place = routes.iter().find(|(_, route)| names(&finding.message, route));
            finding.subject = match place {
                Some((subject, _)) => subject.clone(),
                None if finding.subject == "management_url" => format!("brokers.{name}.management_url"),
                None => format!("brokers.{name}"),
            };
            if BROKER_DOWN.contains(&finding.code) && finding.severity == Severity::Error {
                down.insert(name.to_owned());
            }
            findings.push(finding);
        }
        broker.close().await;
    }
    user_ids(project, &down, findings).await;
    down
}

/// Messages with a `user_id` that the broker would refuse.
async fn user_ids(project: &Project, down: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    let mut given: BTreeMap<&str, Vec<(String, Option<String>)>> = BTreeMap::new();
    for (name, sync) in &project.syncs {
        for (op, trigger) in sync.plan.triggers() {
            let literal = match &trigger.properties.user_id {
                None => continue,
                Some(Dynamic::Literal(text)) => Some(text.clone()),
                Some(Dynamic::Column(_) | Dynamic::Template(_)) => None,
            };
            let subject = format!("syncs.{name}.on.{op}.user_id");
            given.entry(&sync.broker).or_default().push((subject, literal));
        }
    }
    for (name, trigger) in &project.triggers {
        for (broker, literal) in trigger.pipeline.user_ids() {
            given.entry(broker).or_default().push((format!("triggers.{name}.pipeline"), literal));
        }
    }
    for (broker, given) in given.into_iter().filter(|(broker, _)| !down.contains(*broker)) {
        let Some(config) = project.brokers.get(broker) else { continue };
        let UserIds::Own(login) = config.user_ids().await else { continue };
        for (subject, literal) in given {
            let finding = match literal {
                Some(literal) if literal == login || literal.is_empty() => continue,
                Some(literal) => Finding::error(
                    codes::INVALID_PROPERTY,
                    subject,
                    format!("the broker refuses the `user_id` `{literal}` from the login `{login}`"),
                ),
                None => Finding::warning(
                    codes::INVALID_PROPERTY,
                    subject,
                    format!("the broker refuses every `user_id` but `{login}`, the login's own name"),
                ),
            };
            findings.push(finding.detail("the login does not have the tag `impersonator`").remedy(format!(
                "leave `user_id` out, or give the tag: `rabbitmqctl set_user_tags {login} … impersonator`"
            )));
        }
    }
}

/// The codes of a broker that cannot be used at all: nothing more can be asked of it.
const BROKER_DOWN: [Code; 6] = [
    codes::BROKER_UNREACHABLE,
    codes::BROKER_REFUSED_LOGIN,
    codes::UNKNOWN_VHOST,
    codes::TLS_FAILED,
    codes::CONNECTION_LOST,
    codes::PROTOCOL_ERROR,
];

/// Each trigger's queue; yields which way the messages of each are tried again, where its broker could be asked.
async fn triggers(project: &Project, down: &BTreeSet<String>, findings: &mut Vec<Finding>) -> Vec<String> {
    let mut ways = Vec::new();
    for (name, trigger) in &project.triggers {
        if down.contains(&trigger.broker) {
            continue;
        }
        let Ok(broker) = assemble::broker(project, &trigger.broker) else { continue }; // told with the brokers
        let plan = &trigger.plan;
        let kind = project.brokers.get(&trigger.broker).map_or("", warren_connectors::BrokerConfig::kind);
        let wanted = Wanted {
            queue: plan.queue.clone(),
            attempts_max: plan.retry.delays.len() as u32 + 1,
            deadline: plan.max_timeout,
            prefetch: plan.concurrency,
            ordered: !matches!(plan.ordering, Ordering::None),
            dead_letters_by_broker: plan.dead_letter == DeadLetter::Broker,
            dead_letter_queue: match &plan.dead_letter {
                DeadLetter::Queue(queue) => Some(queue.clone()),
                DeadLetter::Broker | DeadLetter::Drop => None,
            },
            delay_queues: if plan.retry.mode.makes_queues(&plan.ordering) && kind != "sqs" {
                delay_queues(plan)
            } else {
                Vec::new()
            },
        };
        let found = broker.check_consumer(&wanted).await;
        broker.close().await;
        let no_queues = found.iter().any(|finding| finding.severity == Severity::Note);
        let unknown = found.iter().any(|finding| BROKER_DOWN.contains(&finding.code));
        if !unknown {
            let way = mechanism(plan, kind, no_queues);
            ways.push(format!("trigger {name}: messages are tried again by {way}"));
        }
        add(findings, found, &format!("triggers.{name}.queue"), &trigger.broker);
    }
    ways
}

/// The proxies that callbacks go through.
async fn proxies(project: &Project, findings: &mut Vec<Finding>) {
    let Some(hub) = &project.hub else { return };
    let own = std::iter::once(("hub.http_client_options".to_owned(), &hub.client));
    let others = hub.clients.iter().enumerate();
    let others =
        others.map(|(at, entry)| (format!("hub.http_client_options_for[{at}].client"), &entry.client));
    for (section, client) in own.chain(others) {
        for Misfit { key, failure } in warren_connectors::http::check_proxies(client).await {
            findings.push(Finding::from_failure(format!("{section}.{key}"), &failure));
        }
    }
}

/// The names of the delay queues of a trigger.
fn delay_queues(plan: &ConsumePlan) -> Vec<String> {
    let delays = &plan.retry.delays;
    delays.iter().map(|delay| delay_queue(&plan.queue, delays, *delay).name).collect()
}

/// The hub: its store, its users, and what its login may. That the broker can be reached was told with the brokers.
async fn hub(project: &Project, down: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    let Some(hub) = &project.hub else { return };
    let Some(config) = project.brokers.get(&hub.broker) else { return };
    if down.contains(&hub.broker) {
        return; // nothing of it can be asked
    }
    let found = config.check_hub(&hub.broker, hub.users.is_some()).await;
    let fatal = found.iter().any(|finding| finding.severity == Severity::Error);
    add(findings, found, "hub.broker", &hub.broker);
    let Some(name) = hub.settings.default_username.as_ref().filter(|_| !fatal) else { return };
    let known = match assemble::hub_users(hub, config) {
        Ok(users) => users.named(name).await,
        Err(failure) => Err(failure),
    };
    match known {
        Ok(Some(_)) => {}
        Ok(None) => findings.push(
            Finding::error(
                codes::UNKNOWN_NAME,
                "hub.default_username",
                format!("the broker has no user `{name}`"),
            )
            .remedy("name one that it has, or leave out `default_username`"),
        ),
        Err(failure) => findings.push(Finding::from_failure("hub.default_username", &failure)),
    }
}

/// Which way a trigger's messages are tried again, and why.
fn mechanism(plan: &ConsumePlan, kind: &str, no_queues: bool) -> &'static str {
    if plan.auto_ack {
        return "nobody: `auto_ack` has acknowledged them before";
    }
    if !plan.allow_redelivery {
        return "nobody: `allow_redelivery` is false";
    }
    match plan.retry.mode {
        RetryMode::Requeue => {
            "the broker at once (requeue), as `retry.mode` says: its own limits count, not the schedule"
        }
        RetryMode::Auto | RetryMode::Visibility if kind == "sqs" => {
            "the broker (visibility), which can delay a delivery"
        }
        RetryMode::Parking => "the local parking lot, as `retry.mode` says",
        RetryMode::DelayQueues => "delay queues, as `retry.mode` says",
        RetryMode::Auto | RetryMode::Visibility if !matches!(plan.ordering, Ordering::None) => {
            "the local parking lot, because delay queues keep no order"
        }
        RetryMode::Auto | RetryMode::Visibility if no_queues => {
            "the local parking lot, because the user may make no queues"
        }
        RetryMode::Auto | RetryMode::Visibility => {
            "delay queues; should the broker refuse to make them, by the local parking lot"
        }
    }
}

/// Whether a sentence names a route's queue or exchange.
fn names(sentence: &str, route: &Route) -> bool {
    let name = match route {
        Route::Queue(queue) => queue,
        Route::Exchange { exchange, .. } => exchange,
    };
    // A sentence holds no value of a variable, so the name is looked for as it is shown.
    sentence.contains(&format!("`{}`", scrub(name.as_str())))
}

fn fixed_routes(sync: &str, plan: &SyncPlan) -> Vec<(String, Route)> {
    let mut routes = Vec::new();
    for (op, trigger) in plan.triggers() {
        match &trigger.route {
            RoutePlan::Queue(Dynamic::Literal(queue)) => {
                routes.push((format!("syncs.{sync}.on.{op}.queue"), Route::Queue(queue.clone())));
            }
            RoutePlan::Exchange { exchange: Dynamic::Literal(exchange), routing_key } => {
                let routing_key = match routing_key {
                    Dynamic::Literal(key) => key.clone(),
                    Dynamic::Column(_) | Dynamic::Template(_) => String::new(),
                };
                let route = Route::Exchange { exchange: exchange.clone(), routing_key };
                routes.push((format!("syncs.{sync}.on.{op}.exchange"), route));
            }
            RoutePlan::Queue(_) | RoutePlan::Exchange { .. } => {}
        }
    }
    routes
}

fn tell(project: &Project, findings: &[Finding], offline: bool) {
    let of = |severity| findings.iter().filter(move |finding| finding.severity == severity);
    let errors = of(Severity::Error).count() as u64;
    let ours = of(Severity::Error).filter(|finding| is_ours(finding)).count() as u64;
    let warnings = (of(Severity::Warning).count() + project.warnings.len()) as u64;
    let parts = parts(project);
    let warned = if warnings > 0 { format!(" and {}", counted(warnings, "warning")) } else { String::new() };
    if errors > 0 {
        let ours = if ours > 0 { format!(" ({ours} in the configuration itself)") } else { String::new() };
        note(&format!("{}{ours}{warned} found in {parts}", counted(errors, "error")));
    } else if warnings > 0 {
        let offline = if offline { " (nothing was connected to)" } else { "" };
        line(&format!("no errors, {} found in {parts}{offline}", counted(warnings, "warning")));
    } else if offline {
        line(&format!("the configuration is right: {parts} (nothing was connected to)"));
    } else {
        line(&format!("all is well: {parts}"));
    }
}

/// What there is, for people.
fn parts(project: &Project) -> String {
    let counts = [
        (project.sources.len(), "source"),
        (project.models.len(), "model"),
        (project.brokers.len(), "broker"),
        (project.syncs.len(), "sync"),
        (project.pipelines.len(), "pipeline"),
        (project.triggers.len(), "trigger"),
    ];
    let there = counts.iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = there.map(|(count, name)| counted(*count as u64, name)).collect();
    if project.hub.is_some() {
        parts.push("the hub".to_owned());
    }
    if parts.is_empty() { "an empty configuration".to_owned() } else { parts.join(", ") }
}

pub(super) fn finding_json(project: &Project, finding: &Finding) -> serde_json::Value {
    let place = project.place(&finding.subject);
    json!({
        "severity": finding.severity, "code": finding.code.as_str(), "subject": finding.subject,
        "message": finding.message, "detail": finding.detail, "remedy": finding.remedy,
        "file": place.as_ref().map(|place| place.file.clone()),
        "line": place.as_ref().map(|place| place.line), "column": place.as_ref().map(|place| place.column),
    })
}
