//! What a store reads back: rows and dead letters, damaged or forged; and records from which a
//! node starts, of any content.
//!
//! A row or dead letter carries a checksum: one that was changed in any single cell is refused. The
//! records of sessions, seen-set and receipts carry none: whatever they hold, a node starts, and
//! keeps its promises towards everyone.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use slipstream_core::clock::Hlc;
use slipstream_core::config::Config;
use slipstream_core::copies::{self, GroupCopy};
use slipstream_core::ids::{DeadLetterId, Incarnation, NodeId, Position, Sequence, SessionId};
use slipstream_core::io::Protocol;
use slipstream_core::message::{Fields, Kind, Message};
use slipstream_core::store::{
    Batch, DeadLetter, DeadReason, ReceiptBlock, Row, SeenKey, SeenRecord, SessionRecord,
};
use slipstream_core::time::WallMs;
use slipstream_store_sqlite::readback::{Readback, StoredCell, cells_of_dead_letter, cells_of_row};
use slipstream_tests::world::MemoryStore;

use crate::wire::message;
use crate::world::{BEGINNING, World};

thread_local! {
    static READBACK: Readback = Readback::new();
}

/// What is read back.
#[derive(Debug, Arbitrary)]
enum Read {
    /// Cells of any kind, which somebody else has written.
    Row(Box<[AnyCell; 14]>),
    /// The same for a dead letter.
    Letter(Box<[AnyCell; 14]>),
    /// A row that was written, and what happened to it since.
    Written { row: AnyRow, damage: Damage },
    /// A dead letter that was written, and what happened to it since.
    WrittenLetter { row: AnyRow, reason: u8, errors: (String, String), damage: Damage },
    /// Records of a node.
    Records(Records),
}

#[derive(Debug, Arbitrary)]
enum AnyCell {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct AnyRow {
    kind: u8,
    numbers: [u64; 4],
    publisher: Option<u32>,
    only: Option<u32>,
    path: String,
    key: String,
    body: String,
}

/// A change of one cell: a byte of its content, or a bit of its number.
#[derive(Debug, Arbitrary)]
struct Damage {
    cell: u8,
    at: u16,
    by: u8,
}

#[derive(Debug, Arbitrary)]
struct Records {
    head: u16,
    sessions: Vec<(String, u64, Vec<u8>)>,
    seen: Vec<(u8, u64, u64, Vec<u8>)>,
    receipts: Vec<(u8, u64, u64, Vec<u8>)>,
}

/// Takes `bytes` for what lies in a file.
pub fn store_row(bytes: &[u8]) {
    let Ok(read) = Read::arbitrary(&mut Unstructured::new(bytes)) else { return };
    match read {
        Read::Row(cells) => {
            let cells = cells.map(AnyCell::cell);
            if let Ok(row) = READBACK.with(|readback| readback.row(&cells)) {
                message(&row.message);
            }
        }
        Read::Letter(cells) => {
            let cells = cells.map(AnyCell::cell);
            if let Ok(letter) = READBACK.with(|readback| readback.dead_letter(&cells)) {
                message(&letter.message);
            }
        }
        Read::Written { row, damage } => written_row(&row.row(), &damage),
        Read::WrittenLetter { row, reason, errors, damage } => {
            written_letter(&row.letter(reason, errors), &damage);
        }
        Read::Records(records) => records.start(),
    }
}

fn written_row(row: &Row, damage: &Damage) {
    READBACK.with(|readback| {
        let mut cells = cells_of_row(row);
        let read = readback.row(&cells).expect("what was written is read back");
        assert_eq!(
            (read.position, read.publisher, read.only),
            (row.position, row.publisher, row.only)
        );
        assert_eq!(read.message, row.message);
        if damage.strike(&mut cells) {
            assert!(readback.row(&cells).is_err(), "{damage:?} passes in {cells:?}");
        }
    });
}

fn written_letter(letter: &DeadLetter, damage: &Damage) {
    READBACK.with(|readback| {
        let mut cells = cells_of_dead_letter(letter);
        assert_eq!(readback.dead_letter(&cells).as_ref(), Ok(letter), "it is read back");
        if damage.strike(&mut cells) {
            assert!(readback.dead_letter(&cells).is_err(), "{damage:?} passes in {cells:?}");
        }
    });
}

impl Damage {
    /// Changes one cell. Answers whether there was something to change.
    fn strike(&self, cells: &mut [StoredCell]) -> bool {
        let cell = usize::from(self.cell) % cells.len();
        match &mut cells[cell] {
            StoredCell::Null | StoredCell::Real(_) => return false,
            StoredCell::Integer(number) => *number ^= i64::from(self.by) << (self.at % 8 * 8),
            StoredCell::Text(bytes) | StoredCell::Blob(bytes) => {
                if bytes.is_empty() {
                    return false;
                }
                let at = usize::from(self.at) % bytes.len();
                bytes[at] ^= self.by;
            }
        }
        self.by != 0
    }
}

impl AnyCell {
    fn cell(self) -> StoredCell {
        match self {
            Self::Null => StoredCell::Null,
            Self::Integer(number) => StoredCell::Integer(number),
            Self::Real(number) => StoredCell::Real(number),
            Self::Text(text) => StoredCell::Text(text),
            Self::Blob(bytes) => StoredCell::Blob(bytes),
        }
    }
}

impl AnyRow {
    fn message(&self) -> Message {
        let [incarnation, sequence, version, expires] = self.numbers;
        let path = if self.path.is_empty() { "a" } else { &self.path };
        let fields = Fields {
            kind: Kind::ALL[usize::from(self.kind) % Kind::ALL.len()],
            incarnation: Incarnation::new(incarnation),
            sequence: Sequence::new(sequence),
            version: Hlc(version),
            expires: WallMs(expires),
            group: if self.only.is_some() { "g" } else { "" },
            tags: "",
            path,
            id: "m",
            key: &self.key,
            body: &self.body,
        };
        Message::encode(&fields, &mut BytesMut::new())
    }

    fn row(&self) -> Row {
        let only = self.only.map(|id| SessionId::new(id.into()));
        let message = self.message();
        Row {
            position: Position::new(self.numbers[0]),
            key_hash: if only.is_none() { message.key_hash() } else { None },
            publisher: self.publisher.map(|id| SessionId::new(id.into())),
            only,
            // State has no end.
            ends: match message.kind() {
                Kind::Cmd => message.expires().unwrap_or_default(),
                Kind::Sk | Kind::Sa | Kind::Sw | Kind::Dk => WallMs(0),
            },
            late: self.numbers[0] % 2 == 1,
            copy: copies::content(&message).map(|content| GroupCopy {
                content,
                of: self.publisher.map(|of| Position::new(of.into())),
            }),
            message,
        }
    }

    fn letter(&self, reason: u8, (first_error, last_error): (String, String)) -> DeadLetter {
        DeadLetter {
            id: DeadLetterId::new(self.numbers[0]),
            session: SessionId::new(self.numbers[1]),
            reason: DeadReason::ALL[usize::from(reason) % DeadReason::ALL.len()],
            attempts: self.numbers[2] as u32,
            first_error,
            last_error,
            first_at: WallMs(self.numbers[2]),
            died_at: WallMs(self.numbers[3]),
            message: self.message(),
        }
    }
}

impl Records {
    /// Starts a node on the records, and lets it do its work with applications and a peer.
    fn start(self) {
        let node = |n: u8| NodeId::new(["a", "b", "c"][usize::from(n) % 3]).expect("a name");
        let mut store = MemoryStore::new(7);
        let head = Position::new((self.head % 64).into());
        store.commit(&Batch { rows: rows(head), ..Batch::default() });
        let mut recovered = store.recovered();
        for (number, (name, cursor, state)) in (1..).zip(self.sessions) {
            recovered.last_session = SessionId::new(number);
            recovered.sessions.push(SessionRecord {
                id: SessionId::new(number),
                name,
                cursor: Position::new(cursor),
                state: state.into(),
            });
        }
        for (origin, incarnation, chunk, marks) in self.seen {
            let key =
                SeenKey { origin: node(origin), incarnation: Incarnation::new(incarnation), chunk };
            recovered.seen.push(SeenRecord { key, marks: marks.into() });
        }
        for (session, number, wall, receipts) in self.receipts {
            recovered.receipts.push(ReceiptBlock {
                session: SessionId::new((session % 4).into()),
                number: number >> 1,
                wall: WallMs(wall),
                receipts: receipts.into(),
            });
        }
        let config = Config::new(node(0));
        let mut world = World::recovered(config, store, recovered);
        world.settle();
        for query in ["client=a", "client=b&ack=auto", "replay=all", "client=a&tags=x"] {
            let link = world.accept(Protocol::Json, query);
            let publish = r#"{"type":"SK","messageId":"m","key":"k","value":1}"#;
            world.text(link, publish.to_owned());
            world.text(link, r#"{"type":"ACK","deliveryId":9,"upTo":true}"#.to_owned());
            world.settle();
        }
        let peer = world.accept(Protocol::Postcard, "");
        world.greet_as("b", peer);
        world.settle();
        world.pass(Duration::from_secs(70));
        world.heal();
    }
}

/// A log that ends at `head`.
fn rows(head: Position) -> Vec<Row> {
    let row = |position: u64| {
        let fields = Fields {
            kind: Kind::Sk,
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(position),
            version: Hlc::at(BEGINNING.minus(Duration::from_secs(60))),
            expires: WallMs(0),
            group: "",
            tags: "",
            path: "c,a",
            id: "old",
            key: &format!("k{}", position % 8),
            body: "1",
        };
        let message = Message::encode(&fields, &mut BytesMut::new());
        Row::new(Position::new(position), message)
    };
    (1..=head.get()).map(row).collect()
}
