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
    assert!(good["findings"].as_array().unwrap().is_empty(), "{good:#}");
    let limited = World::new(&broker(&few, administrator), "").check(0);
    let told: Vec<&str> = limited["findings"]
        .as_array()
        .unwrap()
        .iter()
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
        (&"management-failed".into(), &"hub.broker".into()),
        "{blind:#}"
    );
    assert!(finding["remedy"].as_str().unwrap().contains("administrator"), "{blind:#}");
    let nobody = World::new(&broker(&all, administrator), "default_username: nobody at all").check(1);
    assert_eq!(nobody["findings"][0]["subject"], "hub.default_username", "{nobody:#}");
}
