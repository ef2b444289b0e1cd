//! Who may connect, and how connections end (P8, P11, section 1 of the interfaces).

use std::net::TcpStream;

use crate::harness::{App, Daemon, Message, Need, NodeConfig, PATIENCE, RawSocket, request, until};

/// A page that was served from elsewhere is refused, one from loopback is not.
pub fn a_foreign_page_is_refused(binary: &str) {
    let config = NodeConfig::new("aws")
        .raw("listen.allowed_origins", r#"["https://shop.example"]"#.to_owned());
    let node = Daemon::start(binary, config);
    let connect = |origin: &str| App::open(&node.config.address, "", &[("Origin", origin)]);
    let foreign = [
        "https://evil.example",
        "http://shop.example",
        "https://shop.example.evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "null",
    ];
    for origin in foreign {
        let refused = connect(origin).expect_err(origin);
        assert_eq!(refused.code, 403, "{origin}: {}", refused.reason);
    }
    let own = [
        "https://shop.example",
        "http://localhost",
        "http://localhost:5173",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
    ];
    for origin in own {
        let mut app = connect(origin).expect(origin);
        app.publish(&Message::state(origin.replace(['/', ':'], "-"), "order:1", "1"));
    }
}

/// The admin endpoint answers neither foreign pages nor foreign names for its address.
pub fn the_admin_endpoint_knows_its_name(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let get = |headers: &[&str]| request(&node.config.admin, "GET", "/status", headers, "");
    let port = node.config.admin.rsplit(':').next().expect("the address has a port");
    for headers in [
        &["Host: evil.example"][..],
        &["Origin: https://evil.example"],
        &["Host: localhost.evil.example"],
    ] {
        assert_eq!(get(headers).map(|answer| answer.status), Some(403), "{headers:?}");
    }
    let local = format!("Host: localhost:{port}");
    for headers in [&[][..], &[local.as_str()], &["Host: 127.0.0.1"]] {
        assert_eq!(get(headers).map(|answer| answer.status), Some(200), "{headers:?}");
    }
}

/// What the query string gets wrong is told by close code 4400 with the reason, because browsers
/// hide what an HTTP refusal says.
pub fn a_bad_query_is_closed_with_its_reason(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let long_name = format!("client={}", "x".repeat(65));
    let long_list: Vec<_> = (0..33).map(|tag| format!("t{tag}")).collect();
    let long_list = format!("tags={}", long_list.join(","));
    let bad = [
        ("banana=1", "banana"),
        ("client=a%20b", "client"),
        ("client=", "client"),
        ("replay=some", "replay"),
        ("ack=never", "ack"),
        ("conflate=maybe", "conflate"),
        ("tags=a%20b", "tags"),
        ("tags=a+b", "tags"),
        ("client=a&client=a", "client"),
        ("key=", "key"),
        (&long_name, "client"),
        (&long_list, "tags"),
    ];
    for (query, names) in bad {
        let refused = App::open(&node.config.address, query, &[]).expect_err(query);
        assert_eq!(refused.code, 4400, "?{query}: {}", refused.reason);
        assert!(refused.reason.contains(names), "?{query}: {}", refused.reason);
    }
    let log = node.log();
    assert!(!log.contains("banana=1"), "the query string is never logged");
}

/// Subprotocols are confirmed, or refused in the upgrade.
pub fn subprotocols_are_confirmed_or_refused(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let connect =
        |name: &str| App::open(&node.config.address, "", &[("Sec-WebSocket-Protocol", name)]);
    connect("slipstream.json.v1").expect("JSON may be asked for");
    connect("banana, slipstream.json.v1").expect("one that is known is enough");
    let refused = connect("banana").expect_err("an unknown subprotocol alone");
    assert!((400..500).contains(&refused.code), "{refused:?}");
}

/// A second connection under the same name takes the session over with what was not acknowledged.
pub fn a_session_is_taken_over(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut till = App::connect(&node, "keys=");
    let mut first = App::connect(&node, "client=pi-1");
    till.publish(&Message::event("m-1", "terminal:1", "1"));
    assert_eq!(first.delivery().id(), "m-1");

    let mut second = App::connect(&node, "client=pi-1");
    assert_eq!(first.closed(PATIENCE).0, 4409);
    assert_eq!(second.welcome.resumed, Some(true));
    let handed = second.delivery();
    assert_eq!(handed.id(), "m-1");
    assert!(handed.redelivery > Some(0), "{handed:?}");
    second.ack(&handed);
    till.publish(&Message::event("m-2", "terminal:1", "2"));
    assert_eq!(second.delivery().id(), "m-2");
}

/// Connections are bounded, and a place that becomes free can be taken.
pub fn connections_are_bounded(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").number("limits.max_connections", 3));
    let mut apps: Vec<_> = (0..3).map(|_| App::connect(&node, "")).collect();
    let refused = App::open(&node.config.address, "", &[]).expect_err("the fourth of three");
    assert_eq!(refused.code, 4429, "{refused:?}");
    apps.pop().expect("three are there").leave();
    until("a free place", PATIENCE, || App::open(&node.config.address, "", &[]).is_ok());
}

/// SIGTERM: everybody is told 1001, what has a receipt is there afterwards, and the exit code
/// is 0.
pub fn ending_is_announced(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut app = App::connect(&node, "client=pi-1");
    let mut quiet = RawSocket::upgrade(&node.config.address, "keys=", None);
    app.publish(&Message::state("m-1", "order:1", "1"));
    node.ask_to_end();
    assert_eq!(app.closed(PATIENCE).0, 1001);
    assert_eq!(quiet.closed(PATIENCE), Some(1001));
    assert_eq!(node.ended().code(), Some(0), "{}", node.log());

    node.run();
    let mut app = App::connect(&node, "client=auditor");
    assert_eq!(app.replay()[0].id(), "m-1");
    drop(app);
    assert_eq!(node.terminate().code(), Some(0), "also with nobody there");
}

/// More connections than systems let wait by default are there before the node takes any: none of
/// them is lost.
pub fn a_burst_waits_in_the_listen_queue(binary: &str) {
    const BURST: usize = 600;
    if !Need::ListenQueue.is_met("a burst of connections") {
        return;
    }
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let address = node.config.address.parse().expect("an address");
    node.pause();
    let waiting: Vec<_> = (0..BURST)
        .map(|number| {
            // Of a full queue the system tells by silence.
            let connected = TcpStream::connect_timeout(&address, PATIENCE);
            connected.unwrap_or_else(|error| panic!("connection {number}: {error}"))
        })
        .collect();
    node.resume();
    drop(waiting);
    App::connect(&node, "");
}
