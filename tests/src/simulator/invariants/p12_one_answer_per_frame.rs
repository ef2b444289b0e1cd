//! P12: every frame of an application, but ACK and NACK, gets exactly one answer, in the order of
//! the frames, and the answer names the message or the frame.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use slipstream_core::admin::Status;

use super::{Broken, Invariant, Verdict};
use crate::simulator::application::{Consumer, Said};
use crate::simulator::facts::{Fact, View};
use crate::simulator::frames::{Answer, Item};

/// What each application waits for on its connection.
#[derive(Debug, Default)]
pub struct Rule {
    apps: HashMap<usize, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: u64,
    answers: VecDeque<(u64, Said)>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::AppConnected { app } | Fact::AppDisconnected { app } => {
                self.apps.insert(*app, Waiting::default());
            }
            Fact::AppSaid { app, said } => {
                let waiting = self.apps.entry(*app).or_default();
                waiting.frames += 1;
                if said.is_answered() {
                    waiting.answers.push_back((waiting.frames, (*said).clone()));
                }
            }
            Fact::AppHeard { app, item: Item::Answer(answer) } => {
                return self.answered(*app, answer, view);
            }
            _ => {}
        }
        Ok(())
    }

    fn settled(&self, view: &View<'_>, _: &BTreeMap<usize, Status>) -> Verdict {
        for (app, waiting) in &self.apps {
            if let Some((frame, said)) = waiting.answers.front()
                && view.apps[*app].greeted
                // Who never acknowledges is handed its whole window at each connection, and on a
                // slow one the answers wait behind that.
                && view.apps[*app].consumer != Consumer::Mute
            {
                let name = view.apps[*app].name();
                let what = format!("{name} waits for the answer to frame {frame}, {said:?}");
                return Err(Broken::new(what, &[&name]));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn answered(&mut self, app: usize, answer: &Answer, view: &View<'_>) -> Verdict {
        if matches!(answer, Answer::Refusal { code, .. } if code == "UNKNOWN_DELIVERY") {
            // To an ACK or NACK: those are answered by errors only.
            return Ok(());
        }
        let name = view.apps[app].name();
        let waiting = self.apps.entry(app).or_default();
        let Some((ordinal, said)) = waiting.answers.pop_front() else {
            let what = format!("{name} hears {answer:?} and has asked nothing");
            return Err(Broken::new(what, &[&name]));
        };
        let fits = match (&said, answer) {
            (Said::Publish(number), Answer::Receipt { id, version, .. }) => {
                let publish = &view.ledger.publishes[*number];
                let message = view.ledger.by_version(version, id);
                let same = message.is_some_and(|message| {
                    view.ledger.messages[message].message.body() == publish.body
                });
                *id == publish.id && same
            }
            (Said::Publish(number), Answer::Refusal { re, frame, .. }) => {
                re.as_ref() == Some(&view.ledger.publishes[*number].id) && *frame == ordinal
            }
            (Said::Read { id, key, .. }, Answer::Result { id: to, key: of, .. }) => {
                (id, key) == (to, of)
            }
            (Said::Read { id, .. }, Answer::Refusal { re, frame, code, .. }) => {
                let known = ["WRONG_KIND", "SHUTTING_DOWN"].contains(&code.as_str());
                re.as_ref() == Some(id) && *frame == ordinal && known
            }
            (Said::Odd(expected), Answer::Refusal { code, frame, retryable, .. }) => {
                code == expected && *frame == ordinal && !retryable
            }
            (_, _) => false,
        };
        if fits {
            return Ok(());
        }
        let what = format!("{name} hears {answer:?} to frame {ordinal}, {said:?}");
        Err(Broken::new(what, &[&name]))
    }
}
