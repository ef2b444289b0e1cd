//! Names with several addresses, of which one swallows what is sent to it: whoever connects loses
//! a quarter of a second, and an error names each address.

use std::time::Duration;

use crate::harness::{
    Command, Daemon, Finished, Need, NodeConfig, SilentPort, TwoAddresses, until,
};

/// How soon there is a connection: less than the time after which an attempt is given up.
const SOON: Duration = Duration::from_secs(4);

/// How soon a command gives up where nobody answers: less than the time for a whole request.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// A node whose peer has a second address only that answers links to it.
pub fn a_peer_whose_first_address_is_silent(binary: &str) {
    if !Need::TwoAddresses.is_met("a_peer_whose_first_address_is_silent") {
        return;
    }
    let azure = Daemon::start(binary, NodeConfig::new("azure"));
    let _silent = SilentPort::beside(&azure.config.address);
    let config = NodeConfig::new("aws").peer(&by_name(&azure.config.address));
    let mut aws = Daemon::prepare(binary, config);
    let names = TwoAddresses::of_localhost();
    aws.spawn_through(&names.program());
    assert!(aws.started().is_none(), "{}", aws.log());
    until("the link", SOON, || aws.metric("slipstream_link_up", &["peer=\"azure\""]) == 1.0);
}

/// Commands connect to the address that answers: those of an application, and those of an operator.
pub fn commands_and_a_silent_first_address(binary: &str) {
    if !Need::TwoAddresses.is_met("commands_and_a_silent_first_address") {
        return;
    }
    let node = Daemon::start(binary, NodeConfig::new("aws"));
    let _silent = [&node.config.address, &node.config.admin].map(|it| SilentPort::beside(it));
    let url = format!("ws://{}", by_name(&node.config.address));
    let admin = format!("http://{}", by_name(&node.config.admin));
    let commands: [&[&str]; 4] = [
        &["pub", "SK", "order:1", "1", "--id", "m-1", "--url", &url],
        &["sub", "--client", "out", "--count", "1", "--timeout", "60s", "--url", &url],
        &["get", "order:1", "--url", &url],
        &["status", "--admin", &admin],
    ];
    for args in commands {
        run(binary, args, SOON).ok();
    }
}

/// A command of an operator that reaches no address ends, and says what came of each.
pub fn an_operator_is_told_each_address(binary: &str) {
    if !Need::TwoAddresses.is_met("an_operator_is_told_each_address") {
        return;
    }
    let nobody = NodeConfig::new("nobody").admin;
    let _silent = SilentPort::beside(&nobody);
    let admin = format!("http://{}", by_name(&nobody));
    let ended = run(binary, &["status", "--admin", &admin], GIVEN_UP);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let silent = nobody.replace("127.0.0.1", "[::1]");
    for address in [nobody, format!("{silent}: no answer")] {
        assert!(ended.stderr.contains(&address), "{address}: {}", ended.stderr);
    }
}

fn by_name(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

fn run(binary: &str, args: &[&str], patience: Duration) -> Finished {
    let names = TwoAddresses::of_localhost();
    let program = names.program();
    let words = program[1..].iter().map(String::as_str).chain([binary]).chain(args.iter().copied());
    Command::new(&program[0], &words.collect::<Vec<_>>()).spawn().wait(patience)
}
