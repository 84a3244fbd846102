//! A template can neither hang nor fill the memory nor the stack.

use warren_liquid::{Error, ErrorKind, Format, Limits, Options, Partials, Template};

use crate::data::{Data, Entries};

fn text() -> Options {
    Options { format: Format::Text, ..Options::default() }
}

fn render(source: &str, options: &Options) -> Result<String, Error> {
    let template = Template::parse(source, options)?;
    let mut out = Vec::new();
    template.render(&Entries::default(), &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn limited(source: &str, options: &Options) {
    let error = render(source, options).expect_err("a limit is passed");
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
}

#[test]
fn steps_are_bounded() {
    limited("{% for a in (1..100000) %}{% for b in (1..100000) %}x{% endfor %}{% endfor %}", &text());
    limited("{% for a in (1..9000000000) %}{% endfor %}", &text());
    limited("{{ (1..9000000000) | json }}", &text());
    limited("{{ (1..9000000000) | reverse | size }}", &text());
    limited("{% assign a = (1..99999) %}{% for i in (1..99999) %}{{ a | join }}{% endfor %}", &text());
    limited(
        "{% assign a = (1..9000) %}{% for i in (1..900) %}{% if a contains 'x' %}{% endif %}{% assign b = a | uniq %}{% endfor %}",
        &text(),
    );
}

#[test]
fn a_range_may_be_left_early() {
    let source = "{% for a in (1..9000000000) %}{% if a > 3 %}{% break %}{% endif %}{{ a }}{% endfor %}";
    assert_eq!(render(source, &text()).as_deref(), Ok("123"));
}

#[test]
fn bytes_are_bounded() {
    let options = Options { limits: Limits { output_bytes_max: 100, ..Limits::default() }, ..text() };
    limited(&"x".repeat(101), &options);
    limited("{% for a in (1..60) %}xx{% endfor %}", &options);
    limited("{% assign a = 'x' %}{% for i in (1..60) %}{% assign a = a | append: a %}{% endfor %}", &options);
    limited("{% assign a = 'xxxxxxxxxxxxxxxxxxxx' | replace: 'x', 'yyyyyyyyyyyyyyyyyyyyyyyy' %}", &options);
    limited("{% capture a %}{% for i in (1..60) %}xx{% endfor %}{% endcapture %}", &options);
    assert_eq!(render(&"x".repeat(100), &options).map(|text| text.len()), Ok(100));
    // Doubling reaches the limit long before it reaches the memory.
    limited("{% assign a = 'x' %}{% for i in (1..60) %}{% assign a = a | append: a %}{% endfor %}", &text());
    limited(
        "{% assign a = 'xx' %}{% for i in (1..60) %}{% assign a = a | replace: 'x', a %}{% endfor %}",
        &text(),
    );
}

/// One large value, many small ones, in text and in JSON, straight, by a filter, a partial, a capture and a loop (F46).
#[test]
fn the_bound_of_one_rendering_may_be_another_one() {
    const MIB: usize = 1 << 20;
    let many = format!("[{}1]", "1234567,".repeat(2 * MIB));
    let large = Data::Str("x".repeat(20 * MIB));
    let globals = Entries(vec![("large".to_owned(), large), ("many".to_owned(), Data::Json(many.clone()))]);
    let partials = Partials::from_iter([("p", "{{ v }}")]);
    let json = Options { partials: partials.clone(), ..Options::default() };
    let text = Options { partials, ..text() };
    for (source, options, bytes) in [
        ("{{ large }}", &json, 20 * MIB + 2),
        ("[{{ many }}]", &json, many.len() + 2),
        ("{\"a\": {{ large | upcase }}}", &json, 20 * MIB + 9),
        ("{{ large }}", &text, 20 * MIB),
        ("{{ many | json }}", &text, many.len()),
        ("{% render 'p', v: large %}", &text, 20 * MIB),
        ("{% capture c %}{{ large }}{% endcapture %}{{ c }}", &text, 20 * MIB),
        ("{% for i in (1..3) %}{{ large }}{% endfor %}", &text, 60 * MIB),
    ] {
        let template = Template::parse(source, options).expect(source);
        let within = |bytes_max: usize| {
            let mut out = Vec::new();
            template.render_within(&globals, &mut out, bytes_max).map(|()| out.len())
        };
        assert_eq!(within(bytes), Ok(bytes), "{source}");
        let error = within(bytes - 1).expect_err(source);
        assert!(error.kind == ErrorKind::Limit && error.message.contains("bytes"), "{source}: {error}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + &close.repeat(n);
    for n in [100, 100_000] {
        limited(&deep("{% if true %}", "{% endif %}", n), &text());
        limited(&deep("{% for a in (1..2) %}", "{% endfor %}", n), &text());
        limited(&deep("{% capture a %}", "{% endcapture %}", n), &text());
    }
    limited(&format!("{{{{ {} }}}}", deep("a[", "]", 100_000)), &text());
    limited(&format!("{{{{ {} }}}}", deep("(1..", ")", 100_000)), &text());
    assert!(render(&deep("{% if true %}", "{% endif %}", 64), &text()).is_ok());
}

#[test]
fn nested_loops_of_json_are_analysed_in_time() {
    let deep = "[{% for a in (1..2) %}{% if a == 1 %}1{% else %},{% endif %}".repeat(60);
    let closed = deep + &"{% endfor %}]".repeat(60);
    // Walked to the end for every way into every loop this would never finish.
    let options = Options { limits: Limits { nesting_max: 200, ..Limits::default() }, ..Options::default() };
    let template = Template::parse(&closed, &options).expect("a template");
    assert!(!template.is_proven_json());
}

#[test]
fn partials_are_bounded() {
    let cycle: Partials = [("a", "{% render 'b' %}"), ("b", "{% include 'a' %}")].into_iter().collect();
    limited("{% render 'a' %}", &Options { partials: cycle, ..text() });
    let chain: Partials =
        (0..40).map(|i| (format!("p{i}"), format!("{{% render 'p{}' %}}", i + 1))).collect();
    limited("{% render 'p0' %}", &Options { partials: chain, ..text() });
    // Each partial uses the next twice: the source counts each time.
    let doubling: Partials = (0..15)
        .map(|i| (format!("p{i}"), format!("{{% render 'p{0}' %}}{{% render 'p{0}' %}}", i + 1)))
        .chain([("p15".to_owned(), "x".repeat(100))])
        .collect();
    limited("{% render 'p0' %}", &Options { partials: doubling, ..text() });
}

#[test]
fn sources_are_bounded() {
    let options = Options { limits: Limits { source_bytes_max: 10, ..Limits::default() }, ..text() };
    limited("01234567890", &options);
    assert_eq!(render("0123456789", &options).as_deref(), Ok("0123456789"));
}
