//! What a run has seen: how often each fault was injected, and each rare thing happened.
//!
//! A suite in which a *sometimes-event* never happened has tested less than it says.

use std::collections::BTreeMap;

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $($variant:ident: $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the text says what each is")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it is, in words.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

counted! {
    /// A fault that the world injects.
    Fault {
        Cut: "connection cut",
        SilentCut: "connection lost without a word",
        LifeLimit: "connection at the end of its life",
        Stall: "one way stalled",
        Partition: "two nodes parted",
        Clog: "every way of one node clogged",
        Corrupt: "bytes altered on the wire",
        Kill: "node killed",
        KillBetweenOutputs: "node killed between two outputs",
        KillInRecovery: "node killed while it recovers",
        PowerLoss: "machine gone without a word",
        Stop: "node told to stop",
        Freeze: "process frozen",
        SlowCommit: "slow commit",
        DiskFull: "disk full",
        FailedSync: "failed sync",
        Restore: "store set back to an old copy",
        Wipe: "store lost",
        Skew: "clock skewed within the limit",
        Jump: "clock jumped",
        ClockStop: "clock frozen",
        NodeAdded: "node added",
        NodeRemoved: "node removed for good",
        LinkAdded: "link added",
        LinkRemoved: "link removed",
        Lie: "lie of a peer",
        Vanish: "application gone for good",
    }
}

counted! {
    /// Something rare that a good suite must have met.
    Sometimes {
        CrashBeforeCommit: "crash while a batch is on its way",
        CommitWithoutAnswer: "batch durable, crash before the node knew",
        CrashBeforeReceipt: "crash between commit and receipt",
        CrashBeforeDeletion: "crash between a peer's ACK and the record of it",
        CrashInRecovery: "crash in recovery",
        TwoFaults: "two faults at once",
        Duplicate: "duplicate suppressed",
        Idempotent: "repeated publish answered with its receipt",
        IdReused: "reused messageId refused",
        Loop: "loop suppressed",
        Superseded: "superseded on arrival",
        Offered: "offer of an identity",
        Pulled: "offer asked for",
        SeenElsewhere: "offer answered with `seen`",
        Gone: "offer withdrawn: something newer",
        StoreFull: "store full: publisher refused",
        StoreFullRecovered: "store full, and room again",
        NotNow: "peer told `not now`",
        RolledBack: "batch rolled back",
        Halted: "node halted",
        DeadLetter: "dead letter",
        DeadLetterReplayed: "dead letter replayed",
        DeadLetterTakenBack: "dead letter acknowledged late",
        DiedOfMessage: "application died of a message",
        Undelivered: "event handed on to nobody is a dead letter",
        UndeliveredReplayed: "event handed on to nobody offered again",
        Expired: "event expired",
        CreditExhausted: "send credit exhausted",
        WindowExhausted: "delivery window exhausted",
        VersionRefused: "version refused for drift",
        ClockRefused: "publisher refused for the clock",
        ClockReset: "clock reset by order",
        StampedAnew: "value of a wrong clock stamped anew",
        Redelivery: "delivery repeated",
        TakenOver: "session taken over",
        Rewound: "session set back",
        OldCopy: "old copy of a store noticed",
        DuplicateLink: "second link between two nodes ended",
        HeartbeatTimeout: "link ended by its heartbeat",
        CorruptionNoticed: "altered frame refused",
        ErrorAnswered: "bad frame answered",
        Forgotten: "history forgotten",
        LateNode: "late node brought up to date",
        LookedUp: "newest of a key asked of the store",
        IdOfAnother: "node id in use by another database",
        CleanStop: "clean stop",
        OutboxAboveBound: "outbox above its bound",
        Conflated: "values conflated",
        Deleted: "key deleted",
        Read: "read answered with a value",
        ReadDeleted: "read of a key that was deleted",
        CopySuppressed: "copy through another node of the group not handed on",
        WrongKind: "read of another kind refused",
        PeerMoved: "address of a peer changed",
        PeerMovedWhileAway: "address of a peer changed while it was away",
        DialsCrossed: "two nodes reached each other at the same moment",
        CrowdedOut: "application refused, there being no room",
        Cloned: "running node cloned",
        AnyTag: "record of a node that may have any tag",
    }
}

/// Counts of one run or of many.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Faults injected.
    pub faults: BTreeMap<Fault, u64>,
    /// Rare things that happened.
    pub sometimes: BTreeMap<Sometimes, u64>,
    /// Messages published, accepted and handed to applications; frames carried; turns of nodes.
    pub volume: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// A fault was injected.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// A rare thing happened.
    pub fn sometimes(&mut self, event: Sometimes) {
        *self.sometimes.entry(event).or_default() += 1;
    }

    /// Something ordinary happened so many times.
    pub fn volume(&mut self, what: &'static str, count: u64) {
        *self.volume.entry(what).or_default() += count;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (event, count) in &other.sometimes {
            *self.sometimes.entry(*event).or_default() += count;
        }
        for (what, count) in &other.volume {
            *self.volume.entry(what).or_default() += count;
        }
    }

    /// Faults and rare things that never happened, in words.
    pub fn never(&self) -> Vec<&'static str> {
        let faults = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault));
        let events = Sometimes::ALL.iter().filter(|event| !self.sometimes.contains_key(event));
        faults.map(|fault| fault.text()).chain(events.map(|event| event.text())).collect()
    }
}
