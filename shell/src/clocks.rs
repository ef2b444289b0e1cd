//! The clocks of the system, as the shells tell the core of them.
//!
//! What stays true: the monotonic clock goes on while the machine is suspended, where the system
//! has such a clock (on Linux). So a suspend is a pause of both clocks for the core, however long
//! it was, and the wall clock has not jumped against the other one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use slipstream_core::time::{Instant, Now, WallMs};

/// What both clocks say.
pub fn now() -> Now {
    let (monotonic, wall) = (monotonic(), SystemTime::now().duration_since(UNIX_EPOCH));
    Now {
        instant: Instant::from_micros(monotonic.as_micros().try_into().unwrap_or(u64::MAX)),
        // A wall clock before 1970 reads as 1970.
        wall: WallMs(wall.unwrap_or_default().as_millis().try_into().unwrap_or(u64::MAX)),
    }
}

/// When a timer of a runtime is to be ready, so that it is at `at` on the clock of [`now`].
///
/// Runtimes go by a clock that stands still during a suspend: a timer that is set before is late by
/// at most what was left of it.
pub fn deadline(at: Instant) -> std::time::Instant {
    std::time::Instant::now() + at.since(now().instant)
}

/// Time since the machine was started, suspended or not.
#[cfg(target_os = "linux")]
fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// Time since this was asked first.
#[cfg(not(target_os = "linux"))]
fn monotonic() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_ready_when_its_time_has_come() {
        let (before, began) = (now(), std::time::Instant::now());
        let at = before.instant + Duration::from_millis(20);
        let ready = deadline(at);
        assert!(ready <= std::time::Instant::now() + Duration::from_millis(20));
        while std::time::Instant::now() < ready {
            std::thread::yield_now();
        }
        assert!(now().instant >= at);
        assert!(began.elapsed() >= Duration::from_millis(19));
        assert!(now().wall >= before.wall.minus(Duration::from_secs(1)));
    }

    // keeps: suspend
    #[test]
    #[cfg(target_os = "linux")]
    fn time_counts_from_the_start_of_the_machine() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux tells it");
        let seconds: f64 = uptime.split(' ').next().and_then(|it| it.parse().ok()).expect("so");
        // Both count what the machine was suspended for, which no other clock does.
        let monotonic = monotonic().as_secs_f64();
        assert!((monotonic - seconds).abs() < 60.0, "{monotonic} and {seconds}");
    }

    /// The same on a machine that was suspended for long: its clock is ahead of the one that stands
    /// still meanwhile, as in a time namespace of its own.
    // keeps: suspend
    #[test]
    #[cfg(target_os = "linux")]
    fn time_counts_while_the_machine_is_suspended() {
        use std::io::Write as _;
        use std::process::Command;

        let apart = |program: &std::ffi::OsStr, args: &[&str]| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--time", "--boottime", "1000000"]).arg(program).args(args).output()
        };
        if !apart("true".as_ref(), &[]).is_ok_and(|ended| ended.status.success()) {
            let lacking = "unshare is missing or may not set clocks";
            let story = "time_counts_while_the_machine_is_suspended";
            // Not kept back by the harness; without standard error nobody reads it.
            let _ = writeln!(std::io::stderr(), "SKIPPED {story}: {lacking}");
            let required = std::env::var("SLIPSTREAM_TESTS_REQUIRE").is_ok_and(|it| it == "all");
            assert!(!required, "{story} is required (SLIPSTREAM_TESTS_REQUIRE=all), but {lacking}");
            return;
        }
        let this = std::env::current_exe().expect("this program has a path");
        let again = ["--exact", "clocks::tests::time_counts_from_the_start_of_the_machine"];
        let ended = apart(this.as_os_str(), &again).expect("it was possible a moment ago");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
    }
}
