//! The engine, the example and the server of one test, in a folder of their own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::server::{Arrived, Kind, Server};

/// Random numbers from a counter (splitmix64): the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

/// Where things are in the repository.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The environment that `scripts/servers.sh` makes, or another.
fn python() -> Option<PathBuf> {
    let given = std::env::var_os("ANNALS_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| here("target/edges-venv/bin/python"));
    let found = Command::new(&python).args(["-c", "import zmq, msgpack"]).output();
    found.is_ok_and(|found| found.status.success()).then_some(python)
}

/// The example, built as these tests are.
fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        // <target>/<profile>/deps/edges_real-<hash>
        let built = exe.parent().and_then(Path::parent).unwrap();
        let profile = match built.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--profile", profile, "--example", "kv_publisher"]);
        cargo.args(["--features", "nats,redis,zmq"]);
        cargo.arg("--target-dir").arg(built.parent().unwrap());
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the example could not be built");
        built.join("examples/kv_publisher")
    })
}

/// Killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().unwrap();
        }
    }
}

/// All that a test has started.
pub(crate) struct House {
    dir: tempfile::TempDir,
    python: PathBuf,
    server: Server,
    engine: Option<Process>,
    /// Where it publishes and where it answers: the same in each life.
    addresses: Option<(String, String)>,
    /// How many engines there have been.
    lives: u32,
    annals: Option<Process>,
    /// There is a log between the engine and the server.
    stored: bool,
}

impl House {
    /// A server runs; `None`, and a loud word about it, where something is missing.
    pub(crate) fn build(kind: Kind, stored: bool, name: &str) -> Option<Self> {
        let python = python();
        let server = Command::new(kind.program()).arg("--version").output();
        let (Some(python), true) = (python, server.is_ok_and(|found| found.status.success()))
        else {
            eprintln!(
                "*** SKIPPED: {name} needs {} and Python with pyzmq and msgpack; \
                 scripts/servers.sh gets them",
                kind.program()
            );
            return None;
        };
        example();
        let dir = tempfile::Builder::new().prefix(&format!("annals-{name}-")).tempdir().unwrap();
        let mut server = Server::new(kind, dir.path());
        server.start();
        Some(Self {
            dir,
            python,
            server,
            engine: None,
            addresses: None,
            lives: 0,
            annals: None,
            stored,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits for something to become so.
    pub(crate) fn wait(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let begun = std::time::Instant::now();
        while !so(self) {
            let seconds = begun.elapsed().as_secs();
            let said = || {
                let said = self.said_by_annals();
                said.get(said.len().saturating_sub(2_000)..).unwrap_or_default().to_owned()
            };
            assert!(seconds < 60, "waited for {what} for {seconds} s:\n{}", said());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    pub(crate) fn start_engine(&mut self, arguments: &[&str]) {
        self.lives += 1;
        let mut command = Command::new(&self.python);
        command.arg(here("tests/edges_real/publisher.py"));
        command.arg("--trace").arg(here("tests/data/kv/conversation_trace.jsonl"));
        command.arg("--truth").arg(self.truth_path()).args(arguments);
        if let Some((publish, replay)) = &self.addresses {
            command.args(["--publish", publish, "--replay", replay]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        self.engine = Some(Process(child));
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let (publish, replay) = line.trim_end().split_once(' ').expect("two addresses");
        self.addresses = Some((publish.to_owned(), replay.to_owned()));
        // It says when it is done.
        let done = self.path(&format!("done-{}", self.lives));
        std::thread::spawn(move || {
            let mut line = String::new();
            if out.read_line(&mut line).is_ok() && line == "done\n" && fs::write(done, "").is_err()
            {
                // The test has ended, and its folder with it.
            }
        });
    }

    pub(crate) fn kill_engine(&mut self) {
        self.engine = None;
    }

    /// Has it said all that it was to say?
    pub(crate) fn engine_is_done(&mut self) -> bool {
        self.path(&format!("done-{}", self.lives)).exists()
    }

    fn truth_path(&self) -> PathBuf {
        self.path(&format!("truth-{}", self.lives))
    }

    /// What the engine of this life has said, batch by batch.
    pub(crate) fn truth(&self) -> Vec<(u64, Vec<(bool, u64)>)> {
        let text = fs::read_to_string(self.truth_path()).unwrap_or_default();
        let mut batches = Vec::new();
        // The last line may not be whole yet.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let mut words = line.split_whitespace();
            let seq = words.next().unwrap().parse().unwrap();
            let change = |word: &str| {
                let (sign, hash) = word.split_at(1);
                (sign == "+", hash.parse().unwrap())
            };
            batches.push((seq, words.map(change).collect()));
        }
        batches
    }

    pub(crate) fn start_annals(&mut self) {
        let (publish, replay) = self.addresses.as_ref().expect("the engine comes first");
        let log = fs::File::options().create(true).append(true).open(self.path("annals")).unwrap();
        let mut command = Command::new(example());
        command.args(["--plain", "--topic", "kv", "--engine", publish, "--replay", replay]);
        let (flag, path) = if self.stored { ("--store", "store") } else { ("--keep", "keep") };
        command.arg(flag).arg(self.path(path)).args(self.server.arguments());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.annals = Some(Process(command.spawn().unwrap()));
    }

    pub(crate) fn kill_annals(&mut self) {
        self.annals = None;
    }

    /// From here on a kill costs nothing that was known.
    pub(crate) fn wait_for_checkpoint(&mut self) {
        self.wait("the first checkpoint", |house| house.said_by_annals().contains("kept\n"));
    }

    /// What it has printed, in all its lives.
    pub(crate) fn said_by_annals(&self) -> String {
        fs::read_to_string(self.path("annals")).unwrap_or_default()
    }

    pub(crate) fn start_server(&mut self) {
        self.server.start();
    }

    pub(crate) fn kill_server(&mut self) {
        self.server.kill();
    }

    /// What the server has.
    pub(crate) fn arrived(&self) -> Option<Vec<Arrived>> {
        self.server.arrived()
    }
}
