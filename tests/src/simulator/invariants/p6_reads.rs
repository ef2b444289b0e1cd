//! P6: a read is answered with what somebody published, is durable there and matches the
//! application; and never with an older value than the newest that the application was given a
//! receipt for, was handed, or has read before.

use hashbrown::{HashMap, HashSet};

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, Party, View};
use crate::simulator::frames::{Answer, Item};
use crate::simulator::ledger::MessageNo;
use crate::simulator::wrong_clock::is_newer;

/// The newest that each application knows of each key.
#[derive(Debug, Default)]
pub struct Rule {
    known: HashMap<usize, HashMap<String, MessageNo>>,
    /// Applications that still hear what their node sent before its store was set back.
    set_back: HashSet<usize>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::AppConnected { app } => {
                self.set_back.remove(app);
            }
            Fact::SetBack { site } => {
                self.known.retain(|app, _| view.apps[*app].site != *site);
                let here = view.apps.iter().filter(|app| app.site == *site);
                self.set_back.extend(here.map(|app| app.index));
            }
            Fact::AppHeard { app, item: Item::Delivery(delivery) } => {
                let number = view.ledger.by_version(&delivery.version, &delivery.id);
                self.learn(*app, number, view);
            }
            Fact::AppHeard {
                app,
                item: Item::Answer(Answer::Receipt { version, id, duplicate: false }),
            } => self.learn(*app, view.ledger.by_version(version, id), view),
            Fact::AppHeard { app, item: Item::Answer(answer @ Answer::Result { .. }) } => {
                return self.read(*app, answer, view);
            }
            Fact::Transmitted { site, to: Party::App(app), item: Item::Answer(answer), .. } => {
                return is_true(*site, *app, answer, view);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Rule {
    /// The application knows of a message, which may be newer than what it knew.
    fn learn(&mut self, app: usize, number: Option<MessageNo>, view: &View<'_>) {
        let Some(number) = number.filter(|_| !self.set_back.contains(&app)) else { return };
        let known = &view.ledger.messages[number];
        if known.key.is_none() || !matches(app, known.message.tags(), view) {
            return;
        }
        let keys = self.known.entry(app).or_default();
        let newest = keys.entry(known.message.key().into()).or_insert(number);
        if is_newer(&known.message, &view.ledger.messages[*newest].message) {
            *newest = number;
        }
    }

    fn read(&mut self, app: usize, answer: &Answer, view: &View<'_>) -> Verdict {
        let Answer::Result { id, key, version, value, .. } = answer else { return Ok(()) };
        if self.set_back.contains(&app) {
            return Ok(());
        }
        let found = version.as_deref().and_then(|version| find(version, key, value, view));
        let before = self.known.get(&app).and_then(|keys| keys.get(key));
        if let Some(before) = before.map(|before| &view.ledger.messages[*before]) {
            let found = found.map(|number| &view.ledger.messages[number]);
            if found.is_none_or(|found| is_newer(&before.message, &found.message)) {
                let name = view.apps[app].name();
                let found = found.map_or("nothing".into(), |found| found.name());
                let what = format!("{name} reads {found} of {key} and knew {}", before.name());
                return Err(Broken::new(what, &[id, before.message.id(), &name]));
            }
        }
        self.learn(app, found, view);
        Ok(())
    }
}

/// Whether a result is of a message that is durable at the node and matches the application.
fn is_true(site: usize, app: usize, answer: &Answer, view: &View<'_>) -> Verdict {
    let Answer::Result { id, key, found, version: Some(version), value } = answer else {
        return Ok(());
    };
    let (node, name) = (&view.names[site], view.apps[app].name());
    let Some(number) = find(version, key, value, view) else {
        let what = format!("{node} answers {id} with {version}, which nobody published so");
        return Err(Broken::new(what, &[id, node]));
    };
    let message = &view.ledger.messages[number].message;
    let what = if !view.ledger.places[site].durable.contains(&number) {
        "which is not durable there"
    } else if !matches(app, message.tags(), view) {
        "which is for others"
    } else if *found == (message.kind() == slipstream_core::message::Kind::Dk) {
        "and says of a delete that it was found, or of a value that it was not"
    } else {
        return Ok(());
    };
    let read = view.ledger.messages[number].name();
    Err(Broken::new(format!("{node} answers {id} with {read}, {what}"), &[id, message.id(), &name]))
}

/// The message of a result.
fn find(
    version: &str,
    key: &str,
    value: &Option<(String, String)>,
    view: &View<'_>,
) -> Option<MessageNo> {
    let (kind, body) = value.as_ref()?;
    let same = |number: &MessageNo| {
        let message = &view.ledger.messages[*number].message;
        message.key() == key && message.kind().as_str() == kind && message.body() == body
    };
    view.ledger.of_version(version).find(same)
}

/// Whether an application may read by these target tags. Its keys are for deliveries.
fn matches(app: usize, tags: &str, view: &View<'_>) -> bool {
    let app = &view.apps[app];
    let own = app.tags.as_deref().unwrap_or(view.node_tags(app.site));
    tags.is_empty() || tags.split(',').any(|tag| own.contains(&tag))
}
