//! What the system tells about the process of a node, and what it can be denied.

use std::collections::BTreeSet;
use std::time::Duration;
use std::{fs, mem, thread};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{Daemon, PATIENCE, until};

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

    /// Leaves it room for so many more descriptors; gives the limit that it had before.
    ///
    /// # Panics
    /// If that is not allowed.
    pub fn leave_descriptors(&self, room: usize) -> u64 {
        // Connections of the test may still be on their way out.
        let mut taken = self.descriptors();
        until("the descriptors to settle", PATIENCE, || {
            thread::sleep(Duration::from_millis(100));
            let before = mem::replace(&mut taken, self.descriptors());
            before == taken
        });
        let mut free = (0..).filter(|number| !taken.contains(number));
        let limit = free.nth(room).unwrap_or(u64::MAX);
        self.limit_descriptors(limit)
    }

    /// Numbers of the files and sockets that it has open.
    fn descriptors(&self) -> BTreeSet<u64> {
        let folder = format!("/proc/{}/fd", self.pid());
        let open = fs::read_dir(folder).expect("the system tells about its processes").flatten();
        open.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
    }

    /// Lets it open no descriptor from this number on; gives what it was allowed before.
    ///
    /// # Panics
    /// If that is not allowed.
    pub fn limit_descriptors(&self, limit: u64) -> u64 {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limits = Rlimit { current: Some(limit), maximum };
        let before = prlimit(pid, Resource::Nofile, limits).expect("an own child can be limited");
        before.current.unwrap_or(limit)
    }
}
