//! An application that stops reading its socket costs the others nothing (P8).

use std::time::Duration;

use crate::harness::{App, Daemon, LONG, Message, NodeConfig, Publisher, Subscriber};

use super::filler;

const MESSAGES: usize = 20_000;
const ROUNDS: usize = 3;

/// What the node spends on another subscriber with and without one that does not read, medians of
/// a few rounds. It is measured in time of the processor, which does not pass while others run; one
/// quiet comparison out of three is enough, as what really costs something costs it every time.
/// That nobody waits for the one that does not read is what the bound of `wait_for` says.
pub fn who_does_not_read_costs_the_others_nothing(binary: &str) {
    let ratios: Vec<_> = (0..3).map(|attempt| compare(binary, attempt)).collect();
    let best = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < 1.25, "slower by these factors: {ratios:?}");
}

fn compare(binary: &str, attempt: usize) -> f64 {
    let alone = Daemon::start(binary, NodeConfig::new("alone"));
    let beside = Daemon::start(binary, NodeConfig::new("beside"));
    // Both take all they can get without acknowledging, and never read it.
    let _stalled = App::connect(&beside, "ack=auto");
    let _stalled_for_long = App::connect(&beside, "client=stalled&ack=auto");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        without.push(spent_on(&alone, &format!("{attempt}-{round}")));
        with.push(spent_on(&beside, &format!("{attempt}-{round}")));
    }
    median(with).as_secs_f64() / median(without).as_secs_f64()
}

/// The node's time of the processor from the first publish to the last delivery.
fn spent_on(node: &Daemon, round: &str) -> Duration {
    let live = Subscriber::start(node, &format!("client=live-{round}&replay=new"));
    let prefix = round.to_owned();
    let messages = (0..MESSAGES).map(move |number| {
        Message::state(format!("{prefix}-{number}"), format!("order:{number}"), filler(256))
    });
    let before = node.cpu_time();
    Publisher::publish_all(node, "till", messages);
    live.wait_for("the live one", MESSAGES, LONG);
    let spent = node.cpu_time() - before;
    live.stop();
    spent
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
