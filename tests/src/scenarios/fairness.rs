//! An application that stops reading its socket costs the others nothing (P8).

use std::time::{Duration, Instant};

use crate::harness::{App, Daemon, LONG, Message, NodeConfig, Publisher, Subscriber};

use super::filler;

const MESSAGES: usize = 20_000;
const ROUNDS: usize = 3;

/// Throughput of another subscriber with and without one that does not read, medians of a few
/// rounds. Whatever else runs disturbs it, so one quiet comparison out of three is enough: what
/// really costs something costs it every time.
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
        without.push(time_of(&alone, &format!("{attempt}-{round}")));
        with.push(time_of(&beside, &format!("{attempt}-{round}")));
    }
    median(with).as_secs_f64() / median(without).as_secs_f64()
}

/// From the first publish to the last delivery.
fn time_of(node: &Daemon, round: &str) -> Duration {
    let live = Subscriber::start(node, &format!("client=live-{round}&replay=new"));
    let prefix = round.to_owned();
    let messages = (0..MESSAGES).map(move |number| {
        Message::state(format!("{prefix}-{number}"), format!("order:{number}"), filler(256))
    });
    let start = Instant::now();
    Publisher::publish_all(node, "till", messages);
    live.wait_for("the live one", MESSAGES, LONG);
    let taken = start.elapsed();
    live.stop();
    taken
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
