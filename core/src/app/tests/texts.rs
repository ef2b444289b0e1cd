//! What sessions say in JSON, where each question is a frame of its own.

use super::*;
use crate::types::rate::Random;
use crate::wire::application::InForce;

fn session() -> App {
    let protocol = Protocol::Json;
    ClientSession::new(ClientSettings { protocol, window: 3 * 4096, ..settings(true) }, 42, NOW)
}

fn connected() -> App {
    let mut app = session();
    app.connected(&welcome(), NOW, &mut Vec::new());
    app
}

/// The text frames that it sends now.
fn said(app: &mut App, heard: &mut Vec<Heard<usize, usize>>) -> Vec<String> {
    let text = |frame| match frame {
        Frame::Text(text) => String::from_utf8(text.into()).expect("text"),
        other => panic!("{other:?}"),
    };
    app.frames(NOW, heard).into_iter().map(text).collect()
}

fn hear(app: &mut App, frame: &str) -> Vec<Heard<usize, usize>> {
    let mut heard = Vec::new();
    let frame = Frame::Text(String::from(frame).into());
    app.received(&frame, NOW, &mut heard).expect("it is understood");
    heard
}

#[test]
fn a_read_of_any_kind_asks_for_each_in_turn() {
    let mut app = connected();
    app.read("k".into(), None, 7);
    for kind in ["GK", "GA"] {
        let asked = said(&mut app, &mut Vec::new());
        let [asked] = &asked[..] else { panic!("{asked:?}") };
        assert!(asked.contains(&format!(r#""type":"{kind}""#)), "{asked}");
        let id = asked.split(r#""messageId":""#).nth(1).and_then(|rest| rest.split('"').next());
        let id = id.expect("it has an id");
        let wrong = format!(r#"{{"type":"ERR","re":"{id}","frame":1,"code":"WRONG_KIND"}}"#);
        assert!(hear(&mut app, &wrong).is_empty(), "it asks on");
    }
    // What is asked for stays so on another connection.
    app.lost(&lost(), &mut Vec::new());
    app.connected(&welcome(), NOW, &mut Vec::new());
    let asked = said(&mut app, &mut Vec::new()).concat();
    assert!(asked.contains(r#""type":"GW""#), "{asked}");
    let id = format!("{:016x}-1", Random::new(42).next());
    let wrong = format!(r#"{{"type":"ERR","re":"{id}","frame":1,"code":"WRONG_KIND"}}"#);
    let heard = hear(&mut app, &wrong);
    assert!(matches!(&heard[..], [Heard::Read(7, Err(ReadError::Refused(_)))]), "{heard:?}");

    app.read("k".into(), Some(Kind::Sw), 8);
    let asked = said(&mut app, &mut Vec::new()).concat();
    assert!(asked.contains(r#""type":"GW""#), "{asked}");
    let wrong = wrong.replace("-1\"", "-2\"");
    let heard = hear(&mut app, &wrong);
    assert!(matches!(&heard[..], [Heard::Read(8, Err(ReadError::Refused(_)))]), "{heard:?}");
}

#[test]
fn what_is_no_json_or_too_large_is_refused_here_alone() {
    let mut app = connected();
    app.publish(Publication::set("k", "{no json"), 1);
    app.publish(Publication::set("k", "1").with_id("good"), 2);
    // Escaped, it is six times as long.
    app.publish(Publication::set("\u{1}".repeat(900), "1"), 3);
    let mut heard = Vec::new();
    let said = said(&mut app, &mut heard);
    assert_eq!(said, [r#"{"type":"SK","messageId":"good","key":"k","value":1}"#]);
    let codes: Vec<_> = heard
        .iter()
        .map(|heard| match heard {
            Heard::Published(ticket, Err(PublishError::Refused(refused))) => {
                (*ticket, refused.code.as_str())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [(1, "INVALID_JSON"), (3, "TOO_LARGE")]);
    let receipt = r#"{"type":"ACK","messageId":"good","version":"000000000001-0002-n",
        "level":"durable"}"#;
    let heard = hear(&mut app, receipt);
    let [Heard::Published(2, Ok(receipt))] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((receipt.version, receipt.level), (Hlc(0x1_0002), Durability::Full));
    assert!(app.is_idle());
}

#[test]
fn a_receipt_without_a_version_ends_the_connection() {
    for version in ["", "1", "1-1", "x-0000-n", "1000000000000-0000-n", "0-10000-n"] {
        let mut app = connected();
        app.publish(Publication::set("k", "1").with_id("m"), 1);
        app.frames(NOW, &mut Vec::new());
        let receipt = format!(r#"{{"type":"ACK","messageId":"m","version":"{version}"}}"#);
        let received = app.received(&Frame::Text(receipt.into()), NOW, &mut Vec::new());
        assert!(matches!(received, Err(CodecError::Protocol(_))), "{version}");
    }
}

#[test]
fn an_empty_tag_stays_for_the_node_to_refuse() {
    let mut app = connected();
    app.publish(Publication::set("k", "1").with_id("m").to([""]), 1);
    app.publish(Publication::set("k", "1").with_id("m").to(["b", "a"]), 2);
    let said = said(&mut app, &mut Vec::new());
    assert!(said[0].contains(r#""targetedTags":["",""]"#), "{said:?}");
    assert!(said[1].contains(r#""targetedTags":["b","a"]"#), "{said:?}");
}

#[test]
fn a_connection_is_given_so_many_frames_at_a_time() {
    let mut app = connected();
    for ticket in 0..2 * 4096 + 1 {
        app.publish(Publication::set("k", "1"), ticket);
    }
    let counts: Vec<_> = (0..4).map(|_| app.frames(NOW, &mut Vec::new()).len()).collect();
    assert_eq!(counts, [4096, 4096, 1, 0]);
}

// keeps: client-deliver
#[test]
fn a_number_with_another_version_is_another_message() {
    let mut app = connected();
    let delivery = |version| {
        format!(
            r#"{{"type":"SK","messageId":"m","key":"k","value":1,"deliveryId":1,
               "version":"{version}"}}"#
        )
    };
    assert_eq!(hear(&mut app, &delivery("1-1-n")).len(), 1);
    assert_eq!(hear(&mut app, &delivery("1-1-n")).len(), 0, "it is in its hands");
    assert_eq!(hear(&mut app, &delivery("1-2-n")).len(), 1);
}

#[test]
fn nothing_is_acknowledged_where_nobody_waits_for_it() {
    for (ack, said) in [(AckMode::Manual, 1), (AckMode::Auto, 0)] {
        let mut world = World::speaking(true, true);
        let in_force = InForce { keys: None, replay: Replay::New, ack, conflate: false };
        let greeting = Welcome { in_force: Some(in_force), ..welcome() };
        world.app.connected(&greeting, NOW, &mut Vec::new());
        world.step(&Step::NodeDelivers);
        world.step(&Step::AppReads);
        let held = world.hands.pop().expect("it was handed over");
        world.app.settle(Settlement::of(&held, Some(Verdict::Ack)));
        assert_eq!(world.app.frames(NOW, &mut Vec::new()).len(), said, "{ack:?}");
        assert!(world.app.is_idle());
    }
}

#[test]
fn what_a_program_adds_to_the_query_stands_before_its_filter() {
    let mut options = ClientOptions::default();
    let filter = Filter::named("a").keys(["order:"]);
    assert_eq!(
        options.url("ws://n:1?token=secret", &filter),
        "ws://n:1/?client=a&keys=order%3A&ack=manual"
    );
    options.query = "token=t&ack=auto".into();
    assert_eq!(
        options.url("ws://n:1/x", &filter),
        "ws://n:1/x?token=t&ack=auto&client=a&keys=order%3A"
    );
}
