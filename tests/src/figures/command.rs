//! The command `figures`: measures meshes, prints what was found, and says what is above its bound.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use serde::Serialize;

use super::failures::{killed_links, killed_nodes, stalled_links};
use super::flapping::flapping;
use super::steady::Steady;
use super::{Figure, Shape, Traffic};

/// Messages a second in steady state, all together.
const RATE: u64 = 1000;
/// Nodes that publish them.
const ORIGINS: usize = 4;
/// How long they do.
const SECONDS: u64 = 2;
/// Seed of the random meshes.
const SEED: u64 = 1;

/// Measures meshes of nodes on virtual time: payload copies and bytes of offers in steady state,
/// and how late messages are when something fails. Ends with 1 if a figure is above its bound.
#[derive(Debug, Parser)]
#[command(
    name = "figures",
    after_help = "Examples:\n  \
        figures                  every mesh, as tables\n  \
        figures --json           the same for machines\n  \
        figures --seed 7         other random meshes\n  \
        figures --mesh 'full 5'  one mesh alone"
)]
struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seed of the random meshes
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// Measure only meshes whose name contains this
    #[arg(long, default_value = "")]
    mesh: String,
    /// Leave out steady state
    #[arg(long)]
    skip_steady: bool,
    /// Leave out what fails, which takes longest
    #[arg(long)]
    skip_failures: bool,
    /// How many meshes at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
struct Report {
    steady: Vec<Steady>,
    failures: Vec<Figure>,
}

/// One thing to measure.
enum Task {
    Steady(Shape),
    Links(Shape),
    Nodes(Shape),
    Stalls(Shape),
    Flapping(Shape, usize),
}

/// What came of it.
enum Found {
    Steady(Steady),
    Failures(Vec<Figure>),
}

/// Runs the command.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = measure(&tasks(&arguments), arguments.jobs);
    if arguments.json {
        let json = serde_json::to_string_pretty(&report).expect("a report is plain data");
        println!("{json}");
    } else {
        print(&report);
    }
    let steady = report.steady.iter().flat_map(Steady::figures);
    let above: Vec<Figure> =
        steady.chain(report.failures).filter(|figure| !figure.is_kept()).collect();
    for figure in &above {
        eprintln!("figures: above its bound: {figure}");
    }
    if above.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tasks(arguments: &Arguments) -> Vec<Task> {
    let random = |nodes, degree| Shape::random(nodes, degree, arguments.seed);
    let sizes = [8, 16, 32, 64];
    let chosen = |shape: &Shape| shape.name.contains(&arguments.mesh);
    let full = (3..=16).map(Shape::full);
    let sparse = [3, 4].into_iter().flat_map(|degree| sizes.map(|nodes| random(nodes, degree)));
    let mut tasks = Vec::new();
    if !arguments.skip_steady {
        tasks.extend(full.chain(sparse).filter(chosen).map(Task::Steady));
    }
    if !arguments.skip_failures {
        let meshes = [Shape::full(5), Shape::full(8), random(16, 3), random(16, 4), random(32, 3)];
        let meshes = || meshes.iter().filter(|shape| chosen(shape)).cloned();
        tasks.extend(meshes().map(Task::Links));
        tasks.extend(meshes().map(Task::Nodes));
        tasks.extend(meshes().map(Task::Stalls));
        tasks.extend(meshes().map(|shape| Task::Flapping(shape, 0)));
    }
    tasks
}

/// Does all tasks, some at the same time; what they found is in their order.
fn measure(tasks: &[Task], jobs: usize) -> Report {
    let next = AtomicUsize::new(0);
    let found: Vec<Mutex<Option<Found>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let bar = ProgressBar::new(tasks.len() as u64);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(number) else { return };
                    *found[number].lock().expect("no worker panics") = Some(task.run());
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut report = Report::default();
    for one in found {
        match one.into_inner().expect("no worker panics") {
            Some(Found::Steady(steady)) => report.steady.push(steady),
            Some(Found::Failures(figures)) => report.failures.extend(figures),
            None => {}
        }
    }
    report
}

impl Task {
    fn run(&self) -> Found {
        match self {
            Self::Steady(shape) => {
                let traffic = Traffic::of(shape.nodes, ORIGINS, RATE);
                Found::Steady(Steady::measure(shape, &traffic, SECONDS))
            }
            Self::Links(shape) => Found::Failures(vec![killed_links(shape)]),
            Self::Nodes(shape) => Found::Failures(vec![killed_nodes(shape)]),
            Self::Stalls(shape) => Found::Failures(stalled_links(shape).into()),
            Self::Flapping(shape, link) => Found::Failures(flapping(shape, *link, 20).into()),
        }
    }
}

fn print(report: &Report) {
    if !report.steady.is_empty() {
        print_steady(&report.steady);
    }
    if !report.failures.is_empty() {
        println!("Failures: the worst over every link or node that can be spared.\n");
        report.failures.iter().for_each(|figure| println!("{figure}"));
    }
}

fn print_steady(measured: &[Steady]) {
    println!(
        "Steady state: {RATE} messages a second from {ORIGINS} nodes. Copies: payloads that cross \
         a link, per\nmessage, over one for each node but the origin. Offers: bytes of offers and \
         answers per\nmessage and redundant link.\n"
    );
    let titles = ["mesh", "nodes", "links", "redundant", "messages", "copies", "offers"];
    let [mesh, nodes, links, redundant, messages, copies, offers] = titles;
    println!(
        "{mesh:<22} {nodes:>5} {links:>5} {redundant:>9} {messages:>8} {copies:>7} {offers:>7}"
    );
    for one in measured {
        println!(
            "{:<22} {:>5} {:>5} {:>9} {:>8} {:>7.4} {:>7.2}",
            one.mesh,
            one.nodes,
            one.links,
            one.redundant_links,
            one.messages,
            one.copies,
            one.offer_bytes,
        );
    }
    println!();
}
