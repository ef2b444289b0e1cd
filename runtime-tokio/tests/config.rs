//! The built binary and its configuration: what it refuses, how it says so, and that it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn slipstream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipstream"));
    // What the environment of the test run overrides is none of its business.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLIPSTREAM_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("slipstream.toml");
    std::fs::write(&file, text).expect("a temporary folder can be written");
    file
}

fn checked(text: &str) -> (Output, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), text);
    let path = file.to_string_lossy();
    let output = slipstream(&["check", "-c", &path]).output().expect("the binary starts");
    (output, file)
}

#[test]
fn a_wrong_key_ends_with_two_and_names_file_line_and_nearest() {
    let (output, file) = checked("[node]\nid = \"a\"\n\n[store]\nmax_byte = \"1GiB\"\n");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("{}:5:", file.display())), "{said}");
    assert!(said.contains("store.max_bytes"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn check_prints_everything_and_no_secret() {
    let (output, _) =
        checked("[node]\nid = \"a\"\n[[peers]]\nurl = \"ws://me:secret@gcp.example:7400\"\n");
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("ws://***@gcp.example:7400"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    assert!(said.contains("event_ttl = \"24h\""), "{said}");
}

#[test]
fn wrong_usage_ends_with_two_and_an_unreachable_node_with_one() {
    for arguments in [&["run"][..], &["nonsense"], &["run", "-c", "/nowhere/x.toml"]] {
        let output = slipstream(arguments).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = slipstream(&["status", "--admin", "http://127.0.0.1:1"]).output();
    let output = output.expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("http://127.0.0.1:1/status"));
}

#[test]
fn output_that_nobody_reads_any_more_is_no_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "[node]\nid = \"a\"\n");
    let mut child = slipstream(&["check", "-c", &file.to_string_lossy()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A running daemon; killed when dropped.
struct Daemon {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    admin: String,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

const ON_ANY_PORT: &str =
    "[node]\nid = \"a\"\n[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = write(folder.path(), ON_ANY_PORT);
        let mut child = slipstream(&["run", "-c", &file.to_string_lossy()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let ready = until(&mut lines, "ready");
        let admin = ready["admin"].as_str().expect("an address").to_owned();
        Self { child, lines, admin, file, _folder: folder }
    }

    /// Status code and body of the answer to one request.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.admin).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        let length = body.len();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (code.expect("a status line"), body.expect("a body"))
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().expect("kill exists");
        assert!(status.success());
    }
}

/// The first log line with this message.
fn until(lines: &mut impl BufRead, message: &str) -> serde_json::Value {
    let mut seen = String::new();
    for line in lines.lines() {
        let line = line.expect("the log is text");
        let event: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
        if event["message"] == message {
            return event;
        }
        seen.push_str(&line);
    }
    panic!("the log ended without `{message}`: {seen}");
}

#[test]
fn a_daemon_answers_operators_and_ends_when_told() {
    let mut daemon = Daemon::start();
    for path in ["/livez", "/readyz", "/healthz", "/status", "/sessions", "/dead-letters"] {
        assert_eq!(daemon.ask("GET", path, "", "").0, 200, "{path}");
    }
    assert_eq!(daemon.ask("GET", "/where/a%2Fb", "", ""), (200, "[]".to_owned()));
    assert_eq!(daemon.ask("GET", "/", "", "").0, 404);
    assert_eq!(daemon.ask("GET", "/dead-letters?limit=0", "", "").0, 400);
    assert_eq!(daemon.ask("GET", "/dead-letters?from=1", "", "").0, 400);
    assert_eq!(daemon.ask("DELETE", "/dead-letters/7", "", "").0, 404);
    assert_eq!(daemon.ask("POST", "/dead-letters/x/replay", "", "").0, 400);
    assert_eq!(daemon.ask("PUT", "/status", "", "").0, 405);
    assert_eq!(daemon.ask("PUT", "/log", "", &"x".repeat(100_000)).0, 413);
    for path in ["/livez", "/metrics", "/nothing"] {
        assert_eq!(daemon.ask("GET", path, "Host: evil.example\r\n", "").0, 403, "{path}");
        assert_eq!(daemon.ask("GET", path, "Origin: http://evil.example\r\n", "").0, 403, "{path}");
    }
    let metrics = daemon.ask("GET", "/metrics", "", "").1;
    assert!(metrics.contains("slipstream_build_info{"), "{metrics}");
    daemon.signal("-TERM");
    assert_eq!(daemon.child.wait().expect("it ends").code(), Some(0));
}

// keeps: reload
#[test]
fn a_reload_is_all_or_nothing() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.ask("PUT", "/log", "", "warn,a=debug").0, 200);
    assert_eq!(daemon.ask("PUT", "/log", "", "debgu").0, 400);
    assert!(daemon.ask("GET", "/log", "", "").1.contains("a=debug"));

    std::fs::write(&daemon.file, format!("{ON_ANY_PORT}[log]\nlevl = \"debug\"")).expect("wrote");
    let (code, said) = daemon.ask("POST", "/reload", "", "");
    assert_eq!(code, 400);
    assert!(said.contains("log.level"), "{said}");
    assert!(daemon.ask("GET", "/log", "", "").1.contains("a=debug"));

    let text = format!("{ON_ANY_PORT}[log]\nlevel = \"debug\"\n[retry]\nmax_rate = 5");
    std::fs::write(&daemon.file, text).expect("wrote");
    daemon.signal("-HUP");
    let message = "configuration reloaded; what changed in keys needs a restart";
    assert_eq!(until(&mut daemon.lines, message)["keys"], "retry.max_rate");
    assert_eq!(daemon.ask("GET", "/log", "", "").1, "debug\n");
}
