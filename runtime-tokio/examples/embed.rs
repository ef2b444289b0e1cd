//! A node inside a service: the service publishes and receives without a socket in between, and
//! the node exchanges what is published with its peers.
//!
//! ```text
//! cargo run -p slipstream-tokio --example embed -- DATA_DIR [PEER_URL ...]
//! ```

use std::error::Error;
use std::path::PathBuf;

use slipstream_tokio::client::{Filter, Publication};
use slipstream_tokio::core::config::Config;
use slipstream_tokio::core::ids::NodeId;
use slipstream_tokio::core::tags::TagSet;
use slipstream_tokio::{Node, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let data_dir = PathBuf::from(args.next().ok_or("where is the data to be kept?")?);

    let mut config = Config::new(NodeId::new("aws-eu-1")?);
    config.tags = TagSet::new(["aws"])?;
    config.peers = args.collect();
    let listen = "127.0.0.1:0".parse()?;
    let node = Node::start(Options { listen, ..Options::new(config, data_dir) }).await?;
    println!("other nodes and applications connect to ws://{}/", node.local_addr());

    // A durable name: what is not acknowledged is handed over again after a restart.
    let mut orders = node.subscribe(Filter::named("ledger").keys(["order:"])).await?;

    // Each is on disk before its receipt is there. They share commits, because nobody waits.
    let mut receipts = Vec::new();
    for number in 1..=3 {
        let order = Publication::set(format!("order:{number}"), r#"{"amount": 1.10}"#);
        receipts.push(node.send(order.to(["aws", "azure"])).await?);
    }
    for receipt in receipts {
        println!("{} is durable", receipt.await?.id);
    }

    for _ in 1..=3 {
        let order = orders.next().await.ok_or("the node has ended")??;
        println!("{} = {}", order.key(), order.value());
        order.ack();
    }

    // What was said is said before the end, and what was accepted is committed.
    orders.close().await;
    println!("{:?}", node.shutdown().await);
    Ok(())
}
