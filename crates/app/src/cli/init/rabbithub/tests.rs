//! A whole old configuration, small ones, and whatever may stand in one.

use proptest::prelude::*;

use super::*;
use warren_config::{self as config, Environment, Project};

const FULL: &str = r#"
%% The sample of the documentation, and everything else there is.
[
 {rabbit, [{tcp_listeners, [{"127.0.0.1", 5673}]}, {vm_memory_high_watermark, 0.4}]},
 {rabbitmq_management, [{listener, [{port, 15673}]}]},
 {rabbithub, [
   {listener, [{port, 15671}, {ip, {127,0,0,1}}, {backlog, 64}]},
   {default_username, "guest"},
   {canonical_scheme, "https"}, {canonical_host, 'hub.example'}, {canonical_basepath, "rabbithub"},
   {instance_key, <<"a ${key}">>},
   {signed_term_max_age_seconds, 600},
   {http_client_options, [{proxy, {{"proxy", 3128}, ["localhost", "*.corp.example"]}}, {https_proxy, {{"proxy", 3129}, []}},
      {max_sessions, 4}, {max_keep_alive_length, 0}, {max_pipeline_length, 0}]},
   {http_request_options, [{timeout, 60000}, {connect_timeout, 2000}, {autoredirect, true},
      {ssl, [{verify, verify_none}, {depth, 2}]}]},
   {append_hub_topic_to_callback, false},
   {validate_callback_on_unsubscribe, false},
   {default_lease_seconds, 86400},
   {use_internal_queue_for_pseudo_queue, true},
   {requeue_on_http_post_error, true},
   {unsubscribe_on_http_post_error, false},
   {unsubscribe_on_http_post_error_limit, 5},
   {unsubscribe_on_http_post_error_timeout_microseconds, 60000000},
   {wait_for_consumer_restart_milliseconds, 10000},
   {ha_mode, all},
   {include_servername_in_consumer_tag, true},
   {set_message_id, 'x-message-id'}, {set_correlation_id, 'x-correlation-id'},
   {log_published_messages, true}, {log_message_body, true}, {log_http_headers, ["user-agent", 'host']},
   {log_http_post_request, true}, {log_maxtps_delay, true},
   {log_subscription_expiration, 30},
   {something_new, [1, 2]}
 ]}
].
"#;

fn loaded(yaml: &str) -> Project {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warren.yaml");
    std::fs::write(&path, yaml).unwrap();
    match config::load_with(&path, &Environment::default()) {
        Ok(project) => project,
        Err(faults) => panic!("{}\n{yaml}", faults.render(config::Colours::Off)),
    }
}

#[test]
fn all_settings_are_taken_over() {
    use std::time::Duration;
    use warren_engine::hub::subscription::HaMode;

    let migrated = migrate(FULL).unwrap();
    let project = loaded(&migrated.yaml);
    assert_eq!(project.listen.to_string(), "127.0.0.1:15671");
    let hub = project.hub.unwrap();
    let settings = hub.settings;
    assert!(settings.compat && !settings.append_hub_topic_to_callback);
    assert!(!settings.validate_callback_on_unsubscribe && settings.requeue_on_http_post_error);
    assert!(
        !settings.unsubscribe_on_http_post_error && settings.log_message_body && settings.log_maxtps_delay
    );
    assert_eq!(settings.default_username.as_deref(), Some("guest"));
    assert_eq!(settings.canonical_host.as_deref(), Some("hub.example"));
    assert_eq!(settings.instance_key.unwrap().0, "a ${key}");
    assert_eq!(settings.signed_term_max_age, Duration::from_secs(600));
    assert_eq!(settings.default_lease_seconds, 86400);
    assert_eq!(settings.unsubscribe_on_http_post_error_limit, Some(5));
    assert_eq!(settings.unsubscribe_on_http_post_error_timeout, Some(Duration::from_secs(60)));
    assert_eq!(settings.wait_for_consumer_restart, Some(Duration::from_secs(10)));
    assert_eq!((settings.ha_mode, settings.max_in_flight), (HaMode::All, 1));
    assert_eq!(settings.set_message_id.as_deref(), Some("x-message-id"));
    assert_eq!(settings.log_http_headers, ["user-agent", "host"]);
    assert_eq!(settings.log_subscription_expiration_days, Some(30));
    assert_eq!(settings.request_timeout, Duration::from_secs(60));
    assert_eq!(hub.client.connect_timeout.unwrap().0, Duration::from_secs(2));
    assert_eq!(hub.client.proxy.unwrap().reveal(), "http://proxy:3128");
    assert_eq!(hub.client.https_proxy.unwrap().reveal(), "http://proxy:3129");
    assert_eq!(hub.client.no_proxy, ["localhost", "*.corp.example"]);
    assert_eq!(hub.client.max_sessions, Some(4));
    assert!(migrated.yaml.contains("localhost:5673") && migrated.yaml.contains("localhost:15673"));
    for left_out in [
        "something_new",
        "max_keep_alive_length",
        "max_pipeline_length",
        "backlog",
        "ssl.verify",
        "ssl.depth",
        "autoredirect",
        "use_internal_queue",
        "timeout_microseconds",
        "log_subscription_expiration",
        "allow_callbacks",
    ] {
        assert!(
            migrated.notes.iter().any(|note| note.contains(left_out)),
            "{left_out}: {:?}",
            migrated.notes
        );
        assert!(migrated.yaml.contains(left_out), "{left_out}");
    }
}

#[test]
fn small_configurations_work_and_others_are_refused() {
    let project = loaded(&migrate("[{rabbithub, []}].").unwrap().yaml);
    assert_eq!(project.listen.to_string(), "0.0.0.0:15670");
    let odd = "[{rabbithub, [{default_lease_seconds, never}, {ha_consumers, 2}, {set_message_id, undefined}, junk]}].";
    let migrated = migrate(odd).unwrap();
    assert!(migrated.notes.iter().any(|note| note.contains("default_lease_seconds")));
    assert_eq!(migrated.notes.iter().filter(|note| note.contains("set_message_id")).count(), 0);
    let hub = loaded(&migrated.yaml).hub.unwrap();
    assert_eq!(hub.settings.ha_mode, warren_engine::hub::subscription::HaMode::Count(2));
    for bad in ["[{rabbit, []}].", "[]", "listeners.tcp.default = 5672"] {
        let failure = migrate(bad).err().unwrap();
        assert!(failure.remedy.is_some(), "{bad}");
    }
    // With certificates of its own, they are taken over.
    let tls = "[{rabbithub, [{listener, [{port, 1}, {ssl, true}, {ssl_opts, [{certfile, \"/c.pem\"}, {keyfile, \"/k.pem\"}]}]}]}].";
    let yaml = migrate(tls).unwrap().yaml;
    assert!(yaml.contains("cert: \"/c.pem\"") && yaml.contains("key: \"/k.pem\""), "{yaml}");
}

proptest! {
    #[test]
    fn whatever_stands_in_it_what_is_written_is_yaml(name in any::<String>(), value in any::<String>()) {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"");
        let text = format!(
            "[{{rabbithub, [{{default_username, \"{}\"}}, {{'{}', \"{}\"}}]}}].",
            quoted(&value), quoted(&name), quoted(&value)
        );
        let migrated = migrate(&text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warren.yaml");
        std::fs::write(&path, &migrated.yaml).unwrap();
        // A value may be one that its key does not take; it never breaks out of its place.
        match config::load_with(&path, &Environment::default()) {
            Ok(project) => prop_assert_eq!(project.hub.unwrap().settings.default_username, Some(value)),
            Err(faults) => prop_assert!(!faults.render(config::Colours::Off).contains("config-syntax")),
        }
    }
}
