//! `warren check` and the hub.

use warren_testkit::rabbit;

use super::world::World;

#[test]
fn a_login_without_rights_or_without_the_management_api_is_found() {
    let vhost = rabbit::vhost();
    let all = vhost.user(".*", ".*", ".*");
    let few = vhost.user("^mine", "^mine", "");
    let broker = |user: &rabbit::User, management: &str| {
        format!("{{type: rabbitmq, url: \"{}\", management_url: \"{management}\"}}", user.url)
    };
    let administrator = vhost.management().url();
    let good = World::new(&broker(&all, administrator), "").check(0);
    // Users cannot publish with their own `user_id`: no more than a note.
    let notes = good["findings"].as_array().unwrap();
    assert!(matches!(&notes[..], [note] if note["severity"] == "note"), "{good:#}");
    assert!(notes[0]["message"].as_str().unwrap().contains("impersonator"), "{good:#}");
    let limited = World::new(&broker(&few, administrator), "").check(0);
    let told: Vec<&str> = limited["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] != "note")
        .map(|finding| finding["message"].as_str().unwrap())
        .collect();
    for right in ["configure `warren.hub.dead`", "read `warren.hub.dead`", "write `amq.default`"] {
        assert!(told.iter().any(|message| message.ends_with(right)), "{right}: {told:#?}");
    }
    // One who may not ask what others may.
    let blind = World::new(&broker(&all, &all.management_url), "").check(1);
    let finding = &blind["findings"][0];
    assert_eq!(
        (&finding["code"], &finding["subject"]),
        (&"management-failed".into(), &"brokers.mq".into()),
        "{blind:#}"
    );
    assert!(finding["remedy"].as_str().unwrap().contains("administrator"), "{blind:#}");
    let nobody = World::new(&broker(&all, administrator), "default_username: nobody at all").check(2);
    let findings = nobody["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["subject"] == "hub.default_username"), "{nobody:#}");
}
