//! SQLite's interface to the disk, put between SQLite and the system's own.
//!
//! Each file gets a table of methods of its own, with the version and the gaps of the real one:
//! the system uses another table for the write-ahead log than for the database. What a disk does
//! not decide (locks that are given up, shared memory, mapped pages) is handed through.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};

use crate::disk::{Disk, Operation, Verdict};
use crate::image::{Change, first_sectors};

/// A file as SQLite sees it; the real one lies behind it in the same memory.
#[repr(C)]
struct Wrapped {
    base: sqlite3_file,
    methods: sqlite3_io_methods,
    /// Where the disk is; null if there is none under this file.
    on: *mut OnDisk,
}

/// A file on a disk.
struct OnDisk {
    disk: Arc<Disk>,
    path: PathBuf,
    /// Whether the next sync makes the directory durable too, as the system's own files do.
    syncs_directory: AtomicBool,
}

/// Bytes in front of the real file, kept aligned for it.
const HEADER: usize = size_of::<Wrapped>().next_multiple_of(16);

/// The real interface, which lives as long as the process.
struct Real(*mut sqlite3_vfs);

// SAFETY: SQLite's interfaces may be called from any thread and are never freed.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

static REAL: OnceLock<Real> = OnceLock::new();

type Transfer = unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize;
type TransferAt = unsafe extern "C" fn(c_int, *mut c_void, usize, i64) -> isize;
type AnyCall = unsafe extern "C" fn();

/// The system's own calls: reading and writing where the file stands, and at an offset. Which
/// ones are used depends on how SQLite was built.
static TRANSFERS: OnceLock<[Option<Transfer>; 2]> = OnceLock::new();
static TRANSFERS_AT: OnceLock<[Option<TransferAt>; 2]> = OnceLock::new();

thread_local! {
    /// Whether the next transfer of this thread does only half of what it is asked.
    static HALVED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the wrapping interface the default of this process, once.
pub(crate) fn register() {
    REAL.get_or_init(|| {
        // SAFETY: the default interface is never null and never freed. The copy that is
        // registered lives for ever, keeps the data of the real one, and has room for its files
        // behind our own.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            let real = ffi::sqlite3_vfs_find(std::ptr::null());
            halve_transfers(real);
            let wrapping = Box::new(sqlite3_vfs {
                zName: c"faulty-disk".as_ptr(),
                szOsFile: (*real).szOsFile + HEADER as c_int,
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                ..*real
            });
            assert_eq!(ffi::sqlite3_vfs_register(Box::into_raw(wrapping), 1), ffi::SQLITE_OK);
            Real(real)
        }
    });
}

/// Puts [`HALVED`] between SQLite and the system's calls.
///
/// # Safety
/// `real` is the system's own interface, and no file is open yet.
unsafe fn halve_transfers(real: *mut sqlite3_vfs) {
    // SAFETY: calls of these names have these types, whatever SQLite calls them in its table.
    unsafe {
        let get = (*real).xGetSystemCall.expect("the system's interface has it");
        let set = (*real).xSetSystemCall.expect("the system's interface has it");
        let own = |name: &CStr| get(real, name.as_ptr());
        let replace = |name: &CStr, call: AnyCall| {
            if own(name).is_some() {
                assert_eq!(set(real, name.as_ptr(), Some(call)), ffi::SQLITE_OK);
            }
        };
        let transfer = |name| own(name).map(|call| transmute::<AnyCall, Transfer>(call));
        TRANSFERS.get_or_init(|| [transfer(c"read"), transfer(c"write")]);
        replace(c"read", transmute::<Transfer, AnyCall>(halving_read));
        replace(c"write", transmute::<Transfer, AnyCall>(halving_write));
        for (read, write) in [(c"pread", c"pwrite"), (c"pread64", c"pwrite64")] {
            if own(read).is_some() {
                let at = |name| own(name).map(|call| transmute::<AnyCall, TransferAt>(call));
                TRANSFERS_AT.get_or_init(|| [at(read), at(write)]);
                replace(read, transmute::<TransferAt, AnyCall>(halving_read_at));
                replace(write, transmute::<TransferAt, AnyCall>(halving_write_at));
            }
        }
    }
}

fn real() -> *mut sqlite3_vfs {
    REAL.get().expect("SQLite calls only what was registered").0
}

fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite hands over names that end with a zero byte.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())).to_path_buf())
}

/// The disk under a file, and its path.
fn disk_of(name: *const c_char) -> Option<(Arc<Disk>, PathBuf)> {
    let path = path_of(name)?;
    Some((Disk::of(&path)?, path))
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let wrapped = file.cast::<Wrapped>();
    // SAFETY: SQLite gives memory of the size that was registered, which it has not set.
    unsafe {
        (*wrapped).base.pMethods = std::ptr::null();
        (*wrapped).on = std::ptr::null_mut();
    }
    let on = disk_of(name);
    let is_new = path_of(name).is_some_and(|path| !path.exists());
    if let Some((disk, path)) = &on {
        if let Some(code) = disk.refuse(Operation::Open, path) {
            return code;
        }
        disk.opening(path);
    }
    // SAFETY: the real file lies behind ours, in memory of the size that it asked for; the name
    // is the one that SQLite gave, which may carry more behind its end.
    unsafe {
        let open = (*real()).xOpen.expect("every interface opens files");
        let code = open(real(), name, real_file(file), flags, out_flags);
        let methods = (*real_file(file)).pMethods;
        if !methods.is_null() {
            (*wrapped).methods = wrapping(&*methods);
            (*wrapped).base.pMethods = &raw const (*wrapped).methods;
        }
        if let Some((disk, path)) = on.filter(|_| code == ffi::SQLITE_OK) {
            if is_new {
                disk.created(&path);
            }
            let of_a_log = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
            let syncs_directory = AtomicBool::new(is_new && flags & of_a_log != 0);
            (*wrapped).on = Box::into_raw(Box::new(OnDisk { disk, path, syncs_directory }));
        }
        code
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let on = disk_of(name);
    if let Some((disk, path)) = &on
        && let Some(code) = disk.refuse(Operation::Delete, path)
    {
        return code;
    }
    // SAFETY: what SQLite gave is handed on.
    let code = unsafe {
        let delete = (*real()).xDelete.expect("every interface deletes files");
        delete(real(), name, 0)
    };
    if let Some((disk, path)) = on.filter(|_| code == ffi::SQLITE_OK) {
        disk.deleted(&path, sync != 0);
    }
    code
}

unsafe extern "C" fn access(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    result: *mut c_int,
) -> c_int {
    if let Some((disk, path)) = disk_of(name)
        && let Some(code) = disk.refuse(Operation::Access, &path)
    {
        return code;
    }
    // SAFETY: what SQLite gave is handed on.
    unsafe {
        let access = (*real()).xAccess.expect("every interface looks for files");
        access(real(), name, flags, result)
    }
}

/// The file behind ours.
///
/// # Safety
/// `file` was given by SQLite to be opened by [`open`].
unsafe fn real_file(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the memory is of the size that was registered.
    unsafe { file.cast::<u8>().add(HEADER).cast() }
}

/// The table of methods in front of a real one. A method that it lacks is lacking here too.
fn wrapping(real: &sqlite3_io_methods) -> sqlite3_io_methods {
    sqlite3_io_methods {
        iVersion: real.iVersion,
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xFileSize: Some(file_size),
        xLock: Some(take_lock),
        xUnlock: real.xUnlock.map(|_| unlock as _),
        xCheckReservedLock: real.xCheckReservedLock.map(|_| check_reserved_lock as _),
        xFileControl: real.xFileControl.map(|_| file_control as _),
        xSectorSize: real.xSectorSize.map(|_| sector_size as _),
        xDeviceCharacteristics: real.xDeviceCharacteristics.map(|_| device_characteristics as _),
        xShmMap: real.xShmMap.map(|_| shm_map as _),
        xShmLock: real.xShmLock.map(|_| shm_lock as _),
        xShmBarrier: real.xShmBarrier.map(|_| shm_barrier as _),
        xShmUnmap: real.xShmUnmap.map(|_| shm_unmap as _),
        xFetch: real.xFetch.map(|_| fetch as _),
        xUnfetch: real.xUnfetch.map(|_| unfetch as _),
    }
}

/// Calls a method of the real file.
macro_rules! really {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file = real_file($file);
        let method = (*(*file).pMethods).$method.expect("only what is there is wrapped");
        method(file $(, $argument)*)
    }};
}

/// Hands a method through.
macro_rules! hand_through {
    ($name:ident, $method:ident ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $type)*) $(-> $result)? {
            // SAFETY: SQLite calls it for a file that is open, with what the real one expects.
            unsafe { really!(file, $method $(, $argument)*) }
        }
    };
}

hand_through!(unlock, xUnlock(level: c_int) -> c_int);
hand_through!(check_reserved_lock, xCheckReservedLock(result: *mut c_int) -> c_int);
hand_through!(file_control, xFileControl(operation: c_int, argument: *mut c_void) -> c_int);
hand_through!(sector_size, xSectorSize() -> c_int);
hand_through!(device_characteristics, xDeviceCharacteristics() -> c_int);
hand_through!(
    shm_map,
    xShmMap(page: c_int, size: c_int, extend: c_int, at: *mut *mut c_void) -> c_int
);
hand_through!(shm_lock, xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int);
hand_through!(shm_barrier, xShmBarrier());
hand_through!(shm_unmap, xShmUnmap(delete: c_int) -> c_int);
hand_through!(
    fetch,
    xFetch(offset: sqlite3_int64, count: c_int, at: *mut *mut c_void) -> c_int
);
hand_through!(unfetch, xUnfetch(offset: sqlite3_int64, at: *mut c_void) -> c_int);

/// Where a file lies, if there is a disk under it.
///
/// # Safety
/// `file` is open; the answer is used before it is closed.
unsafe fn on_disk<'a>(file: *mut sqlite3_file) -> Option<&'a OnDisk> {
    // SAFETY: `on` is null or a box of ours, until `close`.
    unsafe { (*file.cast::<Wrapped>()).on.as_ref() }
}

/// What happens to an operation on a file.
///
/// # Safety
/// As [`on_disk`].
unsafe fn judge(file: *mut sqlite3_file, operation: Operation) -> Verdict {
    // SAFETY: as the caller says.
    let on = unsafe { on_disk(file) };
    on.map_or(Verdict::Goes, |on| on.disk.judge(operation, &on.path))
}

/// What SQLite is told about an operation that does not go.
///
/// # Safety
/// As [`on_disk`].
unsafe fn refuse(file: *mut sqlite3_file, operation: Operation) -> Option<c_int> {
    // SAFETY: as the caller says.
    let on = unsafe { on_disk(file) };
    on.and_then(|on| on.disk.refuse(operation, &on.path))
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the file is open, and no more used afterwards.
    unsafe {
        let code = really!(file, xClose);
        let wrapped = file.cast::<Wrapped>();
        if !(*wrapped).on.is_null() {
            drop(Box::from_raw((*wrapped).on));
            (*wrapped).on = std::ptr::null_mut();
        }
        (*wrapped).base.pMethods = std::ptr::null();
        code
    }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    count: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open, and `into` has room for `count` bytes.
    unsafe {
        match judge(file, Operation::Read) {
            Verdict::Fails(code) => return code,
            Verdict::Dead => return ffi::SQLITE_IOERR,
            Verdict::Halved => HALVED.set(true),
            Verdict::Goes => {}
        }
        let code = really!(file, xRead, into, count, offset);
        assert!(!HALVED.take(), "the system was asked in a way that is not replaced");
        code
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open, and `from` holds `count` bytes.
    unsafe {
        let verdict = judge(file, Operation::Write);
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), count as usize);
        // What fails has written some of its sectors all the same.
        let (bytes, result) = match verdict {
            Verdict::Fails(code) => (first_sectors(bytes, offset as usize), Some(code)),
            Verdict::Dead => return ffi::SQLITE_IOERR,
            Verdict::Halved | Verdict::Goes => (bytes, None),
        };
        HALVED.set(verdict == Verdict::Halved);
        let code = if bytes.is_empty() {
            ffi::SQLITE_OK
        } else {
            really!(file, xWrite, bytes.as_ptr().cast(), bytes.len() as c_int, offset)
        };
        assert!(!HALVED.take(), "the system was asked in a way that is not replaced");
        if code == ffi::SQLITE_OK
            && let Some(on) = on_disk(file)
        {
            let change = Change::Write { offset: offset as usize, bytes: bytes.to_vec() };
            on.disk.changed(&on.path, change);
        }
        result.unwrap_or(code)
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    unsafe {
        if let Some(code) = refuse(file, Operation::Truncate) {
            return code;
        }
        let code = really!(file, xTruncate, size);
        if code == ffi::SQLITE_OK
            && let Some(on) = on_disk(file)
        {
            on.disk.changed(&on.path, Change::Truncate(size as usize));
        }
        code
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    unsafe {
        if let Some(code) = refuse(file, Operation::Sync) {
            return code;
        }
        let Some(on) = on_disk(file) else { return really!(file, xSync, flags) };
        // The disk's own account is all that a sync is needed for.
        on.disk.synced(&on.path, on.syncs_directory.swap(false, Ordering::Relaxed));
        ffi::SQLITE_OK
    }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    unsafe {
        match refuse(file, Operation::Size) {
            Some(code) => code,
            None => really!(file, xFileSize, size),
        }
    }
}

unsafe extern "C" fn take_lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open.
    unsafe {
        match refuse(file, Operation::Lock) {
            Some(code) => code,
            None => really!(file, xLock, level),
        }
    }
}

/// How many of `count` bytes the system moves.
fn moved(count: usize) -> usize {
    if HALVED.take() && count > 1 { count / 2 } else { count }
}

unsafe extern "C" fn halving_read(file: c_int, bytes: *mut c_void, count: usize) -> isize {
    let call = TRANSFERS.get().and_then(|calls| calls[0]).expect("only what is there is replaced");
    // SAFETY: what SQLite gave is handed on, with no larger a count.
    unsafe { call(file, bytes, moved(count)) }
}

unsafe extern "C" fn halving_write(file: c_int, bytes: *mut c_void, count: usize) -> isize {
    let call = TRANSFERS.get().and_then(|calls| calls[1]).expect("only what is there is replaced");
    // SAFETY: what SQLite gave is handed on, with no larger a count.
    unsafe { call(file, bytes, moved(count)) }
}

unsafe extern "C" fn halving_read_at(
    file: c_int,
    bytes: *mut c_void,
    count: usize,
    at: i64,
) -> isize {
    let call =
        TRANSFERS_AT.get().and_then(|calls| calls[0]).expect("only what is there is replaced");
    // SAFETY: what SQLite gave is handed on, with no larger a count.
    unsafe { call(file, bytes, moved(count), at) }
}

unsafe extern "C" fn halving_write_at(
    file: c_int,
    bytes: *mut c_void,
    count: usize,
    at: i64,
) -> isize {
    let call =
        TRANSFERS_AT.get().and_then(|calls| calls[1]).expect("only what is there is replaced");
    // SAFETY: what SQLite gave is handed on, with no larger a count.
    unsafe { call(file, bytes, moved(count), at) }
}
