//! What a template is found to read, and which names are found not to exist.

use warren_liquid::{Columns, Condition, ErrorKind, Format, Names, Options, Reads, Template};

fn reads(source: &str) -> Reads {
    let options = Options { format: Format::Text, ..Options::default() };
    Template::parse(source, &options).expect("a template").reads().clone()
}

fn columns(source: &str) -> String {
    match reads(source).columns {
        Columns::All => "*".to_owned(),
        Columns::Set(set) => set.into_iter().collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn columns_are_told_from_their_keys() {
    let cases = [
        ("{{ row.a }} {{ row['b c'] }} {{ previous.d.e }}", "a b c d"),
        ("{% if row.a == row.b %}{{ x | default: row.c }}{% endif %}", "a b c"),
        ("{% for i in row.list limit: row.n %}{{ i[row.k] }}{% endfor %}", "k list n"),
        ("{{ row }}", "*"),
        ("{{ row[name] }}", "*"),
        ("{{ [name] }}", "*"),
        ("{% assign r = row %}", "*"),
        ("{% for entry in row %}{% endfor %}", "*"),
        ("{{ row.size }}", "*"),
        ("{{ row | json }}", "*"),
        ("{% if previous %}{{ row.a }}{% endif %}", "a"),
        ("{% if previous == nil and row.a %}{% endif %}", "a"),
        ("{% if previous == row %}{% endif %}", "*"),
        ("{{ op }} {{ key.id }}", ""),
        ("{% for row in list %}{{ row.a }}{% endfor %}", ""),
        ("{% assign row = op %}{{ row.a }}", ""),
        ("{% if op %}{% assign row = op %}{% endif %}{{ row.a }}", "a"),
    ];
    for (source, expected) in cases {
        assert_eq!(columns(source), expected, "{source}");
    }
}

#[test]
fn previous_changed_and_globals_are_told() {
    let read = reads("{{ row.a }}{% if changed contains 'a' %}{{ op }}{% endif %}");
    assert!(read.changed && !read.previous);
    assert_eq!(read.globals.into_iter().collect::<Vec<_>>(), ["changed", "op", "row"]);
    assert!(reads("{{ previous.a }}").previous);
    assert!(!reads("{{ row.a }}").previous);
}

#[test]
fn what_can_fail_is_told() {
    let json = |source| Template::parse(source, &Options::default()).expect("a template").reads().can_fail;
    assert!(!json(r#"{"a": {{ row.a }}, "b": "{{ row.b | upcase }}"}"#));
    assert!(!json("{% if row.a == 1 %}1{% else %}{{ row.b }}{% endif %}"));
    assert!(json("{{ row.a | divided_by: row.b }}"));
    assert!(json("{% if row.a > 1 %}1{% else %}2{% endif %}"));
    assert!(json("{% if row.a %}1{% endif %}"), "it may write nothing");
    assert!(json("{{ row.a | raw }}"));
}

fn faults(source: &str) -> Vec<String> {
    let options = Options { format: Format::Text, ..Options::default() };
    let names = Names { tops: &["row", "previous", "op", "sync", "sync.name"], columns: &["id", "email"] };
    let template = Template::parse(source, &options).expect("a template");
    let found = template.check(&names);
    assert!(found.iter().all(|error| error.kind == ErrorKind::UnknownName));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn every_unknown_name_is_told_with_its_place_and_the_nearest() {
    assert_eq!(
        faults("{{ row.emial }}\n{{ rwo.id }} {{ email }} {{ sync.nam }} {{ zzz }}"),
        [
            "line 1, column 8: the model has no column `emial` (did you mean `email`?)",
            "line 2, column 4: nothing is named `rwo` (did you mean `row`?)",
            "line 2, column 17: nothing is named `email` (the column is `row.email`)",
            "line 2, column 34: `sync` has no `nam` (did you mean `name`?)",
            "line 2, column 44: nothing is named `zzz`",
        ]
    );
}

#[test]
fn names_of_the_template_itself_are_known() {
    let source = "{% assign a = 1 %}{{ a }}{% for b in (1..2) %}{{ b }}{{ forloop.index }}{% endfor %}\
                  {% capture c %}{% endcapture %}{{ c }}{% increment d %}{{ d }}{{ op.anything }}{{ sync.name }}";
    assert_eq!(faults(source), Vec::<String>::new());
    assert_eq!(faults("{% assign alpha = 1 %}{{ alpa }}").len(), 1);
}

#[test]
fn nothing_is_unknown_when_lax() {
    let options = Options { format: Format::Text, lax: true, ..Options::default() };
    let template = Template::parse("{{ nobody.there }}", &options).expect("a template");
    assert!(template.check(&Names { tops: &[], columns: &[] }).is_empty());
}

#[test]
fn conditions_read_and_test() {
    let condition =
        Condition::parse("previous.region != row.region and row.name | size > 3", &Options::default())
            .expect("a condition");
    assert!(condition.reads().previous && condition.reads().can_fail);
    assert_eq!(
        condition.reads().columns,
        Columns::Set(["name", "region"].map(str::to_owned).into_iter().collect())
    );
    let test = |globals: &str| match crate::data::Data::parse(globals) {
        crate::data::Data::Map(entries) => condition.test(&entries),
        other => panic!("{other:?}"),
    };
    assert_eq!(test(r#"{"row": {"region": "eu", "name": "Anna"}, "previous": {"region": "us"}}"#), Ok(true));
    assert_eq!(test(r#"{"row": {"region": "eu", "name": "Ann"}, "previous": {"region": "us"}}"#), Ok(false));
    assert_eq!(test(r#"{"row": {"region": "eu", "name": "Anna"}, "previous": {"region": "eu"}}"#), Ok(false));
    assert!(Condition::parse("row.a = 1", &Options::default()).is_err());
    assert!(Condition::parse("row.a == 1 row.b", &Options::default()).is_err());
    assert!(Condition::parse("", &Options::default()).is_err());
    let names = Names { tops: &["row"], columns: &["region"] };
    assert_eq!(condition.check(&names).len(), 2, "`previous` and `row.name`");
}

#[test]
fn partials_know_their_arguments_and_no_other_variables() {
    let names = Names { tops: &["row"], columns: &["a"] };
    let check = |source: &str, partial: &str| {
        let partials = warren_liquid::Partials::from_iter([("p", partial)]);
        let options = Options { format: Format::Text, partials, ..Options::default() };
        let template = Template::parse(source, &options).expect("a template");
        template.check(&names).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(check("{% render 'p', x: 1 %}{% render 'p' %}", "{{ x }}{{ row.a }}").is_empty());
    assert!(check("{% assign x = 1 %}{% include 'p' %}", "{{ x }}").is_empty());
    assert_eq!(
        check("{% assign x = 1 %}{% render 'p' %}", "\n{{ x }}{{ row.b }}"),
        [
            "p:2:4: nothing is named `x` (what `render` writes sees no variables but its arguments)",
            "p:2:15: the model has no column `b` (did you mean `a`?)",
        ]
    );
}
