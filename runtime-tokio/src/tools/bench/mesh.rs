//! Nodes of the same binary, or of one that runs nodes in the same way, each linked to each on
//! loopback, in a folder that goes with them.
//!
//! They are processes of their own, so that what they use can be told from what the measuring
//! uses. However the measuring ends, they are killed by their own process ids and their files
//! removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::daemon::admin_client::AdminClient;
use crate::daemon::failed::Failed;

/// For a node to be ready, and for the links between them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of the processor times in /proc: 100 a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// The nodes. Messages go in at the first, and are received at the last.
#[derive(Debug)]
pub(super) struct BenchMesh {
    // Before the folder: they end before their files go.
    nodes: Vec<BenchNode>,
    folder: TempDir,
}

#[derive(Debug)]
struct BenchNode {
    child: Child,
    url: String,
    admin: AdminClient,
}

impl Drop for BenchNode {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a private mesh keeps its data.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BenchPlace {
    /// The folder.
    pub(super) folder: PathBuf,
    /// Whether it is in memory, where syncing costs nothing.
    pub(super) in_memory: bool,
}

/// What a node has used and done up to now.
#[derive(Debug, Clone, Default)]
pub(super) struct BenchSample {
    /// Processor time; `None` where the system does not tell.
    pub(super) cpu: Option<Duration>,
    /// Most memory that it ever had.
    pub(super) peak_bytes: Option<u64>,
    /// Messages that were committed.
    pub(super) committed: f64,
    /// Commits with messages.
    pub(super) commits: f64,
}

impl BenchMesh {
    /// Starts so many and waits for their links.
    pub(super) async fn start(
        program: Option<&Path>,
        parent: Option<&Path>,
        count: usize,
    ) -> Result<Self, Failed> {
        let own = std::env::current_exe();
        let program = program.map_or(own, |program| Ok(program.to_owned()));
        let program = program.map_err(|error| cannot("bench-1", &error))?;
        let mut place = tempfile::Builder::new();
        place.prefix("slipstream-bench-");
        let folder = match parent {
            Some(parent) => place.tempdir_in(parent),
            None => place.tempdir(),
        };
        let folder = folder.map_err(|error| {
            let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
            let parent = parent.display();
            Failed::general(format!("cannot make a folder in {parent}: {error}; see --dir"))
        })?;
        let mut nodes = Vec::<BenchNode>::new();
        for number in 1..=count {
            let peers: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
            let node =
                BenchNode::start(&program, folder.path(), &format!("bench-{number}"), &peers)
                    .await?;
            nodes.push(node);
        }
        let mesh = Self { nodes, folder };
        mesh.linked().await?;
        Ok(mesh)
    }

    /// WebSocket URLs of the first node and the last.
    pub(super) fn urls(&self) -> (String, String) {
        let url = |node: Option<&BenchNode>| node.map(|node| node.url.clone()).unwrap_or_default();
        (url(self.nodes.first()), url(self.nodes.last()))
    }

    /// Where the data is.
    pub(super) fn place(&self) -> BenchPlace {
        let folder = self.folder.path().to_owned();
        let in_memory = fs::read_to_string("/proc/mounts")
            .is_ok_and(|mounts| kind_of_mount(&mounts, &folder) == Some("tmpfs"));
        BenchPlace { folder, in_memory }
    }

    /// What each node has used and done.
    pub(super) fn sample(&self) -> Result<Vec<BenchSample>, Failed> {
        self.nodes.iter().map(BenchNode::sample).collect()
    }

    async fn linked(&self) -> Result<(), Failed> {
        let end = Instant::now() + PATIENCE;
        for node in &self.nodes {
            let links = (self.nodes.len() - 1) as f64;
            while metric(&node.admin.get("/metrics")?, "slipstream_link_up") < links {
                if Instant::now() > end {
                    let url = &node.url;
                    let message = format!("the node at {url} did not link to the others in time");
                    return Err(Failed::general(message));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}

impl BenchNode {
    async fn start(
        program: &Path,
        folder: &Path,
        id: &str,
        peers: &[&str],
    ) -> Result<Self, Failed> {
        let home = folder.join(id);
        let log = home.join("log");
        let config = home.join("slipstream.toml");
        let file = fs::create_dir(&home)
            .and_then(|()| fs::write(&config, settings(id, peers)))
            .and_then(|()| File::create(&log))
            .map_err(|error| cannot(id, &error))?;
        let mut command = Command::new(program);
        // What configures a node in this environment is not meant for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SLIPSTREAM_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("run")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| cannot(id, &error))?;
        let end = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(ready) = text.lines().find_map(ready) {
                let admin = AdminClient::new(&format!("http://{}", ready.admin))?;
                return Ok(Self { child, url: format!("ws://{}/", ready.listen), admin });
            }
            let ended = child.try_wait().map_err(|error| cannot(id, &error))?;
            if ended.is_some() || Instant::now() > end {
                // It may have ended already.
                let _ = child.kill();
                let _ = child.wait();
                let reason = text.lines().last().unwrap_or("it was not ready in time");
                return Err(cannot(id, &reason));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn sample(&self) -> Result<BenchSample, Failed> {
        let process = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let metrics = self.admin.get("/metrics")?;
        Ok(BenchSample {
            cpu: cpu(&stat),
            peak_bytes: peak(&status),
            committed: metric(&metrics, "slipstream_store_batch_messages_sum"),
            commits: metric(&metrics, "slipstream_store_batch_messages_count"),
        })
    }
}

fn cannot(id: &str, error: &impl ToString) -> Failed {
    Failed::general(format!("cannot start the node {id}: {}", error.to_string()))
}

fn settings(id: &str, peers: &[&str]) -> String {
    let peers: String = peers.iter().map(|url| format!("[[peers]]\nurl = {url:?}\n")).collect();
    format!(
        "[node]\nid = {id:?}\n\
         [listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [store]\ndurability = \"full\"\n\
         [log]\nlevel = \"info\"\nformat = \"json\"\n{peers}"
    )
}

/// The line of the log that says where the node listens.
#[derive(Debug, PartialEq, Eq)]
struct Ready {
    listen: String,
    admin: String,
}

fn ready(line: &str) -> Option<Ready> {
    #[derive(Deserialize)]
    struct ReadyLine {
        message: String,
        listen: Option<String>,
        admin: Option<String>,
    }
    #[derive(Deserialize)]
    struct NestedReadyLine {
        fields: ReadyLine,
    }
    let line = serde_json::from_str::<ReadyLine>(line)
        .or_else(|_| serde_json::from_str::<NestedReadyLine>(line).map(|nested| nested.fields))
        .ok()?;
    if line.message != "ready" {
        return None;
    }
    Some(Ready { listen: line.listen?, admin: line.admin? })
}

/// Sum over the samples of a metric.
fn metric(text: &str, name: &str) -> f64 {
    let samples = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// User and system time of a process from its `stat` (proc(5)); the name in it may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Kind of the file system that holds `folder`, from `/proc/mounts`.
fn kind_of_mount<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(point, _)| folder.starts_with(point));
    // Of several on one point the last one counts.
    holding.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_found() {
        let line = r#"{"message":"ready","node":"a","listen":"127.0.0.1:1","admin":"127.0.0.1:2"}"#;
        let expected = Ready { listen: "127.0.0.1:1".into(), admin: "127.0.0.1:2".into() };
        assert_eq!(ready(line), Some(expected));
        assert_eq!(ready(r#"{"message":"starting","listen":"127.0.0.1:0"}"#), None);
        assert_eq!(ready("no json"), None);
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 500 0 0 0 150 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn samples_of_a_metric_are_added_up() {
        let text = "# HELP up x\nup{a=\"1\"} 1\nup{a=\"2\"} 2.5\nupper 7\n";
        assert_eq!(metric(text, "up"), 3.5);
    }

    #[test]
    fn the_deepest_mount_holds_a_folder() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x ext4 rw 0 0\n";
        assert_eq!(kind_of_mount(mounts, Path::new("/tmp/y")), Some("tmpfs"));
        assert_eq!(kind_of_mount(mounts, Path::new("/tmp/x/y")), Some("ext4"));
        assert_eq!(kind_of_mount(mounts, Path::new("/tmpfs")), Some("ext4"));
    }
}
