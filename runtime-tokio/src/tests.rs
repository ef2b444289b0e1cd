//! Connections to the shell's own code, and how the daemon's client speaks over them.

#[path = "../../tests/shells/connections.rs"]
mod connections;

/// What the connections run on.
mod runtime {
    pub(super) use tokio::io::{AsyncReadExt, AsyncWriteExt};
    pub(super) use tokio::net::{TcpListener, TcpStream};

    pub(super) use crate::runtime::Tokio as Runtime;

    pub(super) fn run(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(test);
    }
}

#[cfg(feature = "daemon")]
mod client {
    //! How the daemon's client speaks over a connection.
    use bytes::Bytes;
    use slipstream_core::client::{ClientOptions, CodecError, Outcome, Received};
    use slipstream_core::config::{Durability, Limits};
    use slipstream_core::io::{Close, CloseCode, Frame, Protocol};
    use slipstream_core::links::Link;
    use slipstream_core::message::Kind;
    use slipstream_core::wire::{self, BatchKind, FrameWriter, Publish, Welcome, Wire};

    use super::connections::{Door, Incoming, limits, soon};
    use crate::daemon::connection::{Connection, ConnectionError, ConnectionOptions};

    /// Answers every message of one application, and delivers it back.
    async fn fake_node(mut door: Door, protocol: Protocol) {
        let mut link = door.link().await;
        let send = |link: &mut Link, frame: Frame| {
            link.transmit(frame);
            link.flush();
        };
        if protocol == Protocol::Json {
            let welcome = br#"{"type":"WELCOME","instanceId":"n","client":null,"resumed":false,
            "tags":["a","b"],"window":256,"maxMessageBytes":9,"version":"1"}"#;
            send(&mut link, Frame::Text(Bytes::from_static(welcome)));
        }
        loop {
            let Incoming::Received(_, frames, end) = door.inputs.next().await else { continue };
            for frame in frames {
                match frame {
                    Frame::Binary(bytes) => match Wire::decode(&bytes).unwrap() {
                        Wire::Connect(_) => send(&mut link, Frame::Binary(greeting())),
                        Wire::Publish(batch) => {
                            send(&mut link, Frame::Binary(receipts(&batch)));
                            send(&mut link, Frame::Binary(Wire::Synced.encode()));
                        }
                        other => panic!("{other:?}"),
                    },
                    Frame::Text(text) => {
                        let text = std::str::from_utf8(&text).unwrap();
                        assert!(text.contains(r#""value":{"a": 1.10}"#), "{text}");
                        assert!(text.contains(r#""targetedTags":["x","y"]"#), "{text}");
                        let receipt = br#"{"type":"ACK","messageId":"m","version":"0-0-n",
                        "level":"durable"}"#;
                        let delivery = br#"{"type":"SK","messageId":"m\n","key":"k",
                        "value":{"a": 1.10},"originInstanceId":"n","sourceInstanceId":"n",
                        "messagePath":["n","o"],"version":"0-0-n","deliveryId":17,"redelivery":2,
                        "conflated":3}"#;
                        send(&mut link, Frame::Text(Bytes::from_static(receipt)));
                        send(&mut link, Frame::Text(Bytes::from_static(delivery)));
                    }
                    Frame::Ping(_) | Frame::Pong(_) => {}
                }
            }
            if let Some(end) = end {
                link.end(end);
            }
        }
    }

    fn greeting() -> Bytes {
        let welcome = Welcome {
            protocol: 1,
            instance: "n".into(),
            client: String::new(),
            resumed: false,
            tags: "a,b".into(),
            window: 256,
            max_message_bytes: 9,
            version: "1".into(),
            in_force: None,
        };
        Wire::Welcome(welcome).encode()
    }

    fn receipts(batch: &[u8]) -> Bytes {
        let mut writer = FrameWriter::new(BatchKind::Outcomes);
        for publish in wire::records::<Publish<'_>>(batch).unwrap() {
            writer.push(&wire::Outcome::Receipt {
                id: publish.id,
                version: Default::default(),
                duplicate: false,
                level: Durability::Full,
            });
        }
        writer.finish()
    }

    async fn connected(protocol: Protocol, window: usize) -> Connection {
        let door = Door::open(Limits { max_message_bytes: 1 << 20, ..limits() }).await;
        let url = door.url();
        tokio::spawn(fake_node(door, protocol));
        let client = ClientOptions { window, ..ClientOptions::default() };
        let options = ConnectionOptions { protocol, client };
        let client = soon(Connection::connect(&url, &options)).await.unwrap();
        assert_eq!((client.welcome.instance.as_str(), client.welcome.tags.as_str()), ("n", "a,b"));
        client
    }

    fn publication(id: &str) -> Publish<'_> {
        Publish { kind: Kind::Sk, id, key: "k", tags: "x,y", ttl_ms: 0, body: r#"{"a": 1.10}"# }
    }

    #[tokio::test]
    async fn a_client_gets_its_receipts_in_order_through_a_small_window() {
        let mut client = connected(Protocol::Postcard, 100).await;
        let ids: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
        let messages: Vec<_> = ids.iter().map(|id| publication(id)).collect();
        let mut outcomes = Vec::new();
        soon(client.publish(&messages, &mut outcomes)).await.unwrap();
        let received: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Receipt { id, .. } => id.as_str(),
                Outcome::Refused(refused) => panic!("{refused}"),
            })
            .collect();
        assert_eq!(received, ids);
        assert!(matches!(soon(client.receiver.next()).await, Ok(Received::Synced)));
    }

    #[tokio::test]
    async fn a_client_speaks_json_and_leaves_values_as_they_are() {
        let mut client = connected(Protocol::Json, 100).await;
        let mut outcomes = Vec::new();
        soon(client.publish(&[publication("m")], &mut outcomes)).await.unwrap();
        assert!(matches!(&outcomes[..], [Outcome::Receipt { id, .. }] if id.as_str() == "m"));
        let Ok(Received::Deliveries(deliveries)) = soon(client.receiver.next()).await else {
            panic!()
        };
        let [delivery] = &deliveries[..] else { panic!() };
        assert_eq!((delivery.id.get(), delivery.redelivery, delivery.conflated), (17, 2, 3));
        assert_eq!((delivery.message_id(), delivery.value()), ("m\n", r#"{"a": 1.10}"#));
        assert_eq!((delivery.path(), delivery.kind()), ("n,o", "SK"));
        let bad = [Publish { body: "{", ..publication("m") }];
        let refused = soon(client.publish(&bad, &mut outcomes)).await;
        assert!(
            matches!(refused, Err(ConnectionError::Codec(CodecError::BadValue { .. }))),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_client_hears_why_it_was_closed() {
        let mut door = Door::open(limits()).await;
        let url = door.url();
        let closing = tokio::spawn(async move {
            let mut link = door.link().await;
            link.close(Close { code: CloseCode::Unauthorized, reason: "who are you?".into() });
            door.down().await;
        });
        let refused = soon(Connection::connect(&url, &ConnectionOptions::default())).await;
        assert!(
            matches!(&refused, Err(ConnectionError::Closed { code: 4401, reason, by_node: true })
            if reason == "who are you?"),
            "{refused:?}"
        );
        soon(closing).await.unwrap();
    }
}
