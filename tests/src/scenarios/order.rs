//! One connection, one order: answers and deliveries come as they stand in the log (P12).

use crate::harness::{App, Daemon, Message, NodeConfig};

/// Frame 5 is refused at once, frames 1 to 4 wait for their commit, and yet the answers come in
/// the order of the frames.
pub fn an_error_waits_for_the_receipts_before_it(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "");
    for round in 0..20 {
        let good = |number: usize| {
            Message::state(format!("m-{round}-{number}"), format!("order:{number}"), "1").json()
        };
        let frames = [good(1), good(2), good(3), good(4), "{".to_owned(), good(6)];
        app.send_together(frames.iter().map(String::as_str));
        for number in 1..=6 {
            let answer = app.answer();
            if number == 5 {
                assert_eq!(answer.kind, "ERR", "{answer:?}");
                assert_eq!(answer.frame, Some(round * 6 + 5));
            } else {
                assert_eq!(answer.kind, "ACK", "{answer:?}");
                assert_eq!(answer.id(), format!("m-{round}-{number}"));
            }
        }
    }
}

/// Two applications publish at once; what each of them reads, receipts and deliveries together,
/// stands in the order of the log, which at one node is the order of the versions.
pub fn receipts_and_deliveries_interleave_as_in_the_log(binary: &str) {
    const EACH: usize = 300;
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let names = ["left", "right"];
    let mut apps = names.map(|_| App::connect(&node, "replay=new"));
    for burst in 0..6 {
        for (app, name) in apps.iter_mut().zip(names) {
            let frames: Vec<_> = (0..EACH / 6)
                .map(|number| {
                    let id = format!("{name}-{burst}-{number}");
                    Message::state(&id, format!("{name}:{number}"), "1").json()
                })
                .collect();
            app.send_together(frames.iter().map(String::as_str));
        }
    }
    for (app, name) in apps.iter_mut().zip(names) {
        let mut versions = Vec::new();
        let (mut receipts, mut deliveries) = (0, 0);
        while receipts < EACH || deliveries < EACH {
            let frame = app.frame();
            match frame.kind.as_str() {
                "ACK" => receipts += 1,
                "SK" => deliveries += 1,
                _ => continue,
            }
            let own = frame.id().starts_with(name);
            assert_eq!(frame.kind == "ACK", own, "nobody is handed his own: {frame:?}");
            versions.push(frame.version().to_owned());
        }
        assert!(versions.is_sorted(), "{name} did not read in the order of the log");
    }
}
