//! Reading the configuration again while the node runs: SIGHUP and `POST /reload`.
//!
//! All or nothing: an error anywhere in the file leaves everything as it was.

use std::path::PathBuf;

use tokio::sync::Mutex;

use super::config::{self, BadFilter, ConfigError, Settings};
use super::logging::LogHandle;
use crate::{Node, NodeGone};

/// Why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The file or the environment is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log filter cannot be put in force.
    #[error(transparent)]
    Log(#[from] BadFilter),
    /// There is no node any more.
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reloaded {
    /// Keys that have changed and only a restart brings into force.
    pub needs_restart: Vec<String>,
}

/// Reads the configuration again.
#[derive(Debug)]
pub(super) struct Reloader {
    file: PathBuf,
    node: Node,
    log: LogHandle,
    /// What the node was started with; held during a reload, so that two do not mix.
    started: Mutex<Settings>,
}

impl Reloader {
    /// For a node that was started with these settings from this file.
    pub(super) fn new(file: PathBuf, settings: Settings, node: Node, log: LogHandle) -> Self {
        Self { file, node, log, started: Mutex::new(settings) }
    }

    /// Reads the file and puts peers, tags and log level in force.
    ///
    /// # Errors
    /// [`ReloadError`], with everything as it was. It is logged too.
    pub(super) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(report) if report.needs_restart.is_empty() => {
                tracing::info!("configuration reloaded");
            }
            Ok(report) => {
                let keys = report.needs_restart.join(", ");
                tracing::warn!(
                    keys,
                    "configuration reloaded; what changed in keys needs a restart"
                );
            }
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded, the old one stays in force");
            }
        }
        outcome
    }

    async fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let started = self.started.lock().await;
        let settings = config::load(&self.file)?;
        self.node.reconfigure(settings.peer_urls(), settings.tags()).await?;
        self.log.set(&settings.log.level)?;
        Ok(Reloaded { needs_restart: started.needs_restart(&settings) })
    }
}
