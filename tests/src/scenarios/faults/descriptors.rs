//! No descriptors left: who is connected goes on, who comes waits, nothing spins (P8).

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    App, Daemon, Mesh, Message, NodeConfig, PATIENCE, Subscriber, announce, until,
};

use super::super::nodes;

/// A node may open nothing more. Its link and its applications go on, and when it may again, who
/// waited is taken.
pub fn exhausted(binary: &str) {
    const STARVED: Duration = Duration::from_secs(3);
    let mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let [aws, azure] = &mesh.nodes[..] else { panic!("two nodes were started") };
    let mut till = App::connect(aws, "client=till&keys=");
    let elsewhere = Subscriber::start(azure, "client=watch");
    let before = aws.leave_descriptors(0);

    let (tell, told) = mpsc::channel();
    let newcomer = thread::spawn({
        let address = aws.config.address.clone();
        move || {
            let connected = App::open(&address, "client=newcomer&keys=", &[]);
            let _ = tell.send(());
            connected.map(|mut app| app.publish(&Message::event("new", "order:new", "1")))
        }
    });
    let log = "cannot accept connections";
    until("accepting to fail", PATIENCE, || aws.log().contains(log));
    let (began, spent) = (Instant::now(), aws.cpu_time());
    let mut published = 0;
    while began.elapsed() < STARVED {
        let id = format!("m-{published}");
        till.publish(&Message::state(&id, format!("order:{published}"), "1"));
        published += 1;
        thread::sleep(Duration::from_millis(20));
    }
    let (spent, passed) = (aws.cpu_time() - spent, began.elapsed());
    elsewhere.wait_for("azure", published, PATIENCE);
    assert!(spent < passed / 3, "{spent:?} of {passed:?}: it spins");
    let failures = aws.log().matches(log).count();
    assert!(failures < 40, "{failures} lines about the same in {passed:?}");
    assert!(told.try_recv().is_err(), "nobody can be taken without descriptors");

    aws.limit_descriptors(before);
    told.recv_timeout(PATIENCE).expect("who waited is taken");
    let receipt = newcomer.join().expect("the newcomer did not fail");
    assert!(receipt.is_ok(), "{receipt:?}");
    elsewhere.wait_for("azure", published + 1, PATIENCE);
    aws.await_peer("azure");
    announce(&format!(
        "no descriptors: accepting failed {failures} times, {spent:?} in {passed:?}"
    ));
}

/// Descriptors that become free are used, without anybody raising a limit.
pub fn freed_by_others(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let room = 4;
    node.leave_descriptors(room);
    let mut crowd: Vec<_> = (0..room).map(|_| App::connect(&node, "")).collect();
    let address = node.config.address.clone();
    let newcomer = thread::spawn(move || App::open(&address, "", &[]).map(drop));
    until("accepting to fail", PATIENCE, || node.log().contains("cannot accept connections"));
    crowd.pop().expect("there is a crowd").leave();
    assert_eq!(newcomer.join().expect("the newcomer did not fail"), Ok(()));
    crowd[0].publish(&Message::state("m-1", "order:1", "1"));
}
