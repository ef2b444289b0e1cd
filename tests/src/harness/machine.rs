//! What a story needs of the machine beside Rust, and what happens where it is not there.
//!
//! A story that cannot run says so on standard error, in a line that begins with `SKIPPED`. With
//! `SLIPSTREAM_TESTS_REQUIRE=all` it fails instead, so that a green run means that it ran.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, iter};

use super::{SmallDisk, TwoAddresses};

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `strace`, and the right to trace one's own children.
    Strace,
    /// libfaketime.
    Faketime,
    /// The right to mount a file as a disk, and `mkfs.ext4`.
    SmallDisk,
    /// The right to mount a folder where no other process sees it.
    OwnMounts,
    /// The right to give a process a list of hosts of its own, and two families of addresses.
    TwoAddresses,
    /// A system that lets as many connections wait as a node asks for.
    ListenQueue,
}

impl Need {
    /// Whether `story` can run here.
    ///
    /// # Panics
    /// If it cannot, and `SLIPSTREAM_TESTS_REQUIRE=all`.
    pub fn is_met(self, story: &str) -> bool {
        let Err(lacking) = self.check() else { return true };
        announce(&format!("SKIPPED {story}: {lacking}"));
        let required = env::var("SLIPSTREAM_TESTS_REQUIRE").is_ok_and(|what| what == "all");
        assert!(!required, "{story} is required (SLIPSTREAM_TESTS_REQUIRE=all), but {lacking}");
        false
    }

    fn check(self) -> Result<(), String> {
        match self {
            Self::Strace => {
                let traced = Command::new("strace")
                    .args(["-D", "-f", "-o", "/dev/null", "-e"])
                    .args(["trace=fsync", "true"])
                    .stderr(Stdio::null())
                    .status();
                let works = traced.is_ok_and(|status| status.success());
                works.then_some(()).ok_or("strace is missing or may not trace".to_owned())
            }
            Self::Faketime => {
                faketime().map(drop).ok_or("libfaketime (package faketime) is missing".to_owned())
            }
            Self::SmallDisk => SmallDisk::of_mib(8).map(drop),
            Self::ListenQueue => {
                let most = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
                // Other systems do not say so, and are tried.
                let most = most.and_then(|most| most.trim().parse::<u32>().ok());
                let is_less = most.filter(|most| *most < 1024);
                is_less.map_or(Ok(()), |most| Err(format!("net.core.somaxconn is {most}")))
            }
            Self::OwnMounts => {
                let apart = ["--mount", "true"];
                let apart = Command::new("unshare").args(apart).stderr(Stdio::null()).status();
                let works = apart.is_ok_and(|status| status.success());
                works.then_some(()).ok_or("unshare is missing or may not mount".to_owned())
            }
            Self::TwoAddresses => {
                TcpListener::bind("[::1]:0").map_err(|error| format!("no ::1: {error}"))?;
                let names = TwoAddresses::of_localhost();
                let program = names.program();
                let mut apart = Command::new(&program[0]);
                let apart = apart.args(&program[1..]).arg("true").stderr(Stdio::null()).status();
                let works = apart.is_ok_and(|status| status.success());
                works.then_some(()).ok_or("no process can have its own /etc/hosts".to_owned())
            }
        }
    }
}

/// Variables that are for the tests; a node would take them for keys of its configuration.
pub(super) fn own_variables() -> impl Iterator<Item = OsString> {
    let own = |name: &OsString| name.to_string_lossy().starts_with("SLIPSTREAM_TESTS_");
    env::vars_os().map(|(name, _)| name).filter(own)
}

/// The library that lies about the time of day.
pub fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    iter::once(PathBuf::from("/usr/lib"))
        .chain(folders.map(|folder| folder.path()))
        .map(|folder| folder.join("faketime/libfaketime.so.1"))
        .find(|library| library.exists())
}

/// Says something on standard error even while the tests' own output is kept back.
pub fn announce(line: &str) {
    // Without standard error nobody reads it.
    let _ = writeln!(io::stderr(), "{line}");
}
