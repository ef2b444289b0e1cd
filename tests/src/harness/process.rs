//! What the system tells about the process of a node, and what it can be denied.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::Daemon;

impl Daemon {
    /// Processor time so far, of all its threads.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .expect("the system tells about its processes");
        // The name, in parentheses, may hold anything; `utime` and `stime` are the 12th and 13th
        // fields after it.
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Files and sockets that it has open.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn descriptors(&self) -> u64 {
        let folder = format!("/proc/{}/fd", self.pid());
        fs::read_dir(folder).expect("the system tells about its processes").count() as u64
    }

    /// Lets it open no descriptor from this number on; gives what it was allowed before.
    ///
    /// # Panics
    /// If that is not allowed.
    pub fn limit_descriptors(&self, limit: u64) -> u64 {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let before = rustix::process::getrlimit(Resource::Nofile);
        let limits = Rlimit { current: Some(limit), maximum: before.maximum };
        let before = prlimit(pid, Resource::Nofile, limits).expect("an own child can be limited");
        before.current.unwrap_or(limit)
    }
}
