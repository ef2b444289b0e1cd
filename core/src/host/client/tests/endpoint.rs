//! Clients with their tasks and connections, on a clock that is set by hand.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};

use crate::app::tests::welcome;
use crate::app::*;
use crate::config::{Durability, Reconnect};
use crate::host::channel::{self, ChannelReceiver};
use crate::host::client::*;
use crate::host::connection::links::Link;
use crate::host::connection::memory::Memory;
use crate::host::connection::{self, Incoming, Inputs};
use crate::host::runtime::by_hand::{self, ByHand, start, taken};
use crate::host::socket::Opened;
use crate::io::{Frame, Protocol};
use crate::types::clock::Hlc;
use crate::types::ids::LinkId;
use crate::wire::{self, BatchKind, FrameWriter, Publish, Wire, json};

/// The loop of a node that greets and gives receipts.
struct Host {
    inputs: Inputs<ByHand>,
    received: ChannelReceiver<Incoming<ByHand>>,
    links: Vec<(LinkId, Link)>,
    /// Ids that were published, in order.
    published: Vec<String>,
}

impl Host {
    fn new() -> Self {
        let (inputs, received) = channel::bounded::<ByHand, _>(8);
        Self { inputs, received, links: Vec::new(), published: Vec::new() }
    }

    /// The next dial leads here.
    fn answer_dial(&mut self) {
        let (there, here) = Memory::pair::<ByHand>(1 << 20);
        let opened =
            |socket| Opened::new(socket, Protocol::Postcard, "somewhere".into(), String::new());
        by_hand::answer_dial(opened(there));
        self.inputs.push(Incoming::<ByHand>::Opened(Box::new(
            connection::through_socket::<ByHand>(opened(here)),
        )));
    }

    fn serve(&mut self) {
        by_hand::settle();
        while let Some(incoming) = self.received.try_next() {
            match incoming {
                Incoming::<ByHand>::Opened(mut opened) => {
                    let last = self.links.last().map_or(LinkId::default(), |(id, _)| *id);
                    opened.up.link = last.next();
                    let id = opened.up.link;
                    let link = connection::open::<ByHand>(*opened, self.inputs.clone());
                    self.links.push((id, link));
                }
                Incoming::<ByHand>::Received(id, frames, _) => {
                    let known = self.links.iter_mut().find(|(known, _)| *known == id);
                    let (_, link) = known.expect("it was opened");
                    for frame in frames {
                        let Frame::Binary(bytes) = frame else { continue };
                        match Wire::decode(&bytes).expect("a client speaks well") {
                            Wire::Connect(_) => {
                                let welcome = Wire::Welcome(welcome()).encode();
                                link.transmit(Frame::Binary(welcome));
                            }
                            Wire::Publish(batch) => {
                                let (ids, receipts) = receipts(&batch);
                                self.published.extend(ids);
                                link.transmit(Frame::Binary(receipts));
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    link.flush();
                }
                _ => {}
            }
            by_hand::settle();
        }
    }
}

fn receipts(batch: &[u8]) -> (Vec<String>, Bytes) {
    let (mut ids, mut writer) = (Vec::new(), FrameWriter::new(BatchKind::Outcomes));
    for publish in wire::records::<Publish<'_>>(batch).expect("a client speaks well") {
        ids.push(publish.id.to_string());
        writer.push(&wire::OutcomeRecord::Receipt {
            id: publish.id,
            version: Hlc::default(),
            duplicate: false,
            level: Durability::Full,
        });
    }
    (ids, writer.finish())
}

#[test]
fn an_in_process_client_leaves_no_connection_behind() {
    let mut host = Host::new();
    let client = Client::<ByHand>::here(host.inputs.clone(), ClientOptions::default());
    let publishing = {
        let client = client.clone();
        start(async move { client.publish(Publication::set("k", "1")).await })
    };
    host.serve();
    let receipt = taken(&publishing).expect("it is answered").expect("it is accepted");
    assert_eq!(host.published, [receipt.id.to_string()]);
    drop(client);
    by_hand::pass(Duration::from_secs(1));
    let downs = core::iter::from_fn(|| host.received.try_next())
        .filter(|incoming| matches!(incoming, Incoming::<ByHand>::Received(_, _, Some(_))));
    assert_eq!(downs.count(), 1, "whoever is not needed any more closes");
}

#[test]
fn whoever_publishes_at_a_node_that_has_ended_is_told() {
    let host = Host::new();
    let client = Client::<ByHand>::here(host.inputs.clone(), ClientOptions::default());
    drop(host);
    let publishing = start(async move { client.publish(Publication::set("k", "1")).await });
    let told = taken(&publishing);
    assert!(matches!(told, Some(Err(PublishError::NotSent(DisconnectReason::Here)))), "{told:?}");
}

#[test]
fn an_unreachable_node_is_an_error_first_and_awaited_later() {
    let options = ClientOptions::default();
    let limit = options.timeout;
    let connect = |options| start(Client::<ByHand>::connect("ws://node/?token=secret", options));
    let failed = connect(options.clone());
    by_hand::pass(limit);
    let failed = taken(&failed).expect("in time").expect_err("nobody is there");
    assert!(matches!(failed, ConnectError::TimedOut(_)), "{failed:?}");
    let dialled = by_hand::dialled();
    assert!(matches!(&dialled[..], [url] if url.starts_with("ws://node/?")), "{dialled:?}");
    assert!(!dialled[0].contains("secret"), "the query string may hold a token: {dialled:?}");

    let mut host = Host::new();
    host.answer_dial();
    let client = connect(options);
    host.serve();
    let client = taken(&client).expect("in time").expect("it is there");
    host.links.clear();
    by_hand::settle();
    assert!(matches!(by_hand::lost()[..], []), "it is not dialled again at once");
    let publishing = start(async move { client.publish(Publication::set("k", "1")).await });
    host.answer_dial();
    by_hand::pass(Reconnect::default().initial);
    assert_eq!(by_hand::lost().len(), 1);
    host.serve();
    let published = taken(&publishing).expect("it is answered");
    assert!(published.is_ok(), "{published:?}");
    assert_eq!(host.published.len(), 1);
}

#[test]
fn a_json_client_awaits_the_greeting_and_hears_of_each_loss() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let lost = told.clone();
    let options = ClientOptions {
        protocol: Protocol::Json,
        query: "token=t".into(),
        on_lost: Some(Arc::new(move |why: &DisconnectReason| {
            lost.lock().expect("one thread").push(why.clone());
        })),
        ..ClientOptions::default()
    };
    let client = Client::<ByHand>::new("ws://node?secret", options);
    assert_eq!(by_hand::dialled(), [""; 0], "nobody wants anything yet");
    let (there, here) = Memory::pair::<ByHand>(1 << 20);
    by_hand::answer_dial(Opened::new(there, Protocol::Json, "somewhere".into(), String::new()));
    let (inputs, mut received) = channel::bounded::<ByHand, _>(8);
    let node = Opened::new(here, Protocol::Json, "somewhere".into(), String::new());
    let mut link = connection::open::<ByHand>(connection::through_socket::<ByHand>(node), inputs);
    let opening = start(async move { client.publisher_as(Filter::all().tags(["a"])).await });
    assert_eq!(by_hand::dialled(), ["ws://node/?token=t&tags=a&keys=&ack=manual"]);
    assert!(received.try_next().is_none(), "the node speaks first");
    let mut greeting = BytesMut::new();
    json::write::welcome(&welcome(), &mut greeting);
    link.transmit(Frame::Text(greeting.freeze()));
    link.flush();
    by_hand::settle();
    let publisher = taken(&opening).expect("in time").expect("it is there");
    assert_eq!(publisher.welcome().map(|welcome| welcome.instance), Some("n".into()));
    let asking = publisher.clone();
    let _asking = start(async move { asking.get("k").await });
    let asked = core::iter::from_fn(|| received.try_next()).find_map(|incoming| match incoming {
        Incoming::<ByHand>::Received(_, frames, _) => Some(frames),
        _ => None,
    });
    assert!(matches!(asked.as_deref(), Some([Frame::Text(_)])), "{asked:?}");
    drop(link);
    by_hand::settle();
    let told = told.lock().expect("one thread");
    assert!(
        matches!(&told[..], [DisconnectReason::Closed { .. } | DisconnectReason::Lost(_)]),
        "{told:?}"
    );
}
