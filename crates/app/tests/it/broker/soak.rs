//! The broker is stopped or killed, and started again, while a sync of 100,000 rows is sending: the same process goes on
//! and ends well.

use std::time::Duration;

use fastrand::Rng;
use warren_testkit::rabbit::{Broker, Gate, Point};
use warren_testkit::soak;

use crate::program::total;
use crate::shop::{Heard, Shop};

const ROWS: u32 = 100_000;
/// Messages that may pass between the chosen moment and the end of the broker; less than the rest of the rows.
const MORE: u64 = 40_000;
/// A restart takes ten seconds, the whole run less than two minutes on a busy machine.
const END: Duration = Duration::from_secs(240);

#[test]
fn a_broker_that_restarts_in_the_middle_loses_nothing() {
    let rounds = if soak() { 10 } else { 2 };
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let broker = Broker::start();
    let vhost = broker.vhost();
    let gate = Gate::before(&vhost.url());
    let shop = Shop::open_at(&vhost, &gate.url(&vhost.url()), ROWS, "", "");
    let mut heard = Heard::default();
    for round in 0..rounds {
        let kill = round % 2 == 0;
        let moment = random.u64(1..u64::from(ROWS) / 2);
        // The broker is stopped or killed while messages flow, and the run cannot have ended by then.
        gate.close_after(Point::Publish, moment + MORE);
        let mut running = shop.program.start(&["sync", "customers"]);
        gate.wait_for(moment, END);
        if kill {
            broker.kill();
        } else {
            broker.stop();
        }
        assert!(!running.is_over(), "it ended with the broker: {:#?}", running.end());
        gate.release();
        broker.start_again();
        let ended = running.end_within(END);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        let last = running.ended();
        assert!(
            running.find(|event| event["event"] == "waiting" && event["reason"].is_string()).is_some(),
            "it says that it waits: {ended:#?}"
        );
        heard.listen(&vhost);
        let run = last["run"].as_u64().unwrap();
        let repeated = heard.repeated.get(&run).copied().unwrap_or(0);
        let unsure = last["counts"]["possible_duplicates"].as_u64().unwrap();
        println!(
            "round {round}: {} after {moment} messages, lost {}, repeated {repeated}, unconfirmed and sent again {unsure}",
            if kill { "killed" } else { "stopped" },
            heard.wrong(&shop.rows()).len(),
        );
        heard.assert_true(&shop);
        assert!(repeated <= unsure, "{repeated} came twice, {unsure} were said to be possible");
        assert_eq!(heard.of_run(run), total(&last["counts"]["sent"]) + repeated);
        shop.change(1.0, random.f64());
    }
}
