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

/// A node that may open few files, with as many applications as it takes: peers are linked in both
/// directions, and operators are answered.
pub fn applications_leave_some(binary: &str) {
    let gcp = NodeConfig::new("gcp");
    let mut aws = Daemon::prepare(binary, NodeConfig::new("aws").peer(&gcp.address));
    aws.spawn_through(&limited_to(128));
    assert!(aws.started().is_none(), "it runs");
    let warned = aws.log().contains("too few files for limits.max_connections = 10000");
    assert!(warned, "{}", aws.log());
    let mut crowd = Vec::new();
    let refused = loop {
        assert!(crowd.len() < 128, "there are no descriptors for so many");
        match App::open(&aws.config.address, "", &[]) {
            Ok(app) => crowd.push(app),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code, 4429, "{refused:?}");
    assert!(crowd.len() > 32, "{} applications are few", crowd.len());

    let gcp = Daemon::start(binary, gcp);
    let azure = Daemon::start(binary, NodeConfig::new("azure").peer(&aws.config.address));
    for peer in ["gcp", "azure"] {
        aws.await_peer(peer);
    }
    assert_eq!(aws.get("/livez").status, 200);
    crowd[0].publish(&Message::state("m-1", "order:1", "1"));
    for node in [&gcp, &azure] {
        Subscriber::start(node, "client=watch").wait_for(&node.config.id, 1, PATIENCE);
    }
    assert!(!aws.log().contains("cannot accept"), "{}", aws.log());
}

/// What a node may not open at start is named, and so is a port in use.
pub fn named_at_start(binary: &str) {
    let mut aws = Daemon::prepare(binary, NodeConfig::new("aws"));
    aws.spawn_through(&limited_to(40));
    assert_eq!(aws.ended().code(), Some(2));
    assert!(aws.log().contains("too many open files"), "{}", aws.log());
    aws.run();
    for (key, address) in [("address", &aws.config.address), ("admin", &aws.config.admin)] {
        let mut config = NodeConfig::new("azure");
        *(if key == "admin" { &mut config.admin } else { &mut config.address }) = address.clone();
        let mut azure = Daemon::prepare(binary, config);
        azure.spawn();
        assert_eq!(azure.ended().code(), Some(2), "{}", azure.log());
        assert!(azure.log().contains(&format!("listen.{key}")), "{}", azure.log());
    }
}

/// A program that starts another one with this limit of open files.
fn limited_to(files: usize) -> Vec<String> {
    let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
    vec!["sh".to_owned(), "-c".to_owned(), script]
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
