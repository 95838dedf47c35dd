//! The commands that take a while: verify, backup, repair, rebuild.

use std::path::Path;

use annals::{BackupOptions, Severity, Store, Verification};
use serde_json::json;

use crate::fail::{FINDINGS, Failure, GOOD};
use crate::text::{Bar, affected_json, affected_line, finding_json, say, say_finding, say_json};

/// Something that is worth a code.
fn code(verified: &Verification) -> u8 {
    if verified.worst() > Some(Severity::Note) { FINDINGS } else { GOOD }
}

pub(crate) fn verify(store: &Path, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let bar = Bar::new("verifying");
    let verified = view.verify(&mut |progress| bar.tell(progress))?;
    drop(bar);
    if json {
        say_json(&json!({
            "segments": verified.events.segments,
            "frames": verified.events.frames,
            "events": verified.events.events,
            "actors": verified.events.streams,
            "bytes_read": verified.events.read + verified.snapshots.read,
            "written": verified.events.end,
            "durable": verified.events.durable,
            "snapshot_frames": verified.snapshots.frames,
            "millis": u64::try_from(verified.took.as_millis()).unwrap_or(u64::MAX),
            "damaged": verified.is_damaged(),
            "findings": verified.all().map(finding_json).collect::<Vec<_>>(),
        }))?;
        return Ok(code(&verified));
    }
    for finding in verified.all() {
        say_finding(finding)?;
    }
    let events = &verified.events;
    say(&format!(
        "{} segments, {} frames, {} events of {} actors, {} snapshots: {}",
        events.segments,
        events.frames,
        events.events,
        events.streams,
        verified.snapshots.frames,
        match verified.worst() {
            None => "nothing is wrong",
            Some(Severity::Note) => "nothing is wrong; there are notes",
            Some(Severity::Derived) => "the events are whole; some derived files are not",
            Some(Severity::Redundant) => "damaged; nothing is lost yet",
            Some(Severity::Loss) => "damaged; something is lost",
        }
    ))?;
    Ok(code(&verified))
}

pub(crate) fn backup(store: &Path, to: &Path, links: bool, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let bar = Bar::new("copying");
    let options = BackupOptions::default().links(links);
    let made = view.backup(to, &options, &mut |progress| bar.tell(progress))?;
    drop(bar);
    if json {
        say_json(&json!({
            "to": to,
            "mark": made.mark,
            "node": format!("{:016x}", made.node),
            "copied": made.copied,
            "linked": made.linked,
            "bytes": made.bytes,
        }))?;
    } else {
        say(&format!(
            "{}: everything below {}, {} files copied ({} bytes), {} linked",
            to.display(),
            made.mark,
            made.copied,
            made.bytes,
            made.linked
        ))?;
    }
    Ok(GOOD)
}

pub(crate) fn repair(store: &Path, yes: bool, json: bool) -> Result<u8, Failure> {
    let bar = Bar::spinner("verifying");
    let repair = Store::repair(store)?;
    drop(bar);
    let plan = repair.plan().clone();
    if json && !yes {
        say_json(&plan_json(&plan))?;
    } else if !json {
        for finding in repair.verification().all() {
            say_finding(finding)?;
        }
        say_plan(&plan)?;
    }
    if plan.steps.is_empty() || !yes {
        if json && yes {
            say_json(&plan_json(&plan))?;
        }
        if !json && !plan.steps.is_empty() {
            say("Nothing was changed. `annals repair --yes` does it; copy the folder first.")?;
        }
        return Ok(code(repair.verification()));
    }
    let bar = Bar::new("verifying");
    let repaired = repair.carry_out(&mut |progress| bar.tell(progress))?;
    drop(bar);
    if json {
        let mut value = plan_json(&repaired.plan);
        if let Some(object) = value.as_object_mut() {
            object.insert("aside".into(), json!(repaired.aside));
            let left: Vec<_> = repaired.verification.all().map(finding_json).collect();
            object.insert("left".into(), json!(left));
        }
        say_json(&value)?;
    } else if let Some(aside) = &repaired.aside {
        say(&format!("Done. What was replaced is in {}.", aside.display()))?;
        for finding in repaired.verification.all() {
            say_finding(finding)?;
        }
    }
    // What was lost stays lost, and was said.
    Ok(if plan.lost.is_empty() { GOOD } else { FINDINGS })
}

fn plan_json(plan: &annals::Plan) -> serde_json::Value {
    json!({
        "steps": plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "lost": plan.lost.iter().map(|lost| [lost.start, lost.end]).collect::<Vec<_>>(),
        "streams": plan.streams.iter().map(affected_json).collect::<Vec<_>>(),
        "unknown_streams": plan.unknown_streams,
        "kept_frames": plan.kept_frames,
        "kept_events": plan.kept_events,
    })
}

fn say_plan(plan: &annals::Plan) -> Result<(), Failure> {
    if plan.steps.is_empty() {
        return say("There is nothing to repair.");
    }
    say("What a repair does:")?;
    for step in &plan.steps {
        say(&format!("  {step}"))?;
    }
    for lost in &plan.lost {
        say(&format!("  lost: positions {} to {}", lost.start, lost.end))?;
    }
    for affected in &plan.streams {
        say(&format!("  {}", affected_line(affected)))?;
    }
    if plan.unknown_streams {
        say("  what is lost may have been the last events of actors that nobody can name")?;
    }
    say(&format!("  kept: {} frames with {} events", plan.kept_frames, plan.kept_events))
}

pub(crate) fn rebuild(store: &Path, json: bool) -> Result<u8, Failure> {
    let bar = Bar::spinner("rebuilding");
    Store::rebuild(store)?;
    drop(bar);
    if json {
        say_json(&json!({ "rebuilt": store }))?;
    } else {
        say("Catalogue, indexes and checkpoints were made again.")?;
    }
    Ok(GOOD)
}
