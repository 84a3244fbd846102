//! Each kind of step, from what is written to what is done.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use warren_connectors::kit::renew::Renew;
use warren_connectors::kit::setting::Secret;
use warren_engine::codes;
use warren_engine::pipeline::End;
use warren_engine::pipeline::outside::{Hidden, HiddenSource};
use warren_engine::pipeline::plan::{
    Body, Branch, ExecStep, FailStep, ForEachStep, Given, HttpStep, LogLevel, LogStep, Pairs, Params,
    PublishRoute, PublishStep, ReplyStep, RetryStep, SqlStep, StepKind,
};
use warren_engine::pipeline::schema::Schema;
use warren_engine::pipeline::scope::Text;
use warren_engine::statuses::{NotAStatus, StatusRange, Statuses};

use super::{At, List};
use crate::faults::Fault;
use crate::fill::read_again;
use crate::model::unreadable_fault;
use crate::node::{Entry, Node};
use crate::raw::expression::{self, Expression, FailAs, Level, Statuses as RawStatuses};
use crate::raw::pipeline::{RawAuth, RawExec, RawForEach, RawHttp, RawPublish, RawRetry, RawSql, RawStep};
use crate::text::{Span, read};

/// How long a step may take, unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer or output, unless the step says otherwise.
const ANSWER_BYTES: usize = 1 << 20;
/// The most rows, unless the step says otherwise.
const ROWS: usize = 1000;
/// The pauses of a `retry`, unless it says otherwise.
const DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// The text of a secret as the files that hold it are now.
fn renewed(node: Option<&Node>, secret: &Secret) -> impl Fn() -> String + Send + Sync + use<> {
    let scalar =
        node.and_then(Node::scalar).filter(|scalar| scalar.fills.iter().any(|fill| fill.file.is_some()));
    let renew = scalar.cloned().map_or_else(Renew::default, |scalar| Renew::by(move || read_again(&scalar)));
    let first = secret.reveal().to_owned();
    move || renew.now(&first)
}

impl List<'_, '_> {
    /// What a step does.
    pub(super) fn kind(&mut self, raw: &RawStep, one: &Entry, at: &At<'_>) -> Option<StepKind> {
        Some(match one.key.as_str() {
            "map" => StepKind::Map(self.jq(&raw.map.as_ref()?.0, at.node)?),
            "filter" => StepKind::Filter(self.jq(&raw.filter.as_ref()?.0, at.node)?),
            "validate" => StepKind::Validate(self.schema(at)?),
            "http" => StepKind::Http(Box::new(self.http(raw.http.as_ref()?, at)?)),
            "publish" => StepKind::Publish(Box::new(self.publish(raw.publish.as_ref()?, at)?)),
            "sql" => StepKind::Sql(self.sql(raw.sql.as_ref()?, at)?),
            "exec" => StepKind::Exec(self.exec(raw.exec.as_ref()?, at)?),
            "choose" => StepKind::Choose(self.choose(at)?),
            "for_each" => StepKind::ForEach(self.for_each(raw.for_each.as_ref()?, at)?),
            "retry" => StepKind::Retry(self.retry(raw.retry.as_ref()?, at)?),
            "on_error" => StepKind::OnError(self.steps(at.node, &at.path)?),
            "reply" => {
                let reply = raw.reply.as_ref()?;
                StepKind::Reply(ReplyStep {
                    body: self.body(reply.body.as_ref(), false, at)?,
                    timeout: timeout(reply.timeout),
                })
            }
            "log" => {
                let log = raw.log.as_ref()?;
                let message = self.text(&log.message, inner(at, "message"), &at.path)?;
                let level = match log.level {
                    Level::Debug => LogLevel::Debug,
                    Level::Info => LogLevel::Info,
                    Level::Warn => LogLevel::Warn,
                };
                StepKind::Log(LogStep { message, level })
            }
            _ => {
                let fail = raw.fail.as_ref()?;
                let reason = self.text(&fail.reason, inner(at, "reason"), &at.path)?;
                let end = match fail.end {
                    FailAs::Retry => End::Retry,
                    FailAs::Reject => End::Reject,
                };
                StepKind::Fail(FailStep { reason, end })
            }
        })
    }

    fn schema(&mut self, at: &At<'_>) -> Option<Schema> {
        let node = at.of("schema");
        let json = match node.text() {
            Some(file) if !matches!(file, "true" | "false") => {
                let text = match read(Path::new(file)) {
                    Ok(text) => text,
                    Err(unreadable) => {
                        self.tell(unreadable_fault(file, unreadable, node.span));
                        return None;
                    }
                };
                let id = self.reader.files.add(file, text.clone());
                match serde_json::from_str(&text) {
                    Ok(json) => json,
                    Err(error) => {
                        let start = self.reader.files.byte_at(id, error.line().max(1), error.column().max(1));
                        let span = Span { file: id, start, end: start };
                        self.tell(
                            Fault::new(codes::INVALID_SCHEMA, span, format!("this is not JSON: {error}"))
                                .also(node.span, "named here")
                                .remedy("write the JSON Schema as JSON, or here as YAML"),
                        );
                        return None;
                    }
                }
            }
            _ => node.to_json(),
        };
        match Schema::compile(json) {
            Ok(schema) => Some(schema),
            Err(why) => {
                let span = at.node.entry("schema").map_or(at.key, |entry| entry.span);
                self.tell(
                    Fault::new(codes::INVALID_SCHEMA, span, format!("this is no JSON Schema: {why}"))
                        .remedy("see json-schema.org for what a schema may hold"),
                );
                None
            }
        }
    }

    /// What is sent; `.` where nothing is said.
    fn body(&mut self, given: Option<&Expression>, binary: bool, at: &At<'_>) -> Option<Body> {
        let text = given.map_or(".", |given| given.0.as_str());
        let expression = self.jq(text, at.of("body"))?;
        Some(Body { expression, binary })
    }

    fn http(&mut self, raw: &RawHttp, at: &At<'_>) -> Option<HttpStep> {
        let url = self.text(&raw.url, at.of("url"), &at.subject("url"));
        let origin = self.origin(&raw.url, at);
        let mut headers = Vec::new();
        for (name, value) in &raw.headers.0 {
            let node = at.of("headers").get(name).unwrap_or(at.node);
            if !is_token(name) {
                let fault =
                    Fault::new(codes::INVALID_VALUE, node.span, "this cannot be the name of an HTTP header");
                self.tell(fault.remedy("use letters, digits and `-`"));
            }
            let subject = format!("{}.headers.{name}", at.path);
            headers.extend(self.text(value, node, &subject).map(|value| (name.clone(), value)));
        }
        let method =
            raw.method.clone().unwrap_or_else(|| if raw.body.is_some() { "POST" } else { "GET" }.to_owned());
        if !is_token(&method) {
            let fault = Fault::new(codes::INVALID_VALUE, at.of("method").span, "this is no HTTP method");
            self.tell(fault.remedy("write `GET`, `POST`, `PUT`, `PATCH` or `DELETE`"));
        }
        let body = match &raw.body {
            Some(body) => Some(self.body(Some(body), raw.binary, at)?),
            None => None,
        };
        for allowed in &raw.allow {
            if allowed.is_empty() || allowed.contains("://") {
                let fault = Fault::new(
                    codes::INVALID_VALUE,
                    at.of("allow").span,
                    format!("`{allowed}` is no host or network"),
                );
                self.tell(fault.remedy("write a host, an address, or a network such as 10.0.0.0/8"));
            }
        }
        let authorization = self.authorization(&raw.auth, at);
        let (expect, final_statuses) = self.statuses(raw, at);
        Some(HttpStep {
            method: method.to_ascii_uppercase(),
            url: url?,
            origin,
            allow: raw.allow.clone(),
            headers,
            body,
            authorization,
            expect,
            final_statuses,
            timeout: timeout(raw.timeout),
            answer_bytes_max: bytes(raw.max_answer.map(|size| size.0.0)),
        })
    }

    /// Scheme, host and port of a URL, where they stand in the configuration.
    fn origin(&mut self, url: &str, at: &At<'_>) -> Option<String> {
        let node = at.of("url");
        let first = url.find("{{").into_iter().chain(url.find("{%")).min();
        let fixed = match first {
            None => url,
            Some(first) => {
                let prefix = &url[..first];
                // The host is fixed where something stands behind it.
                let authority = prefix.find("://").map(|found| found + 3)?;
                let end = authority + prefix[authority..].find(['/', '?', '#'])?;
                &prefix[..end]
            }
        };
        let wrong =
            |what: String, remedy: &str| Fault::new(codes::INVALID_VALUE, node.span, what).remedy(remedy);
        let fault = match Url::parse(fixed) {
            Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => wrong(
                format!("`{}` is not a scheme that can be called", parsed.scheme()),
                "write an `http` or `https` URL",
            ),
            Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
                wrong("the URL holds a user".to_owned(), "write `auth: {basic: {username: …, password: …}}`")
            }
            Ok(_) => {
                let authority = fixed.find("://").map_or(0, |found| found + 3);
                let end =
                    fixed[authority..].find(['/', '?', '#']).map_or(fixed.len(), |found| authority + found);
                return Some(fixed[..end].to_owned());
            }
            Err(_) if node.is_filled() => {
                wrong("a variable gives this something that is no URL".to_owned(), "give an absolute URL")
            }
            Err(error) => {
                wrong(format!("this is no URL: {error}"), "write an absolute one, such as https://host/path")
            }
        };
        self.tell(fault);
        None
    }

    fn authorization(&mut self, raw: &RawAuth, at: &At<'_>) -> Option<HiddenSource> {
        let auth = at.node.get("auth");
        match (&raw.basic, &raw.bearer) {
            (Some(_), Some(_)) => {
                let span = at.node.entry("auth").map_or(at.key, |entry| entry.span);
                let fault = Fault::new(codes::CONFLICTING_KEYS, span, "`basic` and `bearer` are both given");
                self.tell(fault.remedy("keep one of them"));
                None
            }
            (Some(basic), None) => {
                let password = auth.and_then(|auth| auth.get("basic")?.get("password"));
                let (username, password) = (basic.username.clone(), renewed(password, &basic.password));
                Some(HiddenSource::new(move || {
                    Hidden(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password()))))
                }))
            }
            (None, Some(token)) => {
                if token.reveal().chars().any(char::is_control) {
                    let fault =
                        Fault::new(codes::INVALID_VALUE, at.of("auth").span, "the token holds a line break");
                    self.tell(fault.remedy("give the token alone"));
                }
                let token = renewed(auth.and_then(|auth| auth.get("bearer")), token);
                Some(HiddenSource::new(move || Hidden(format!("Bearer {}", token()))))
            }
            (None, None) => None,
        }
    }

    /// `expect` and `final_statuses`.
    fn statuses(&mut self, raw: &RawHttp, at: &At<'_>) -> (Statuses, Statuses) {
        let mut read = |key: &str, given: Option<&RawStatuses>| {
            let given = given?;
            let span = at.of(key).span;
            let mut ranges: Vec<StatusRange> = Vec::new();
            for text in &given.0 {
                match text.parse() {
                    Ok(range) => ranges.push(range),
                    Err(error @ NotAStatus(_)) => {
                        let fault = Fault::new(codes::INVALID_VALUE, span, error.to_string());
                        self.tell(fault.remedy(NotAStatus::REMEDY));
                    }
                }
            }
            Some((Statuses::new(ranges), span))
        };
        let expect = read("expect", raw.expect.as_ref());
        let last = read("final_statuses", raw.final_statuses.as_ref());
        if let Some((statuses, span)) = &expect
            && raw.expect.as_ref().is_some_and(|given| given.0.is_empty())
            && statuses.is_empty()
        {
            let fault = Fault::new(codes::INVALID_VALUE, *span, "with no status every answer is an error");
            self.tell(fault.remedy("name the statuses that are not errors, or remove `expect`"));
        }
        let (expect, expect_span) =
            expect.map_or_else(|| (Statuses::success(), None), |(statuses, span)| (statuses, Some(span)));
        let Some((last, span)) = last else { return (expect, Statuses::not_worth_a_retry()) };
        if let Some(status) = expect.common(&last) {
            let message = format!("{status} is both in `expect` and in `final_statuses`");
            let mut fault = Fault::new(codes::CONFLICTING_KEYS, span, message);
            if let Some(expect_span) = expect_span {
                fault = fault.also(expect_span, "here it is expected");
            }
            self.tell(fault.remedy("keep it in one of them; `expect` is `2xx` by default"));
        }
        (expect, last)
    }

    fn publish(&mut self, raw: &RawPublish, at: &At<'_>) -> Option<PublishStep> {
        self.named("broker", "to", &raw.to, at);
        let route = self.route(raw, at);
        let body = self.body(raw.body.as_ref(), raw.binary, at);
        let properties = self.pairs(&raw.properties, "properties", at);
        let headers = self.pairs(&raw.headers, "headers", at);
        Some(PublishStep {
            to: raw.to.clone(),
            route: route?,
            body: body?,
            properties: properties?,
            headers: headers?,
            timeout: timeout(raw.timeout),
        })
    }

    fn route(&mut self, raw: &RawPublish, at: &At<'_>) -> Option<PublishRoute> {
        let entry = |key: &str| at.node.entry(key);
        let fault = match (entry("queue"), entry("exchange"), entry("routing_key")) {
            (Some(queue), Some(other), _) | (Some(queue), None, Some(other)) => {
                let message =
                    format!("`queue` and `{}` are both given: a message has one destination", other.key);
                Fault::new(codes::CONFLICTING_KEYS, other.span, message)
                    .also(queue.span, "the other one")
                    .remedy("keep `queue`, or `exchange` with `routing_key`")
            }
            (None, None, routing_key) => {
                let span = routing_key.map_or(at.key, |entry| entry.span);
                let message = format!("`{}` does not say where the message goes", at.path);
                Fault::new(codes::MISSING_KEY, span, message)
                    .remedy("add `queue:`, or `exchange:` with `routing_key:`")
            }
            (Some(queue), None, None) => {
                let queue = self.text(raw.queue.as_deref()?, &queue.value, &at.subject("queue"))?;
                return Some(PublishRoute::Queue(queue));
            }
            (None, Some(exchange), routing_key) => {
                let exchange = self.text(raw.exchange.as_deref()?, &exchange.value, &at.subject("exchange"));
                let routing_key = match (routing_key, &raw.routing_key) {
                    (Some(entry), Some(text)) => self.text(text, &entry.value, &at.subject("routing_key")),
                    _ => Some(Text::Literal(String::new())),
                };
                return Some(PublishRoute::Exchange { exchange: exchange?, routing_key: routing_key? });
            }
        };
        self.tell(fault);
        None
    }

    fn pairs(&mut self, raw: &expression::Pairs, key: &str, at: &At<'_>) -> Option<Pairs> {
        let node = at.of(key);
        match raw {
            expression::Pairs::Computed(text) => Some(Pairs::Computed(self.jq(text, node)?)),
            expression::Pairs::Named(named) => {
                let mut pairs = Vec::new();
                for (name, given) in named {
                    let subject = format!("{}.{key}.{name}", at.path);
                    let given = match given {
                        expression::Given::Text(text) => {
                            Given::Text(self.text(text, node.get(name).unwrap_or(node), &subject)?)
                        }
                        expression::Given::Value(value) => Given::Value(value.clone()),
                    };
                    pairs.push((name.clone(), given));
                }
                Some(Pairs::Named(pairs))
            }
        }
    }

    fn sql(&mut self, raw: &RawSql, at: &At<'_>) -> Option<SqlStep> {
        self.named("source", "source", &raw.source, at);
        if raw.statement.contains("{{") || raw.statement.contains("{%") {
            let span = at.node.entry("statement").map_or(at.key, |entry| entry.span);
            let fault =
                Fault::new(codes::INVALID_VALUE, span, "a statement is not put together from message data");
            self.tell(fault.remedy("write a placeholder (`$1` or `?`), and the value under `params`"));
        }
        if raw.statement.trim().is_empty() {
            let fault = Fault::new(codes::INVALID_VALUE, at.of("statement").span, "the statement is empty");
            self.tell(fault.remedy("write one"));
        }
        let node = at.of("params");
        let params = match &raw.params {
            expression::Params::Computed(text) => Params::Computed(self.jq(text, node)?),
            expression::Params::Listed(listed) => {
                let mut params = Vec::new();
                for (index, one) in listed.iter().enumerate() {
                    let node = node.item(index).unwrap_or(node);
                    params.extend(self.jq(&one.0, node));
                }
                Params::Listed(params)
            }
        };
        let each = match &raw.each {
            Some(each) => Some(self.jq(&each.0, at.of("each"))?),
            None => None,
        };
        Some(SqlStep {
            source: raw.source.clone(),
            statement: raw.statement.clone(),
            params,
            each,
            timeout: timeout(raw.timeout),
            rows_max: raw.max_rows.unwrap_or(ROWS),
        })
    }

    fn exec(&mut self, raw: &RawExec, at: &At<'_>) -> Option<ExecStep> {
        if raw.command.trim().is_empty() || raw.command.contains('\0') {
            let fault = Fault::new(codes::INVALID_VALUE, at.of("command").span, "this names no program");
            self.tell(fault.remedy("give the path of a program"));
        }
        if raw.command.contains("{{") || raw.command.contains("{%") {
            let fault = Fault::new(
                codes::INVALID_VALUE,
                at.of("command").span,
                "message data cannot choose the program",
            );
            self.tell(
                fault.remedy("name it, and give it what it needs in `args` or on stdin; or use `choose`"),
            );
        }
        let mut args = Vec::new();
        for (index, text) in raw.args.iter().enumerate() {
            let node = at.of("args").item(index).unwrap_or(at.node);
            let subject = format!("{}.args[{index}]", at.path);
            args.extend(self.text(text, node, &subject));
        }
        for (name, value) in &raw.env.0 {
            if name.contains(['=', '\0']) || value.contains('\0') {
                let fault = Fault::new(
                    codes::INVALID_VALUE,
                    at.of("env").span,
                    "this cannot be a variable of the environment",
                );
                self.tell(fault.remedy("use letters, digits and `_` in its name"));
            }
        }
        let environment =
            raw.env.0.iter().map(|(name, value)| (name.clone(), Hidden(value.clone()))).collect();
        let stdin = raw.stdin.as_ref().map_or(".", |stdin| stdin.0.as_str());
        Some(ExecStep {
            command: raw.command.clone(),
            args,
            environment,
            stdin: self.jq(stdin, at.of("stdin"))?,
            timeout: timeout(raw.timeout),
            output_bytes_max: bytes(raw.max_output.map(|size| size.0.0)),
        })
    }

    fn choose(&mut self, at: &At<'_>) -> Option<Vec<Branch>> {
        let count = at.node.items().len();
        let mut branches = Vec::with_capacity(count);
        let mut sound = true;
        for (index, item) in at.node.items().iter().enumerate() {
            let path = format!("{}[{index}]", at.path);
            let branch = match (item.entry("when"), item.entry("steps"), item.entry("otherwise")) {
                (Some(when), Some(steps), None) => {
                    let condition = self.jq(&text_of(&when.value), &when.value);
                    let steps = self.steps(&steps.value, &format!("{path}.steps"));
                    condition.zip(steps).map(|(when, steps)| Branch { when: Some(when), steps })
                }
                (None, None, Some(otherwise)) => {
                    if index + 1 < count {
                        let fault = Fault::new(
                            codes::CONFLICTING_KEYS,
                            otherwise.span,
                            "ways behind `otherwise` are never gone",
                        );
                        self.tell(fault.remedy("put it last"));
                    }
                    let steps = self.steps(&otherwise.value, &format!("{path}.otherwise"));
                    steps.map(|steps| Branch { when: None, steps })
                }
                _ => {
                    let message = "a way has `when` and `steps`, or `otherwise`";
                    self.tell(
                        Fault::new(codes::MISSING_KEY, item.span.at_start(), message)
                            .remedy("add what is missing, or begin another way with `- `"),
                    );
                    None
                }
            };
            sound &= branch.is_some();
            branches.extend(branch);
        }
        sound.then_some(branches)
    }

    fn for_each(&mut self, raw: &RawForEach, at: &At<'_>) -> Option<ForEachStep> {
        let items = self.jq(&raw.items.0, at.of("items"));
        let steps = self.steps(at.of("steps"), &at.subject("steps"));
        Some(ForEachStep { items: items?, concurrency: raw.concurrency.unwrap_or(1).max(1), steps: steps? })
    }

    fn retry(&mut self, raw: &RawRetry, at: &At<'_>) -> Option<RetryStep> {
        let delays = match &raw.delays {
            Some(delays) => delays.iter().map(|delay| delay.0).collect(),
            None => DELAYS.to_vec(),
        };
        let when = raw.when.as_ref().map(|when| self.jq(&when.0, at.of("when")));
        let steps = self.steps(at.of("steps"), &at.subject("steps"));
        let when = match when {
            Some(when) => Some(when?),
            None => None,
        };
        Some(RetryStep { delays, when, steps: steps? })
    }
}

/// The node of a text that may stand alone or in a map.
fn inner<'n>(at: &At<'n>, key: &str) -> &'n Node {
    at.node.get(key).unwrap_or(at.node)
}

/// A condition as written; the walk has seen that it is a scalar.
fn text_of(node: &Node) -> String {
    node.text().unwrap_or_default().to_owned()
}

fn timeout(given: Option<warren_connectors::kit::setting::Span>) -> Duration {
    given.map_or(TIMEOUT, |span| span.0)
}

fn bytes(given: Option<u64>) -> usize {
    given.map_or(ANSWER_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// What HTTP calls a token.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
