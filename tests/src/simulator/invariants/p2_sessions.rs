//! P2: the session of a peer ends by an operator's order or its time to live only, whatever becomes
//! of links, entries and addresses.

use hashbrown::HashMap;
use slipstream_core::ids::SessionId;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, View};
use crate::simulator::liar;

/// The durable sessions of peers at each site.
#[derive(Debug, Default)]
pub struct Rule {
    sessions: HashMap<usize, HashMap<String, SessionId>>,
}

impl Invariant for Rule {
    fn see(&mut self, fact: &Fact<'_>, view: &View<'_>) -> Verdict {
        match fact {
            Fact::SetBack { site } => drop(self.sessions.remove(site)),
            Fact::Cloned { site, twin } => {
                if let Some(sessions) = self.sessions.get(site).cloned() {
                    self.sessions.insert(*twin, sessions);
                }
            }
            Fact::Durable { site, batch } => {
                let sessions = self.sessions.entry(*site).or_default();
                let node = &view.names[*site];
                for record in &batch.sessions {
                    let Some(peer) = record.name.strip_prefix("peer:") else { continue };
                    let before = sessions.insert(peer.into(), record.id);
                    if before.is_some_and(|before| before != record.id) {
                        let what = format!("{node} begins anew with {peer}, and nobody said so");
                        return Err(Broken::new(what, &[node, peer]));
                    }
                }
                for ended in &batch.sessions_ended {
                    let of_it = |(_, id): &(&String, &SessionId)| *id == ended;
                    let Some(peer) = sessions.iter().find(of_it).map(|(peer, _)| peer.clone())
                    else {
                        continue;
                    };
                    sessions.remove(&peer);
                    // No run lasts as long as a session: only operators end one, after healing.
                    if !may_be_forgotten(&peer, view) {
                        let what = format!("{node} has ended the session of {peer}");
                        return Err(Broken::new(what, &[node, &peer]));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether operators order that the session of this peer ends: it is gone for good.
fn may_be_forgotten(peer: &str, view: &View<'_>) -> bool {
    let mut gone = view.names.iter().zip(view.removed);
    peer == liar::NAME || gone.any(|(name, is_removed)| name == peer && *is_removed)
}
