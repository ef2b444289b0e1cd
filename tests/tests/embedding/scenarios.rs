//! What a program that embeds a node, or is a client of one, relies on. Compiled once per shell.

use std::net::SocketAddr;

use slipstream_core::admin::AdminRequest;
use slipstream_core::config::Config;
use slipstream_core::event::Event as Happened;
use slipstream_core::ids::{DeadLetterId, NodeId};
use slipstream_core::tags::TagSet;
use tempfile::TempDir;

use super::shell::client::{
    AckMode, Client, ClientOptions, Ended, Filter, Kind, Protocol, Publication, PublishError,
    ReadError, Replay, Subscription, SubscriptionEvent,
};
use super::shell::{ConnectError, Exit, Node, Options, StartError};
use super::{run, soon};

/// A node with a folder of its own, which it keeps when it starts again.
struct Site {
    data: TempDir,
    name: &'static str,
    peers: Vec<String>,
    listen: SocketAddr,
    node: Node,
}

impl Site {
    async fn start(name: &'static str, peers: &[&Site]) -> Self {
        let data = tempfile::tempdir().expect("a folder can be made");
        let peers: Vec<String> = peers.iter().map(|peer| peer.url()).collect();
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let node = Self::node(&data, name, &peers, anywhere).await;
        let listen = node.local_addr();
        Self { data, name, peers, listen, node }
    }

    async fn node(data: &TempDir, name: &str, peers: &[String], listen: SocketAddr) -> Node {
        let mut config = Config::new(NodeId::new(name).expect("a name"));
        config.peers = peers.to_vec();
        let options = Options { listen, ..Options::new(config, data.path()) };
        soon(Node::start(options)).await.expect("the node starts")
    }

    /// Ends the node, and starts it again at the same place.
    async fn restart(&mut self) {
        assert_eq!(soon(self.node.shutdown()).await, Exit::Stopped);
        self.node = Self::node(&self.data, self.name, &self.peers, self.listen).await;
    }

    fn url(&self) -> String {
        format!("ws://{}/", self.listen)
    }

    /// A client behind a socket.
    async fn remote(&self) -> Client {
        soon(Client::connect(&self.url(), patient())).await.expect("it connects")
    }

    /// A client within the process, and two behind a socket: one speaks binary frames, the other
    /// JSON.
    async fn clients(&self) -> [Client; 3] {
        let options = ClientOptions { protocol: Protocol::Json, ..patient() };
        let json = soon(Client::connect(&self.url(), options)).await.expect("it connects");
        [self.node.client().clone(), self.remote().await, json]
    }
}

/// Comes back soon after a loss.
fn patient() -> ClientOptions {
    let mut options = ClientOptions::default();
    options.reconnect.initial = std::time::Duration::from_millis(20);
    options.reconnect.max = std::time::Duration::from_millis(100);
    options
}

fn set(key: &str, value: &str) -> Publication {
    Publication::set(key, value)
}

/// The key and value of the next delivery, which is acknowledged.
async fn take(subscription: &mut Subscription) -> (String, String) {
    let delivery = soon(subscription.next()).await.expect("it goes on").expect("it is there");
    let taken = (delivery.key().to_owned(), delivery.value().to_owned());
    delivery.ack();
    taken
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.into(), value.into())
}

#[test]
fn what_was_published_has_a_receipt_and_can_be_read() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let key = format!("order:{index}");
            let message = set(&key, r#"{"amount": 1.10}"#).with_id(format!("m-{index}"));
            let first = soon(client.publish(message.clone())).await.expect("a receipt");
            assert_eq!((&*first.id, first.duplicate), (&*format!("m-{index}"), false));

            let value = soon(client.get(&key)).await.expect("an answer");
            assert_eq!(value.kind.as_deref(), Some("SK"));
            assert_eq!(value.value.as_deref(), Some(r#"{"amount": 1.10}"#), "digits are kept");

            let again = soon(client.publish(message)).await.expect("a receipt");
            assert_eq!((again.duplicate, again.version), (true, first.version), "P9");
            assert_eq!(soon(client.get("nothing")).await.expect("an answer").value, None);
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn a_refusal_names_what_is_wrong_and_the_next_message_passes() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for client in site.clients().await {
            let refused = |publication| async {
                match soon(client.publish(publication)).await {
                    Err(PublishError::Refused(refused)) => {
                        assert!(!refused.retryable);
                        refused.code.to_string()
                    }
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(refused(set("k", "{no json")).await, "INVALID_JSON");
            assert_eq!(refused(set("", "1")).await, "INVALID_FIELD");
            assert_eq!(
                refused(Publication::set_weights("w", r#"{"a": -1}"#)).await,
                "INVALID_FIELD"
            );
            let large = format!("\"{}\"", "x".repeat(2 << 20));
            assert_eq!(refused(set("large", &large)).await, "TOO_LARGE");
            let larger = format!("\"{}\"", "x".repeat(5 << 20));
            assert_eq!(refused(set("larger", &larger)).await, "TOO_LARGE");

            soon(client.publish(Publication::set_array("list", "[1]"))).await.expect("a receipt");
            let publisher = soon(client.publisher("reader")).await.expect("it connects");
            let wrong = publisher.read("list", Some(Kind::Sk));
            let Err(ReadError::Refused(wrong)) = soon(wrong).await else { panic!("it is SA") };
            assert_eq!(&*wrong.code, "WRONG_KIND");
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn the_mesh_is_handed_each_message_once_and_in_order() {
    run(async {
        let aws = Site::start("aws", &[]).await;
        let azure = Site::start("azure", &[&aws]).await;
        for (index, (to, from)) in
            azure.clients().await.into_iter().zip(aws.clients().await).enumerate()
        {
            let prefix = format!("k{index}:");
            let filter = Filter::named(format!("ledger-{index}")).keys([prefix.as_str()]);
            let mut deliveries = soon(to.subscribe(filter)).await.expect("it connects");
            let mut receipts = Vec::new();
            for number in 0..2_000 {
                let message = set(&format!("{prefix}{number}"), &number.to_string());
                receipts.push(soon(from.send(message)).await.expect("it is sent"));
            }
            for receipt in receipts {
                soon(receipt).await.expect("a receipt");
            }
            for number in 0..2_000 {
                let expected = pair(&format!("{prefix}{number}"), &number.to_string());
                assert_eq!(take(&mut deliveries).await, expected);
            }
            soon(deliveries.close()).await;
        }
        soon(azure.node.shutdown()).await;
        soon(aws.node.shutdown()).await;
    });
}

#[test]
fn unsettled_comes_again_and_rejected_is_a_dead_letter() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let filter = || Filter::named(format!("ledger-{index}")).keys([format!("{index}:")]);
            for number in 0..4 {
                let message = set(&format!("{index}:{number}"), "1");
                soon(client.publish(message)).await.expect("a receipt");
            }
            let mut first = soon(client.subscribe(filter())).await.expect("it connects");
            let mut next = async || soon(first.next()).await.expect("more").expect("a delivery");
            next().await.ack();
            next().await.reject("a poison pill");
            let held = next().await;
            next().await.retry("the database is locked");
            let again = next().await;
            assert_eq!((again.key(), again.redelivery), (&*format!("{index}:3"), 1));
            again.ack();
            soon(first.close()).await;
            // What was held when its connection ended is handed to the next one.
            drop(held);

            let mut second = soon(client.subscribe(filter())).await.expect("it connects");
            assert_eq!(take(&mut second).await.0, format!("{index}:2"));
            assert!(matches!(soon(second.next_event()).await, Some(Ok(SubscriptionEvent::Synced))));
            soon(second.close()).await;
        }
        let request = AdminRequest::DeadLetters { after: DeadLetterId::default(), limit: 10 };
        let dead = format!("{:?}", soon(site.node.admin(request)).await.expect("an answer"));
        assert_eq!(dead.matches("last_error: \"a poison pill\"").count(), 3, "{dead}");
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn a_dropped_delivery_comes_again_on_the_same_connection() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let filter = Filter::named(format!("ledger-{index}")).keys([format!("{index}:")]);
            let mut deliveries = soon(client.subscribe(filter)).await.expect("it connects");
            soon(client.publish(set(&format!("{index}:1"), "1"))).await.expect("a receipt");
            drop(soon(deliveries.next()).await.expect("it goes on").expect("a delivery"));
            // After `retry.ack_timeout`, five seconds.
            let again = soon(deliveries.next()).await.expect("it goes on").expect("a delivery");
            assert_eq!(again.redelivery, 1);
            again.ack();
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn a_subscription_begins_as_told_and_says_when_synced() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let prefix = format!("{index}:");
            soon(client.publish(set(&format!("{prefix}old"), "1"))).await.expect("a receipt");
            let all = Filter::all().keys([prefix.as_str()]);
            let mut live = soon(client.subscribe(all.clone())).await.expect("it connects");
            let everything = all.replay(Replay::All).ack(AckMode::Auto);
            let mut replay = soon(client.subscribe(everything)).await.expect("it connects");
            soon(client.publish(set(&format!("{prefix}new"), "2"))).await.expect("a receipt");

            assert_eq!(take(&mut live).await, pair(&format!("{prefix}new"), "2"));
            let Some(Ok(SubscriptionEvent::Delivery(old))) = soon(replay.next_event()).await else {
                panic!()
            };
            assert_eq!((old.key(), old.value()), (&*format!("{prefix}old"), "1"));
            let mut synced = false;
            loop {
                match soon(replay.next_event()).await {
                    Some(Ok(SubscriptionEvent::Synced)) => synced = true,
                    Some(Ok(SubscriptionEvent::Delivery(new))) => {
                        assert_eq!((new.key(), new.value()), (&*format!("{prefix}new"), "2"));
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            while !synced {
                synced =
                    matches!(soon(replay.next_event()).await, Some(Ok(SubscriptionEvent::Synced)));
            }
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn an_application_is_not_handed_what_it_published_itself() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let filter = Filter::named(format!("pi-{index}")).keys([format!("{index}:")]);
            let mut own = soon(client.subscribe(filter)).await.expect("it connects");
            let message = set(&format!("{index}:own"), "1");
            soon(own.publisher().publish(message)).await.expect("a receipt");
            soon(client.publish(set(&format!("{index}:other"), "2"))).await.expect("a receipt");
            assert_eq!(take(&mut own).await.0, format!("{index}:other"));
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn an_application_sees_what_is_in_force_for_it() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let filter = Filter::named(format!("pi-{index}")).keys(["order:", "inv:"]);
            let own = soon(client.subscribe(filter)).await.expect("it connects");
            let in_force = own.publisher().in_force().expect("the node has greeted it");
            let keys = in_force.keys.expect("it receives some keys");
            assert_eq!(keys, ["inv:", "order:"]);
            assert_eq!((in_force.replay, in_force.ack), (Replay::All, AckMode::Manual));
            assert!(!in_force.conflate);
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn a_second_subscription_of_a_name_takes_the_session_over() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for client in site.clients().await {
            let mut first = soon(client.subscribe(Filter::named("pi"))).await.expect("it connects");
            let second = soon(client.subscribe(Filter::named("pi"))).await.expect("it connects");
            let ended = loop {
                match soon(first.next()).await {
                    Some(Ok(_)) => {}
                    Some(Err(ended)) => break ended,
                    None => panic!("the reason is told first"),
                }
            };
            assert!(matches!(ended, Ended::Closed { code: 4409, .. }), "{ended:?}");
            assert!(soon(first.next()).await.is_none());
            soon(second.close()).await;
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn after_a_restart_all_that_was_acknowledged_is_there() {
    run(async {
        let mut site = Site::start("aws", &[]).await;
        let client = site.node.client().clone();
        let mut pending = Vec::new();
        for number in 0..500 {
            let message = set(&format!("k{number}"), &number.to_string());
            pending.push(soon(client.send(message)).await.expect("it is sent"));
        }
        site.restart().await;
        for (number, receipt) in pending.into_iter().enumerate() {
            let there = soon(site.node.get(&format!("k{number}"))).await.expect("an answer");
            match soon(receipt).await {
                Ok(_) => assert!(there.value.is_some(), "k{number} was acknowledged"),
                Err(PublishError::NotSent(_)) => assert_eq!(there.value, None),
                Err(PublishError::Unanswered(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(matches!(
            soon(client.publish(set("late", "1"))).await,
            Err(PublishError::NotSent(Ended::Here))
        ));
        soon(site.node.shutdown()).await;
    });
}

// keeps: client-publish
#[test]
fn a_client_outlives_its_node_and_nothing_happens_twice() {
    run(async {
        let mut site = Site::start("aws", &[]).await;
        let client = site.remote().await;
        let publisher = soon(client.publisher("billing")).await.expect("it connects");
        let filter = || Filter::named("ledger").keys(["order:"]);
        let mut deliveries = soon(client.subscribe(filter())).await.expect("it connects");
        let mut live = soon(client.subscribe(Filter::all())).await.expect("it connects");
        let mut receipts = Vec::new();
        for round in 0..3 {
            for number in 0..300 {
                let order = round * 300 + number;
                let message = set(&format!("order:{order}"), &order.to_string());
                receipts.push(soon(publisher.send(message)).await.expect("it is sent"));
            }
            // In the middle of answers and deliveries.
            assert_eq!(take(&mut deliveries).await.0, format!("order:{}", round * 2));
            let held = soon(deliveries.next()).await.expect("it goes on").expect("a delivery");
            site.restart().await;
            assert_eq!(held.key(), format!("order:{}", round * 2 + 1));
            held.ack();
        }
        for receipt in receipts {
            soon(receipt).await.expect("a named publisher asks until it is answered");
        }
        for order in 6..900 {
            assert_eq!(
                take(&mut deliveries).await,
                pair(&format!("order:{order}"), &order.to_string())
            );
        }
        let lost = loop {
            match soon(live.next()).await {
                Some(Ok(delivery)) => delivery.ack(),
                Some(Err(lost)) => break lost,
                None => panic!("the reason is told first"),
            }
        };
        assert!(matches!(lost, Ended::Closed { code: 1001, .. } | Ended::Lost(_)), "{lost:?}");
        soon(deliveries.close()).await;
        let left = soon(site.node.subscribe(filter())).await.expect("it connects");
        let mut left = left;
        assert!(
            matches!(soon(left.next_event()).await, Some(Ok(SubscriptionEvent::Synced))),
            "all was settled"
        );
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn handles_and_futures_may_be_dropped_at_any_time() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let publisher = soon(client.publisher("billing")).await.expect("it connects");
            for number in 0..100 {
                let message = set(&format!("{index}:{number}"), "1");
                drop(soon(publisher.send(message)).await.expect("it is sent"));
            }
            drop(publisher);
            let filter = Filter::named(format!("ledger-{index}")).keys([format!("{index}:")]);
            for number in 0..100 {
                // Each is let go of with deliveries under way.
                let again = soon(client.subscribe(filter.clone())).await;
                let mut deliveries = again.expect("it connects");
                assert_eq!(take(&mut deliveries).await.0, format!("{index}:{number}"));
                soon(deliveries.close()).await;
            }
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn a_node_tells_what_happens_and_how_it_is() {
    run(async {
        let aws = Site::start("aws", &[]).await;
        let mut events = soon(aws.node.events()).await.expect("it runs");
        let azure = Site::start("azure", &[&aws]).await;
        let mut until = async |wanted: fn(&Happened) -> bool| loop {
            let event = soon(events.next()).await.expect("the node goes on");
            if wanted(&event) {
                break;
            }
        };
        until(|event| matches!(event, Happened::PeerUp { peer, .. } if peer.as_str() == "azure"))
            .await;
        until(|event| matches!(event, Happened::NodeReached { node } if node.as_str() == "azure"))
            .await;
        let status = soon(aws.node.status()).await.expect("it runs");
        assert_eq!(status.links.len(), 1, "{:?}", status.links);
        assert_eq!(soon(azure.node.shutdown()).await, Exit::Stopped);
        until(|event| matches!(event, Happened::PeerDown { peer, .. } if peer.as_str() == "azure"))
            .await;
        until(|event| matches!(event, Happened::NodeLost { node } if node.as_str() == "azure"))
            .await;
        assert_eq!(soon(aws.node.shutdown()).await, Exit::Stopped);
        while soon(events.next()).await.is_some() {}
        assert_eq!(soon(aws.node.ended()).await, Exit::Stopped);
        assert!(aws.node.status().await.is_err());
    });
}

#[test]
fn what_cannot_be_connected_to_says_why() {
    run(async {
        let cases = [("http://127.0.0.1:1/", "must look like"), ("wss://127.0.0.1:1/", "wss")];
        for (url, reason) in cases {
            let error = soon(Client::connect(url, patient())).await.expect_err("it cannot");
            assert!(error.to_string().contains(reason), "{error}");
        }
        let nobody = soon(Client::connect("ws://127.0.0.1:1/", patient())).await;
        assert!(matches!(nobody, Err(ConnectError::Unreachable(_))), "{nobody:?}");

        let site = Site::start("aws", &[]).await;
        for client in site.clients().await {
            let bad = soon(client.subscribe(Filter::named("no spaces, please"))).await;
            match bad {
                Err(ConnectError::Ended(Ended::Closed { code: 4400, reason })) => {
                    assert!(reason.contains("client"), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
        soon(site.node.shutdown()).await;
    });
}

// keeps: client-memory
#[test]
fn a_publisher_that_is_faster_than_its_node_waits() {
    run(async {
        let site = Site::start("aws", &[]).await;
        let options = ClientOptions { window: 10, ..patient() };
        let client = soon(Client::connect(&site.url(), options)).await.expect("it connects");
        let mut pending = Vec::new();
        for number in 0..5_000 {
            let message = set(&format!("k{}", number % 7), &number.to_string());
            pending.push(soon(client.send(message)).await.expect("it is sent"));
        }
        for receipt in pending {
            soon(receipt).await.expect("a receipt");
        }
        assert_eq!(soon(client.get("k0")).await.expect("an answer").value.as_deref(), Some("4998"));
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn tags_say_who_is_handed_what_and_commands_end() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let key = |name: &str| format!("{index}:{name}");
            let filter = |tag: &str| Filter::all().tags([tag]).keys([format!("{index}:")]);
            let mut cards = soon(client.subscribe(filter("cards"))).await.expect("it connects");
            let mut loans = soon(client.subscribe(filter("loans"))).await.expect("it connects");
            let publish = async |publication: Publication| {
                soon(client.publish(publication)).await.expect("a receipt");
            };
            // Taken before the next: whoever is late is not handed what was replaced meanwhile.
            publish(set(&key("a"), "1").to(["cards"])).await;
            assert_eq!(take(&mut cards).await, pair(&key("a"), "1"));
            publish(set(&key("b"), "2").to(["loans", "cards"])).await;
            assert_eq!(take(&mut cards).await, pair(&key("b"), "2"));
            assert_eq!(take(&mut loans).await, pair(&key("b"), "2"));
            publish(Publication::command(key("c"), r#"{"do":"reboot"}"#).to(["loans"])).await;
            let command = soon(loans.next()).await.expect("it goes on").expect("a delivery");
            assert_eq!((command.kind(), command.tags()), ("CMD", "loans"));
            publish(Publication::delete(key("a")).to(["cards"])).await;
            let deleted = soon(cards.next()).await.expect("it goes on").expect("a delivery");
            assert_eq!((deleted.kind(), deleted.key()), ("DK", &*key("a")));
            let millisecond = std::time::Duration::from_millis(1);
            publish(Publication::command(key("d"), "1").with_ttl(millisecond).to(["nobody"])).await;
            // Whoever comes before that millisecond is over is handed it; then nobody is.
            let nobody = filter("nobody").replay(Replay::All);
            let expired = async {
                loop {
                    let mut late = client.subscribe(nobody.clone()).await.expect("it connects");
                    match late.next_event().await.expect("it goes on").expect("a replay") {
                        SubscriptionEvent::Synced => break,
                        SubscriptionEvent::Delivery(early) => assert_eq!(early.key(), key("d")),
                    }
                }
            };
            soon(expired).await;
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn what_is_refused_for_now_says_so_and_passes_later() {
    run(async {
        let data = tempfile::tempdir().expect("a folder can be made");
        let mut config = Config::new(NodeId::new("aws").expect("a name"));
        config.limits.publish_rate = 5;
        let listen = "127.0.0.1:0".parse().expect("an address");
        let options = Options { listen, ..Options::new(config, data.path()) };
        let node = soon(Node::start(options)).await.expect("the node starts");
        let mut pending = Vec::new();
        // Fewer than end a connection, and more than pass in the time that the test may take.
        for number in 0..90 {
            pending.push(soon(node.send(set("k", &number.to_string()))).await.expect("it is sent"));
        }
        let (mut receipts, mut refusals) = (0, Vec::new());
        for receipt in pending {
            match soon(receipt).await {
                Ok(_) => {
                    assert!(receipts >= 5 || refusals.is_empty(), "a second's worth passes first");
                    receipts += 1;
                }
                Err(PublishError::Refused(refused)) => refusals.push(refused),
                Err(other) => panic!("{other}"),
            }
        }
        let last = refusals.last().expect("ninety at once are too many");
        assert_eq!((&*last.code, last.retryable), ("RATE_LIMITED", true));
        let wait = last.retry_after.expect("it is known when");
        assert!(wait <= std::time::Duration::from_secs(1), "{wait:?}");
        let again = async {
            loop {
                // A hundred refusals in a row would close the connection; it is opened again.
                if let Ok(receipt) = node.publish(set("k", "20")).await {
                    break receipt;
                }
            }
        };
        soon(again).await;
        soon(node.shutdown()).await;
    });
}

#[test]
fn a_node_that_cannot_start_says_why() {
    run(async {
        let site = Site::start("aws", &[]).await;
        let start = async |data: &std::path::Path, listen: SocketAddr, peer: &str| {
            let mut config = Config::new(NodeId::new("aws").expect("a name"));
            config.peers = vec![peer.into()];
            let options = Options { listen, ..Options::new(config, data) };
            soon(Node::start(options)).await.expect_err("it cannot start")
        };
        let other = tempfile::tempdir().expect("a folder can be made");
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let peer = "ws://127.0.0.1:1/";
        let in_use = start(site.data.path(), anywhere, peer).await;
        assert!(matches!(in_use, StartError::Store(_)), "{in_use:?}");
        let occupied = start(other.path(), site.listen, peer).await;
        assert!(matches!(occupied, StartError::Listen { .. }), "{occupied:?}");
        let bad = start(other.path(), anywhere, "azure:7400").await;
        assert!(matches!(bad, StartError::Peer(_)), "{bad:?}");
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn peers_and_tags_change_while_a_node_runs() {
    run(async {
        let aws = Site::start("aws", &[]).await;
        let azure = Site::start("azure", &[]).await;
        let mut deliveries = soon(azure.node.subscribe(Filter::named("ledger"))).await;
        let deliveries = deliveries.as_mut().expect("it connects");
        let targeted = set("order:1", "1").to(["europe"]);
        soon(aws.node.publish(targeted)).await.expect("a receipt");
        let tags = TagSet::new(["europe"]).expect("tags");
        soon(azure.node.reconfigure(vec![aws.url()], tags)).await.expect("it runs");
        assert_eq!(take(deliveries).await, pair("order:1", "1"));
        soon(azure.node.shutdown()).await;
        soon(aws.node.shutdown()).await;
    });
}

#[test]
fn who_asks_for_the_newest_alone_is_told_how_much_was_left_out() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let filter = || {
                let name = format!("screen-{index}");
                Filter::named(name).keys([format!("{index}:")]).conflate()
            };
            let screen = soon(client.subscribe(filter())).await.expect("it connects");
            soon(screen.close()).await;
            let mut receipts = Vec::new();
            for number in 0..1_000 {
                let message = set(&format!("{index}:{}", number % 3), &number.to_string());
                receipts.push(soon(client.send(message)).await.expect("it is sent"));
            }
            for receipt in receipts {
                soon(receipt).await.expect("a receipt");
            }
            let mut screen = soon(client.subscribe(filter())).await.expect("it connects");
            let mut left_out = 0;
            for number in 997..1_000 {
                let newest = soon(screen.next()).await.expect("it goes on").expect("a delivery");
                assert_eq!(newest.value(), number.to_string());
                left_out += newest.conflated;
                newest.ack();
            }
            assert_eq!(left_out, 997);
        }
        soon(site.node.shutdown()).await;
    });
}

// keeps: client-deliver
#[test]
fn a_dropped_subscription_leaves_its_session_to_the_next() {
    run(async {
        let site = Site::start("aws", &[]).await;
        for (index, client) in site.clients().await.into_iter().enumerate() {
            let filter = || Filter::named(format!("ledger-{index}")).keys([format!("{index}:")]);
            for number in 0..3 {
                let message = set(&format!("{index}:{number}"), "1");
                soon(client.publish(message)).await.expect("a receipt");
            }
            let mut first = soon(client.subscribe(filter())).await.expect("it connects");
            assert_eq!(take(&mut first).await.0, format!("{index}:0"));
            let held = soon(first.next()).await.expect("it goes on").expect("a delivery");
            let publisher = first.publisher().clone();
            drop(first);
            let ended = async { while publisher.get("k").await.is_ok() {} };
            soon(ended).await;
            // It is too late for this word: the next one is handed the message again.
            held.ack();
            let mut second = soon(client.subscribe(filter())).await.expect("it connects");
            assert_eq!(take(&mut second).await.0, format!("{index}:1"));
            assert_eq!(take(&mut second).await.0, format!("{index}:2"));
            assert!(matches!(soon(second.next_event()).await, Some(Ok(SubscriptionEvent::Synced))));
            soon(second.close()).await;
        }
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn what_is_closed_while_its_node_is_away_does_not_come_back() {
    run(async {
        let mut site = Site::start("aws", &[]).await;
        let client = site.remote().await;
        let idle = soon(client.subscribe(Filter::named("ledger"))).await.expect("it connects");
        let publisher = soon(client.publisher("billing")).await.expect("it connects");
        assert_eq!(soon(site.node.shutdown()).await, Exit::Stopped);
        soon(idle.close()).await;
        soon(publisher.close()).await;
        site.node = Site::node(&site.data, site.name, &site.peers, site.listen).await;
        let mut next = soon(client.subscribe(Filter::named("ledger"))).await.expect("it connects");
        soon(client.publish(set("k", "1"))).await.expect("a receipt");
        assert_eq!(take(&mut next).await, pair("k", "1"));
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn a_client_that_gave_up_says_why_and_begins_anew() {
    run(async {
        let mut site = Site::start("aws", &[]).await;
        let mut options = patient();
        options.reconnect.max_attempts = 1;
        let client = soon(Client::connect(&site.url(), options)).await.expect("it connects");
        let publisher = soon(client.publisher("billing")).await.expect("it connects");
        assert_eq!(soon(site.node.shutdown()).await, Exit::Stopped);
        let error = soon(publisher.publish(set("k", "1"))).await.expect_err("it has given up");
        assert!(matches!(&error, PublishError::NotSent(Ended::Lost(_))), "{error:?}");
        let error = soon(client.publish(set("k", "1"))).await.expect_err("nobody is there");
        assert!(matches!(error, PublishError::NotSent(Ended::Lost(_))), "{error:?}");
        site.node = Site::node(&site.data, site.name, &site.peers, site.listen).await;
        soon(client.publish(set("k", "1"))).await.expect("a receipt");
        soon(site.node.shutdown()).await;
    });
}

#[test]
fn an_application_that_was_refused_leaves_nothing_behind() {
    run(async {
        let site = Site::start("aws", &[]).await;
        let client = site.node.client().clone();
        soon(client.subscribe(Filter::named("no spaces"))).await.expect_err("it is refused");
        // Given up half-way, at any point of the way.
        for polls in 0..6 {
            let mut opening = Box::pin(client.subscribe(Filter::all()));
            for _ in 0..polls {
                let mut one =
                    |cx: &mut std::task::Context<'_>| opening.as_mut().poll(cx).is_ready();
                if std::future::poll_fn(|cx| std::task::Poll::Ready(one(cx))).await {
                    break;
                }
            }
        }
        let last = soon(client.subscribe(Filter::all())).await.expect("it connects");
        soon(last.close()).await;
        let nobody_is_left =
            async { while !site.node.status().await.expect("it runs").links.is_empty() {} };
        soon(nobody_is_left).await;
        assert_eq!(soon(site.node.shutdown()).await, Exit::Stopped);
    });
}

/// What is spawned has to be able to move between threads.
fn movable<T: Send + 'static>(_: &T) {}

#[test]
fn everything_can_be_used_from_any_thread() {
    run(async {
        let site = Site::start("aws", &[]).await;
        let node = site.node.clone();
        movable(&node);
        let future = async move {
            let receipt = node.publish(set("k", "1")).await;
            let subscription = node.subscribe(Filter::named("ledger")).await;
            (receipt.is_ok(), subscription)
        };
        movable(&future);
        let (published, subscription) = soon(future).await;
        assert!(published);
        movable(&subscription);
        soon(site.node.shutdown()).await;
    });
}
