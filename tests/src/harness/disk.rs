//! A disk of a few MiB: a file with ext4 in it, mounted.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4 << 10;

/// A mounted disk; it is unmounted when it is dropped, so what uses it must end before.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Makes and mounts one.
    ///
    /// # Errors
    /// What is in the way, for example that this needs root.
    pub fn of_mib(size: u64) -> Result<Self, String> {
        // In memory where that is possible: its syncs are real for the node and cost little.
        let folder = TempDir::with_prefix_in("slipstream-disk-", "/dev/shm")
            .or_else(|_| TempDir::with_prefix("slipstream-disk-"))
            .map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(size * MIB).map_err(|error| error.to_string())?;
        let disk = Self { folder };
        std::fs::create_dir(disk.path()).map_err(|error| error.to_string())?;
        succeed(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Bytes that still fit.
    ///
    /// # Panics
    /// If the disk is gone.
    pub fn free(&self) -> u64 {
        let told = statvfs(self.path()).expect("a mounted disk can be asked");
        told.f_bavail * told.f_frsize
    }

    /// A file that takes all but `left` bytes of what is free; it grows or shrinks to that. What is
    /// told to be free cannot all be had: blocks that are apart cost one that says where they are,
    /// and the node takes some meanwhile. So it takes less, until nothing more fits.
    ///
    /// # Panics
    /// If the disk says anything else than that it is full.
    pub fn leave(&self, left: u64) {
        let ballast = self.ballast();
        let held = || ballast.metadata().expect("an open file has a length").len();
        let wanted = (held() + self.free()).saturating_sub(left) / BLOCK * BLOCK;
        ballast.set_len(wanted.min(held())).expect("a file can be cut");
        let mut most = u64::MAX;
        loop {
            let more = most.min(self.free().saturating_sub(left)) / BLOCK * BLOCK;
            if more == 0 {
                return;
            }
            match fallocate(&ballast, FallocateFlags::empty(), held(), more) {
                Ok(()) => {}
                Err(Errno::NOSPC) => most = more / 2,
                Err(error) => panic!("what is free can be taken: {error}"),
            }
        }
    }

    fn ballast(&self) -> File {
        let path = self.path().join("ballast");
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false);
        options.open(path).expect("the disk can be written to")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mounted: &Path = &self.path();
        // It may never have been mounted; the folder goes in any case.
        let _ = Command::new("umount").arg("-q").arg(mounted).status();
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{name}: {}", said.trim()))
}
