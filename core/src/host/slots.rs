//! Places of connections that are not the node's yet, or not any more, and how many connections of
//! each kind a process has descriptors for.
//!
//! What stays true:
//!
//! - Whoever comes is taken. Where that is one too many, the oldest connection of the address that
//!   has most of them gives way: handshakes that nobody finishes keep out nobody from elsewhere,
//!   and nobody for long.
//! - Whoever the node has admitted is none of them. The node counts those, applications apart from
//!   peers, so that applications never keep a peer out.
//! - Whoever is on the way out is one of them again: its socket is still open.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::task::{Context, Poll, Waker};

use crate::config::Config;
use crate::host::shared::{Shared, Wakes, keep};

/// See the module.
#[derive(Debug)]
pub struct Slots {
    limit: usize,
    last: u64,
    /// In the order in which they came.
    held: BTreeMap<u64, Held>,
    /// Those that are to give way and have not yet.
    needed: BTreeSet<u64>,
    woken: Vec<Waker>,
}

#[derive(Debug)]
struct Held {
    network: IpAddr,
    waker: Option<Waker>,
}

impl Wakes for Slots {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

impl Slots {
    /// So many places.
    pub fn new(limit: usize) -> Self {
        let (held, needed) = (BTreeMap::new(), BTreeSet::new());
        Self { limit, last: 0, held, needed, woken: Vec::new() }
    }

    fn hold(&mut self, network: IpAddr) -> u64 {
        self.last += 1;
        self.held.insert(self.last, Held { network, waker: None });
        self.last
    }

    fn let_go(&mut self, number: u64) {
        self.needed.remove(&number);
        self.woken.extend(self.held.remove(&number).and_then(|held| held.waker));
    }

    fn make_room(&mut self) {
        while self.held.len() >= self.limit.max(1) {
            let mut counts = BTreeMap::<IpAddr, usize>::new();
            for held in self.held.values() {
                *counts.entry(held.network).or_default() += 1;
            }
            let most = counts.values().max().copied();
            let mut oldest_first = self.held.iter();
            let oldest = oldest_first.find(|(_, held)| counts.get(&held.network).copied() == most);
            let Some((&number, _)) = oldest else { return };
            self.let_go(number);
            self.needed.insert(number);
        }
    }

    fn poll_needed(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.needed.contains(&number) {
            return Poll::Ready(());
        }
        if let Some(held) = self.held.get_mut(&number) {
            keep(&mut held.waker, cx.waker(), &mut self.woken);
        }
        Poll::Pending
    }
}

/// A place of a connection, free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Shared<Slots>,
    network: IpAddr,
    number: u64,
}

impl Slot {
    /// The next one, for a connection from `remote`. If need be, another connection gives way.
    pub fn take(slots: &Shared<Slots>, remote: IpAddr) -> Self {
        let network = network(remote);
        let number = slots.with(|slots| {
            slots.make_room();
            slots.hold(network)
        });
        Self { slots: slots.clone(), network, number }
    }

    /// Returns when the connection is to give way.
    pub fn needed(&self) -> impl Future<Output = ()> + Send + use<> {
        let (slots, number) = (self.slots.clone(), self.number);
        async move { slots.wait(|slots, cx| slots.poll_needed(number, cx)).await }
    }

    /// Gives the place back: the node counts the connection now.
    pub(crate) fn admit(&mut self) {
        self.slots.with(|slots| slots.let_go(self.number));
    }

    /// Takes a place for the way out. Nobody gives way for that before the next one comes: all may
    /// leave at once.
    pub(crate) fn leave(&mut self) {
        self.number = self.slots.with(|slots| {
            slots.let_go(self.number);
            slots.hold(self.network)
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.with(|slots| slots.let_go(self.number));
    }
}

/// Who has one IPv6 address mostly has 2^64 of them.
fn network(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Descriptors of a node without any connection: the store, listeners, timers and signals, and some
/// to spare.
const OWN: usize = 32;
/// Fewer connections than that are of no use.
const LEAST: usize = 16;
/// Connections that are not admitted yet, or on their way out.
const MAX_UNFINISHED: usize = 256;
/// Connections of operators.
const MAX_OPERATORS: usize = 128;

/// Descriptors that a node needs at least.
pub const LEAST_DESCRIPTORS: usize = OWN + LEAST;

/// How many connections of each kind a node takes, so that none of them uses up the descriptors of
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotCounts {
    /// Applications: `limits.max_connections`, or fewer.
    pub applications: usize,
    /// Handshakes and farewells.
    pub unfinished: usize,
    /// Connections to the admin endpoint.
    pub operators: usize,
}

impl SlotCounts {
    /// Of a process that may open so many descriptors. Some of them are kept back for peers. `None`
    /// if there are fewer than [`LEAST_DESCRIPTORS`].
    pub fn within(config: &Config, descriptors: u64) -> Option<Self> {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let room = descriptors.checked_sub(OWN).filter(|room| *room >= LEAST)?;
        let operators = MAX_OPERATORS.min(room / 8);
        let unfinished = MAX_UNFINISHED.min(room / 8);
        let peers = config.limits.max_nodes.min(config.peers.len().max(room / 8)).min(room / 2);
        let rest = room - operators - unfinished - peers;
        let applications = config.limits.max_connections.min(rest);
        Some(Self { applications, unfinished, operators })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::host::shared::share;
    use crate::types::ids::NodeId;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn slots(limit: usize) -> Shared<Slots> {
        share(Slots::new(limit))
    }

    fn take(slots: &Shared<Slots>, remote: &str) -> Slot {
        Slot::take(slots, remote.parse().expect("an address"))
    }

    fn gives_way(slot: &Slot) -> bool {
        slot.slots.with(|slots| slots.poll_needed(slot.number, &mut cx())).is_ready()
    }

    // keeps: peers-get-in
    #[test]
    fn oldest_of_the_busiest_address_gives_way() {
        let slots = slots(4);
        let peer = take(&slots, "10.0.0.1");
        let crowd = [(); 3].map(|()| take(&slots, "10.0.0.9"));
        assert!(!crowd.iter().any(gives_way));
        let newcomer = take(&slots, "10.0.0.2");
        let given: Vec<_> = crowd.iter().map(gives_way).collect();
        assert_eq!(given, [true, false, false]);
        let next = take(&slots, "::ffff:10.0.0.9");
        assert!(gives_way(&crowd[1]) && !gives_way(&crowd[2]), "mapped addresses count as one");
        for stays in [&peer, &newcomer, &next] {
            assert!(!gives_way(stays));
        }
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let slots = slots(3);
        let crowd = ["2001:db8::1", "2001:db8::2"].map(|remote| take(&slots, remote));
        let peer = take(&slots, "2001:db8:0:1::1");
        let next = take(&slots, "2001:db8::3");
        assert!(gives_way(&crowd[0]) && !gives_way(&crowd[1]));
        assert!(!gives_way(&peer) && !gives_way(&next));
    }

    #[test]
    fn admitted_connections_hold_no_place_until_they_leave() {
        let slots = slots(2);
        let mut admitted = [(); 5].map(|()| {
            let mut slot = take(&slots, "10.0.0.1");
            slot.admit();
            slot
        });
        let waiting = [(); 2].map(|()| take(&slots, "10.0.0.1"));
        assert!(!admitted.iter().chain(&waiting).any(gives_way));
        admitted.iter_mut().for_each(Slot::leave);
        assert!(!admitted.iter().chain(&waiting).any(gives_way), "all may leave at once");
        let newcomer = take(&slots, "10.0.0.1");
        let giving = admitted.iter().chain(&waiting).filter(|slot| gives_way(slot)).count();
        assert_eq!(giving, 6, "room is made for whoever comes");
        drop((admitted, waiting));
        let next = take(&slots, "10.0.0.1");
        assert!(!gives_way(&newcomer) && !gives_way(&next));
    }

    // keeps: peers-get-in
    #[test]
    fn descriptors_are_shared_out_and_some_are_kept_for_peers() {
        let mut config = Config::new(NodeId::new("aws").expect("a name"));
        let room = |config: &Config, descriptors| SlotCounts::within(config, descriptors);
        let plenty = SlotCounts { applications: 10_000, unfinished: 256, operators: 128 };
        assert_eq!(room(&config, u64::MAX), Some(plenty));
        assert_eq!(room(&config, 11_440), Some(plenty));
        assert_eq!(room(&config, LEAST_DESCRIPTORS as u64 - 1), None);
        for descriptors in (LEAST_DESCRIPTORS..12_000).step_by(7) {
            let room = room(&config, descriptors as u64).expect("it is enough");
            let used = OWN + room.applications + room.unfinished + room.operators;
            assert!(used < descriptors, "{descriptors}: {room:?} leaves none for peers");
            assert!(room.applications > 0 && room.unfinished > 1 && room.operators > 1, "{room:?}");
        }
        config.peers = (0..40).map(|peer| peer.to_string()).collect();
        let few = room(&config, 160).expect("it is enough");
        assert_eq!(few.applications, 128 - 16 - 16 - 40, "each configured peer has its place");
        config.limits.max_connections = 7;
        assert_eq!(room(&config, 1024).map(|room| room.applications), Some(7));
    }
}
