//! Reads the sources, and holds the rules of the house that no compiler knows.
//!
//! Each rule is a function from one file (or all of them) to findings. Each is also run on a small
//! bad sample, so that a check which cannot fail is found out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A ratchet: make it smaller when all files are, never larger.
const FILE_LINES_MAX: usize = 700;
/// Files that were longer before they were looked at: each may shrink, none may grow, and one
/// that has become short enough leaves this list.
const LONGER: [(&str, usize); 3] =
    [("src/disk/sim/tests.rs", 931), ("examples/order_saga.rs", 783), ("tests/tidy.rs", 727)];
const COLUMNS_MAX: usize = 100;

/// The layers of `src/`, lowest first. Code may name its own layer and those below.
/// Layers of one rank may know each other, but for `STRANGERS`.
const LAYERS: [(&str, u8); 17] = [
    ("types", 0),
    ("op", 0),
    ("error", 0),
    ("time", 0),
    ("metrics", 0),
    ("trace", 0),
    ("disk", 1),
    ("log", 2),
    ("snapshot", 3),
    ("catalogue", 4),
    ("actor", 5),
    ("sync", 5),
    ("edge", 6),
    ("options", 7),
    ("store", 7),
    ("testkit", 8),
    ("lib", 9),
];

/// Two layers that stand side by side and do not know each other: `store` ties them.
const STRANGERS: [&str; 2] = ["actor", "sync"];

/// A file, and a layer above it that it may name all the same, each with a reason:
/// `Error` is the sum of all errors, for `?`.
const UPWARD: [(&str, &str); 2] = [("src/error.rs", "actor"), ("src/error.rs", "sync")];

/// The crate re-exports it, and derives may name it so.
const NO_LAYER: [&str; 1] = ["rkyv"];

/// The one room where `unsafe` may be written.
const UNSAFE_ROOM: &str = "src/disk/map.rs";

/// Where promises name the tests that hold them, as `test: name_of_the_test`: here, and in `docs/`.
const PROMISES: &str = "README.md";

/// The table of cases, and the numbers up to its last that no case has.
const CASES: &str = "docs/cases.md";
const CASES_LAST: u32 = 166;
const NO_CASES: [u32; 23] = [
    5, 9, 11, 20, 28, 30, 47, 62, 67, 84, 88, 93, 101, 109, 119, 123, 131, 135, 137, 146, 149, 155,
    165,
];
/// How a case begins that no test holds.
const WITHOUT_TEST: [&str; 3] = ["No meaning here", "Decided otherwise", "Open."];

/// Tests without the usual harness: their cases are plain functions.
const NO_HARNESS: [&str; 3] = ["tests/crash.rs", "tests/netns.rs", "tests/owed_crash.rs"];

// --- the files ---

/// A file of the repository.
#[derive(Clone, Debug)]
struct File {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_source(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    fn is_in(&self, folders: &[&str]) -> bool {
        folders
            .iter()
            .any(|folder| self.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text that people write, but for what tools make.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let made = ["target", "corpus", "artifacts", "coverage", ".git"];
            if path.is_dir() {
                if !made.contains(&name.as_str()) {
                    folders.push(path);
                }
                continue;
            }
            let written = [".rs", ".md", ".toml", ".sh", ".yml", ".yaml"];
            if written.iter().any(|end| name.ends_with(end)) || path.ends_with(".ci/run") {
                let text = fs::read_to_string(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the sources were not found");
    files
}

fn sources() -> Vec<File> {
    files().into_iter().filter(File::is_source).collect()
}

/// All findings of a rule that looks at one file at a time.
fn each(files: &[File], rule: fn(&File) -> Vec<String>) -> Vec<String> {
    files.iter().flat_map(rule).collect()
}

#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

// --- the code ---

/// The text with the insides of comments, strings and characters blanked out, line by line as
/// before: what is left is code.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = opaque(rest, code.chars().next_back());
        if length == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        }
        let (inside, after) = rest.split_at(length);
        code.extend(inside.chars().map(|inner| if inner == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    code
}

/// Bytes of the comment, string or character that `rest` begins with; 0 if it begins with none.
fn opaque(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
    if rest.starts_with('r') && !in_word {
        let hashes = rest[1..].chars().take_while(|hash| *hash == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            return rest[begin..].find(&end).map_or(rest.len(), |at| begin + at + end.len());
        }
    }
    if rest.starts_with('\'') {
        // A character, unless it is a lifetime: those have no quote after their first letter.
        let mut inner = rest.chars().skip(1);
        return match (inner.next(), inner.next()) {
            (Some('\\'), _) => quoted(rest, '\''),
            (Some(one), Some('\'')) => 2 + one.len_utf8(),
            _ => 0,
        };
    }
    0
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, inner) in rest.char_indices().skip(1) {
        match inner {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if inner == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The words of a line of code, `::` among them.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let length = match next {
            _ if word(next) => rest.find(|letter| !word(letter)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => next.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if !token.trim().is_empty() {
            words.push(token);
        }
        rest = after;
    }
    words
}

// --- rules: structure ---

fn rank(layer: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == layer).map(|(_, rank)| *rank)
}

/// Imports go one way.
fn imports_go_one_way(file: &File) -> Vec<String> {
    let Some(inside) = file.path.strip_prefix("src/") else { return Vec::new() };
    let own = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(own_rank) = rank(own) else {
        return vec![file.finding(1, &format!("`{own}` has no layer; give it one in LAYERS"))];
    };
    let mut findings = Vec::new();
    let code = code(&file.text);
    let at_top = !inside.trim_end_matches("/mod.rs").contains('/');
    for (line, name) in named_from_root(&code, at_top) {
        let what = match rank(&name) {
            _ if name == own || NO_LAYER.contains(&name.as_str()) => continue,
            _ if UPWARD.contains(&(&*file.path, &*name)) => continue,
            None if own == "lib" => continue,
            None => format!("`crate::{name}` hides its layer; name it where it is defined"),
            Some(_) if STRANGERS.contains(&own) && STRANGERS.contains(&&*name) => {
                format!("`{own}` and `{name}` do not know each other")
            }
            Some(other) if other <= own_rank => continue,
            Some(_) => format!("`{own}` is below `{name}` and may not name it"),
        };
        findings.push(file.finding(line, &what));
    }
    findings
}

/// What is named directly under the crate's root, and in which line: `crate::a::b`, each of
/// `crate::{a, b::c}`, and `super::a` in a file that is itself directly under the root.
fn named_from_root(code: &str, at_top: bool) -> Vec<(usize, String)> {
    let tokens: Vec<(usize, &str)> = code
        .lines()
        .enumerate()
        .flat_map(|(index, line)| words(line).into_iter().map(move |word| (index + 1, word)))
        .collect();
    let mut named = Vec::new();
    for (at, (_, word)) in tokens.iter().enumerate() {
        let root = *word == "crate"
            || at_top
                && *word == "super"
                && at.checked_sub(1).is_none_or(|at| tokens[at].1 != "::");
        if !root || tokens.get(at + 1).is_none_or(|(_, next)| *next != "::") {
            continue;
        }
        let after = &tokens[at + 2..];
        // `super` in a test at the end of a file means the file: only layers are looked at.
        let counts = |name: &str| *word == "crate" || rank(name).is_some();
        match after.first() {
            Some((_, "{")) => named
                .extend(heads_of_group(&after[1..]).into_iter().filter(|(_, name)| counts(name))),
            Some((line, name)) if counts(name) => named.push((*line, (*name).to_owned())),
            _ => {}
        }
    }
    named
}

/// The first word of each entry of `{a, b::{c, d}, e}`, given what follows the first brace.
fn heads_of_group(tokens: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut heads = Vec::new();
    let (mut depth, mut at_head) = (1, true);
    for (line, token) in tokens {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => at_head = depth == 1,
            _ if at_head => {
                heads.push((*line, (*token).to_owned()));
                at_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// A file that no `mod` names is not compiled, and nobody notices.
fn every_file_is_a_module(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_in(&["src", "tests/it", "tests/observe"])) {
        let Some((folder, name)) = file.path.rsplit_once('/') else { continue };
        let (folder, name) = match name.trim_end_matches(".rs") {
            "lib" | "main" => continue,
            "mod" => folder.rsplit_once('/').unwrap_or_default(),
            name => (folder, name),
        };
        let parents = ["mod.rs", "lib.rs", "main.rs"].map(|parent| format!("{folder}/{parent}"));
        let named = files
            .iter()
            .filter(|parent| {
                parents.contains(&parent.path) || parent.path == format!("{folder}.rs")
            })
            .any(|parent| {
                code(&parent.text)
                    .lines()
                    .any(|line| words(line).windows(3).any(|three| three == ["mod", name, ";"]))
            });
        if !named {
            findings.push(file.finding(1, "no `mod` names this file: it is never compiled"));
        }
    }
    findings
}

fn every_file_says_what_it_is_for(file: &File) -> Vec<String> {
    if file.is_in(&["src"]) && !file.text.starts_with("//! ") {
        return vec![file.finding(1, "does not begin with `//!` and what it is for")];
    }
    Vec::new()
}

fn unsafe_stays_in_its_room(file: &File) -> Vec<String> {
    if !file.is_in(&["src", "tests", "examples"]) || file.path == UNSAFE_ROOM {
        return Vec::new();
    }
    lines_with(file, |line| words(line).contains(&"unsafe"), "`unsafe` outside of its room")
}

// --- rules: text ---

/// A finding for each line of code that `is_bad`.
fn lines_with(file: &File, is_bad: fn(&str) -> bool, what: &str) -> Vec<String> {
    let code = code(&file.text);
    let bad = code.lines().enumerate().filter(|(_, line)| is_bad(line));
    bad.map(|(index, _)| file.finding(index + 1, what)).collect()
}

fn sources_are_ascii(file: &File) -> Vec<String> {
    let lines = file.text.lines().enumerate().filter(|(_, line)| !line.is_ascii());
    lines.map(|(index, _)| file.finding(index + 1, "not ASCII")).collect()
}

fn lines_are_short(file: &File) -> Vec<String> {
    let what = format!("more than {COLUMNS_MAX} columns");
    let long = file.text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
    long.map(|(index, _)| file.finding(index + 1, &what)).collect()
}

fn files_are_short(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let longer = LONGER.iter().find(|(path, _)| *path == file.path).map(|(_, lines)| *lines);
    let max = longer.unwrap_or(FILE_LINES_MAX);
    if lines > max {
        let what = format!("{lines} lines, more than {max}: look for the hidden noun");
        return vec![file.finding(lines, &what)];
    }
    if longer.is_some() && lines <= FILE_LINES_MAX {
        return vec![file.finding(lines, "short enough: take it off the list LONGER")];
    }
    Vec::new()
}

fn nothing_is_left_to_do(file: &File) -> Vec<String> {
    lines_with(
        file,
        |line| {
            let unfinished = ["todo", "unimplemented", "dbg"];
            words(line).windows(2).any(|two| unfinished.contains(&two[0]) && two[1] == "!")
        },
        "left to do",
    )
}

fn no_path_of_a_machine(file: &File) -> Vec<String> {
    // Put together here, so that this file does not hold what it looks for.
    let homes = ["home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if let Some(home) = homes.iter().find(|home| line.contains(*home)) {
            findings
                .push(file.finding(index + 1, &format!("a path of somebody's machine: {home}")));
        }
    }
    findings
}

// --- rules: promises ---

/// The tests that a document names, as `test: a_name` or `test: module::a_name`, with lines.
fn tests_named_in(document: &File) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        for (at, mark) in line.match_indices("test: ") {
            let alone =
                line[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric());
            let rest = line[at + mark.len()..].trim_start_matches('`');
            let path: String = rest
                .chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || "_:".contains(*letter))
                .collect();
            let name = path.rsplit("::").next().unwrap_or_default();
            if alone && !name.is_empty() {
                named.push((index + 1, name.to_owned()));
            }
        }
    }
    named
}

/// The names of all tests.
fn tests_in(files: &[File]) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for file in files {
        let code = code(&file.text);
        let mut marked = NO_HARNESS.contains(&file.path.as_str());
        for line in code.lines() {
            marked |= line.trim() == "#[test]";
            let words = words(line);
            let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
            if let Some(name) = words.get(at + 1).filter(|_| marked) {
                tests.insert((*name).to_owned());
            }
            marked = NO_HARNESS.contains(&file.path.as_str());
        }
    }
    tests
}

/// Every promise names a test that exists.
fn promises_name_tests_that_exist(documents: &[File], sources: &[File]) -> Vec<String> {
    let tests = tests_in(sources);
    let mut findings = Vec::new();
    let promises = |file: &&File| file.path == PROMISES || file.is_in(&["docs"]);
    for document in documents.iter().filter(promises) {
        for (line, name) in tests_named_in(document) {
            if !tests.contains(&name) {
                findings.push(document.finding(line, &format!("there is no test `{name}`")));
            }
        }
    }
    findings
}

/// Each case has its row, once, with a test or the reason why there is none.
fn every_case_has_its_row(document: &File) -> Vec<String> {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<u32> =
        (1..=CASES_LAST).filter(|number| !NO_CASES.contains(number)).collect();
    for (line, number, held) in rows_of_cases(document) {
        if !missing.remove(&number) {
            findings.push(document.finding(line, &format!("case {number} is none, or twice")));
        }
        let with_reason = WITHOUT_TEST.iter().any(|why| held.starts_with(why));
        if !held.contains("`test: ") && !with_reason {
            findings.push(document.finding(line, &format!("case {number}: no test, no reason")));
        }
    }
    let gone = missing.iter().map(|number| document.finding(1, &format!("no case {number}")));
    findings.extend(gone);
    findings
}

/// Line, number and last column of each row.
fn rows_of_cases(document: &File) -> Vec<(usize, u32, &str)> {
    let row = |(line, at)| {
        let line: &str = line;
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let case = cells.split(" | ").next()?.parse().ok()?;
        Some((at, case, cells.rsplit(" | ").next()?))
    };
    document.text.lines().zip(1..).filter_map(row).collect()
}

/// A test that cites cases (`/// Cases 57, 162: ...`) is named in the rows of these.
fn cited_cases_name_the_test(document: &File, sources: &[File]) -> Vec<String> {
    let rows = rows_of_cases(document);
    let mut findings = Vec::new();
    for file in sources.iter().filter(|file| file.path != "tests/tidy.rs") {
        let mut cited: Vec<u32> = Vec::new();
        for (index, line) in file.text.lines().enumerate() {
            let line = line.trim();
            if let Some(rest) =
                line.strip_prefix("/// Cases ").or_else(|| line.strip_prefix("/// Case "))
            {
                let numbers = rest.split([':', '.', ';', '(']).next().unwrap_or_default();
                cited = numbers
                    .split(|letter: char| !letter.is_ascii_digit())
                    .filter_map(|number| number.parse().ok())
                    .collect();
                if cited.is_empty() {
                    findings.push(file.finding(index + 1, "which case?"));
                }
            }
            let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next())
            else {
                continue;
            };
            for number in std::mem::take(&mut cited) {
                let names = |held: &str| held.contains(&format!("`test: {name}`"));
                if !rows.iter().any(|(_, other, held)| *other == number && names(held)) {
                    let what = format!("{CASES} does not name `{name}` in case {number}");
                    findings.push(file.finding(index + 1, &what));
                }
            }
        }
    }
    findings
}

// --- the rules on our files ---

#[test]
fn the_sources_keep_the_rules_of_structure() {
    let sources = sources();
    assert_none(&each(&sources, imports_go_one_way));
    assert_none(&every_file_is_a_module(&sources));
    assert_none(&each(&sources, every_file_says_what_it_is_for));
    assert_none(&each(&sources, unsafe_stays_in_its_room));
}

#[test]
fn the_sources_keep_the_rules_of_text() {
    let sources = sources();
    assert_none(&each(&sources, sources_are_ascii));
    assert_none(&each(&sources, lines_are_short));
    assert_none(&each(&sources, files_are_short));
    assert_none(&each(&sources, nothing_is_left_to_do));
    assert_none(&each(&files(), no_path_of_a_machine));
}

#[test]
fn every_promise_names_a_test_that_exists() {
    assert_none(&promises_name_tests_that_exist(&files(), &sources()));
}

#[test]
fn every_case_is_held_by_a_test_or_has_its_reason() {
    let files = files();
    let document = files.iter().find(|file| file.path == CASES).expect("the table of cases");
    assert_none(&every_case_has_its_row(document));
    assert_none(&cited_cases_name_the_test(document, &sources()));
}

// --- the rules on files that break them ---

/// How often a rule speaks up about a file of this path and text.
fn count(rule: fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&File::new(path, text)).len()
}

#[test]
fn an_import_against_the_direction_is_found_in_whatever_form() {
    for (path, text, findings) in [
        ("src/log/writer.rs", "use crate::disk::Disk;\nuse crate::types::Lsn;", 0),
        ("src/log/writer.rs", "use crate::log::frame::Frame;", 0),
        ("src/log/writer.rs", "use crate::actor::Turn;", 1),
        ("src/log/writer.rs", "use crate::{actor::Turn, disk, store::{A, types}};", 2),
        ("src/log/writer.rs", "fn open() -> crate::store::Store {}", 1),
        ("src/log/writer.rs", "/// See [`crate::store::Store`].\n// crate::store", 0),
        ("src/log/writer.rs", "let text = \"crate::store\";", 0),
        ("src/log/mod.rs", "use super::store::Store;", 1),
        ("src/log/mod.rs", "mod tests { use super::*; use super::frame; }", 0),
        ("src/disk/mod.rs", "use crate::\n    log::Frame;", 1),
        ("src/actor/mod.rs", "use crate::sync::Token;", 1),
        ("src/sync/mod.rs", "use crate::actor::Turn;", 1),
        ("src/actor/mod.rs", "use crate::Lsn;", 1),
        ("src/actor/mod.rs", "use crate::rkyv;", 0),
        ("src/types.rs", "use crate::error::Error;", 0),
        ("src/types.rs", "use crate::actor::ActorError;", 1),
        ("src/error.rs", "use crate::actor::ActorError;", 0),
        ("src/error.rs", "use crate::log::Log;", 1),
        ("src/store.rs", "use crate::{actor, edge, log, sync};", 0),
        ("src/lib.rs", "pub use crate::store::Store;", 0),
        ("src/options.rs", "use crate::store::Store;", 0),
        ("src/log/mod.rs", "use crate::options::StoreOptions;", 1),
        ("src/helpers.rs", "", 1),
        ("tests/it/main.rs", "use crate::common;", 0),
    ] {
        assert_eq!(count(imports_go_one_way, path, text), findings, "{path}: {text}");
    }
}

#[test]
fn a_file_that_is_never_compiled_is_found() {
    let mut files = vec![
        File::new("src/lib.rs", "pub mod log;\nmod types;"),
        File::new("src/types.rs", ""),
        File::new("src/log/mod.rs", "mod frame;"),
        File::new("src/log/frame.rs", "#[cfg(test)]\nmod tests;"),
        File::new("src/log/frame/tests.rs", ""),
        File::new("tests/it/main.rs", "mod power;"),
        File::new("tests/it/power.rs", ""),
    ];
    assert_none(&every_file_is_a_module(&files));
    files.push(File::new("src/log/reader.rs", ""));
    files.push(File::new("tests/it/kill.rs", ""));
    assert_eq!(every_file_is_a_module(&files).len(), 2);
}

#[test]
fn each_rule_finds_a_file_that_breaks_it() {
    let long_line = "x".repeat(COLUMNS_MAX + 1);
    let long_file = "\n".repeat(FILE_LINES_MAX + 1);
    let not_ascii = "// \u{e9}";
    let home = format!("see /{}/me/x", "home");
    let here = "src/log/mod.rs";
    for (rule, path, bad, good) in [
        (every_file_says_what_it_is_for as fn(&File) -> _, here, "use a;", "//! The log.\nuse a;"),
        (unsafe_stays_in_its_room, here, "unsafe { a }", "// unsafe\n#![deny(unsafe_code)]"),
        (unsafe_stays_in_its_room, "tests/it/main.rs", "unsafe fn a() {}", "let a = \"unsafe\";"),
        (sources_are_ascii, here, not_ascii, "// e"),
        (lines_are_short, here, &*long_line, &long_line[1..]),
        (files_are_short, here, &*long_file, &long_file[1..]),
        (files_are_short, LONGER[0].0, "short", &*long_file),
        (nothing_is_left_to_do, here, "fn a() { todo!() }", "// todo!()"),
        (nothing_is_left_to_do, here, "dbg!(a);", "todo(a);"),
        (no_path_of_a_machine, here, &*home, "see home"),
    ] {
        assert_eq!(count(rule, path, bad), 1, "{bad}");
        assert_eq!(count(rule, path, good), 0, "{good}");
    }
    assert_eq!(count(unsafe_stays_in_its_room, UNSAFE_ROOM, "unsafe { a }"), 0);
}

#[test]
fn a_promise_without_its_test_is_found() {
    let sources = [
        File::new("src/a.rs", "#[test]\nfn one_holds() {}\nfn helper() {}"),
        File::new("tests/crash.rs", "fn three_holds() {}"),
        File::new("src/b.rs", "// #[test]\nfn four_holds() {}"),
    ];
    let promise = |text: &str| {
        promises_name_tests_that_exist(&[File::new("README.md", text)], &sources).len()
    };
    assert_eq!(promise("It holds (test: `one_holds`, test: a::three_holds)."), 0);
    assert_eq!(promise("It holds `test: two_holds`."), 1);
    assert_eq!(promise("It holds `test: helper`; so does `test: four_holds`."), 2);
    assert_eq!(promise("The latest: nothing."), 0);
}

#[test]
fn a_case_without_row_or_test_is_found() {
    let numbers = (1..=CASES_LAST).filter(|number| !NO_CASES.contains(number));
    let whole: Vec<String> =
        numbers.map(|number| format!("| {number} | what | `test: one_holds` |")).collect();
    let count = |rows: &[String]| every_case_has_its_row(&File::new(CASES, &rows.join("\n"))).len();
    assert_eq!(count(&whole), 0);
    assert_eq!(count(&whole[1..]), 1);
    let with = |row: &str| [&whole[1..], &[row.to_owned()]].concat();
    assert_eq!(count(&with("| 1 | what | Open. |")), 0);
    assert_eq!(count(&with("| 1 | what | soon |")), 1);
    assert_eq!(count(&with("| 5 | what | Open. |")), 2);
    let document = File::new(CASES, &with("| 1 | what | `test: two_holds` |").join("\n"));
    for (text, findings) in [
        ("/// Cases 1: it.\n#[test]\nfn two_holds() {}", 0),
        ("/// Case 1, and 2: it.\n#[test]\nfn two_holds() {}", 1),
        ("/// Case 3.\n#[test]\nfn one_holds() {}\nfn other() {}", 0),
        ("/// Case three.\nfn one_holds() {}", 1),
    ] {
        let source = File::new("tests/it/a.rs", text);
        assert_eq!(cited_cases_name_the_test(&document, &[source]).len(), findings, "{text}");
    }
}

#[test]
fn code_is_what_is_left_without_comments_and_strings() {
    for (text, left) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"a\\\"b\", c)", "f(      , c)"),
        ("f(r#\"a\"b\"#, c)", "f(        , c)"),
        ("f('\"', '\\'', 'a)", "f(   ,     , 'a)"),
        ("for(x)", "for(x)"),
    ] {
        assert_eq!(code(text), left);
    }
}
