//! The mesh as this node knows it, and who passes a message on to whom (P5).
//!
//! Every node floods a small [`Record`] of itself and keeps the newest of each. From them all nodes
//! compute the same spanning tree per origin: the fewest links, ties to the smallest id. A node
//! sends a message at once to its children in that tree, so that in steady state each payload
//! crosses one link less than there are nodes. What stays true: records decide only what is sent
//! *first*. Everybody else who is owed is offered the identity ([`crate::offer`]), so records that
//! are wrong, forged or late cost copies or a little time, and nothing else.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::admin::NodeStatus;
use crate::ids::{Incarnation, NodeId, StoreId};
use crate::message::{MAX_PATH, MAX_TAGS};
use crate::tags;
use crate::time::Instant;

/// How long the record of a node that cannot be reached is kept.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What a node says of itself to the whole mesh. Of two records of a node, the one with the higher
/// revision counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub node: String,
    /// Its database.
    pub store: StoreId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Grows with each change, also over restarts.
    pub revision: u64,
    /// Tags of the node and of its applications, as a canonical set.
    pub tags: String,
    /// Ids of the peers to which it has a link, as a canonical set.
    pub links: String,
}

impl Record {
    /// The id, if the record can be one at all.
    pub fn id(&self) -> Option<NodeId> {
        let well_formed = tags::is_canonical(&self.tags, MAX_TAGS)
            && tags::is_canonical(&self.links, MAX_PATH)
            && self.revision < u64::MAX;
        NodeId::new(&self.node).ok().filter(|_| well_formed)
    }
}

/// What a record that came in says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Something new: to be told to the others.
    Fresh,
    /// Nothing.
    Known,
    /// Somebody knows a newer record of this node than it has made: it must go above it.
    OfMyself,
    /// There are as many nodes as this one takes.
    TooMany,
}

#[derive(Debug)]
struct Known {
    record: Record,
    /// When it came, or was last of use.
    used: Instant,
}

/// All that is known of the mesh.
#[derive(Debug)]
pub(crate) struct Topology {
    me: NodeId,
    max_nodes: usize,
    records: BTreeMap<NodeId, Known>,
    graph: Option<Graph>,
}

/// The nodes that can be reached from here over links that both of their ends name.
#[derive(Debug)]
struct Graph {
    /// In the order of their ids, which is the order of their numbers.
    nodes: Vec<NodeId>,
    numbers: HashMap<NodeId, usize>,
    /// Numbers of each one's neighbours, in order.
    neighbours: Vec<Vec<usize>>,
    me: usize,
    /// Per root: the children of this node in its tree.
    children: HashMap<usize, Box<[NodeId]>>,
}

impl Topology {
    /// Only the node itself is known, by its first record.
    pub fn new(me: NodeId, max_nodes: usize, record: Record, now: Instant) -> Self {
        let records = BTreeMap::from([(me.clone(), Known { record, used: now })]);
        Self { me, max_nodes, records, graph: None }
    }

    /// The node's own record.
    pub fn mine(&self) -> &Record {
        &self.records[&self.me].record
    }

    /// Gives the node's own record other tags and links. Answers whether that is news.
    pub fn set_mine(&mut self, tags: &str, links: &str) -> bool {
        let mine = self.mine();
        if mine.tags == tags && mine.links == links {
            return false;
        }
        let record = Record { tags: tags.into(), links: links.into(), ..mine.clone() };
        self.replace_mine(record, self.mine().revision + 1);
        true
    }

    fn replace_mine(&mut self, record: Record, revision: u64) {
        if let Some(mine) = self.records.get_mut(&self.me) {
            mine.record = Record { revision, ..record };
        }
        self.graph = None;
    }

    /// Takes a record that came in.
    pub fn learn(&mut self, node: &NodeId, record: Record, now: Instant) -> News {
        if *node == self.me {
            if record.revision <= self.mine().revision {
                return News::Known;
            }
            let mine = self.mine().clone();
            self.replace_mine(mine, record.revision.saturating_add(1).min(u64::MAX - 1));
            return News::OfMyself;
        }
        let full = self.records.len() >= self.max_nodes;
        match self.records.get_mut(node) {
            Some(known) if known.record.revision >= record.revision => return News::Known,
            Some(known) => *known = Known { record, used: now },
            None if full => return News::TooMany,
            None => drop(self.records.insert(node.clone(), Known { record, used: now })),
        }
        self.graph = None;
        News::Fresh
    }

    /// The record of a node.
    pub fn record(&self, node: &NodeId) -> Option<&Record> {
        self.records.get(node).map(|known| &known.record)
    }

    /// All records, by id.
    pub fn records(&self) -> impl Iterator<Item = (&NodeId, &Record)> {
        self.records.iter().map(|(node, known)| (node, &known.record))
    }

    /// All records, for operators.
    pub fn statuses(&mut self) -> Vec<NodeStatus> {
        self.graph();
        let reached = self.graph.as_ref().map(|graph| &graph.numbers);
        let list = |joined: &str| tags::list(joined).map(String::from).collect();
        let status = |(node, Record { tags, links, .. }): (&NodeId, &Record)| NodeStatus {
            node: node.as_str().into(),
            tags: list(tags),
            links: list(links),
            reachable: reached.is_some_and(|reached| reached.contains_key(node)),
        };
        self.records().map(status).collect()
    }

    /// Forgets the nodes that could not be reached for a day.
    pub fn forget_lost(&mut self, now: Instant) {
        self.graph();
        let Some(graph) = &self.graph else { return };
        self.records.retain(|node, known| {
            if graph.numbers.contains_key(node) {
                known.used = now;
            }
            now.since(known.used) < FORGET_AFTER
        });
    }

    /// Whether this node passes a message that came over `path` on to `peer` at once: whether the
    /// peer is its child in the tree of the first node on the path that is known, which is the
    /// origin unless that cannot be reached. A peer that nobody has heard of yet is.
    pub fn is_child(&mut self, path: &str, peer: &NodeId) -> bool {
        let graph = self.graph();
        let linked = |number: &usize| graph.neighbours[graph.me].binary_search(number).is_ok();
        if !graph.numbers.get(peer).is_some_and(linked) {
            return true;
        }
        let numbers = &graph.numbers;
        let root = path.split(',').find_map(|node| numbers.get(node)).copied();
        let root = root.unwrap_or(graph.me);
        if !graph.children.contains_key(&root) {
            let children = graph.children_of_me(root);
            graph.children.insert(root, children);
        }
        graph.children[&root].contains(peer)
    }

    fn graph(&mut self) -> &mut Graph {
        let (me, records) = (&self.me, &self.records);
        self.graph.get_or_insert_with(|| Graph::new(me, records))
    }
}

impl Graph {
    fn new(me: &NodeId, records: &BTreeMap<NodeId, Known>) -> Self {
        let names = |node: &NodeId, other: &str| {
            records
                .get(node)
                .is_some_and(|known| tags::list(&known.record.links).any(|n| n == other))
        };
        let mut reached = BTreeMap::from([(me.clone(), Vec::new())]);
        let mut queue = VecDeque::from([me.clone()]);
        while let Some(node) = queue.pop_front() {
            let Some(known) = records.get(&node) else { continue };
            for link in tags::list(&known.record.links) {
                let Some((other, _)) = records.get_key_value(link) else { continue };
                if *other == node || !names(other, node.as_str()) {
                    continue;
                }
                if !reached.contains_key(other) {
                    reached.insert(other.clone(), Vec::new());
                    queue.push_back(other.clone());
                }
                if let Some(links) = reached.get_mut(&node) {
                    links.push(other.clone());
                }
            }
        }
        let nodes: Vec<NodeId> = reached.keys().cloned().collect();
        let numbers: HashMap<NodeId, usize> =
            nodes.iter().cloned().enumerate().map(|(number, node)| (node, number)).collect();
        let number = |others: &Vec<NodeId>| others.iter().map(|other| numbers[other]).collect();
        let neighbours = reached.values().map(number).collect();
        let me = numbers[me];
        Self { nodes, numbers, neighbours, me, children: HashMap::new() }
    }

    /// Links from `root` to each node.
    fn distances(&self, root: usize) -> Vec<u32> {
        let mut distances = alloc::vec![u32::MAX; self.nodes.len()];
        distances[root] = 0;
        let mut queue = VecDeque::from([root]);
        while let Some(node) = queue.pop_front() {
            for other in &self.neighbours[node] {
                if distances[*other] == u32::MAX {
                    distances[*other] = distances[node] + 1;
                    queue.push_back(*other);
                }
            }
        }
        distances
    }

    /// The neighbours whose parent in the tree of `root` this node is: of all that are one link
    /// nearer to the root, it has the smallest id.
    fn children_of_me(&self, root: usize) -> Box<[NodeId]> {
        let distances = self.distances(root);
        let mine = distances[self.me];
        let is_child = |child: &&usize| {
            let mut nearer = self.neighbours[**child].iter().filter(|n| distances[**n] == mine);
            distances[**child] == mine + 1 && nearer.next() == Some(&self.me)
        };
        let children = self.neighbours[self.me].iter().filter(is_child);
        children.map(|child| self.nodes[*child].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> NodeId {
        NodeId::new(&std::format!("n{number:02}")).expect("a name")
    }

    fn record(number: usize, links: &BTreeSet<usize>, revision: u64) -> Record {
        Record {
            node: id(number).to_string(),
            store: StoreId(number as u128),
            incarnation: Incarnation::new(1),
            revision,
            tags: String::new(),
            links: tags::join(
                links.iter().map(|other| id(*other)).collect::<Vec<_>>().iter().map(NodeId::as_str),
            ),
        }
    }

    fn mesh(me: usize, nodes: usize, edges: &BTreeSet<(usize, usize)>) -> Topology {
        let now = Instant::from_micros(0);
        let links = |number: usize| {
            let other = |(a, b): &(usize, usize)| match number {
                n if n == *a => Some(*b),
                n if n == *b => Some(*a),
                _ => None,
            };
            edges.iter().filter_map(other).collect::<BTreeSet<_>>()
        };
        let mut topology = Topology::new(id(me), 100, record(me, &links(me), 1), now);
        for number in (0..nodes).filter(|number| *number != me) {
            assert_eq!(
                topology.learn(&id(number), record(number, &links(number), 1), now),
                News::Fresh
            );
        }
        topology
    }

    /// How often each node is sent a message of `origin` if every node sends it to its children.
    fn copies(origin: usize, nodes: usize, edges: &BTreeSet<(usize, usize)>) -> Vec<usize> {
        let mut copies = std::vec![0; nodes];
        for sender in 0..nodes {
            let mut topology = mesh(sender, nodes, edges);
            for (a, b) in edges {
                for (from, to) in [(*a, *b), (*b, *a)] {
                    let path = std::format!("{}", id(origin));
                    if from == sender && to != origin && topology.is_child(&path, &id(to)) {
                        copies[to] += 1;
                    }
                }
            }
        }
        copies
    }

    proptest! {
        #[test]
        fn in_every_connected_mesh_each_node_has_one_parent(
            nodes in 2_usize..10,
            more in prop::collection::vec((0_usize..10, 0_usize..10), 0..20),
            roots in prop::collection::vec(0_usize..10, 10),
            origin in 0_usize..10,
        ) {
            let tree = (1..nodes).map(|node| (roots[node] % node, node));
            let more = more.into_iter().map(|(a, b)| (a % nodes, b % nodes));
            let all = tree.chain(more).filter(|(a, b)| a != b);
            let edges: BTreeSet<_> = all.map(|(a, b)| (a.min(b), a.max(b))).collect();
            let origin = origin % nodes;
            let mut expected = std::vec![1; nodes];
            expected[origin] = 0;
            prop_assert_eq!(copies(origin, nodes, &edges), expected);
        }
    }

    #[test]
    fn a_link_counts_when_both_of_its_ends_name_it() {
        let edges = BTreeSet::from([(0, 1), (1, 2)]);
        let mut topology = mesh(0, 3, &edges);
        assert!(topology.statuses()[2].reachable);
        let now = Instant::from_micros(1);
        assert_eq!(topology.learn(&id(1), record(1, &BTreeSet::from([0]), 2), now), News::Fresh);
        assert!(!topology.statuses()[2].reachable);
        assert_eq!(topology.learn(&id(1), record(1, &BTreeSet::from([0, 2]), 2), now), News::Known);
    }

    #[test]
    fn a_peer_that_nobody_has_heard_of_is_sent_everything() {
        let mut topology = mesh(0, 2, &BTreeSet::from([(0, 1)]));
        assert!(topology.is_child("n00", &id(7)));
        assert!(topology.is_child("n77,n00", &id(1)), "the first that is known is the root");
        assert!(!topology.is_child("n01,n00", &id(1)));
    }

    #[test]
    fn a_node_goes_above_what_others_say_of_it() {
        let mut topology = mesh(0, 2, &BTreeSet::from([(0, 1)]));
        let now = Instant::from_micros(1);
        let forged = record(0, &BTreeSet::new(), 70);
        assert_eq!(topology.learn(&id(0), forged, now), News::OfMyself);
        assert_eq!(topology.mine().revision, 71);
        assert_eq!(topology.mine().links, "n01");
        let day = Instant::from_micros(0) + FORGET_AFTER;
        topology.forget_lost(day);
        assert_eq!(topology.records().count(), 2, "it can be reached");
        assert!(topology.set_mine("", ""));
        topology.forget_lost(day + FORGET_AFTER);
        assert_eq!(topology.records().count(), 1);
    }
}
