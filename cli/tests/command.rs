//! The built command on real stores: what it prints, and the codes that it ends with.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, which makes and breaks files"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use annals::rkyv::{self, Archive, Deserialize, Serialize};
use annals::{Actor, ActorOptions, Durable, Handle, Position, Store, Turn};
use serde_json::Value;

#[derive(Default)]
struct Counter(u64);

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = rkyv)]
struct Added(u64);

impl Actor for Counter {
    type Event = Added;
    const KIND: &'static str = "counter";
    fn apply(&mut self, event: &Added) {
        self.0 += event.0;
    }
}

struct Add(u64);
impl Handle<Add> for Counter {
    type Reply = u64;
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(Added(number));
        turn.0
    }
}

/// A store with thirty events of three counters.
fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    for (number, name) in (0..30).zip(["a", "b", "c"].into_iter().cycle()) {
        let counter = store.actor::<Counter>(name).unwrap();
        counter.ask(Add(number)).unwrap();
    }
    drop(store);
    (dir, path)
}

fn annals(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_annals")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn code(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "{}{}", out(output), err(output));
}

fn json(arguments: &[&str], expected: i32) -> Value {
    let output = annals(&[arguments, &["--json"]].concat());
    code(&output, expected);
    serde_json::from_str(&out(&output)).unwrap()
}

/// The first segment with a frame of `b` damaged.
fn damage(path: &Path) {
    let line = json_lines(&["history", text(path), "counter/b"]).remove(3);
    let lsn = usize::try_from(line["lsn"].as_u64().unwrap()).unwrap();
    let segment = path.join("log/00000000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[lsn + 40] ^= 4;
    fs::write(&segment, bytes).unwrap();
    // Which has the frame too, and would mend it.
    let ring = fs::read(path.join("ring")).unwrap().len();
    fs::write(path.join("ring"), vec![0; ring]).unwrap();
}

fn json_lines(arguments: &[&str]) -> Vec<Value> {
    let output = annals(&[arguments, &["--json"]].concat());
    out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_whole_store_is_shown_and_verified_with_code_0() {
    let (_dir, path) = store();
    let stat = json(&["stat", text(&path), "--count"], 0);
    assert_eq!(stat["state"], "closed");
    assert_eq!(stat["totals"]["events"], 30);
    assert_eq!(stat["totals"]["actors"], 3);
    assert_eq!(stat["findings"], Value::Array(Vec::new()));
    let verified = json(&["verify", text(&path)], 0);
    assert_eq!(verified["events"], 30);
    assert_eq!(verified["damaged"], false);
    assert_eq!(json(&["names", text(&path)], 0).as_array().unwrap().len(), 3);
    assert_eq!(json_lines(&["history", text(&path), "counter/a"]).len(), 10);
    assert_eq!(json_lines(&["history", text(&path), "counter/a", "--after", "7"]).len(), 3);
    let frames = json_lines(&["dump", text(&path)]);
    assert_eq!(frames.iter().filter(|frame| frame["kind"] == "turn").count(), 30);
    let second = frames[1]["lsn"].to_string();
    let limited = json_lines(&["dump", text(&path), "--from", &second, "--limit", "2"]);
    assert_eq!(limited, frames[1..3]);
    assert_eq!(json_lines(&["dump", text(&path), "--kind", "counter"]).len(), 30);
    assert_eq!(json_lines(&["dump", text(&path), "--kind", "nobody"]).len(), 0);
    assert_eq!(json_lines(&["tail", text(&path), "-n", "2"]), frames[frames.len() - 2..]);
    for arguments in [["stat"], ["verify"], ["dump"], ["tail"], ["names"]] {
        let output = annals(&[&arguments[..], &[text(&path)]].concat());
        code(&output, 0);
        assert!(!out(&output).is_empty());
    }
    for arguments in [&["--help"][..], &["verify", "--help"], &["--version"]] {
        code(&annals(arguments), 0);
    }
    assert!(out(&annals(&["--help"])).contains("Exit codes"));
}

#[test]
fn damage_is_code_1_with_its_place_and_a_repair_asks_first() {
    let (_dir, path) = store();
    damage(&path);
    let verified = json(&["verify", text(&path)], 1);
    let findings = verified["findings"].as_array().unwrap();
    let loss = findings.iter().find(|finding| finding["severity"] == "loss").unwrap();
    assert!(loss["file"].as_str().unwrap().ends_with("log/00000000000000000000.seg"));
    assert!(loss["to"].as_u64().unwrap() > loss["from"].as_u64().unwrap());
    let before = fs::read(path.join("mark")).unwrap();
    let plan = json(&["repair", text(&path)], 1);
    assert!(!plan["steps"].as_array().unwrap().is_empty());
    assert_eq!(fs::read(path.join("mark")).unwrap(), before, "a plan changes nothing");
    let output = annals(&["backup", text(&path), text(&path.with_extension("copy"))]);
    code(&output, 1);
    let done = json(&["repair", text(&path), "--yes"], 1);
    assert!(Path::new(done["aside"].as_str().unwrap()).join("REPORT").exists());
    let store = Store::open(&path).unwrap();
    assert_eq!(store.actor::<Counter>("a").unwrap().ask(Add(0)).unwrap(), 135);
    assert!(store.actor::<Counter>("b").unwrap().ask(Add(0)).is_err(), "it has a hole");
}

#[test]
fn what_cannot_be_done_is_code_3_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing");
    for verb in ["stat", "verify", "dump", "tail", "names", "owed", "cursors", "repair", "rebuild"]
    {
        let output = annals(&[verb, text(&nothing)]);
        code(&output, 3);
        assert!(err(&output).contains("no such folder"), "{}", err(&output));
        code(&annals(&[verb, text(dir.path())]), 3);
    }
    assert!(!nothing.exists());
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(err(&annals(&["stat", text(&file)])).contains("not a folder"));
    let (_dir, path) = store();
    let taken = annals(&["backup", text(&path), text(dir.path())]);
    code(&taken, 3);
    assert!(err(&taken).contains("exists already"));
    let open = Store::open(&path).unwrap();
    for verb in ["repair", "rebuild"] {
        let output = annals(&[verb, text(&path)]);
        code(&output, 3);
        let own = std::process::id().to_string();
        assert!(err(&output).contains(&own), "{}", err(&output));
    }
    drop(open);
}

#[test]
fn a_command_line_without_sense_is_code_2() {
    let (_dir, path) = store();
    code(&annals(&[]), 2);
    code(&annals(&["frobnicate"]), 2);
    code(&annals(&["history", text(&path), "noslash"]), 2);
}

#[test]
fn a_backup_opens_and_a_rebuild_makes_again_what_was_dropped() {
    let (dir, path) = store();
    for links in [false, true] {
        let to = dir.path().join(format!("copy-{links}"));
        let mut arguments = vec!["backup", text(&path), text(&to)];
        if links {
            arguments.push("--links");
        }
        json(&arguments, 0);
        assert_eq!(json(&["verify", text(&to)], 0)["events"], 30);
        let store = Store::open(&to).unwrap();
        assert_eq!(store.actor::<Counter>("a").unwrap().ask(Add(1)).unwrap(), 136);
    }
    json(&["rebuild", text(&path)], 0);
    assert!(path.join("catalogue").exists());
    assert_eq!(json(&["verify", text(&path)], 0)["events"], 30);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let (_dir, path) = store();
    let mut child = Command::new(env!("CARGO_BIN_EXE_annals"))
        .args(["tail", "-f", text(&path), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    drop(lines);
    // It notices when it has something to say.
    let store = Store::open(&path).unwrap();
    store.actor::<Counter>("a").unwrap().ask(Add(1)).unwrap();
    let mut more = 0;
    while child.try_wait().unwrap().is_none() {
        store.actor::<Counter>("a").unwrap().ask(Add(1)).unwrap();
        more += 1;
        assert!(more < 1_000_000, "it goes on");
    }
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

/// A store that another process is writing at this very moment.
#[test]
fn a_store_that_another_process_writes_is_looked_at_and_backed_up() {
    let examples = Path::new(env!("CARGO_BIN_EXE_annals")).with_file_name("examples");
    let program = examples.join("crash_child");
    assert!(program.exists(), "run `cargo build --examples` first, as scripts/test.sh does");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut child = Command::new(program)
        .args(["work", text(&path), "100000000", "4", "--durability", "process"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for _ in 0..100 {
        lines.read_line(&mut line).unwrap();
    }
    let drain = std::thread::spawn(move || drop(std::io::copy(&mut lines, &mut std::io::sink())));
    let pid = child.id().to_string();
    let mut written = 0;
    for number in 0..5 {
        let stat = json(&["stat", text(&path)], 0);
        assert_eq!(stat["owner"], pid.as_str());
        assert_eq!(stat["state"], "open");
        assert!(stat["written"].as_u64().unwrap() >= written);
        written = stat["written"].as_u64().unwrap();
        let verified = json(&["verify", text(&path)], 0);
        assert_eq!(verified["damaged"], false, "{verified}");
        for verb in ["owed", "cursors"] {
            assert_eq!(json(&[verb, text(&path)], 0), Value::Array(Vec::new()));
        }
        let to = dir.path().join(format!("copy{number}"));
        json(&["backup", text(&path), text(&to)], 0);
        assert_eq!(json(&["verify", text(&to)], 0)["damaged"], false);
    }
    let locked = annals(&["repair", text(&path)]);
    code(&locked, 3);
    assert!(err(&locked).contains(&pid));
    child.kill().unwrap();
    child.wait().unwrap();
    drain.join().unwrap();
    assert_eq!(json(&["stat", text(&path)], 0)["state"], "crashed");
    assert_eq!(json(&["verify", text(&path)], 0)["damaged"], false);
}

/// Owes letters, and reminds itself.
#[derive(Default)]
struct Clerk(u64);

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = rkyv)]
struct Letter(u64);

impl Durable for Letter {
    const NAME: &'static str = "letter";
}

impl Actor for Clerk {
    type Event = Added;
    const KIND: &'static str = "clerk";
    fn apply(&mut self, event: &Added) {
        self.0 += event.0;
    }
    fn options() -> ActorOptions<Self> {
        ActorOptions::new().command::<Letter>()
    }
}

impl Handle<Letter> for Clerk {
    type Reply = ();
    fn handle(_: Letter, _: &mut Turn<'_, Self>) {}
    /// Not before there is an event.
    fn admits(_: &Letter, clerk: &Self) -> bool {
        clerk.0 > 0
    }
}

impl Handle<Add> for Clerk {
    type Reply = ();
    fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) {
        turn.emit(Added(number));
        turn.unstash();
    }
}

/// Owes the other a letter, and itself one in an hour.
struct Owe;
impl Handle<Owe> for Clerk {
    type Reply = ();
    fn handle(_: Owe, turn: &mut Turn<'_, Self>) {
        let other = turn.actor::<Self>("other").unwrap();
        assert!(turn.send(&other, Letter(1)).is_ok());
        turn.wake_after("noon", Duration::from_hours(1), &Letter(2));
        turn.outside("mail", &Letter(3));
    }
}

/// Beside the writer, and after it.
#[test]
fn what_is_owed_and_where_cursors_are_is_listed_beside_a_live_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::options().actor::<Clerk>().open(&path).unwrap();
    assert_eq!(json(&["owed", text(&path)], 0), Value::Array(Vec::new()));
    assert_eq!(json(&["cursors", text(&path)], 0), Value::Array(Vec::new()));
    store.actor::<Clerk>("one").unwrap().ask(Owe).unwrap();
    let cursor = store.cursor("mailer").unwrap();
    cursor.save(Position::new(4096, 1)).unwrap();
    for _ in 0..2 {
        let owed = json(&["owed", text(&path)], 0);
        let [message, timer] = &owed.as_array().unwrap()[..] else { panic!("{owed}") };
        let is = |value: &Value, key: &str, expected: &str| assert_eq!(value[key], expected);
        is(message, "what", "message");
        is(message, "actor", "clerk/one");
        is(message, "to", "clerk/other");
        is(message, "type", "letter");
        is(timer, "what", "timer");
        is(timer, "key", "noon");
        assert!(timer["due"].as_str() > timer["since"].as_str(), "{timer}");
        assert!(timer["age_ms"].as_u64().unwrap() < 3_600_000);
        assert!(message["owed"].as_str().unwrap().ends_with("#1"));
        let table = annals(&["owed", text(&path), "--max", "1"]);
        code(&table, 0);
        let lines = out(&table);
        let mut lines = lines.lines();
        assert!(lines.next().unwrap().starts_with("actor      owes"));
        assert!(lines.next().unwrap().starts_with("clerk/one  `letter` to clerk/other"));
        assert_eq!(lines.next(), Some("These are the 1 oldest; --max says how many."));

        let cursors = json(&["cursors", text(&path)], 0);
        assert_eq!(cursors.as_array().unwrap().len(), 1);
        assert_eq!(cursors[0]["name"], "mailer");
        assert_eq!(cursors[0]["position"], "4096.1");
        assert!(cursors[0]["lag_bytes"].as_u64().unwrap() > 0);
        let table = annals(&["cursors", text(&path)]);
        assert!(out(&table).lines().nth(1).unwrap().starts_with("mailer  4096.1"));

        let dump = out(&annals(&["dump", text(&path)]));
        let says = |what: &str| assert!(dump.contains(what), "{what} is not in\n{dump}");
        says("owes #1: message `letter` v1 of 8 bytes to clerk/other");
        says("owes #2: timer noon due 2");
        says("leaves #3 for the outside, topic mail: `letter` v1 of 8 bytes");
        says("there is a cursor mailer");
        says("cursor at 4096.1");
        let frames = json_lines(&["dump", text(&path), "--kind", "clerk"]);
        let notes = frames[0]["records"].as_array().unwrap().iter();
        let notes: Vec<_> = notes.filter(|record| record["kind"] == "note").collect();
        assert_eq!(notes[0]["note"]["what"], "sent");
        assert_eq!(notes[0]["note"]["to"], "clerk/other");
        assert_eq!(notes[2]["note"]["topic"], "mail");
        assert!(!out(&annals(&["dump", text(&path), "--hex"])).contains("owes #1"));
    }
    store.actor::<Clerk>("other").unwrap().ask(Add(1)).unwrap();
    let mut owed = 2;
    for _ in 0..1_000 {
        owed = json(&["owed", text(&path)], 0).as_array().unwrap().len();
        if owed == 1 {
            break;
        }
    }
    assert_eq!(owed, 1, "the letter is handled");
    assert!(out(&annals(&["dump", text(&path)])).contains("has handled clerk/one#1"));
    assert!(store.delete_cursor("mailer").unwrap());
    assert_eq!(json(&["cursors", text(&path)], 0), Value::Array(Vec::new()));
    store.close(Duration::from_secs(10)).unwrap();
    assert_eq!(json(&["owed", text(&path)], 0).as_array().unwrap().len(), 1);
}
