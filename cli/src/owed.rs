//! The commands that say who waits for what: owed, cursors; and notes, as dump prints them.

use std::path::Path;
use std::time::Duration;

use annals::{Debt, Missed, Noted, Oid, Owed, StepEnd, Store, Stored};
use serde_json::{Value, json};

use crate::fail::{Failure, GOOD};
use crate::text::{ago, columns, say, say_json, time};

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn owed(store: &Path, max: usize, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let owed = view.owed(max)?;
    if json {
        say_json(&json!(owed.iter().map(owed_json).collect::<Vec<_>>()))?;
        return Ok(GOOD);
    }
    let mut rows = vec![["actor", "owes", "for", "due"].map(str::to_owned)];
    rows.extend(owed.iter().map(owed_row));
    for line in columns(&rows) {
        say(&line)?;
    }
    if owed.len() == max {
        say(&format!("These are the {max} oldest; --max says how many."))?;
    }
    Ok(GOOD)
}

fn owed_row(owed: &Owed) -> [String; 4] {
    let whose = owed.actor.as_ref().map(|actor| format!("{}/{}", actor.kind, actor.name));
    let whose = whose.unwrap_or_else(|| owed.oid.stream.to_string());
    let what = match &owed.what {
        Debt::Message { to, command } => format!("`{command}` to {}/{}", to.kind, to.name),
        Debt::Timer { key, command, every, .. } => {
            let again = if every.is_zero() { String::new() } else { format!(", every {every:?}") };
            format!("timer {} with `{command}`{again}", key.escape_debug())
        }
        Debt::Step { key, step } => format!("step {} of `{step}`", key.escape_debug()),
        _ => format!("what stands at {}, which cannot be read", owed.lsn),
    };
    let tried = match owed.tries {
        0 => String::new(),
        tries => format!(", taken up {tries} times"),
    };
    let due = owed.what.due().map(time).unwrap_or_default();
    [whose, format!("{what}{tried}"), ago(owed.age), due]
}

fn owed_json(owed: &Owed) -> Value {
    let mut value = json!({
        "owed": owed.oid.to_string(),
        "actor": owed.actor.as_ref().map(|actor| format!("{}/{}", actor.kind, actor.name)),
        "lsn": owed.lsn.get(),
        "since": owed.since.map(time),
        "age_ms": millis(owed.age),
        "due": owed.what.due().map(time),
        "tries": owed.tries,
    });
    let more = match &owed.what {
        Debt::Message { to, command } => json!({
            "what": "message", "to": format!("{}/{}", to.kind, to.name), "type": command,
        }),
        Debt::Timer { key, command, every, .. } => json!({
            "what": "timer", "key": key, "type": command, "every_ms": millis(*every),
        }),
        Debt::Step { key, step } => json!({ "what": "step", "key": key, "type": step }),
        _ => json!({ "what": "unreadable" }),
    };
    merge(&mut value, more);
    value
}

fn merge(value: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (value.as_object_mut(), more) {
        object.extend(more);
    }
}

pub(crate) fn cursors(store: &Path, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let cursors = view.cursors()?;
    if json {
        let cursors = cursors.iter().map(|cursor| {
            json!({
                "name": cursor.name,
                "position": cursor.position.to_string(),
                "lag_bytes": cursor.lag_bytes,
                "saved": time(cursor.saved),
            })
        });
        say_json(&json!(cursors.collect::<Vec<_>>()))?;
        return Ok(GOOD);
    }
    let mut rows = vec![["cursor", "position", "bytes behind", "saved"].map(str::to_owned)];
    rows.extend(cursors.iter().map(|cursor| {
        let (position, lag) = (cursor.position.to_string(), cursor.lag_bytes.to_string());
        [cursor.name.escape_debug().to_string(), position, lag, time(cursor.saved)]
    }));
    for line in columns(&rows) {
        say(&line)?;
    }
    Ok(GOOD)
}

/// A note in words. `named` tells whose a stream is.
pub(crate) fn note_line(noted: &Noted<'_>, named: &dyn Fn(Oid) -> String) -> String {
    let of = |stored: &Stored<'_>| {
        format!("`{}` v{} of {} bytes", stored.name, stored.version, stored.bytes.len())
    };
    match noted {
        Noted::Sent { number, to: (kind, name), command } => {
            format!("owes #{number}: message {} to {kind}/{name}", of(command))
        }
        Noted::Handled { oid, given_up: false } => format!("has handled {}", named(*oid)),
        Noted::Handled { oid, given_up: true } => format!("has given up {}", named(*oid)),
        Noted::Armed { number, key, due, every, missed, command } => {
            let again = match (every.is_zero(), missed) {
                (true, _) => String::new(),
                (false, missed) => format!(", every {every:?}, {}", missed_word(*missed)),
            };
            format!(
                "owes #{number}: timer {} due {}{again}, with {}",
                key.escape_debug(),
                time(*due),
                of(command)
            )
        }
        Noted::Disarmed { number } => format!("has disarmed #{number}"),
        Noted::Fired { number, next: None } => format!("timer #{number} is over"),
        Noted::Fired { number, next: Some(next) } => {
            format!("timer #{number} is due next {}", time(*next))
        }
        Noted::Began { number, key, step, .. } => {
            format!("owes #{number}: step {} of {}", key.escape_debug(), of(step))
        }
        Noted::Ended { number, how } => {
            let how = match how {
                StepEnd::Done => "done",
                StepEnd::Panicked => "by a panic",
                StepEnd::InDoubt => "in doubt",
            };
            format!("step #{number} has come back, {how}")
        }
        Noted::Answered { id, at } => format!("has answered {id:032x} at {}", time(*at)),
        Noted::Policy => "appends otherwise from now on".to_owned(),
        Noted::Outside { number, topic, message } => {
            format!(
                "leaves #{number} for the outside, topic {}: {}",
                topic.escape_debug(),
                of(message)
            )
        }
        Noted::Tried { oids } => {
            let oids: Vec<_> = oids.iter().map(|oid| named(*oid)).collect();
            format!("takes up {}", oids.join(", "))
        }
        Noted::Freed { oid } => format!("releases {}", named(*oid)),
        Noted::CursorNamed { name } => format!("there is a cursor {}", name.escape_debug()),
        Noted::CursorSet { position } => format!("cursor at {position}"),
        Noted::CursorDeleted => "cursor deleted".to_owned(),
        _ => "a note of a newer Annals".to_owned(),
    }
}

fn missed_word(missed: Missed) -> &'static str {
    match missed {
        Missed::FireOnce => "missed ones once",
        Missed::FireEach => "each missed one too",
        Missed::Skip => "missed ones left out",
    }
}

/// The same as JSON: `what`, and what belongs to it.
pub(crate) fn note_json(noted: &Noted<'_>, named: &dyn Fn(Oid) -> String) -> Value {
    let of = |stored: &Stored<'_>| json!({ "type": stored.name, "bytes": stored.bytes.len() });
    match noted {
        Noted::Sent { number, to: (kind, name), command } => json!({
            "what": "sent", "number": number, "to": format!("{kind}/{name}"),
            "command": of(command),
        }),
        Noted::Handled { oid, given_up } => json!({
            "what": if *given_up { "given up" } else { "handled" }, "owed": named(*oid),
        }),
        Noted::Armed { number, key, due, every, command, .. } => json!({
            "what": "armed", "number": number, "key": key, "due": time(*due),
            "every_ms": millis(*every), "command": of(command),
        }),
        Noted::Disarmed { number } => json!({ "what": "disarmed", "number": number }),
        Noted::Fired { number, next } => json!({
            "what": "fired", "number": number, "next": next.map(time),
        }),
        Noted::Began { number, key, step, .. } => json!({
            "what": "began", "number": number, "key": key, "step": of(step),
        }),
        Noted::Ended { number, how } => json!({
            "what": "ended", "number": number, "how": match how {
                StepEnd::Done => "done",
                StepEnd::Panicked => "panicked",
                StepEnd::InDoubt => "in doubt",
            },
        }),
        Noted::Answered { id, at } => json!({
            "what": "answered", "id": format!("{id:032x}"), "at": time(*at),
        }),
        Noted::Policy => json!({ "what": "policy" }),
        Noted::Outside { number, topic, message } => json!({
            "what": "outside", "number": number, "topic": topic, "message": of(message),
        }),
        Noted::Tried { oids } => json!({
            "what": "tried", "owed": oids.iter().map(|oid| named(*oid)).collect::<Vec<_>>(),
        }),
        Noted::Freed { oid } => json!({ "what": "freed", "owed": named(*oid) }),
        Noted::CursorNamed { name } => json!({ "what": "cursor named", "name": name }),
        Noted::CursorSet { position } => json!({
            "what": "cursor set", "position": position.to_string(),
        }),
        Noted::CursorDeleted => json!({ "what": "cursor deleted" }),
        _ => json!({ "what": "unknown" }),
    }
}
