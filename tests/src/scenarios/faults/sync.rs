//! A disk that fails: after an I/O error nothing is acknowledged and the node ends with code 3;
//! without room it refuses and goes on (P1, P2, P8).

use crate::harness::{
    App, Daemon, Injection, LONG, Message, Need, NodeConfig, PATIENCE, Publisher, until,
};

use super::super::load;
use super::{Tally, holds_exactly};

/// The n-th sync, or the n-th write, fails once; the one after it would succeed, as on Linux,
/// and would mean nothing.
pub fn an_io_error_ends_the_node(binary: &str) {
    const STORY: &str = "I/O errors";
    if !Need::Strace.is_met(STORY) {
        return;
    }
    let points: [(&str, &[usize]); 2] = [
        ("fsync,fdatasync", &[1, 2, 3, 4, 5, 6, 8, 12]),
        ("pwrite64", &[1, 3, 5, 8, 15, 25, 35, 50]),
    ];
    let mut tally = Tally::default();
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    for (calls, nth) in points.iter().flat_map(|(calls, nths)| nths.iter().map(|n| (*calls, *n))) {
        let name = format!("{}-{nth}", calls.replace(',', "-"));
        node.kill();
        let publisher = Publisher::with_window(&node, "till", 1, load(&name, 20));
        let injection = Injection::fail(calls, "EIO", &nth.to_string());
        injection.showing("sendto").start(&mut node);
        let at_start = node.started();
        let when = if at_start.is_some() { "at start" } else { "at work" };
        let status = at_start.unwrap_or_else(|| {
            until("the node to notice", LONG, || {
                node.exited().is_some() || publisher.is_finished()
            });
            node.ended()
        });
        assert_eq!(status.code(), Some(3), "{calls} {nth} {when}: {}", node.log());
        tally.count(&format!("{calls} {when}"));
        nothing_is_acknowledged_after_it(&node.trace());
        node.run();
        let made: Vec<_> = load(&name, 20).collect();
        holds_exactly(&node, &format!("{name}/"), publisher.finish().ids(), &made);
    }
    assert_eq!(tally.struck.len(), 4, "both kinds at both times: {tally:?}");
    tally.report(STORY, 1);
}

fn nothing_is_acknowledged_after_it(trace: &str) {
    let mut lines = trace.lines().skip_while(|line| !line.contains("(INJECTED)"));
    assert!(lines.next().is_some(), "the fault struck:\n{trace}");
    let said = lines.find(|line| line.contains("sendto(") && line.contains(r#"\"ACK\""#));
    assert_eq!(said, None, "after the fault");
}

/// For a while no write finds room. Publishers are told so, what they are refused is not there,
/// and it ends without a restart.
pub fn without_room_it_refuses_and_goes_on(binary: &str) {
    const STORY: &str = "no room for writes";
    const EACH: usize = 30;
    if !Need::Strace.is_met(STORY) {
        return;
    }
    let mut tally = Tally::default();
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    // Whoever is owed them keeps events from giving way as history.
    App::connect(&node, "client=keeper").leave();
    // One write without room is made up for by a checkpoint; these are more than that.
    for when in ["10..14", "13..18", "20..25", "25..31"] {
        let name = format!("room-{}", when.replace("..", "-"));
        tally.expect(when);
        node.kill();
        Injection::fail("pwrite64", "ENOSPC", when).start(&mut node);
        assert_eq!(node.started(), None, "{}", node.log());
        let mut till = App::connect(&node, "client=till&keys=");
        for message in load(&name, EACH) {
            until("room", PATIENCE, || {
                till.send(message.json());
                let answer = till.answer();
                let full = answer.code.as_deref() == Some("STORE_FULL");
                assert!(full || answer.kind == "ACK", "{answer:?}");
                assert_eq!(answer.duplicate, None, "what was refused is not there");
                if full {
                    assert_eq!(answer.retryable, Some(true));
                    tally.count(when);
                }
                !full
            });
        }
        assert_eq!(node.exited(), None, "{}", node.log());
        node.kill();
        node.run();
        let made: Vec<_> = load(&name, EACH).collect();
        holds_exactly(&node, &format!("{name}/"), made.iter().map(Message::id), &made);
    }
    tally.report(STORY, 1);
}
