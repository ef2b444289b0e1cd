//! One directory's disk: what it was told to do, what it did, and what of it is durable.
//!
//! Everything that is decided is decided here; the module `vfs` only carries it out.

use std::ffi::c_int;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rusqlite::ffi;

use crate::image::{self, Directory, Survives};
use crate::vfs;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A read fails.
    Read,
    /// The system reads less than it was asked for; SQLite must go on.
    ShortRead,
    /// A write fails.
    Write,
    /// A write finds no room.
    Full,
    /// The system writes less than it was asked for; SQLite must go on.
    ShortWrite,
    /// A sync fails, and what was to be synced is lost: the next sync succeeds without it.
    Sync,
    /// Cutting a file fails.
    Truncate,
    /// The size of a file cannot be had.
    Size,
    /// A file cannot be opened.
    Open,
    /// A file cannot be deleted.
    Delete,
    /// Whether a file exists cannot be had.
    Access,
    /// A lock cannot be had, and not because someone else holds it.
    Lock,
    /// The power goes, at anything that changes the disk.
    Power,
}

/// What SQLite asks of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    Delete,
    Access,
    Read,
    Write,
    Truncate,
    Sync,
    Size,
    Lock,
}

/// What is to be done about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Goes,
    /// Goes, but the system does half of it at first.
    Halved,
    /// Fails, and a write has left some of what it was to write.
    Fails(c_int),
    /// Fails without a trace: there is no power any more.
    Dead,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Read,
        Self::ShortRead,
        Self::Write,
        Self::Full,
        Self::ShortWrite,
        Self::Sync,
        Self::Truncate,
        Self::Size,
        Self::Open,
        Self::Delete,
        Self::Access,
        Self::Lock,
        Self::Power,
    ];

    fn strikes(self, operation: Operation) -> bool {
        use Operation as O;
        match self {
            Self::Read | Self::ShortRead => operation == O::Read,
            Self::Write | Self::Full | Self::ShortWrite => operation == O::Write,
            Self::Sync => operation == O::Sync,
            Self::Truncate => operation == O::Truncate,
            Self::Size => operation == O::Size,
            Self::Open => operation == O::Open,
            Self::Delete => operation == O::Delete,
            Self::Access => operation == O::Access,
            Self::Lock => operation == O::Lock,
            Self::Power => match operation {
                O::Open | O::Delete | O::Write | O::Truncate | O::Sync => true,
                O::Access | O::Read | O::Size | O::Lock => false,
            },
        }
    }

    fn verdict(self) -> Verdict {
        Verdict::Fails(match self {
            Self::ShortRead | Self::ShortWrite => return Verdict::Halved,
            Self::Read => ffi::SQLITE_IOERR_READ,
            Self::Write => ffi::SQLITE_IOERR_WRITE,
            Self::Full => ffi::SQLITE_FULL,
            Self::Sync => ffi::SQLITE_IOERR_FSYNC,
            Self::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Self::Size => ffi::SQLITE_IOERR_FSTAT,
            Self::Open => ffi::SQLITE_CANTOPEN,
            Self::Delete => ffi::SQLITE_IOERR_DELETE,
            Self::Access => ffi::SQLITE_IOERR_ACCESS,
            Self::Lock => ffi::SQLITE_IOERR_LOCK,
            Self::Power => ffi::SQLITE_IOERR,
        })
    }
}

/// The disk under one directory, until it is dropped.
pub struct Disk {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    fired: u64,
    is_dead: bool,
    directory: Directory,
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    /// Operations that it may strike, until it does.
    left: u64,
    for_good: bool,
}

static DISKS: Mutex<Vec<Weak<Disk>>> = Mutex::new(Vec::new());

impl Disk {
    /// Puts a disk under every database that is opened below `directory` from now on. What lies
    /// there is durable.
    pub fn under(directory: &Path) -> Arc<Self> {
        vfs::register();
        let path = directory.canonicalize().expect("the directory exists");
        let state = Mutex::new(State::default());
        let disk = Arc::new(Self { path, state });
        let mut disks = lock(&DISKS);
        disks.retain(|known| known.strong_count() > 0);
        disks.push(Arc::downgrade(&disk));
        disk
    }

    /// The disk under a file.
    pub(crate) fn of(file: &Path) -> Option<Arc<Self>> {
        let folder = file.parent()?.canonicalize().ok()?;
        let disks = lock(&DISKS);
        disks.iter().filter_map(Weak::upgrade).find(|disk| folder.starts_with(&disk.path))
    }

    /// Lets `fault` strike the `nth` operation from now on that it can strike, and all further
    /// ones too if it is `for_good`.
    pub fn fail(&self, fault: Fault, nth: u64, for_good: bool) {
        assert!(nth > 0, "operations are counted from 1");
        let mut state = self.state();
        state.plan = Some(Plan { fault, left: nth, for_good });
        state.fired = 0;
    }

    /// Lets nothing fail any more, but for the power, which stays away.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// How often the last fault that was asked for has struck.
    pub fn fired(&self) -> u64 {
        self.state().fired
    }

    /// Notes that the directory was synced by other means than SQLite's.
    pub fn directory_is_synced(&self) {
        self.state().directory.sync_entries();
    }

    /// Writes into the empty directory `into` what is there after the power went.
    pub fn image(&self, survives: Survives, into: &Path) {
        self.state().directory.write_down(survives, into);
    }

    /// What SQLite is told about an operation that does not go.
    pub(crate) fn refuse(&self, operation: Operation, file: &Path) -> Option<c_int> {
        match self.judge(operation, file) {
            Verdict::Goes | Verdict::Halved => None,
            Verdict::Fails(code) => Some(code),
            Verdict::Dead => Some(ffi::SQLITE_IOERR),
        }
    }

    /// What happens to the next operation. Damage to what was written before is noted at once.
    pub(crate) fn judge(&self, operation: Operation, file: &Path) -> Verdict {
        let mut state = self.state();
        if state.is_dead {
            return Verdict::Dead;
        }
        let Some(plan) = state.plan.as_mut().filter(|plan| plan.fault.strikes(operation)) else {
            return Verdict::Goes;
        };
        plan.left = plan.left.saturating_sub(1);
        if plan.left > 0 {
            return Verdict::Goes;
        }
        let fault = plan.fault;
        if !plan.for_good {
            state.plan = None;
        }
        state.fired += 1;
        match fault {
            Fault::Power => state.is_dead = true,
            Fault::Sync => state.directory.lose(file),
            _ => {}
        }
        fault.verdict()
    }

    /// Notes what lies in a file that is opened for the first time, before it is.
    pub(crate) fn opening(&self, file: &Path) {
        let mut state = self.state();
        if !state.directory.knows(file) {
            // Only then: closing a file gives up the locks that this process holds on it.
            state.directory.found(file, std::fs::read(file).ok());
        }
    }

    pub(crate) fn changed(&self, file: &Path, change: image::Change) {
        self.state().directory.change(file, change);
    }

    pub(crate) fn created(&self, file: &Path) {
        self.state().directory.create(file);
    }

    /// Makes durable what was written to a file, and with `entries` the directory too.
    pub(crate) fn synced(&self, file: &Path, entries: bool) {
        let mut state = self.state();
        state.directory.sync(file);
        if entries {
            state.directory.sync_entries();
        }
    }

    pub(crate) fn deleted(&self, file: &Path, entries: bool) {
        let mut state = self.state();
        state.directory.delete(file);
        if entries {
            state.directory.sync_entries();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A test that failed while it held the lock has said so already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
