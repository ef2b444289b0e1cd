//! One mesh of both shells: that they speak the same protocol, and neither loses or repeats what
//! the other says.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use slipstream_core::config::Config;
use slipstream_core::ids::NodeId;
use tempfile::TempDir;

use super::on_tokio::{run, soon};

/// A ring: the nodes, each with those that it dials.
const RING: [(&str, &[usize]); 4] =
    [("aws", &[]), ("azure", &[0]), ("gcp", &[1]), ("oci", &[2, 0])];
/// Messages that each node publishes in one go.
const MESSAGES: usize = 200;

/// A node on either shell.
#[derive(Debug)]
enum Node {
    Tokio(slipstream_tokio::Node),
    Smol(slipstream_smol::Node),
}

/// What an application was handed, on either shell.
#[derive(Debug)]
enum Deliveries {
    Tokio(slipstream_tokio::client::Subscription),
    Smol(slipstream_smol::client::Subscription),
}

/// The same for either shell.
macro_rules! on_either {
    ($type:ident, $value:expr, $inner:ident => $then:expr) => {
        match $value {
            $type::Tokio($inner) => $then,
            $type::Smol($inner) => $then,
        }
    };
}

impl Node {
    /// On tokio where `index` is even, on smol where it is odd.
    async fn start(index: usize, data: &TempDir, listen: SocketAddr, ring: &[SocketAddr]) -> Self {
        let (name, peers) = RING[index];
        let mut config = Config::new(NodeId::new(name).expect("a name"));
        config.peers = peers.iter().map(|peer| format!("ws://{}/", ring[*peer])).collect();
        if index.is_multiple_of(2) {
            let options = slipstream_tokio::Options::new(config, data.path());
            let options = slipstream_tokio::Options { listen, ..options };
            let node = soon(slipstream_tokio::Node::start(options)).await;
            Self::Tokio(node.expect("the node starts"))
        } else {
            let options = slipstream_smol::Options::new(config, data.path());
            let options = slipstream_smol::Options { listen, ..options };
            let node = soon(slipstream_smol::Node::start(options)).await;
            Self::Smol(node.expect("the node starts"))
        }
    }

    fn local_addr(&self) -> SocketAddr {
        on_either!(Node, self, node => node.local_addr())
    }

    async fn publish(&self, key: &str) {
        let message = slipstream_core::client::Publication::set(key, "1");
        on_either!(Node, self, node => soon(node.publish(message)).await.expect("a receipt"));
    }

    async fn subscribe(&self) -> Deliveries {
        let filter = slipstream_core::client::Filter::named("ledger");
        match self {
            Self::Tokio(node) => {
                Deliveries::Tokio(soon(node.subscribe(filter)).await.expect("it connects"))
            }
            Self::Smol(node) => {
                Deliveries::Smol(soon(node.subscribe(filter)).await.expect("it connects"))
            }
        }
    }

    async fn shutdown(&self) {
        let exit = on_either!(Node, self, node => format!("{:?}", soon(node.shutdown()).await));
        assert_eq!(exit, "Stopped");
    }
}

impl Deliveries {
    /// The keys of the next deliveries, which are acknowledged; none comes twice.
    async fn take(&mut self, count: usize) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        while keys.len() < count {
            let key = on_either!(Deliveries, self, deliveries => {
                let delivery = soon(deliveries.next()).await.expect("it goes on");
                let delivery = delivery.expect("it is there");
                let key = delivery.key().to_owned();
                delivery.ack();
                key
            });
            assert!(keys.insert(key.clone()), "{key} came twice");
        }
        keys
    }
}

fn keys(round: usize, from: impl Iterator<Item = usize>) -> BTreeSet<String> {
    from.flat_map(|index| (0..MESSAGES).map(move |number| key(round, index, number))).collect()
}

fn key(round: usize, index: usize, number: usize) -> String {
    format!("{round}:{}:{number}", RING[index].0)
}

// keeps: shells-equal
#[test]
fn nodes_of_both_shells_hand_over_every_message_once() {
    run(async {
        let data = [(); RING.len()].map(|()| tempfile::tempdir().expect("a folder can be made"));
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let (mut nodes, mut ring, mut deliveries) = (Vec::new(), Vec::new(), Vec::new());
        for (index, data) in data.iter().enumerate() {
            let node = Node::start(index, data, anywhere, &ring).await;
            ring.push(node.local_addr());
            deliveries.push(node.subscribe().await);
            nodes.push(node);
        }
        for number in 0..MESSAGES {
            for (index, node) in nodes.iter().enumerate() {
                node.publish(&key(0, index, number)).await;
            }
        }
        for (index, deliveries) in deliveries.iter_mut().enumerate() {
            let taken = deliveries.take(RING.len() * MESSAGES).await;
            assert_eq!(taken, keys(0, 0..RING.len()), "{}", RING[index].0);
        }

        for away in 0..RING.len() {
            let round = away + 1;
            nodes[away].shutdown().await;
            let others = || (0..RING.len()).filter(|index| *index != away);
            for index in others() {
                for number in 0..MESSAGES {
                    nodes[index].publish(&key(round, index, number)).await;
                }
            }
            for index in others() {
                let taken = deliveries[index].take(others().count() * MESSAGES).await;
                assert_eq!(taken, keys(round, others()), "{}", RING[index].0);
            }
            nodes[away] = Node::start(away, &data[away], ring[away], &ring).await;
            deliveries[away] = nodes[away].subscribe().await;
            let taken = deliveries[away].take(others().count() * MESSAGES).await;
            assert_eq!(taken, keys(round, others()), "{}", RING[away].0);
        }
        for node in &nodes {
            node.shutdown().await;
        }
    });
}
