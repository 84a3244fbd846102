//! Times one message template in warren-liquid, `liquid` and `minijinja`, one after the other in the
//! same run, and prints the ratios.
//!
//! Each engine gets the row in the form it likes best, made beforehand, and renders into a buffer
//! that is reused where it can be. warren-liquid escapes, and checks its result with
//! `json::validate` besides; `liquid` does neither. Run with
//! `cargo run --release -p warren-liquid-bench`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use warren_liquid::{Object, Options, Template, Val, json};

/// The message of Hightouch's documentation of its JSON editor.
const MESSAGE: &str = r#"{
"name": "{{row.full_name}}",
"age": {{row.age}},
"contact_info": [
{
"type": "email",
"value": "{{row.email_address}}"
},
{
"type": "phone",
"value": "{{row.phone_number}}"
}
]
}"#;

/// A message with a loop, conditions and filters.
const LARGER: &str = r#"{"id": {{ row.id }}, "name": "{{ row.full_name | upcase }}",
{% if row.age > 17 %}"adult": true,{% else %}"adult": false,{% endif %}
"tags": [{% for tag in row.tags %}"{{ tag }}"{% unless forloop.last %}, {% endunless %}{% endfor %}],
"note": "{{ row.note | default: 'none' | truncate: 20 }}"}"#;

const LARGER_JINJA: &str = r#"{"id": {{ row.id }}, "name": "{{ row.full_name | upper }}",
{% if row.age > 17 %}"adult": true,{% else %}"adult": false,{% endif %}
"tags": [{% for tag in row.tags %}"{{ tag }}"{% if not loop.last %}, {% endif %}{% endfor %}],
"note": "{{ row.note | default('none') }}"}"#;

const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(20);

/// Nanoseconds for one call: the fastest of many rounds, which says least about the neighbours.
fn time(mut call: impl FnMut()) -> f64 {
    let mut calls = 1_u32;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        if start.elapsed() >= ROUND / 4 {
            break;
        }
        calls *= 2;
    }
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tags = vec![Val::Str("new"), Val::Str("vip"), Val::Str("beta")];
    let row: Vec<(&str, Val<'_>)> = vec![
        ("id", Val::Int(4711)),
        ("full_name", Val::Str("John Doe")),
        ("age", Val::Int(30)),
        ("email_address", Val::Str("john@example.com")),
        ("phone_number", Val::Str("+14158675309")),
        ("tags", Val::Array(&tags)),
        ("note", Val::Str("a note that is longer than twenty characters")),
    ];
    // Not by way of serde_json, whose `arbitrary_precision` (set elsewhere in the workspace) makes
    // numbers of another crate's values unreadable.
    let object = liquid::object!({"row": {
        "id": 4711, "full_name": "John Doe", "age": 30, "email_address": "john@example.com",
        "phone_number": "+14158675309", "tags": ["new", "vip", "beta"],
        "note": "a note that is longer than twenty characters",
    }});
    let context = minijinja::context! { row => minijinja::context! {
        id => 4711, full_name => "John Doe", age => 30, email_address => "john@example.com",
        phone_number => "+14158675309", tags => vec!["new", "vip", "beta"],
        note => "a note that is longer than twenty characters",
    } };
    println!(
        "{:<10} {:>16} {:>16} {:>16} {:>9} {:>9}",
        "template", "warren+check", "liquid", "minijinja", "liquid x", "jinja x"
    );
    compare("message", MESSAGE, MESSAGE, &row, &object, &context)?;
    compare("larger", LARGER, LARGER_JINJA, &row, &object, &context)?;
    check_alone(&row)?;
    Ok(())
}

fn compare(
    name: &str,
    source: &str,
    jinja_source: &str,
    row: &dyn Object,
    object: &liquid::Object,
    context: &minijinja::Value,
) -> Result<(), Box<dyn std::error::Error>> {
    let ours = Template::parse(source, &Options::default())?;
    let globals = vec![("row", Val::Object(row))];
    let mut out = Vec::new();
    ours.render(&globals, &mut out)?;
    let mine = time(|| {
        out.clear();
        ours.render(black_box(&globals), &mut out).expect("the row renders");
        json::validate(black_box(&out)).expect("the result is JSON");
    });

    let liquid = liquid::ParserBuilder::with_stdlib().build()?.parse(source)?;
    let mut theirs_out = Vec::new();
    liquid.render_to(&mut theirs_out, object)?;
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&theirs_out), "the same work is done");
    let theirs = time(|| {
        theirs_out.clear();
        liquid.render_to(&mut theirs_out, black_box(object)).expect("the row renders");
    });

    let mut environment = minijinja::Environment::new();
    environment.add_template("t", jinja_source)?;
    let jinja = environment.get_template("t")?;
    let jinjas = time(|| {
        let text = jinja.render(black_box(context)).expect("the row renders");
        black_box(text);
    });
    println!(
        "{name:<10} {mine:>13.0} ns {theirs:>13.0} ns {jinjas:>13.0} ns {:>8.1}x {:>8.1}x",
        theirs / mine,
        jinjas / mine
    );
    Ok(())
}

/// What the check of the result costs, and its speed on a larger document.
fn check_alone(row: &dyn Object) -> Result<(), Box<dyn std::error::Error>> {
    let ours = Template::parse(MESSAGE, &Options::default())?;
    let mut out = Vec::new();
    ours.render(&vec![("row", Val::Object(row))], &mut out)?;
    let once = time(|| json::validate(black_box(&out)).expect("the result is JSON"));
    let mut many = b"[".to_vec();
    for i in 0..4000 {
        if i > 0 {
            many.push(b',');
        }
        many.extend_from_slice(&out);
    }
    many.push(b']');
    let large = time(|| json::validate(black_box(&many)).expect("the result is JSON"));
    let serde = time(|| {
        let ignored: serde::de::IgnoredAny = serde_json::from_slice(black_box(&many)).expect("JSON");
        black_box(ignored);
    });
    println!(
        "validate   {once:.0} ns for {} bytes; {:.2} GB/s on {} bytes, serde_json ignoring all {:.2} GB/s ({:.1}x)",
        out.len(),
        many.len() as f64 / large,
        many.len(),
        many.len() as f64 / serde,
        serde / large
    );
    Ok(())
}
