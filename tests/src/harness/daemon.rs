//! One node: `slipstream run` in a folder of its own.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::machine::own_variables;
use super::{NodeConfig, PATIENCE, Response, request, request_within, until};

/// A running node, or one that was stopped and can be started again on the same data and ports.
/// When it is dropped the process is killed; if that happens in a panic, the end of its log is
/// shown.
#[derive(Debug)]
pub struct Daemon {
    /// How it is configured. Changes count from the next [`Daemon::write_config`] on.
    pub config: NodeConfig,
    /// What its environment has beside the test's own, from the next start on.
    pub env: Vec<(String, String)>,
    /// What its command line has beside the configuration, from the next start on.
    pub args: Vec<String>,
    binary: String,
    home: TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// Starts a node and waits until it is ready.
    pub fn start(binary: &str, config: NodeConfig) -> Self {
        let mut daemon = Self::prepare(binary, config);
        daemon.run();
        daemon
    }

    /// Lays out a folder with the configuration, without starting anything.
    pub fn prepare(binary: &str, config: NodeConfig) -> Self {
        let home = TempDir::with_prefix("slipstream-").expect("a temporary folder can be made");
        let (env, args) = (Vec::new(), Vec::new());
        let daemon = Self { config, env, args, binary: binary.to_owned(), home, child: None };
        daemon.write_config();
        daemon
    }

    /// Writes the configuration file.
    pub fn write_config(&self) {
        self.overwrite_config(&self.config.toml());
    }

    /// Writes something else into the configuration file.
    pub fn overwrite_config(&self, toml: &str) {
        fs::write(self.config_file(), toml).expect("the configuration can be written");
    }

    /// Starts the process and waits until `/readyz` says yes.
    pub fn run(&mut self) {
        self.spawn();
        if let Some(status) = self.started() {
            panic!("{} ended at start, {status}:\n{}", self.config.id, self.log_tail());
        }
    }

    /// Waits until `/readyz` says yes, or gives how the process ended before that.
    pub fn started(&mut self) -> Option<ExitStatus> {
        let start = Instant::now();
        while self.try_get("/readyz").is_none_or(|answer| answer.status != 200) {
            if let Some(status) = self.exited() {
                self.child = None;
                return Some(status);
            }
            let id = &self.config.id;
            assert!(start.elapsed() < PATIENCE, "waited for {id} to be ready, in vain");
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Starts the process, and does not wait.
    pub fn spawn(&mut self) {
        self.spawn_through(&[]);
    }

    /// Starts the process by way of another program, which must leave it a child of the test;
    /// and does not wait.
    pub fn spawn_through(&mut self, program: &[String]) {
        let (out, err) = (self.log_file().into(), self.log_file().into());
        self.spawn_with(program, out, err);
    }

    /// Starts the process with a log that nobody reads until it is read from what is returned, and
    /// does not wait.
    ///
    /// # Panics
    /// If there is no pipe.
    pub fn spawn_unread(&mut self) -> PipeReader {
        let (unread, log) = std::io::pipe().expect("a pipe can be made");
        let out = log.try_clone().expect("a descriptor can be cloned");
        self.spawn_with(&[], out.into(), log.into());
        unread
    }

    fn spawn_with(&mut self, program: &[String], out: Stdio, err: Stdio) {
        assert!(self.child.is_none(), "{} runs already", self.config.id);
        let mut words = program.iter().map(String::as_str).chain([self.binary.as_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        for name in own_variables() {
            command.env_remove(name);
        }
        let child = command
            .args(words)
            .arg("run")
            .arg("-c")
            .arg(self.config_file())
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the binary can be started");
        self.child = Some(child);
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.ended()
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not come.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until(&format!("{} to end", self.config.id), PATIENCE, || {
            status = self.exited();
            status.is_some()
        });
        self.child = None;
        status.expect("the wait ended with a status")
    }

    /// SIGHUP: read the configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGSTOP: the process hangs, its sockets stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("an own child can be signalled");
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("an own child can be waited for")
    }

    /// WebSocket URL with this query string.
    pub fn url(&self, query: &str) -> String {
        format!("ws://{}/?{query}", self.config.address)
    }

    /// URL of the admin endpoint.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.config.admin)
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.home.path().join("slipstream.toml")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Asks the admin endpoint; `None` while nobody answers.
    pub fn try_get(&self, path: &str) -> Option<Response> {
        request(&self.config.admin, "GET", path, &[], "")
    }

    /// Asks the admin endpoint as probes do, which give up soon; `None` if it did not answer.
    pub fn probe(&self, path: &str) -> Option<Response> {
        // They mostly do so after a second; machines of tests are busy.
        let patience = Duration::from_secs(4);
        request_within(patience, &self.config.admin, "GET", path, &[], "")
    }

    /// Asks the admin endpoint.
    ///
    /// # Panics
    /// If there is no answer, or it is not 200.
    pub fn get(&self, path: &str) -> Response {
        let answer = self.admin("GET", path);
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
        answer
    }

    /// Sends a request to the admin endpoint.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn admin(&self, method: &str, path: &str) -> Response {
        self.admin_with(method, path, "")
    }

    /// Sends a request with a body to the admin endpoint.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn admin_with(&self, method: &str, path: &str, body: &str) -> Response {
        request(&self.config.admin, method, path, &[], body)
            .unwrap_or_else(|| panic!("{} does not answer {method} {path}", self.config.id))
    }

    /// Sum over the samples of a metric whose labels contain all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.get("/metrics").body;
        let samples = metrics.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Sessions as `/status` shows them.
    pub fn sessions(&self) -> Vec<serde_json::Value> {
        let status = self.get("/status").json();
        status["sessions"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a named application is connected.
    pub fn await_client(&self, client: &str) {
        self.await_connected(client, true);
    }

    /// Waits until a named application is known to be away.
    pub fn await_away(&self, client: &str) {
        self.await_connected(client, false);
    }

    fn await_connected(&self, client: &str, connected: bool) {
        let name = format!("app:{client}");
        until(&format!("connected = {connected} of {name}"), PATIENCE, || {
            let sessions = self.sessions();
            let own = sessions.iter().find(|one| one["name"] == name.as_str());
            own.is_some_and(|own| own["connected"] == connected)
        });
    }

    /// Waits until a peer's link is up.
    pub fn await_peer(&self, peer: &str) {
        let label = format!("peer=\"{peer}\"");
        until(&format!("the link from {} to {peer}", self.config.id), PATIENCE, || {
            self.metric("slipstream_link_up", &[&label]) == 1.0
        });
    }

    /// Waits until the node knows a way to so many nodes, itself included.
    pub fn await_mesh(&self, nodes: usize) {
        until(&format!("{} to know {nodes} nodes", self.config.id), PATIENCE, || {
            let status: serde_json::Value = self.get("/status").json();
            let known = status["topology"].as_array().into_iter().flatten();
            known.filter(|node| node["reachable"] == true).count() == nodes
        });
    }

    /// Resident memory in bytes; `None` where the system does not tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Begins to watch for the largest resident memory anew; gives what is resident now.
    pub fn watch_peak_bytes(&self) -> Option<u64> {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").ok()?;
        self.resident_bytes()
    }

    /// Largest resident memory since [`Self::watch_peak_bytes`].
    pub fn peak_bytes(&self) -> Option<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Bytes of all files in the data directory.
    pub fn stored_bytes(&self) -> u64 {
        size_of_files(&self.data_dir())
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read(self.home.path().join("log"))
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(30)..];
        tail.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "  {}: {line}", self.config.id);
            text
        })
    }

    fn log_file(&self) -> File {
        let path = self.home.path().join("log");
        OpenOptions::new().create(true).append(true).open(path).expect("the log can be opened")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("end of the log of {}:\n{}", self.config.id, self.log_tail());
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn size_of_files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // A file may go between being listed and being asked for its size.
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}
