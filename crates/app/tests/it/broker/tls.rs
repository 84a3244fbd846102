//! TLS to the broker: an authority of one's own, a client certificate, and what a wrong one says.

use warren_testkit::rabbit::{self, Broker};
use warren_testkit::tls;

use crate::shop::{Heard, Shop};

const ROWS: u32 = 200;

fn certificates(ca: &std::path::Path, client: bool) -> String {
    let mut lines = format!("    tls:\n      ca: \"{}\"\n", ca.display());
    if client {
        lines.push_str(&format!("      cert: \"{}\"\n", tls::client_certificate().display()));
        lines.push_str(&format!("      key: \"{}\"\n", tls::client_key().display()));
    }
    lines
}

#[test]
fn an_authority_of_ones_own_is_enough_and_a_strangers_is_refused() {
    let vhost = rabbit::vhost();
    let shop = Shop::open_at(&vhost, &vhost.tls_url(), ROWS, &certificates(&tls::stranger_ca(), false), "");
    let refused = shop.program.run(&["sync", "customers"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("[tls-failed]") && said.contains("tls.ca"), "{refused:#?}");
    assert_eq!(vhost.take("customers", 1), []);

    let shop = shop.reconfigured(&vhost.tls_url(), &certificates(&tls::ca(), false));
    assert_eq!(shop.program.sync("customers", 0)["counts"]["sent"]["added"], ROWS);
    let mut heard = Heard::default();
    heard.listen(&vhost);
    heard.assert_true(&shop);
}

mod own_broker {
    use super::{Broker, Heard, ROWS, Shop, certificates, tls};

    #[test]
    fn a_client_certificate_is_shown_where_one_is_demanded() {
        let broker = Broker::start_with_client_certificates();
        let vhost = broker.vhost();
        let shop = Shop::open_at(&vhost, &vhost.tls_url(), ROWS, &certificates(&tls::ca(), false), "");
        let refused = shop.program.run(&["sync", "customers"]);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("tls.cert"), "{refused:#?}");

        let shop = shop.reconfigured(&vhost.tls_url(), &certificates(&tls::ca(), true));
        assert_eq!(shop.program.sync("customers", 0)["counts"]["sent"]["added"], ROWS);
        let mut heard = Heard::default();
        heard.listen(&vhost);
        heard.assert_true(&shop);
    }
}
