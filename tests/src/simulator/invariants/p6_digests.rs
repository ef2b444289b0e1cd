//! P6: in the end the digests of any two nodes agree on each tag set that targets both of them.

use std::collections::{BTreeMap, BTreeSet};

use slipstream_core::admin::Status;
use slipstream_core::digest::Print;
use slipstream_core::tags::TagSet;

use super::{Broken, Invariant, Verdict};
use crate::simulator::facts::{Fact, View};

/// Looks only at the end.
#[derive(Debug, Default)]
pub struct Rule;

impl Invariant for Rule {
    fn see(&mut self, _: &Fact<'_>, _: &View<'_>) -> Verdict {
        Ok(())
    }

    fn settled(&self, view: &View<'_>, _: &BTreeMap<usize, Status>) -> Verdict {
        let all: BTreeSet<&TagSet> = view.digests.iter().flat_map(BTreeMap::keys).collect();
        for tags in all {
            let mut first: Option<(usize, Print)> = None;
            for site in (0..view.names.len()).filter(|site| !view.removed[*site]) {
                if !view.is_destination(site, tags.as_str()) {
                    continue;
                }
                let print = view.digests[site].get(tags).copied().unwrap_or_default();
                let (other, expected) = *first.get_or_insert((site, print));
                if print != expected {
                    let (here, there) = (&view.names[site], &view.names[other]);
                    let what = format!("{here} and {there} differ in what is for {tags:?}");
                    return Err(Broken::new(what, &[here, there]));
                }
            }
        }
        Ok(())
    }
}
