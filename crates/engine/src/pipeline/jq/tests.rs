//! What expressions yield, what they are refused for, and that nothing they do does harm.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{EvaluationError, Expression, Scope};

async fn one(text: &str, input: Value) -> Result<Value, EvaluationError> {
    let expression = Expression::compile(text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"));
    let steps = Arc::new(json!({"first": {"status": 201}}));
    let message = Arc::new(json!({"body": "b", "headers": {"h": 1}}));
    let input = Arc::new(input);
    expression
        .one(&Scope { input: &input, steps: &steps, message: &message, now_ms: 1_700_000_000_500 })
        .await
}

async fn yields(text: &str, input: Value) -> Value {
    one(text, input).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[tokio::test]
async fn expressions_are_jq() {
    let order = || json!({"body": "{\"sku\": \"a\", \"quantity\": 2}", "items": [3, 1, 2], "name": "Ann"});
    for (text, wanted) in [
        (".body | fromjson", json!({"sku": "a", "quantity": 2})),
        (".items | sort", json!([1, 2, 3])),
        ("{name, n: .items | length}", json!({"name": "Ann", "n": 3})),
        ("\"\\(.name) has \\(.items | add)\"", json!("Ann has 6")),
        ("[.items[] | select(. > 1)]", json!([3, 2])),
        (".missing // \"none\"", json!("none")),
        (".items[1:]", json!([1, 2])),
        (".items[-1]", json!(2)),
        (".name[0:2]", json!("An")),
        (".a.b = 1 | .a", json!({"b": 1})),
        (".items |= map(. * 2) | .items", json!([6, 2, 4])),
        ("del(.body) | keys", json!(["items", "name"])),
        ("to_entries | map(.key)", json!(["body", "items", "name"])),
        ("[limit(3; range(10))]", json!([0, 1, 2])),
        ("[range(0; 10; 4)]", json!([0, 4, 8])),
        ("reduce .items[] as $x (0; . + $x)", json!(6)),
        ("if .name == \"Ann\" then 1 else 2 end", json!(1)),
        ("try error(\"no\") catch .", json!("no")),
        (".items | join(\"-\")", json!("3-1-2")),
        ("\"a,b\" | split(\",\")", json!(["a", "b"])),
        ("\"test1\" | test(\"[0-9]\")", json!(true)),
        ("\"a-b\" | gsub(\"-\"; \"+\")", json!("a+b")),
        ("4 / 2", json!(2)),
        ("5 % 3", json!(2)),
        ("1 / 4", json!(0.25)),
        ("[.items, \"x,\\\"y\"] | flatten | @csv", json!("3,1,2,\"x,\"\"y\"")),
        ("@base64 \"\\(.name)\"", json!("QW5u")),
        ("\"QW5u\" | @base64d", json!("Ann")),
        ("$steps.first.status", json!(201)),
        ("$message.headers.h", json!(1)),
        ("now", json!(1_700_000_000.5)),
        ("1700000000 | todate", json!("2023-11-14T22:13:20Z")),
        ("\"12\" | tonumber", json!(12)),
        ("[1, [2]] | tojson", json!("[1,[2]]")),
        ("{\"a\": {\"b\": 1}} * {\"a\": {\"c\": 2}}", json!({"a": {"b": 1, "c": 2}})),
        ("[.[] | type]", json!(["string", "array", "string"])),
        ("[1, null, nan] | map(isnan?)", json!([false, true])),
        ("\"abcb\" | indices(\"b\")", json!([1, 3])),
        ("[[1, 2], [3]] | transpose", json!([[1, 3], [2, null]])),
        ("input_missing? // 1", json!(1)),
    ] {
        if text.starts_with("input_missing") {
            assert!(Expression::compile(text).is_err());
            continue;
        }
        assert_eq!(yields(text, order()).await, wanted, "{text}");
    }
}

#[tokio::test]
async fn numbers_keep_their_digits_unless_computed_with() {
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for text in ["18446744073709551615", "12.50", "0.1", "1e400", "-7", "9007199254740993"] {
        assert_eq!(yields(".", number(text)).await.to_string(), number(text).to_string());
    }
    assert_eq!(yields(". + 1", number("9007199254740993")).await.to_string(), "9007199254740994");
    assert_eq!(
        yields(". + 1", number("9223372036854775807")).await.to_string(),
        "9.223372036854775807e18".parse::<f64>().map(|n| json!(n)).unwrap().to_string()
    );
    assert_eq!(yields(". + 1", number("12.50")).await, json!(13.5));
    assert_eq!(yields(". == 12.5", number("12.50")).await, json!(true));
}

#[tokio::test]
async fn what_is_no_one_result_is_an_error() {
    assert_eq!(one("empty", json!(1)).await, Err(EvaluationError::Nothing));
    assert_eq!(one("1, 2", json!(1)).await, Err(EvaluationError::Several));
    assert_eq!(one("nan", json!(1)).await, Err(EvaluationError::NotFinite));
    assert_eq!(one("[1 / 0]", json!(1)).await, Err(EvaluationError::NotFinite));
    let failed = one(".a.b", json!({"a": "text"})).await.unwrap_err().to_string();
    assert_eq!(failed, "cannot index text with b");
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_way_out() {
    let fault = |text: &str| Expression::compile(text).unwrap_err().remove(0);
    let unknown = fault(".body | fromjsn");
    assert_eq!((unknown.message.as_str(), unknown.at), ("there is no function `fromjsn`", 8));
    assert_eq!(unknown.hint.as_deref(), Some("did you mean `fromjson`?"));
    assert!(fault("env.HOME").hint.unwrap().contains("${NAME}"));
    assert!(fault("$ENV.HOME").hint.unwrap().contains("${NAME}"));
    assert!(fault("input").hint.unwrap().contains("one input"));
    assert_eq!(fault("$step").hint.as_deref(), Some("did you mean `$steps`?"));
    assert_eq!(fault(".a | (.b").message, "this `(` is not closed");
    assert_eq!(fault(".a |").at, 4);
    assert_eq!(fault("import \"a\" as a; .").message, "modules cannot be imported");
    assert_eq!(fault("map(.; .)").message, "`map` does not take 2 arguments");
    for text in
        ["debug", "halt", "stderr", "halt_error", "localtime", "now | strflocaltime(\"%Y\")", "inputs"]
    {
        assert!(fault(text).hint.is_some(), "{text}");
    }
}

#[tokio::test]
async fn whatever_runs_away_is_stopped() {
    for (text, wanted) in [
        ("def f: 1 + f; f", "deeply"),
        ("reduce range(1000000) as $i (0; [.])", "128 deep"),
        ("\"x\" * 1000000000000", "256 MiB"),
        ("reduce range(60) as $i (\"x\"; . + .)", "256 MiB"),
        ("reduce range(60) as $i ([0]; . + .)", "256 MiB"),
        ("[range(infinite)]", "256 MiB"),
        ("[1 | repeat(\"a long text\")]", "256 MiB"),
        ("[limit(100000000; repeat(.))] | length", "256 MiB"),
    ] {
        let error = one(text, json!({})).await.unwrap_err();
        assert!(error.to_string().contains(wanted), "{text}: {error}");
    }
    // A catch does not catch it.
    let caught = one("try (reduce range(60) as $i (\"x\"; . + .)) catch \"caught\"", json!(null)).await;
    assert!(matches!(caught, Err(EvaluationError::Stopped(_))), "{caught:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_endless_evaluation_ends_when_nobody_waits() {
    let free = super::LONG_TURNS.available_permits();
    let endless = one("def f: f; f", json!(1));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), endless).await.is_err());
    // All turns come back: the thread has noticed.
    let turns = super::LONG_TURNS.acquire_many(u32::try_from(free.max(1)).unwrap());
    drop(tokio::time::timeout(std::time::Duration::from_secs(60), turns).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_long_evaluation_goes_on_elsewhere() {
    assert_eq!(yields("[range(100000)] | add", json!(1)).await, json!(4_999_950_000_u64));
    assert_eq!(
        yields("def f: if . > 2000 then . else . + 1 | f | . + 0 end; 0 | f", json!(1)).await,
        json!(2001)
    );
}

#[test]
fn the_longest_expressions_are_parsed_or_refused() {
    let long = |part: &str, count: usize| part.repeat(count);
    for text in [
        format!("{}.{}", long("(", 8000), long(")", 8000)),
        format!("{}.{}", long("[", 8000), long("]", 8000)),
        format!("{}1", long("-", 16000)),
        format!(".{}", long("|.", 8000)),
        format!(".{}", long("//.", 5000)),
        format!(".{}", long(".a", 8000)),
        format!("{}.", long("try ", 4000)),
        format!("{}.", long("def f: ", 2000)),
        format!("{}.{}", long("if . then ", 1000), long(" end", 1000)),
        format!("{}1{}", long("\"\\(", 4000), long(")\"", 4000)),
        long("(", 16000),
        long("{a:", 5000),
    ] {
        drop(Expression::compile(&text));
    }
    assert!(Expression::compile(&long(" ", 20_000)).unwrap_err()[0].message.contains("more than"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~é€\u{0}]{0,12}".prop_map(Value::from),
        Just(serde_json::from_str("123456789012345678901234567890.5e-3").unwrap()),
        Just(serde_json::from_str("1e999").unwrap()),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::hash_map("[a-c]{1,2}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn evaluate(text: &str, input: Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    if let Ok(expression) = Expression::compile(text) {
        let (input, empty) = (Arc::new(input), Arc::new(json!({})));
        let scope = Scope { input: &input, steps: &empty, message: &empty, now_ms: 0 };
        drop(runtime.block_on(expression.one(&scope)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_function_takes_every_value(nth in any::<prop::sample::Index>(), input in any_json(), argument in any_json()) {
        let name = &super::library::names()[nth.index(super::library::names().len())];
        // Endless ones are tested by themselves.
        if !["repeat", "while", "until", "recurse", "range", "combinations"].contains(&name.as_str()) {
            let argument = argument.to_string();
            for text in [
                format!("[limit(5; {name})]"),
                format!("[limit(5; {name}({argument}))]"),
                format!("[limit(5; {name}(.; .))]"),
                format!("[limit(5; {name}({argument}; .; {argument}))]"),
                format!("({name}) |= {argument}"),
                format!("[paths({name})]"),
            ] {
                evaluate(&text, input.clone());
            }
        }
    }

    /// Plain paths go without the interpreter; it would yield the same.
    #[test]
    fn a_plain_path_yields_what_the_interpreter_yields(
        input in any_json(), names in proptest::collection::vec("[a-c]{1,2}", 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let text = format!(".{}", names.join("."));
        let (plain, other) = (Expression::compile(&text).unwrap(), Expression::compile(&format!("{text} | .")).unwrap());
        prop_assert!(plain.path().is_some() && other.path().is_none());
        let (input, empty) = (Arc::new(input), Arc::new(json!({})));
        let scope = Scope { input: &input, steps: &empty, message: &empty, now_ms: 0 };
        prop_assert_eq!(runtime.block_on(plain.one(&scope)), runtime.block_on(other.one(&scope)));
        prop_assert_eq!(runtime.block_on(plain.holds(&scope)), runtime.block_on(other.holds(&scope)));
    }

    #[test]
    fn every_operator_takes_every_value(one in any_json(), two in any_json(), input in any_json()) {
        for operator in ["+", "-", "*", "/", "%", "==", "<", "and", "or", "//"] {
            evaluate(&format!("({one}) {operator} ({two})"), input.clone());
        }
        evaluate(&format!(".[{one}]"), input.clone());
        evaluate(&format!(".[{one}:{two}]"), input.clone());
        evaluate(&format!(".[{one}] = {two}"), input.clone());
        evaluate(&format!("del(.[{one}:{two}]?)"), input);
    }

    #[test]
    fn any_text_is_an_expression_or_a_fault(text in "[-a-z.|\\[\\](){}:;,\"\\\\0-9$@ +*/%=<>?!é]{0,80}", input in any_json()) {
        evaluate(&text, input);
    }

    #[test]
    fn an_identity_changes_nothing(input in any_json()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert_eq!(runtime.block_on(one(".", input.clone())), Ok(input));
    }
}
