//! A configuration that uses every key, and what comes of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use warren_config::{Project, load_with};
use warren_connectors::SourceConfig;
use warren_engine::change::Op;
use warren_engine::codes;
use warren_engine::finding::Finding;
use warren_engine::message::HeaderValue;
use warren_engine::model::{Column, ColumnType, Schema};
use warren_engine::sync::bind::bind;
use warren_engine::sync::plan::{
    BodyPlan, CompareChoice, Dynamic, GuardLimit, HeaderPlan, HeaderType, Initial, RoutePlan,
};

/// As valid as can be.
pub const EVERYTHING: &str = r#"
x-defaults: &defaults
  model: customers
  to: rabbit
sources:
  shop:
    type: postgres
    url: "${SHOP_URL}"
    statement_timeout: 30s
    tls: {ca: "certs/${N}.pem"}
  local: {type: sqlite, path: shop.db}
models:
  customers:
    source: shop
    primary_key: [id, region]
    sql: |
      SELECT id, region, email, full_name
      FROM customers -- ${N} and $${N}
    timeout: 5m
  orders: {source: shop, primary_key: id, table: public.Orders}
brokers:
  rabbit: {type: rabbitmq, host: localhost, port: "${N}"}
  local:
    type: embedded
    queues: {crm: {ttl: 5s}}
pipelines:
  order:
    - {id: order, map: ".body | fromjson"}
    - filter: .n > ${N}
    - http: {url: "https://stock/{{ value.id }}", body: "{n}", auth: {bearer: "${SHOP_URL}"}, expect: [2xx]}
      on_error: [{log: "{{ value.message }}"}]
    - choose: [{when: .a, steps: [{fail: no}]}, {otherwise: [{map: $steps.order}]}]
    - for_each: {items: "[1]", steps: [{exec: {command: x, args: ["{{ value }}"]}}]}
    - sql: {source: local, statement: "DELETE FROM t WHERE n = ?", params: [.n]}
    - validate: {schema: {type: object, required: [a]}}
    - publish: {to: rabbit, queue: q, headers: {n: 1}}
syncs:
  customers:
    <<: *defaults
    on:
      added: {queue: {template: "crm.{{ row.region }}"}, message: {fields: {customer_email: email}}}
      changed: {when: previous.region != row.region, exchange: crm, routing_key: {column: region}}
      removed:
    queue: crm.erasure
    message:
      template: |
        {
          "name": "{{ row.full_name }}",
          "op": {{ op }}
        }
      format: json
    headers:
      version: 2
      ratio: 0.5
      live: true
      who: ann
      region: {column: region}
      size: {template: "{{ row.id }}", type: int}
    persistent: false
    priority: 5
    expiration: 1h
    message_id: {column: id}
    correlation_id: {template: "c-{{ row.id }}"}
    reply_to: answers
    type: customer
    app_id: warren
    user_id: guest
    content_type: application/json
    content_encoding: identity
    timestamp: 2026-01-31T12:00:00Z
    compare: [email, full_name]
    ignore: region
    keep_rows: true
    initial: skip
    guard: {added: 1000, changed: 50%, removed: 20%, total: 100000}
    nan: null
    give_up_after: 90s
  orders:
    model: orders
    to: local
    on: [added]
    queue: crm
    message: {fields: all}
state:
  folder: memory
  record: {keep: 2d, size: 10MiB}
templates: shared
"#;

/// A self-signed certificate for `localhost` whose key was thrown away.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUXw7iOxKle6A3XsIDQQ+Ozc69WhYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTIyMzQ1N1oYDzIxMjYxMDI4
MjIzNDU3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARzj9gK3tu4kj2tnpWYvpGsoe7GrS2/5gHU3n+U4WD8gsNmKlzZQqld
ONq/BfWSciEPuyLMCQIUsh6feAKJFLo2o2kwZzAdBgNVHQ4EFgQUTeOvlK7CJHnU
+zjDG/Pzn5Sg8iMwHwYDVR0jBBgwFoAUTeOvlK7CJHnU+zjDG/Pzn5Sg8iMwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SQAwRgIhALcXi0PRS8QTi8u8aJaBlJB2j2/Zx12MRNzgd/dXHREQAiEA5zqmcgwP
WYV6az2v9O6PsFmyeuVG2BDilZ+AxhE5uK8=
-----END CERTIFICATE-----\n";

/// Loads a text with two variables.
pub fn load_good(text: &str) -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("shared")).unwrap();
    fs::create_dir(folder.path().join("certs")).unwrap();
    fs::write(folder.path().join("certs/5.pem"), CERTIFICATE).unwrap();
    let path = folder.path().join("warren.yaml");
    fs::write(&path, text).unwrap();
    let environment = [("SHOP_URL", "postgres://localhost/shop"), ("N", "5")].into_iter().collect();
    match load_with(&path, &environment) {
        Ok(project) => (folder, project),
        Err(faults) => panic!("{}", faults.render(warren_config::Colours::Off)),
    }
}

#[test]
fn everything_becomes_what_it_says() {
    let (folder, project) = load_good(EVERYTHING);
    assert!(project.warnings.is_empty());
    assert_eq!(project.state.folder, folder.path().join("memory"));
    assert_eq!(project.state.record_keep, Duration::from_secs(48 * 3600));
    assert_eq!(project.sources["shop"].kind(), "postgres");
    assert_eq!(project.brokers["rabbit"].kind(), "rabbitmq");
    assert_eq!(project.brokers["local"].kind(), "embedded");
    let SourceConfig::Sqlite(local) = &project.sources["local"] else { panic!() };
    assert_eq!(local.path, folder.path().join("shop.db"));
    let SourceConfig::Postgres(shop) = &project.sources["shop"] else { panic!() };
    let tls = shop.tls.as_ref().unwrap();
    assert_eq!(tls.ca, Some(folder.path().join("certs/5.pem").display().to_string()));
    let model = &project.models["customers"].model;
    assert_eq!(model.sql, "SELECT id, region, email, full_name\nFROM customers -- 5 and ${N}\n");
    assert_eq!(model.key, ["id", "region"]);
    assert_eq!(model.timeout, Some(Duration::from_secs(300)));
    assert_eq!(project.models["orders"].model.sql, r#"SELECT * FROM "public"."Orders""#);

    assert_eq!(project.pipelines["order"].timeout_sum(), Duration::from_secs(120));
    let sync = &project.syncs["customers"];
    assert_eq!((&*sync.source, &*sync.broker), ("shop", "rabbit"));
    let plan = &sync.plan;
    assert_eq!(plan.compare, CompareChoice::These(["email".to_owned(), "full_name".to_owned()].into()));
    assert_eq!(plan.ignore, ["region".to_owned()].into());
    assert_eq!(plan.initial, Initial::Skip);
    assert_eq!(plan.guard.added, Some(GuardLimit::Rows(1000)));
    assert_eq!(plan.guard.removed, Some(GuardLimit::Share(0.2)));
    assert!(plan.keep_rows && plan.nan_as_null);
    assert_eq!(plan.give_up_after, Duration::from_secs(90));

    let added = plan.trigger(Op::Added).unwrap();
    assert!(matches!(&added.route, RoutePlan::Queue(Dynamic::Template(_))));
    assert!(
        matches!(&added.body, BodyPlan::Fields(fields) if fields[0] == ("customer_email".into(), "email".into()))
    );
    // A trigger's destination replaces the sync's as a whole.
    let changed = plan.trigger(Op::Changed).unwrap();
    assert!(changed.when.is_some());
    let RoutePlan::Exchange { exchange: Dynamic::Literal(exchange), routing_key: Dynamic::Column(key) } =
        &changed.route
    else {
        panic!("{:?}", changed.route)
    };
    assert_eq!((&**exchange, &**key), ("crm", "region"));
    let removed = plan.trigger(Op::Removed).unwrap();
    assert!(matches!(&removed.route, RoutePlan::Queue(Dynamic::Literal(queue)) if queue == "crm.erasure"));
    assert!(matches!(&removed.body, BodyPlan::Template { json: true, .. }));
    assert!(removed.when.is_none());

    let headers = &removed.properties.headers;
    let literal = |at: usize| match &headers[at].1 {
        HeaderPlan::Literal(value) => value.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        headers.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["version", "ratio", "live", "who", "region", "size"]
    );
    assert_eq!(literal(0), HeaderValue::I64(2));
    assert_eq!(literal(1), HeaderValue::F64(0.5));
    assert_eq!(literal(2), HeaderValue::Bool(true));
    assert_eq!(literal(3), HeaderValue::Text("ann".into()));
    assert!(matches!(&headers[4].1, HeaderPlan::Column { column, kind: None } if column == "region"));
    assert!(matches!(&headers[5].1, HeaderPlan::Template { kind: Some(HeaderType::Int), .. }));
    assert!(matches!(&removed.properties.persistent, Some(Dynamic::Literal(text)) if text == "false"));
    assert!(matches!(&removed.properties.priority, Some(Dynamic::Literal(text)) if text == "5"));
    assert!(matches!(&removed.properties.message_id, Some(Dynamic::Column(column)) if column == "id"));

    let orders = &project.syncs["orders"].plan;
    assert!(orders.trigger(Op::Changed).is_none() && orders.trigger(Op::Removed).is_none());
    assert_eq!((orders.compare.clone(), orders.initial), (CompareChoice::Used, Initial::Backfill));
}

#[test]
fn a_path_alone_is_the_folder_of_the_state() {
    let (folder, project) = load_good("state: elsewhere");
    assert_eq!(project.state.folder, folder.path().join("elsewhere"));
    assert_eq!(project.state.record_keep, Duration::from_secs(7 * 24 * 3600));
}

#[test]
fn a_subject_has_its_place() {
    let (_folder, project) = load_good(EVERYTHING);
    let place = |subject: &str| project.place(subject).map(|place| (place.line, place.column));
    let line = |text: &str| EVERYTHING.lines().position(|line| line.contains(text)).unwrap() + 1;
    assert_eq!(place("syncs.customers.priority"), Some((line("priority: 5"), 15)));
    // A trigger's key, and the sync's where the trigger has none.
    assert_eq!(place("syncs.customers.on.changed.exchange").unwrap().0, line("exchange: crm"));
    assert_eq!(place("syncs.customers.on.removed.queue").unwrap(), (line("queue: crm.erasure"), 12));
    assert_eq!(
        place("syncs.customers.on.added.message.fields.customer_email").unwrap().0,
        line("customer_email")
    );
    assert_eq!(place("syncs.customers.on.removed.headers.size").unwrap().0, line("size: {"));
    // What is not written down is where it would be.
    assert_eq!(place("syncs.orders.headers.x").unwrap(), (line("model: orders") - 1, 3));
    assert_eq!(place("models.customers.primary_key"), Some((line("primary_key: [id"), 5)));
    let within = project.place_within("syncs.customers.on.removed.message.template", 2, 15).unwrap();
    assert_eq!((within.line, within.column), (line("row.full_name"), 23));
}

#[test]
fn a_later_finding_is_shown_like_a_fault() {
    let (folder, project) = load_good(EVERYTHING);
    let finding = Finding::error(
        codes::UNKNOWN_COLUMN,
        "syncs.customers.on.removed.message_id",
        "the model has no column `id`",
    )
    .remedy("did you mean `uid`?");
    let shown = project.show(&[finding]).render(warren_config::Colours::Off);
    let shown = shown.replace(&folder.path().display().to_string(), "");
    let line = EVERYTHING.lines().position(|line| line.contains("message_id")).unwrap() + 1;
    let wanted = [
        "error[unknown-column]: the model has no column `id`".to_owned(),
        format!("  --> /warren.yaml:{line}:5"),
        "   |".to_owned(),
        format!("{line} |     message_id: {{column: id}}"),
        "   |     ^^^^^^^^^^".to_owned(),
        "   = help: did you mean `uid`?".to_owned(),
    ];
    assert_eq!(shown.lines().take(6).collect::<Vec<_>>(), wanted);
}

#[test]
fn an_unknown_column_of_a_template_is_shown_in_the_file() {
    let (folder, project) = load_good(EVERYTHING);
    let columns = ["id", "region", "email", "ful_name"]
        .map(|name| Column { name: name.into(), kind: ColumnType::Text });
    let findings = bind(&project.syncs["customers"].plan, &Schema::new(columns.into()).unwrap()).unwrap_err();
    let shown = project.show(&findings).render(warren_config::Colours::Off);
    let shown = shown.replace(&folder.path().display().to_string(), "");
    let line = EVERYTHING.lines().position(|line| line.contains("row.full_name")).unwrap() + 1;
    let wanted = [
        "error[unknown-column]: the model has no column `full_name`".to_owned(),
        format!("  --> /warren.yaml:{line}:27"),
        "   |".to_owned(),
        format!("{line} |           \"name\": \"{{{{ row.full_name }}}}\","),
        "   |                           ^".to_owned(),
        "   = help: did you mean `ful_name`?".to_owned(),
    ];
    let at = shown.lines().position(|line| *line == wanted[1]).expect(&shown);
    assert_eq!(shown.lines().skip(at - 1).take(6).collect::<Vec<_>>(), wanted);
    // The list of `compare` names it too.
    assert_eq!(shown.matches("error[unknown-column]").count(), 2, "{shown}");
}

#[test]
fn a_folder_is_one_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "a.yaml",
        "sources: {shop: {type: postgres, url: postgres://localhost/shop}}\nbrokers: {b: {type: embedded}}",
    );
    write("b.yml", "models:\n  m: {source: shop, primary_key: id, file: sql/m.sql}\n");
    write(
        "c.yaml",
        "models:\n  n: {source: shop, primary_key: id, table: n}\nsyncs:\n  s: {model: m, to: b, queue: q, message: {file: body.liquid}}\n",
    );
    write("sql/m.sql", "SELECT '${NOT_FILLED}' AS id");
    write("body.liquid", "{\"id\": {{ row.id }}, \"more\": {% render 'part/of', id: row.id %}}");
    write("templates/part/of.liquid", "[{{ id }}]");
    write(".hidden.yaml", "not: [a, configuration");
    write("notes.txt", "nor: this");
    let project = load_with(folder.path(), &warren_config::Environment::default()).unwrap();
    assert_eq!(project.models.keys().collect::<Vec<_>>(), ["m", "n"]);
    assert_eq!(project.models["m"].model.sql, "SELECT '${NOT_FILLED}' AS id");
    assert_eq!(project.state.folder, folder.path().join(".warren"));
    let plan = &project.syncs["s"].plan;
    // All three share one trigger, which is parsed once.
    assert!(std::sync::Arc::ptr_eq(plan.added.as_ref().unwrap(), plan.removed.as_ref().unwrap()));
    let within = project.place_within("syncs.s.on.changed.message.template", 1, 8).unwrap();
    assert!(within.file.ends_with("body.liquid"), "{within}");
    assert!(Path::new(&within.file).is_absolute() && within.column == 8);
}
