//! Archived bytes that stay what they were.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rkyv::util::AlignedVec;

use crate::actor::{Actor, Old, Value as _};
use crate::types::Seq;

/// Which variable has a golden file written.
const VARIABLE: &str = "ANNALS_GOLDEN";

/// Holds that the archives of these events are, byte for byte, what they were when the file
/// `<dir>/<kind>.<version>.golden` was written, and that such files of older versions can still be
/// read, through [`Actor::upcast`].
///
/// What stands in a log cannot be changed any more. A field that was renamed, moved or retyped
/// without another [`Actor::VERSION`], or a feature of rkyv that some crate has switched, makes old
/// events unreadable, or worse: readable as something else. This finds out before they are.
///
/// Give one event of each variant, with values that tell fields apart, always in the same order.
/// To write the file (once per version; again is a decision) run the test with
/// `ANNALS_GOLDEN=write`, and keep what it wrote beside the test. A relative `dir` begins at the
/// package, where `cargo test` runs.
///
/// ```
/// use annals::rkyv::{Archive, Deserialize, Serialize};
/// use annals::testkit::golden;
/// # use annals::Actor;
///
/// #[derive(Archive, Serialize, Deserialize)]
/// #[rkyv(crate = annals::rkyv)]
/// enum Event {
///     Deposited(u64),
///     Named(String),
/// }
/// # #[derive(Default)]
/// # struct Account;
/// # impl Actor for Account {
/// #     type Event = Event;
/// #     const KIND: &'static str = "account";
/// #     fn apply(&mut self, _: &Event) {}
/// # }
///
/// golden::<Account>("tests/golden", &[Event::Deposited(5), Event::Named("ali".into())]);
/// ```
///
/// # Panics
/// The bytes are others, an old file cannot be read, or there is no file and nobody asked for one.
pub fn golden<A: Actor>(dir: impl AsRef<Path>, events: &[A::Event]) {
    let write = std::env::var(VARIABLE).is_ok_and(|value| value == "write");
    if let Err(why) = hold::<A>(dir.as_ref(), events, write) {
        panic!("{why}");
    }
}

/// The first line of a file.
const HEAD: &str = "# annals golden 1";

fn hold<A: Actor>(dir: &Path, events: &[A::Event], write: bool) -> Result<(), String> {
    let path = dir.join(format!("{}.{}.golden", A::KIND, A::VERSION));
    let archives = events.iter().map(archive::<A>).collect::<Result<Vec<_>, _>>()?;
    if write {
        let mut text = format!("{HEAD}\n");
        for bytes in &archives {
            for byte in bytes {
                write!(text, "{byte:02x}").map_err(|error| error.to_string())?;
            }
            text.push('\n');
        }
        let written = fs::create_dir_all(dir).and_then(|()| put(&path, &text));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let pinned = read(&path).map_err(|error| {
        format!("{error}; run this test with {VARIABLE}=write, once, and keep the file")
    })?;
    for (number, (bytes, pinned)) in archives.iter().zip(&pinned).enumerate() {
        if bytes != pinned {
            let what = format!("event {number} of {} {}", A::KIND, A::VERSION);
            return Err(format!(
                "{what} has other bytes than in {}: {bytes:02x?} instead of {pinned:02x?}. Raise \
                 `VERSION`, and teach `upcast` this one",
                path.display()
            ));
        }
    }
    if archives.len() != pinned.len() {
        let (path, kept, given) = (path.display(), pinned.len(), archives.len());
        return Err(format!("{path} holds {kept} events, and {given} were given"));
    }
    for version in 1..A::VERSION {
        let path = dir.join(format!("{}.{version}.golden", A::KIND));
        if path.exists() {
            old::<A>(&path, version)?;
        }
    }
    Ok(())
}

/// The archive of an event, which must come back from it as one that has the same archive.
fn archive<A: Actor>(event: &A::Event) -> Result<Vec<u8>, String> {
    let encode = |event: &A::Event| {
        let mut bytes = AlignedVec::new();
        event.encode(&mut bytes).map(|()| bytes)
    };
    let bytes = encode(event).map_err(|error| error.to_string())?;
    let again = A::Event::decode(&bytes).and_then(|event| encode(&event));
    let again = again.map_err(|error| error.to_string())?;
    if bytes.as_slice() != again.as_slice() {
        return Err("an event has another archive after it was read: is there a `HashMap` in it, \
                    or a field that is not archived?"
            .to_owned());
    }
    Ok(bytes.as_slice().to_vec())
}

/// Events of an older version, which `upcast` must know.
fn old<A: Actor>(path: &Path, version: u16) -> Result<(), String> {
    let mut events = Vec::new();
    for (bytes, number) in read(path)?.iter().zip(1..) {
        let seq = Seq::new(number).unwrap_or(Seq::MAX);
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes);
        A::upcast(Old::new(version, seq, &aligned), &mut events)
            .map_err(|error| format!("{}: event {number}: {error}", path.display()))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a file beside a test, not one of a store")]
fn put(path: &Path, text: &str) -> std::io::Result<()> {
    fs::write(path, text)
}

fn read(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let name = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err(format!("{name} is no golden file"));
    }
    let no_hex = |line: &str| format!("{name}: `{line}` is no line of bytes");
    lines.map(|line| bytes_of(line).ok_or_else(|| no_hex(line))).collect()
}

fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let digits = line.chars().map(|digit| digit.to_digit(16).and_then(|it| u8::try_from(it).ok()));
    let digits: Vec<u8> = digits.collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect()
}
