//! The handle and the thread behind it.
//!
//! Jobs are done in the order in which they come, and each commit and question is answered by
//! exactly one input of the node.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::{fmt, io};

use slipstream_core::ids::FetchId;
use slipstream_core::io::Input;
use slipstream_core::store::{self, Batch, Query, Recovered, Stopped, StoreFailure};

use crate::error::OpenError;
use crate::log::Damaged;
use crate::options::StoreOptions;
use crate::writer::WriterThread;

/// Jobs that may wait for the thread; a caller with one more waits itself.
pub const MAX_JOBS: usize = 1024;

/// Takes what the node is to be told, on the store's thread. Must not block for long: no commit
/// goes on meanwhile.
pub type Notify = Box<dyn FnMut(Input) + Send>;

/// Takes what was found in the file that is not what was written, on the store's thread. It was
/// left out of the answer, and should be logged as an error.
pub type OnDamage = Box<dyn FnMut(Damaged) + Send>;

/// A store at work. Dropping it does what [`SqliteStore::close`](store::Store::close) does, without
/// telling how it went.
pub struct SqliteStore {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<Result<(), StoreFailure>>>,
}

enum Job {
    Commit(Box<Batch>),
    Fetch(FetchId, Query),
    Ping(Box<dyn FnOnce() + Send>),
}

impl SqliteStore {
    /// Opens the store, or makes it, and reads what it knows. Takes seconds if the log is large.
    ///
    /// # Errors
    /// [`OpenError`], which names the file and the remedy.
    pub fn open(
        options: StoreOptions,
        notify: Notify,
        on_damage: OnDamage,
    ) -> Result<(Self, Recovered), OpenError> {
        let (writer, recovered) = WriterThread::open(&options)?;
        let (jobs, received) = sync_channel(MAX_JOBS);
        let thread = std::thread::Builder::new()
            .name("slipstream-store".into())
            .spawn(move || work(writer, &received, Reports { notify, on_damage }))
            .map_err(|source: io::Error| OpenError::Directory {
                path: options.data_dir,
                action: "start the store's thread",
                source,
            })?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread) }, recovered))
    }

    fn send(&self, job: Job) -> Result<(), Stopped> {
        self.jobs.as_ref().ok_or(Stopped)?.send(job).map_err(|_| Stopped)
    }

    fn stop(&mut self) -> Result<(), StoreFailure> {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let panicked = |_| Err(StoreFailure::Unknown("the store's thread panicked".into()));
        thread.join().unwrap_or_else(panicked)
    }
}

impl store::Store for SqliteStore {
    /// Waits only while [`MAX_JOBS`] others do.
    fn commit(&self, batch: Box<Batch>) -> Result<(), Stopped> {
        self.send(Job::Commit(batch))
    }

    /// Waits only while [`MAX_JOBS`] others do.
    fn fetch(&self, fetch: FetchId, query: Query) -> Result<(), Stopped> {
        self.send(Job::Fetch(fetch, query))
    }

    /// Fails also if [`MAX_JOBS`] jobs wait already.
    fn ping(&self, pong: Box<dyn FnOnce() + Send>) -> Result<(), Stopped> {
        let jobs = self.jobs.as_ref().ok_or(Stopped)?;
        jobs.try_send(Job::Ping(pong)).map_err(|_| Stopped)
    }

    /// Empties the WAL into the database and ends the thread. Fails with the failure of the last
    /// checkpoint, or the one that broke the store before. What was reported as committed is then
    /// in the WAL.
    fn close(mut self) -> Result<(), StoreFailure> {
        self.stop()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Whom the thread tells what.
struct Reports {
    notify: Notify,
    on_damage: OnDamage,
}

impl Reports {
    fn report_damage(&mut self, writer: &mut WriterThread) {
        writer.damaged.drain(..).for_each(&mut self.on_damage);
    }
}

fn work(
    mut writer: WriterThread,
    jobs: &Receiver<Job>,
    mut reports: Reports,
) -> Result<(), StoreFailure> {
    reports.report_damage(&mut writer);
    loop {
        match jobs.recv_timeout(writer.check_in()) {
            Ok(job) => carry_out(job, &mut writer, &mut reports.notify),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return writer.finish(),
        }
        reports.report_damage(&mut writer);
        if writer.check_in().is_zero()
            && let Err(failure) = writer.check_files()
        {
            (reports.notify)(Input::StoreFailed(failure));
        }
    }
}

fn carry_out(job: Job, writer: &mut WriterThread, notify: &mut Notify) {
    match job {
        Job::Commit(batch) => {
            notify(match writer.commit(batch) {
                Ok(committed) => Input::Committed(committed),
                Err(failed) => Input::CommitFailed(failed),
            });
            writer.checkpoint_if_due();
        }
        Job::Fetch(fetch, query) => {
            let answer = writer.fetch(&query);
            notify(Input::Fetched { fetch, answer });
        }
        Job::Ping(pong) => pong(),
    }
}
