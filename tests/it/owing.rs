//! The oracle of `crate::owed`: what the events of actors say about what they owe, and what each
//! policy may lose. It knows lines of text and nothing of the library.

use std::collections::{BTreeMap, BTreeSet};

/// What each actor has done, in order.
pub(crate) type Lines = BTreeMap<&'static str, Vec<String>>;

/// When turns are appended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    EachTurn,
    Every(usize),
    Interval,
    Deferred,
}

/// How many of `lines` are appended at least, if the first `kept` are: by the policy, and barriers
/// within the lines themselves; each line is a turn, but those that follow a letter. A snapshot may
/// append what has gathered at any time, and the policy counts from there.
pub(crate) fn kept_of(policy: Policy, lines: &[String], kept: usize) -> usize {
    let mut all = BTreeSet::from([kept]);
    for (at, line) in lines.iter().enumerate().skip(kept) {
        let commits = |kept: usize| match (word(line, 0), policy) {
            // By the type of event; and barriers.
            ("now" | "sent", _) => true,
            ("stepped", _) if word(line, 3) != "before" => true,
            ("tick", _) if word(line, 5) != "0" => true,
            ("later", _) | (_, Policy::Interval | Policy::Deferred) => false,
            (_, Policy::EachTurn) => true,
            (_, Policy::Every(events)) => at + 1 - kept >= events,
        };
        all = all.into_iter().map(|kept| if commits(kept) { at + 1 } else { kept }).collect();
        all.insert(at + 1);
    }
    all.first().copied().unwrap_or(kept)
}

fn word(line: &str, at: usize) -> &str {
    line.split(' ').nth(at).unwrap_or_default()
}

fn number(line: &str, at: usize) -> u64 {
    word(line, at).parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// A timer that is armed: its next time, its period, and what becomes of times that were missed.
struct Timer<'a> {
    generation: u64,
    next: u64,
    every: u64,
    missed: &'a str,
}

/// The timers that an actor's lines have left armed.
///
/// # Errors
/// One fired that was not due, or not armed, or twice.
fn timers(lines: &[String]) -> Result<BTreeMap<&str, Timer<'_>>, String> {
    let mut armed: BTreeMap<&str, Timer<'_>> = BTreeMap::new();
    for line in lines {
        let key = word(line, 1);
        match word(line, 0) {
            "armed" => {
                let timer = Timer {
                    generation: number(line, 2),
                    next: number(line, 3),
                    every: number(line, 4),
                    missed: word(line, 5),
                };
                armed.insert(key, timer);
            }
            "cancelled" => drop(armed.remove(key)),
            "tick" => {
                let (generation, due, now) = (number(line, 2), number(line, 3), number(line, 4));
                let Some(timer) = armed.get_mut(key) else {
                    return Err(format!("not armed: {line}"));
                };
                let Timer { next, every, missed, .. } = *timer;
                let on_time = match missed {
                    "Skip" => {
                        due >= next
                            && (due == next || (due - next).is_multiple_of(every))
                            && (every == 0 || now < due + every)
                    }
                    _ => due == next,
                };
                if timer.generation != generation || !on_time || now < due {
                    return Err(format!("{line}: expected {} at {next}", timer.generation));
                }
                if every == 0 {
                    armed.remove(key);
                } else if missed == "FireEach" {
                    timer.next = due + every;
                } else {
                    timer.next = due + ((now - due) / every + 1) * every;
                }
            }
            _ => {}
        }
    }
    Ok(armed)
}

/// How many timers are armed.
pub(crate) fn alive(lines: &Lines) -> usize {
    lines.values().map(|lines| timers(lines).unwrap_or_else(|what| panic!("{what}")).len()).sum()
}

/// Ids of lines that begin with a word, with who wrote them; none twice.
fn ids<'a>(lines: &'a Lines, first: &str) -> Result<BTreeMap<&'a str, &'static str>, String> {
    let mut all = BTreeMap::new();
    for (name, lines) in lines {
        for line in lines.iter().filter(|line| word(line, 0) == first) {
            if all.insert(word(line, 1), *name).is_some() {
                return Err(format!("twice: {line}"));
            }
        }
    }
    Ok(all)
}

/// What is still to come, if anything is.
pub(crate) fn unsettled(lines: &Lines, now: u64) -> Option<String> {
    let missing = |opened: &str, closed: &str| {
        let (opened, closed) = (ids(lines, opened).ok()?, ids(lines, closed).ok()?);
        let id = opened.keys().find(|id| !closed.contains_key(*id))?;
        Some(format!("{id} is not {closed:?}"))
    };
    for (opened, closed) in [("sent", "got"), ("began", "stepped")] {
        if let Some(missing) = missing(opened, closed) {
            return Some(missing);
        }
    }
    for (name, lines) in lines {
        // What is skipped leaves no line.
        for (key, timer) in timers(lines).ok()? {
            if timer.missed != "Skip" && timer.next <= now {
                return Some(format!("{name}'s {key} is due at {}", timer.next));
            }
        }
    }
    None
}

/// Is it true of everybody, whatever has happened, and in what was left of a life too?
pub(crate) fn check_lines(lines: &Lines) -> Result<(), String> {
    let (_, got) = (ids(lines, "sent")?, ids(lines, "got")?);
    let mut to = BTreeMap::new();
    for line in lines.values().flatten().filter(|line| word(line, 0) == "sent") {
        to.insert(word(line, 1), word(line, 2));
    }
    for (id, name) in &got {
        if to.get(id) != Some(name) {
            return Err(format!("{name} got {id}, which was sent to {:?}", to.get(id)));
        }
    }
    let (began, stepped) = (ids(lines, "began")?, ids(lines, "stepped")?);
    for (id, name) in &stepped {
        if began.get(id) != Some(name) {
            return Err(format!("step {id} came back to {name}: {:?}", began.get(id)));
        }
    }
    ids(lines, "once")?;
    ids(lines, "told")?;
    for lines in lines.values() {
        if let Some(line) = lines.iter().find(|line| line.contains("wrong")) {
            return Err(line.clone());
        }
        timers(lines)?;
    }
    Ok(())
}

/// Is what one sends to another in the lines of `sent` handled in that order in those of `got`?
///
/// Only for what was sent in one life, or taken up by one recovery: a message that is sent after a
/// crash may be handled before one that was sent before it.
pub(crate) fn check_order(sent: &Lines, got: &Lines) -> Result<(), String> {
    for (from, lines_from) in sent {
        for (whom, lines_to) in got {
            let in_order: Vec<_> = lines_from
                .iter()
                .filter(|line| word(line, 0) == "sent" && word(line, 2) == *whom)
                .map(|line| word(line, 1))
                .collect();
            let known: BTreeSet<_> = in_order.iter().collect();
            let got = lines_to.iter().filter(|line| word(line, 0) == "got");
            let got: Vec<_> =
                got.map(|line| word(line, 1)).filter(|id| known.contains(id)).collect();
            let there: BTreeSet<_> = got.iter().collect();
            if !in_order.iter().filter(|id| there.contains(id)).eq(&got) {
                return Err(format!("{from} to {whom} out of order: {got:?}"));
            }
        }
    }
    Ok(())
}

/// The lines of each behind so many.
pub(crate) fn behind(lines: &Lines, counts: &BTreeMap<&'static str, usize>) -> Lines {
    let cut = |name| counts.get(name).copied().unwrap_or(0);
    let behind = lines.iter().map(|(name, lines)| (*name, lines[cut(name)..].to_vec()));
    behind.collect()
}

/// Is `found` what each had done up to some moment, and that not before what was promised?
pub(crate) fn check_survived(
    found: &Lines,
    done: &Lines,
    promised: &BTreeMap<&'static str, usize>,
) -> Result<(), String> {
    for (name, found) in found {
        let done = &done[name];
        if !done.starts_with(found) {
            return Err(format!("{name} has {found:#?}, which is no beginning of {done:#?}"));
        }
        let promised = promised.get(name).copied().unwrap_or(0);
        if found.len() < promised {
            let lost: BTreeSet<_> = done[found.len()..promised].iter().collect();
            return Err(format!("{name} has lost {lost:?}"));
        }
    }
    Ok(())
}
