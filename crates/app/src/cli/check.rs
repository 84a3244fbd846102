//! `warren check`: all that would fail later, at once, each with its place and its way out. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use warren_connectors::UserIds;
use warren_engine::consume::plan::{ConsumePlan, DeadLetter, Ordering, RetryMode};
use warren_engine::consume::retry::delay_queue;
use warren_engine::finding::{Finding, Severity};
use warren_engine::message::Route;
use warren_engine::model::Schema;
use warren_engine::ports::Wanted;
use warren_engine::sync::bind;
use warren_engine::sync::plan::{Dynamic, RoutePlan, SyncPlan};

use crate::assemble;
use crate::cli::{Context, Stop};
use crate::config::Project;
use crate::exit::Exit;
use crate::report::figures::counted;
use crate::report::{Style, line, note};

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
    let findings = if args.offline { Vec::new() } else { gather(context, &project).await };
    if context.style == Style::Json {
        let list: Vec<_> = findings.iter().map(|finding| finding_json(&project, finding)).collect();
        line(&json!({ "findings": list }).to_string());
    } else {
        if !findings.is_empty() {
            note(project.show(&findings).render(context.colours).trim_end());
        }
        tell(&project, &findings, args.offline);
    }
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    let ours = findings.iter().any(|finding| {
        finding.severity == Severity::Error && finding.code == warren_engine::codes::UNKNOWN_COLUMN
    });
    Ok(match (wrong, ours) {
        (false, _) => Exit::Done,
        (true, true) => Exit::Usage,
        (true, false) => Exit::Failed,
    })
}

/// All that can be found by connecting.
pub(super) async fn gather(context: &Context, project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(failure) = assemble::state(project) {
        findings.push(Finding::from_failure("state", &failure));
    }
    let schemas = schemas(project, &mut findings).await;
    for sync in project.syncs.values() {
        if let Some(schema) = schemas.get(&sync.plan.model.name)
            && let Err(unbound) = bind::bind(&sync.plan, schema)
        {
            findings.extend(unbound);
        }
    }
    brokers(project, &mut findings).await;
    triggers(context, project, &mut findings).await;
    hub(project, &mut findings).await;
    findings
}

/// The columns of each model that some sync uses.
async fn schemas(project: &Project, findings: &mut Vec<Finding>) -> BTreeMap<String, Arc<Schema>> {
    let mut schemas = BTreeMap::new();
    for (name, model) in &project.models {
        let subject = format!("models.{name}");
        match assemble::source(project, &model.source) {
            Err(failure) => {
                findings.push(Finding::from_failure(format!("sources.{}", model.source), &failure))
            }
            Ok(source) => match source.describe(&model.model).await {
                Ok(schema) => {
                    schemas.insert(name.clone(), schema);
                }
                Err(failure) => {
                    let connection = [
                        warren_engine::codes::SOURCE_UNREACHABLE,
                        warren_engine::codes::SOURCE_REFUSED_LOGIN,
                        warren_engine::codes::TLS_FAILED,
                    ];
                    let ours = connection.contains(&failure.code);
                    let subject = if ours { format!("sources.{}", model.source) } else { subject };
                    findings.push(Finding::from_failure(subject, &failure));
                }
            },
        }
    }
    // One source that cannot be reached is one finding, however many models read it.
    let mut seen = std::collections::BTreeSet::new();
    findings.retain(|finding| seen.insert((finding.subject.clone(), finding.code, finding.message.clone())));
    schemas
}

/// Each broker, with the routes that are the same for every row.
async fn brokers(project: &Project, findings: &mut Vec<Finding>) {
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
    for (name, routes) in routes {
        let broker = match assemble::broker(project, name) {
            Ok(broker) => broker,
            Err(failure) => {
                findings.push(Finding::from_failure(format!("brokers.{name}"), &failure));
                continue;
            }
        };
        let only: Vec<Route> = routes.iter().map(|(_, route)| route.clone()).collect();
        for mut finding in broker.check(&only).await {
            // The broker names the route; the place in the configuration is ours to know.
            let place = routes.iter().find(|(_, route)| names(&finding.message, route));
            finding.subject = place.map_or_else(|| format!("brokers.{name}"), |(subject, _)| subject.clone());
            findings.push(finding);
        }
        broker.close().await;
    }
    user_ids(project, findings).await;
}

/// Messages with a `user_id` that the broker would refuse.
async fn user_ids(project: &Project, findings: &mut Vec<Finding>) {
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
    for (broker, given) in given {
        let Some(config) = project.brokers.get(broker) else { continue };
        let UserIds::Own(login) = config.user_ids().await else { continue };
        for (subject, literal) in given {
            let finding = match literal {
                Some(literal) if literal == login || literal.is_empty() => continue,
                Some(literal) => Finding::error(
                    warren_engine::codes::INVALID_PROPERTY,
                    subject,
                    format!("the broker refuses the `user_id` `{literal}` from the login `{login}`"),
                ),
                None => Finding::warning(
                    warren_engine::codes::INVALID_PROPERTY,
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

/// Each trigger's queue, and which way its messages are tried again.
async fn triggers(context: &Context, project: &Project, findings: &mut Vec<Finding>) {
    for (name, trigger) in &project.triggers {
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
        let no_queues = found.iter().any(|finding| finding.severity == Severity::Note);
        context.say(&format!(
            "trigger {name}: messages are tried again by {}",
            mechanism(plan, kind, no_queues)
        ));
        findings.extend(
            found.into_iter().map(|finding| Finding { subject: format!("triggers.{name}.queue"), ..finding }),
        );
        broker.close().await;
    }
}

/// The names of the delay queues of a trigger.
fn delay_queues(plan: &ConsumePlan) -> Vec<String> {
    let delays = &plan.retry.delays;
    delays.iter().map(|delay| delay_queue(&plan.queue, delays, *delay).name).collect()
}

/// The hub: its store, its users, and what its login may. That the broker can be reached was told with the brokers.
async fn hub(project: &Project, findings: &mut Vec<Finding>) {
    let Some(hub) = &project.hub else { return };
    let Some(config) = project.brokers.get(&hub.broker) else { return };
    let broker = format!("brokers.{}", hub.broker);
    if findings.iter().any(|finding| finding.severity == Severity::Error && finding.subject == broker) {
        return; // nothing of it can be asked
    }
    let found = config.check_hub(&hub.broker, hub.users.is_some()).await;
    let fatal = found.iter().any(|finding| finding.severity == Severity::Error);
    findings.extend(found.into_iter().map(|finding| Finding { subject: "hub.broker".to_owned(), ..finding }));
    let Some(name) = hub.settings.default_username.as_ref().filter(|_| !fatal) else { return };
    let known = match assemble::hub_users(hub, config) {
        Ok(users) => users.named(name).await,
        Err(failure) => Err(failure),
    };
    match known {
        Ok(Some(_)) => {}
        Ok(None) => findings.push(
            Finding::error(
                warren_engine::codes::UNKNOWN_NAME,
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
    sentence.contains(&format!("`{name}`"))
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
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count() as u64;
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
    let parts = if parts.is_empty() { "an empty configuration".to_owned() } else { parts.join(", ") };
    if errors > 0 {
        note(&format!("{} found in {parts}", counted(errors, "error")));
    } else if offline {
        line(&format!("the configuration is right: {parts} (nothing was connected to)"));
    } else {
        line(&format!("all is well: {parts}"));
    }
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
