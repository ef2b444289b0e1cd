//! The handle and the thread behind it.
//!
//! Jobs are done in the order in which they come, and each is answered by exactly one completion.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::{fmt, io};

use slipstream_core::ids::FetchId;
use slipstream_core::io::Input;
use slipstream_core::store::{
    Answer, Batch, CommitFailed, Committed, Query, Recovered, StoreFailure,
};

use crate::error::OpenError;
use crate::log::Damaged;
use crate::options::Options;
use crate::writer::Writer;

/// Jobs that may wait for the thread; a caller with one more waits itself.
pub const MAX_JOBS: usize = 1024;

/// What the store has to say.
#[derive(Debug)]
pub enum Completion {
    /// A batch is durable.
    Committed(Committed),
    /// A batch is not in the store.
    CommitFailed(CommitFailed),
    /// A question is answered.
    Fetched {
        /// Its number.
        fetch: FetchId,
        /// What was found.
        answer: Result<Answer, StoreFailure>,
    },
    /// Nothing may be acknowledged any more, which was found out while nothing was committed. Said
    /// once.
    Broken(StoreFailure),
    /// Something in the file is not what was written. It was left out of the answer, and should be
    /// logged as an error.
    Damaged(Damaged),
}

impl Completion {
    /// What the node is told.
    ///
    /// # Errors
    /// The damage, which is none of its business.
    pub fn into_input(self) -> Result<Input, Damaged> {
        Ok(match self {
            Self::Committed(committed) => Input::Committed(committed),
            Self::CommitFailed(failed) => Input::CommitFailed(failed),
            Self::Fetched { fetch, answer } => Input::Fetched { fetch, answer },
            Self::Broken(failure) => Input::StoreFailed(failure),
            Self::Damaged(damaged) => return Err(damaged),
        })
    }
}

/// Takes completions, on the store's thread. Must not block for long: no commit goes on meanwhile.
pub type Notify = Box<dyn FnMut(Completion) + Send>;

/// The store's thread is gone, and with it everything that was not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store has stopped")]
pub struct Stopped;

/// A store at work. Dropping it does what [`Store::close`] does, without telling how it went.
pub struct Store {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<Result<(), StoreFailure>>>,
}

enum Job {
    Commit(Box<Batch>),
    Fetch(FetchId, Query),
    Ping(Box<dyn FnOnce() + Send>),
}

impl Store {
    /// Opens the store, or makes it, and reads what it knows. Takes seconds if the log is large.
    ///
    /// # Errors
    /// [`OpenError`], which names the file and the remedy.
    pub fn open(options: Options, notify: Notify) -> Result<(Self, Recovered), OpenError> {
        let (writer, recovered) = Writer::open(&options)?;
        let (jobs, received) = sync_channel(MAX_JOBS);
        let thread = std::thread::Builder::new()
            .name("slipstream-store".into())
            .spawn(move || work(writer, &received, notify))
            .map_err(|source: io::Error| OpenError::Directory {
                path: options.data_dir,
                action: "start the store's thread",
                source,
            })?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread) }, recovered))
    }

    /// Makes a batch durable; completed by [`Completion::Committed`] or
    /// [`Completion::CommitFailed`]. Waits only while [`MAX_JOBS`] others do.
    ///
    /// # Errors
    /// [`Stopped`]: nothing can be acknowledged any more.
    pub fn commit(&self, batch: Box<Batch>) -> Result<(), Stopped> {
        self.send(Job::Commit(batch))
    }

    /// Looks something up; completed by [`Completion::Fetched`]. Waits only while [`MAX_JOBS`]
    /// others do.
    ///
    /// # Errors
    /// [`Stopped`]: there will be no answer.
    pub fn fetch(&self, fetch: FetchId, query: Query) -> Result<(), Stopped> {
        self.send(Job::Fetch(fetch, query))
    }

    /// Calls `pong` on the store's thread when everything that was asked before is done: a sign
    /// that the thread lives. Never waits.
    ///
    /// # Errors
    /// [`Stopped`] if it does not, or if [`MAX_JOBS`] jobs wait already.
    pub fn ping(&self, pong: Box<dyn FnOnce() + Send>) -> Result<(), Stopped> {
        let jobs = self.jobs.as_ref().ok_or(Stopped)?;
        jobs.try_send(Job::Ping(pong)).map_err(|_| Stopped)
    }

    /// Does what was asked before, empties the WAL into the database and ends the thread.
    ///
    /// # Errors
    /// The failure of the last checkpoint, or the one that broke the store before. What was
    /// reported as committed is durable all the same, in the WAL.
    pub fn close(mut self) -> Result<(), StoreFailure> {
        self.stop()
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

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn work(mut writer: Writer, jobs: &Receiver<Job>, mut notify: Notify) -> Result<(), StoreFailure> {
    report_damage(&mut writer, &mut notify);
    loop {
        match jobs.recv_timeout(writer.check_in()) {
            Ok(job) => carry_out(job, &mut writer, &mut notify),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return writer.finish(),
        }
        report_damage(&mut writer, &mut notify);
        if writer.check_in().is_zero()
            && let Err(failure) = writer.check_files()
        {
            notify(Completion::Broken(failure));
        }
    }
}

fn carry_out(job: Job, writer: &mut Writer, notify: &mut Notify) {
    match job {
        Job::Commit(batch) => {
            notify(match writer.commit(batch) {
                Ok(committed) => Completion::Committed(committed),
                Err(failed) => Completion::CommitFailed(failed),
            });
            writer.checkpoint_if_due();
        }
        Job::Fetch(fetch, query) => {
            let answer = writer.fetch(&query);
            notify(Completion::Fetched { fetch, answer });
        }
        Job::Ping(pong) => pong(),
    }
}

fn report_damage(writer: &mut Writer, notify: &mut Notify) {
    for damaged in writer.damaged.drain(..) {
        notify(Completion::Damaged(damaged));
    }
}
