//! The description of a resource in RabbitHub's own XML: what can be done with it, and with which parameters.

use std::fmt::Write as _;

use super::path::Facet;
use super::ports::Nature;
use super::resource::{Resource, ResourceKind};

/// One thing that can be done: mode, method, name, what it does, its parameters.
struct Action {
    mode: Option<&'static str>,
    method: &'static str,
    name: &'static str,
    description: &'static str,
    parameters: &'static [Parameter],
}

/// A parameter: its name, where it stands, its default where there is one, whether it may be left out.
struct Parameter(&'static str, &'static str, Option<&'static str>, bool);

const TOKEN: &[Parameter] = &[
    Parameter("hub.intended_use", "query", None, false),
    Parameter("rabbithub.data", "query", Some(""), true),
];
const CHECK: &[Parameter] =
    &[Parameter("hub.verify_token", "query", None, false), Parameter("hub.challenge", "query", None, false)];

const ENDPOINT: &[Action] = &[
    Action {
        mode: None,
        method: "POST",
        name: "publish",
        description: "Deliver a message to this endpoint.",
        parameters: &[
            Parameter("hub.topic", "query", Some(""), true),
            Parameter("hub.persistmsg", "query", None, true),
            Parameter("content-type", "headers", None, true),
            Parameter("x-rabbithub-msg_header", "headers", None, true),
            Parameter("body", "body", None, false),
        ],
    },
    Action {
        mode: None,
        method: "DELETE",
        name: "delete",
        description: "Delete this endpoint.",
        parameters: &[],
    },
    Action {
        mode: None,
        method: "GET",
        name: "info",
        description: "Describe this endpoint.",
        parameters: &[],
    },
    Action {
        mode: Some("generate_token"),
        method: "GET",
        name: "generate_token",
        description: "Make a token by which another hub may subscribe this endpoint.",
        parameters: TOKEN,
    },
    Action {
        mode: Some("subscribe"),
        method: "GET",
        name: "subscribe",
        description: "Check a token for subscribing.",
        parameters: CHECK,
    },
    Action {
        mode: Some("unsubscribe"),
        method: "GET",
        name: "unsubscribe",
        description: "Check a token for unsubscribing.",
        parameters: CHECK,
    },
];

const ASKED: &[Parameter] = &[
    Parameter("hub.callback", "query", None, false),
    Parameter("hub.topic", "query", None, false),
    Parameter("hub.verify", "query", None, true),
    Parameter("hub.verify_token", "query", None, true),
    Parameter("hub.lease_seconds", "query", None, true),
    Parameter("hub.max_tps", "query", Some("0"), true),
    Parameter("hub.max_in_flight", "query", None, true),
    Parameter("hub.final_statuses", "query", None, true),
    Parameter("hub.ha_mode", "query", None, true),
    Parameter("hub.basic_auth", "query", None, true),
    Parameter("hub.secret", "query", None, true),
    Parameter("hub.signing", "query", None, true),
];

const SUBSCRIBE: &[Action] = &[
    Action {
        mode: Some("subscribe"),
        method: "POST",
        name: "subscribe",
        description: "Have the messages of this resource posted to a callback.",
        parameters: ASKED,
    },
    Action {
        mode: Some("unsubscribe"),
        method: "POST",
        name: "unsubscribe",
        description: "Have them posted no more.",
        parameters: ASKED,
    },
    Action {
        mode: None,
        method: "DELETE",
        name: "delete",
        description: "Remove a subscription.",
        parameters: &[
            Parameter("hub.callback", "query", None, false),
            Parameter("hub.topic", "query", None, false),
        ],
    },
    Action { mode: None, method: "GET", name: "info", description: "Describe this facet.", parameters: &[] },
];

/// The document that describes a facet of a resource.
pub fn xml(facet: Facet, resource: &Resource, nature: &Nature) -> String {
    let mut xml = Xml::default();
    xml.text.push_str("<?xml version=\"1.0\"?>\n<?xml-stylesheet href=\"/static/application.xsl.xml\" type=\"text/xsl\"?>\n");
    let Resource { vhost, kind, name } = resource;
    xml.open("application", &[]);
    xml.leaf("name", name);
    xml.leaf("description", &format!("AMQP {} '{name}' in vhost '{vhost}'", kind.as_str()));
    xml.leaf("class", &format!("amqp.{}", kind.as_str()));
    xml.open("parameters", &[]);
    if *kind == ResourceKind::Exchange
        && let Some(exchange_type) = &nature.exchange_type
    {
        xml.empty("parameter", &[("name", "amqp.exchange_type"), ("value", exchange_type)]);
    }
    xml.close("parameters");
    xml.open("facets", &[]);
    let (about, actions) = match facet {
        Facet::Subscribe => ("Subscribe to this resource.", SUBSCRIBE),
        Facet::Endpoint | Facet::Subscriptions => ("Deliver to, and manage, this resource.", ENDPOINT),
    };
    xml.open("facet", &[("name", facet.as_str())]);
    xml.leaf("description", about);
    xml.open("actions", &[]);
    for action in actions {
        xml.action(action);
    }
    xml.close("actions");
    xml.close("facet");
    xml.close("facets");
    xml.close("application");
    xml.text
}

#[derive(Default)]
struct Xml {
    text: String,
}

impl Xml {
    fn action(&mut self, action: &Action) {
        let mut attributes = Vec::new();
        attributes.extend(action.mode.map(|mode| ("hub.mode", mode)));
        attributes.extend([("http.method", action.method), ("name", action.name)]);
        self.open("action", &attributes);
        self.leaf("description", action.description);
        for Parameter(name, location, default, optional) in action.parameters {
            let mut attributes = vec![("name", *name), ("location", *location)];
            attributes.extend(default.map(|default| ("defaultvalue", default)));
            attributes.extend(optional.then_some(("optional", "true")));
            self.empty("parameter", &attributes);
        }
        self.close("action");
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.start(name, attributes);
        self.text.push('>');
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.start(name, attributes);
        self.text.push_str("/>");
    }

    fn start(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.text.push('<');
        self.text.push_str(name);
        for (name, value) in attributes {
            // Writing to a `String` cannot fail.
            write!(self.text, " {name}=\"{}\"", escaped(value)).ok();
        }
    }

    fn leaf(&mut self, name: &str, text: &str) {
        write!(self.text, "<{name}>{}</{name}>", escaped(text)).ok();
    }

    fn close(&mut self, name: &str) {
        write!(self.text, "</{name}>").ok();
    }
}

/// A text as XML has it; what XML 1.0 has no way to say is a replacement character.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            char if char.is_control() => escaped.push('\u{FFFD}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_described() {
        let nature = Nature { exchange_type: Some("topic".to_owned()) };
        let text = xml(Facet::Endpoint, &Resource::exchange("/", "fx"), &nature);
        for part in [
            "<application><name>fx</name><description>AMQP exchange &apos;fx&apos; in vhost &apos;/&apos;</description>",
            "<class>amqp.exchange</class>",
            "<parameter name=\"amqp.exchange_type\" value=\"topic\"/>",
            "<action hub.mode=\"generate_token\" http.method=\"GET\" name=\"generate_token\">",
            "<parameter name=\"hub.topic\" location=\"query\" defaultvalue=\"\" optional=\"true\"/>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_name_cannot_become_markup() {
        let name = "<script>\"&'\u{1}";
        let text = xml(Facet::Subscribe, &Resource::queue("/", name), &Nature { exchange_type: None });
        assert!(text.contains("<name>&lt;script&gt;&quot;&amp;&apos;\u{FFFD}</name>"), "{text}");
        assert!(!text.contains("<script>"));
    }
}
