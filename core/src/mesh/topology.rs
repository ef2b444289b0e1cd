//! The mesh as this node knows it, and who passes a message on to whom (P5).
//!
//! Every node floods a small [`NodeRecord`] of itself and keeps the newest of each. From them all
//! nodes compute the same spanning tree per origin: the fewest links, ties to the smallest id. A
//! node sends a message at once to its children in that tree, so that in steady state each payload
//! crosses one link less than there are nodes. What stays true: records decide only what is sent
//! *first*. Everybody else who is owed is offered the identity ([`crate::session::offer`]), so
//! records that are wrong, forged or late cost copies or a little time, and nothing else.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::admin::NodeStatus;
use crate::types::ids::{Incarnation, NodeId, StoreId};
use crate::types::tags::{self, Reach, TagSet};
use crate::types::time::Instant;
use crate::wire::message::{MAX_PATH, MAX_TAGS, Message};

/// How long the record of a node that cannot be reached is kept.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What a node says of itself to the whole mesh. Of two records of a node, the one with the higher
/// revision counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
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
    /// Ids of the peers to which it has a link, as a canonical set. With the node's own among them,
    /// `tags` are not all, and any tag may be one of its: whoever does not know that passes over a
    /// link of a node to itself.
    pub links: String,
}

/// What a record takes at most besides its tags, its links, and the frame around it.
const RECORD_BYTES: usize = 128;

impl NodeRecord {
    /// The id, if the record can be one at all.
    pub fn id(&self) -> Option<NodeId> {
        let well_formed = tags::is_canonical(&self.tags, MAX_TAGS)
            && tags::is_canonical(&self.links, MAX_PATH)
            && self.revision < u64::MAX;
        NodeId::new(&self.node).ok().filter(|_| well_formed)
    }

    /// Most bytes of its encoding, alone in a frame.
    pub fn frame_bytes(&self) -> usize {
        self.tags.len() + self.links.len() + RECORD_BYTES
    }

    /// Its tags.
    fn reach(&self) -> Reach {
        let tags = TagSet::new(tags::list(&self.tags)).unwrap_or_else(|_| TagSet::empty());
        Reach { tags, any: self.has_any_tag() }
    }

    /// Whether it may have other tags than those that it names.
    pub fn has_any_tag(&self) -> bool {
        tags::list(&self.links).any(|link| link == self.node)
    }

    /// The record for whoever takes frames of so many bytes: with as many of its tags as fit.
    /// `None`: its links alone are too long.
    pub fn within(&self, limit: usize) -> Option<Cow<'_, Self>> {
        if self.frame_bytes() <= limit {
            return Some(Cow::Borrowed(self));
        }
        let mut links: BTreeSet<&str> = tags::list(&self.links).collect();
        links.insert(&self.node);
        let short =
            Self { links: tags::join(links.into_iter()), tags: String::new(), ..self.clone() };
        let room = limit.checked_sub(short.frame_bytes())?;
        let fits = |end: &usize| *end <= room;
        let ends = self.tags.match_indices(',').map(|(end, _)| end).take_while(fits);
        let tags = self.tags[..ends.last().unwrap_or_default()].into();
        Some(Cow::Owned(Self { tags, ..short }))
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
struct KnownNode {
    record: NodeRecord,
    /// When it came, or was last of use.
    used: Instant,
}

/// All that is known of the mesh.
#[derive(Debug)]
pub(crate) struct Topology {
    me: NodeId,
    max_nodes: usize,
    records: BTreeMap<NodeId, KnownNode>,
    graph: Option<Graph>,
    /// The other nodes that could be reached when that was asked last.
    told: BTreeSet<NodeId>,
}

/// The nodes that can be reached from here over links that both of their ends name.
#[derive(Debug)]
struct Graph {
    /// In the order of their ids, which is the order of their numbers.
    nodes: Vec<NodeId>,
    numbers: HashMap<NodeId, usize>,
    /// Numbers of each one's neighbours, in order.
    neighbours: Vec<Vec<usize>>,
    /// Tags of each.
    tags: Vec<Reach>,
    me: usize,
    /// Per neighbour: the tags of all to whom a shortest way leads by way of it.
    behind: HashMap<NodeId, Reach>,
    /// Per root: where this node is in its tree.
    trees: HashMap<usize, Tree>,
    /// What was asked last, as is likely again.
    last: WaysAsked,
}

/// Where a message leads that went this path, with these tags, by way of this peer.
#[derive(Debug, Default)]
struct WaysAsked {
    path: String,
    tags: String,
    peer: Option<NodeId>,
    route: Route,
}

/// A node's place in the tree of some root.
#[derive(Debug)]
struct Tree {
    /// The parent of the node; `None`: it is the root.
    parent: Option<NodeId>,
    /// Its children, and the tags of all that are below each.
    children: Box<[(NodeId, Reach)]>,
}

/// Where a message leads by way of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Route {
    /// To nobody whom it targets.
    #[default]
    Nowhere,
    /// It is sent at once.
    Now,
    /// It will probably come from somebody else, and is offered after a while.
    Later,
    /// The tree has not brought it here, so it may bring it to nobody behind here either: it is
    /// offered at once.
    Soon,
}

impl Topology {
    /// Only the node itself is known, by its first record.
    pub fn new(me: NodeId, max_nodes: usize, record: NodeRecord, now: Instant) -> Self {
        let records = BTreeMap::from([(me.clone(), KnownNode { record, used: now })]);
        Self { me, max_nodes, records, graph: None, told: BTreeSet::new() }
    }

    /// The node's own record.
    pub fn mine(&self) -> &NodeRecord {
        &self.records[&self.me].record
    }

    /// Gives the node's own record other tags and links. Answers whether that is news.
    pub fn set_mine(&mut self, tags: &str, links: &str) -> bool {
        let mine = self.mine();
        if mine.tags == tags && mine.links == links {
            return false;
        }
        let record = NodeRecord { tags: tags.into(), links: links.into(), ..mine.clone() };
        self.replace_mine(record, self.mine().revision + 1);
        true
    }

    fn replace_mine(&mut self, record: NodeRecord, revision: u64) {
        if let Some(mine) = self.records.get_mut(&self.me) {
            mine.record = NodeRecord { revision, ..record };
        }
        self.graph = None;
    }

    /// Takes a record that came in.
    pub fn learn(&mut self, node: &NodeId, record: NodeRecord, now: Instant) -> News {
        if *node == self.me {
            // Another process under this id may have come to the same revision. What comes back may
            // be cut to the frames of who was told.
            let mine = self.mine();
            let of_mine = (mine.store, mine.incarnation, mine.revision);
            let is_mine = (record.store, record.incarnation, record.revision) == of_mine;
            if record.revision < mine.revision || is_mine {
                return News::Known;
            }
            let mine = self.mine().clone();
            self.replace_mine(mine, record.revision.saturating_add(1).min(u64::MAX - 1));
            return News::OfMyself;
        }
        let full = self.records.len() >= self.max_nodes;
        match self.records.get_mut(node) {
            Some(known) if known.record.revision >= record.revision => return News::Known,
            Some(known) => *known = KnownNode { record, used: now },
            None if full => return News::TooMany,
            None => drop(self.records.insert(node.clone(), KnownNode { record, used: now })),
        }
        self.graph = None;
        News::Fresh
    }

    /// The record of a node.
    pub fn record(&self, node: &NodeId) -> Option<&NodeRecord> {
        self.records.get(node).map(|known| &known.record)
    }

    /// All records, by id.
    pub fn records(&self) -> impl Iterator<Item = (&NodeId, &NodeRecord)> {
        self.records.iter().map(|(node, known)| (node, &known.record))
    }

    /// All records, for operators.
    pub fn statuses(&mut self) -> Vec<NodeStatus> {
        self.graph();
        let reached = self.graph.as_ref().map(|graph| &graph.numbers);
        let status = |(node, record): (&NodeId, &NodeRecord)| NodeStatus {
            node: node.as_str().into(),
            tags: tags::list(&record.tags).map(String::from).collect(),
            any_tag: record.has_any_tag(),
            links: tags::list(&record.links)
                .filter(|link| *link != record.node)
                .map(String::from)
                .collect(),
            reachable: reached.is_some_and(|reached| reached.contains_key(node)),
        };
        self.records().map(status).collect()
    }

    /// The other nodes that can be reached now and could not when this was asked last, and those
    /// that no longer can.
    pub fn changes(&mut self) -> (Vec<NodeId>, Vec<NodeId>) {
        let me = self.me.clone();
        let others = self.graph().nodes.iter().filter(|node| **node != me);
        let reached: BTreeSet<NodeId> = others.cloned().collect();
        let changes = (
            reached.difference(&self.told).cloned().collect(),
            self.told.difference(&reached).cloned().collect(),
        );
        self.told = reached;
        changes
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

    /// Where a message leads by way of this peer. What is for nobody behind it leads nowhere; the
    /// rest is sent at once if the peer is this node's child in the tree of the origin (of the
    /// first node on the path that can be reached) and whom it targets is below it there. A peer
    /// that nobody has heard of yet is sent everything. Where a link of the tree is broken and
    /// nobody knows it yet, a message climbs the branch behind it from offer to offer: each offer
    /// delay but the first is spared it.
    pub fn route(&mut self, message: &Message, peer: &NodeId) -> Route {
        let graph = self.graph();
        let (path, tags) = (message.path(), message.tags());
        let last = &graph.last;
        if last.path != path || last.tags != tags || last.peer.as_ref() != Some(peer) {
            let route = graph.route(path, tags, peer);
            let last = &mut graph.last;
            path.clone_into(&mut last.path);
            tags.clone_into(&mut last.tags);
            (last.peer, last.route) = (Some(peer.clone()), route);
        }
        graph.last.route
    }

    /// Whether there is a way to this node.
    pub fn reaches(&mut self, node: &NodeId) -> bool {
        self.graph().numbers.contains_key(node)
    }

    /// Tags of the nodes that are known, and cannot be reached.
    pub fn missing(&mut self) -> Reach {
        self.graph();
        let reached = |node: &NodeId| {
            self.graph.as_ref().is_some_and(|graph| graph.numbers.contains_key(node))
        };
        let missing = self.records.iter().filter(|(node, _)| !reached(node));
        let missing: Vec<Reach> = missing.map(|(_, known)| known.record.reach()).collect();
        Reach::union(missing.iter())
    }

    /// Tags of the nodes to which a shortest way leads by way of this peer.
    pub fn behind(&mut self, peer: &NodeId) -> Option<&Reach> {
        self.graph().behind.get(peer)
    }

    fn graph(&mut self) -> &mut Graph {
        let (me, records) = (&self.me, &self.records);
        self.graph.get_or_insert_with(|| Graph::new(me, records))
    }
}

impl Graph {
    fn new(me: &NodeId, records: &BTreeMap<NodeId, KnownNode>) -> Self {
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
        let tags = nodes.iter().map(|node| records[node].record.reach());
        let (tags, me) = (tags.collect(), numbers[me]);
        let (behind, trees, last) = (HashMap::new(), HashMap::new(), WaysAsked::default());
        let mut graph = Self { nodes, numbers, neighbours, tags, me, behind, trees, last };
        graph.look_behind();
        graph
    }

    fn look_behind(&mut self) {
        let from_here = self.distances(self.me);
        for neighbour in &self.neighbours[self.me] {
            let from_there = self.distances(*neighbour);
            let leads = |node: &usize| from_there[*node] + 1 == from_here[*node];
            let behind = self.union((0..self.nodes.len()).filter(leads));
            self.behind.insert(self.nodes[*neighbour].clone(), behind);
        }
    }

    fn union(&self, nodes: impl Iterator<Item = usize>) -> Reach {
        Reach::union(nodes.map(|node| &self.tags[node]))
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

    fn route(&mut self, path: &str, tags: &str, peer: &NodeId) -> Route {
        let Some(behind) = self.behind.get(peer) else { return Route::Now };
        if !behind.matches(tags) {
            return Route::Nowhere;
        }
        let root = path.split(',').find_map(|node| self.numbers.get(node)).copied();
        let root = root.unwrap_or(self.me);
        if !self.trees.contains_key(&root) {
            let tree = self.tree(root);
            self.trees.insert(root, tree);
        }
        let tree = &self.trees[&root];
        let child = tree.children.iter().find(|(child, _)| child == peer);
        let sender = path.rsplit(',').nth(1);
        match child {
            Some((_, below)) if below.matches(tags) => Route::Now,
            Some(_) | None if sender == tree.parent.as_ref().map(NodeId::as_str) => Route::Later,
            Some(_) | None => Route::Soon,
        }
    }

    /// The place of this node in the tree of `root`. The parent of a node is, of its neighbours
    /// that are one link nearer to the root, the one with the smallest id.
    fn tree(&self, root: usize) -> Tree {
        let distances = self.distances(root);
        let parent = |node: usize| {
            let nearer = |other: &&usize| distances[**other] + 1 == distances[node];
            self.neighbours[node].iter().find(nearer).copied()
        };
        // The child of this node that each node is, or is below.
        let mut below: Vec<Option<usize>> = alloc::vec![None; self.nodes.len()];
        let mut outwards: Vec<usize> = (0..self.nodes.len()).collect();
        outwards.sort_by_key(|node| distances[*node]);
        for node in outwards {
            let parent = parent(node);
            let is_child = parent == Some(self.me);
            below[node] = if is_child { Some(node) } else { parent.and_then(|p| below[p]) };
        }
        let tags = |child: usize| {
            self.union((0..self.nodes.len()).filter(|node| below[*node] == Some(child)))
        };
        let children = (0..self.nodes.len()).filter(|node| below[*node] == Some(*node));
        Tree {
            parent: parent(self.me).map(|parent| self.nodes[parent].clone()),
            children: children.map(|child| (self.nodes[child].clone(), tags(child))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::ToString;

    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> NodeId {
        NodeId::new(&std::format!("n{number:02}")).expect("a name")
    }

    fn message(path: &str, tags: &str) -> Message {
        let fields = crate::wire::message::Fields {
            kind: crate::wire::message::Kind::Sk,
            incarnation: Incarnation::new(1),
            sequence: crate::types::ids::Sequence::new(1),
            version: crate::types::clock::Hlc(1),
            expires: crate::types::time::WallMs(0),
            group: "",
            tags,
            path,
            id: "m",
            key: "k",
            body: "1",
        };
        Message::encode(&fields, &mut bytes::BytesMut::new())
    }

    fn record(number: usize, links: &BTreeSet<usize>, revision: u64) -> NodeRecord {
        NodeRecord {
            node: id(number).to_string(),
            store: StoreId(number as u128),
            incarnation: Incarnation::new(1),
            revision,
            tags: std::format!("t{number}"),
            links: links.iter().map(|other| id(*other).to_string()).collect::<Vec<_>>().join(","),
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
                    let message = message(&std::format!("{}", id(origin)), "");
                    let now = topology.route(&message, &id(to)) == Route::Now;
                    if from == sender && to != origin && now {
                        copies[to] += 1;
                    }
                }
            }
        }
        copies
    }

    proptest! {
        // keeps: one-parent
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

    // keeps: shortest-paths
    #[test]
    fn a_targeted_message_takes_shortest_ways_only() {
        // 0 - 1 - 2 - 5, 0 - 3 - 4 - 5, 1 - 3
        let edges = BTreeSet::from([(0, 1), (1, 2), (2, 5), (0, 3), (3, 4), (4, 5), (1, 3)]);
        let mut topology = mesh(0, 6, &edges);
        let mut route = |tags: &str, peer| topology.route(&message("n00", tags), &id(peer));
        assert_eq!((route("t2", 1), route("t2", 3)), (Route::Now, Route::Nowhere));
        // Two ways are as short: one is taken, the other one stands by.
        assert_eq!((route("t5", 1), route("t5", 3)), (Route::Now, Route::Later));
        assert_eq!((route("t2,t4", 1), route("t2,t4", 3)), (Route::Now, Route::Now));
        assert_eq!((route("nobody", 1), route("nobody", 3)), (Route::Nowhere, Route::Nowhere));
        assert_eq!((route("t0", 1), route("", 3)), (Route::Nowhere, Route::Now));
        let behind = topology.behind(&id(3)).expect("a neighbour");
        assert_eq!(behind.tags.as_str(), "t3,t4,t5");
    }

    // keeps: failover-delay
    #[test]
    fn what_came_another_way_than_its_tree_says_is_offered_at_once() {
        // 0 - 1 - 2 - 3 - 0, and 3 - 4: node 3 has messages of 0 from 0, node 2 has them from 1.
        let edges = BTreeSet::from([(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)]);
        let mut topology = mesh(2, 5, &edges);
        let mut route = |path: &str, peer| topology.route(&message(path, ""), &id(peer));
        assert_eq!(route("n00,n01,n02", 3), Route::Later);
        assert_eq!(route("n00,n03,n02", 1), Route::Soon, "1 has not got it either");
        assert_eq!(route("n02", 1), Route::Now, "a root has no parent");
        let mut topology = mesh(3, 5, &edges);
        let mut route = |path: &str, peer| topology.route(&message(path, ""), &id(peer));
        assert_eq!(route("n00,n01,n02,n03", 4), Route::Now, "children are sent it all the same");
    }

    // keeps: many-tags
    #[test]
    fn any_tag_leads_to_a_node_that_has_more_than_it_tells() {
        // 0 - 1 - 2, 0 - 3
        let edges = BTreeSet::from([(0, 1), (1, 2), (0, 3)]);
        let mut topology = mesh(0, 4, &edges);
        assert_eq!(topology.route(&message("n00", "x"), &id(1)), Route::Nowhere);
        let more = record(2, &BTreeSet::from([1, 2]), 2);
        assert!(more.has_any_tag() && more.id().is_some(), "also for a node of before");
        topology.learn(&id(2), more, Instant::from_micros(1));
        assert_eq!(topology.route(&message("n00", "x"), &id(1)), Route::Now);
        assert_eq!(topology.route(&message("n00", "x"), &id(3)), Route::Nowhere);
        let status = &topology.statuses()[2];
        assert_eq!((status.any_tag, &status.links[..]), (true, &["n01".to_string()][..]));
    }

    // keeps: many-tags
    #[test]
    fn a_record_is_cut_to_the_frames_of_who_is_told() {
        let tags: BTreeSet<_> = (0..100).map(|tag| std::format!("t{tag}")).collect();
        let tags = tags::join(tags.iter().map(String::as_str));
        let whole = NodeRecord { tags, ..record(0, &BTreeSet::from([1]), 1) };
        let bytes = whole.frame_bytes();
        assert_eq!(whole.within(bytes).as_deref(), Some(&whole));
        for limit in [bytes - 1, 300, 136] {
            let cut = whole.within(limit).expect("its links fit").into_owned();
            assert!(cut.frame_bytes() <= limit && cut.id().is_some() && cut.has_any_tag());
            assert!(whole.tags.starts_with(&cut.tags), "{cut:?}");
            assert_eq!(cut.tags.is_empty(), limit == 136);
            assert_eq!(cut.within(limit).as_deref(), Some(&cut), "and is told on as it is");
        }
        assert_eq!(whole.within(100), None);
        let longest = "x".repeat(64);
        let largest = NodeRecord {
            node: longest.clone(),
            store: StoreId(u128::MAX),
            incarnation: Incarnation::new(u64::MAX),
            revision: u64::MAX - 1,
            tags: longest.clone(),
            links: longest,
        };
        let mut frame = crate::wire::FrameWriter::new(crate::wire::BatchKind::Topology);
        frame.push(&largest);
        assert!(frame.finish().len() <= largest.frame_bytes());
    }

    #[test]
    fn a_link_counts_when_both_of_its_ends_name_it() {
        let edges = BTreeSet::from([(0, 1), (1, 2)]);
        let mut topology = mesh(0, 3, &edges);
        assert!(topology.statuses()[2].reachable);
        assert_eq!(topology.changes(), (vec![id(1), id(2)], vec![]));
        assert_eq!(topology.changes(), (vec![], vec![]));
        let now = Instant::from_micros(1);
        assert_eq!(topology.learn(&id(1), record(1, &BTreeSet::from([0]), 2), now), News::Fresh);
        assert!(!topology.statuses()[2].reachable);
        assert_eq!(topology.changes(), (vec![], vec![id(2)]));
        assert_eq!(topology.learn(&id(1), record(1, &BTreeSet::from([0, 2]), 2), now), News::Known);
    }

    #[test]
    fn a_peer_that_nobody_has_heard_of_is_sent_everything() {
        let mut topology = mesh(0, 2, &BTreeSet::from([(0, 1)]));
        assert_eq!(topology.route(&message("n00", "x"), &id(7)), Route::Now);
        let of_a_stranger = topology.route(&message("n77,n00", ""), &id(1));
        assert_eq!(of_a_stranger, Route::Now, "the first that is known is the root");
        assert_eq!(topology.route(&message("n01,n00", ""), &id(1)), Route::Later);
    }

    // keeps: false-twins
    #[test]
    fn its_own_record_that_was_cut_is_known_when_it_comes_back() {
        let tags: BTreeSet<_> = (0..100).map(|tag| std::format!("t{tag}")).collect();
        let tags = tags::join(tags.iter().map(String::as_str));
        let whole = NodeRecord { tags, ..record(0, &BTreeSet::from([1]), 7) };
        let now = Instant::from_micros(0);
        let mut topology = Topology::new(id(0), 100, whole.clone(), now);
        for limit in [whole.frame_bytes(), 300, 136] {
            let cut = whole.within(limit).expect("its links fit").into_owned();
            assert_eq!(topology.learn(&id(0), cut, now), News::Known);
        }
        assert_eq!(topology.mine().revision, 7);
        let twin = NodeRecord { incarnation: Incarnation::new(2), ..whole };
        assert_eq!(topology.learn(&id(0), twin, now), News::OfMyself);
        assert_eq!(topology.mine().revision, 8);
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
