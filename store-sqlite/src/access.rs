//! Who may use the files: this process, or it is said what is in the way; and nobody else.
//!
//! SQLite tells a file that it may not open from a broken one by a number at best, and makes files
//! that everybody may read. So access is looked at before it, the directory is made with mode
//! 0700, and the files have mode 0600.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::error::OpenError;
use crate::files::wal_path;

/// Makes the directory and whatever is missing above it, each entry synced.
pub(crate) fn make_directory(directory: &Path) -> Result<(), OpenError> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    if let Err(source) = private_directories(directory) {
        let above = missing.last().and_then(|made| made.parent());
        let above = above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        may_use(above)?;
        let (path, action) = (directory.into(), "make the directory");
        return Err(OpenError::Directory { path, action, source });
    }
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

pub(crate) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(|source| OpenError::Sync { path: directory.into(), source })
}

/// Makes sure that this process may use a database and its log, those of them that exist, and the
/// directory, in which SQLite makes the others.
pub(crate) fn check(database: &Path, wal: &Path) -> Result<(), OpenError> {
    may_use(database.parent().unwrap_or(Path::new(".")))?;
    for path in [database, wal] {
        match std::fs::metadata(path) {
            Ok(_) => may_use(path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Ok(target) = std::fs::read_link(path) {
                    return Err(OpenError::Dangling { path: path.into(), target });
                }
            }
            // Whatever it is, it is in the way of SQLite too.
            Err(source) => {
                let (path, action) = (path.into(), "look at the file");
                return Err(OpenError::Directory { path, action, source });
            }
        }
    }
    Ok(())
}

/// What an error of SQLite means while opening.
pub(crate) fn refusal(path: &Path, source: rusqlite::Error) -> OpenError {
    let path: PathBuf = path.into();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path },
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            let denied = check(&path, &wal_path(&path)).err();
            denied.unwrap_or(OpenError::Sqlite { path, source })
        }
        _ => OpenError::Sqlite { path, source },
    }
}

/// Lets nobody else read or write a database and its log, and makes the database if it is not
/// there.
pub(crate) fn keep_private(database: &Path, wal: &Path) -> Result<(), OpenError> {
    let failed = |path: &Path, action| {
        let path = path.into();
        move |source| OpenError::Directory { path, action, source }
    };
    match private_file(database) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(database, "make the file")(error)),
    }
    for path in [database, wal].into_iter().filter(|path| path.exists()) {
        close_to_others(path).map_err(failed(path, "set the mode of the file"))?;
    }
    Ok(())
}

/// Why a file or directory may not be used, if it may not.
fn may_use(path: &Path) -> Result<(), OpenError> {
    match system::access(path) {
        system::Access::Granted => Ok(()),
        system::Access::Denied => {
            let (owner, mode) = system::owner(path);
            let user = system::user();
            Err(OpenError::Permission { path: path.into(), owner, mode, user })
        }
        system::Access::ReadOnly => {
            let ((owner, _), user) = (system::owner(path), system::user());
            Err(OpenError::ReadOnly { path: path.into(), owner, user })
        }
    }
}

#[cfg(unix)]
fn private_directories(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn private_directories(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // Only a file that is new is opened: closing it gives up the locks that this process has on it.
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(path).map(drop)
}

#[cfg(unix)]
fn close_to_others(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o700)) {
        // It belongs to somebody else, who lets this process use it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

#[cfg(not(unix))]
fn close_to_others(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
mod system {
    //! What Linux says about files and users.

    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, accessat};
    use rustix::io::Errno;

    pub(super) enum Access {
        Granted,
        Denied,
        ReadOnly,
    }

    /// Whether this process may read and write a file, or make files in a directory. What else
    /// fails is told by whoever uses it.
    pub(super) fn access(path: &Path) -> Access {
        let mut asked = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
        if path.is_dir() {
            asked |= rustix::fs::Access::EXEC_OK;
        }
        match accessat(CWD, path, asked, AtFlags::EACCESS) {
            Err(Errno::ACCESS | Errno::PERM) => Access::Denied,
            Err(Errno::ROFS) => Access::ReadOnly,
            Ok(()) | Err(_) => Access::Granted,
        }
    }

    /// Whose it is, and its mode.
    pub(super) fn owner(path: &Path) -> (String, u32) {
        match std::fs::metadata(path) {
            Ok(found) => (name(found.uid()), found.mode() & 0o7777),
            Err(_) => ("somebody".into(), 0),
        }
    }

    /// The user that this process runs as.
    pub(super) fn user() -> String {
        name(rustix::process::geteuid().as_raw())
    }

    fn name(uid: u32) -> String {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let known = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
        });
        known.map_or_else(|| format!("user {uid}"), |name| format!("{name} (user {uid})"))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    //! Elsewhere SQLite says what is in the way.

    use std::path::Path;

    pub(super) enum Access {
        Granted,
        #[expect(dead_code, reason = "only Linux is asked")]
        Denied,
        #[expect(dead_code, reason = "only Linux is asked")]
        ReadOnly,
    }

    pub(super) fn access(_: &Path) -> Access {
        Access::Granted
    }

    pub(super) fn owner(_: &Path) -> (String, u32) {
        ("somebody".into(), 0)
    }

    pub(super) fn user() -> String {
        "somebody else".into()
    }
}
