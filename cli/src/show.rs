//! The commands that print what is there: stat, dump, tail, history, names.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use annals::log::Seen;
use annals::log::frame::{Frame, FrameKind, RecordKind};
use annals::log::name;
use annals::{LastLife, Noted, Oid, Seq, Store, StreamId, View};
use serde_json::{Value, json};

use crate::fail::{FINDINGS, Failure, GOOD};
use crate::owed::{note_json, note_line};
use crate::text::{finding_json, hex, payload, say, say_finding, say_json, time};

/// How often a followed store is asked.
const POLL: Duration = Duration::from_millis(100);

pub(crate) fn stat(store: &Path, count: bool, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let findings = view.findings();
    let totals = if count { Some(view.totals()?) } else { None };
    let segments = view.segments();
    let snapshots = view.snapshot_segments();
    let bytes = |segments: &[annals::log::SegmentInfo]| -> u64 {
        segments.iter().map(|segment| segment.bytes).sum()
    };
    let state = match view.last_life() {
        LastLife::None => "empty",
        LastLife::Running => "open",
        LastLife::Closed => "closed",
        LastLife::Crashed => "crashed",
        _ => "unknown",
    };
    if json {
        say_json(&json!({
            "path": view.path(),
            "store": format!("{:016x}", view.store_id()),
            "node": view.node_id().map(|node| format!("{node:016x}")),
            "life": view.life().number,
            "state": state,
            "owner": view.owner(),
            "written": view.written(),
            "durable": view.durable(),
            "segments": segments.iter().map(|segment| json!({
                "file": segment.path,
                "base": segment.base,
                "bytes": segment.bytes,
                "life": segment.life.number,
                "end": segment.end,
            })).collect::<Vec<_>>(),
            "snapshot_segments": snapshots.len(),
            "snapshot_bytes": bytes(&snapshots),
            "lost": view.lost().iter().map(|lost| [lost.start, lost.end]).collect::<Vec<_>>(),
            "totals": totals.map(|totals| json!({
                "frames": totals.frames, "events": totals.events, "actors": totals.streams,
            })),
            "findings": findings.iter().map(finding_json).collect::<Vec<_>>(),
        }))?;
    } else {
        let node = view.node_id().map_or("unknown".to_owned(), |node| format!("{node:016x}"));
        say(&format!("store      {:016x}, node {node}", view.store_id()))?;
        let owner = view.owner().map(|owner| format!(" in process {owner}")).unwrap_or_default();
        say(&format!("life       {}, {state}{owner}", view.life().number))?;
        say(&format!("written    {}", view.written()))?;
        say(&format!("durable    {}", view.durable()))?;
        say(&format!("segments   {} with {} bytes", segments.len(), bytes(&segments)))?;
        say(&format!("snapshots  {} segments with {} bytes", snapshots.len(), bytes(&snapshots)))?;
        for lost in view.lost() {
            say(&format!("lost       {} to {}, taken back by a crash", lost.start, lost.end))?;
        }
        if let Some(totals) = totals {
            let (frames, events, actors) = (totals.frames, totals.events, totals.streams);
            say(&format!("totals     {frames} frames, {events} events of {actors} actors"))?;
        }
        for finding in &findings {
            say_finding(finding)?;
        }
    }
    Ok(if findings.is_empty() { GOOD } else { FINDINGS })
}

/// What `dump` prints.
pub(crate) struct Which {
    pub from: u64,
    pub limit: Option<u64>,
    pub kind: Option<String>,
    pub hex: bool,
}

/// Names of streams, as far as they have come by.
#[derive(Default)]
struct Names(HashMap<u128, (String, String)>);

impl Names {
    fn see(&mut self, frame: &Frame<'_>) {
        let named = frame.records().flatten().find(|record| record.kind == RecordKind::Name);
        if let Some((kind, name)) = named.and_then(|record| name::decode(record.payload)) {
            self.0.insert(frame.header().stream.get(), (kind.to_owned(), name.to_owned()));
        }
    }

    fn of(&self, stream: StreamId) -> Option<&(String, String)> {
        self.0.get(&stream.get())
    }
}

pub(crate) fn dump(store: &Path, which: &Which, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let mut names = Names::default();
    // Whose a stream is stands in its first frame, which may be far below.
    let from = if which.kind.is_some() { 0 } else { which.from };
    let mut cursor = view.frames(from);
    cursor.stop_at(view.written());
    let (mut printed, mut code) = (0, GOOD);
    while which.limit.is_none_or(|limit| printed < limit) {
        let Some(seen) = cursor.next()? else { break };
        match seen {
            Seen::Bad(finding) => {
                code = FINDINGS;
                if json { say_json(&finding_json(&finding))? } else { say_finding(&finding)? }
            }
            Seen::Frame(frame) => {
                names.see(&frame);
                let name = names.of(frame.header().stream);
                let wanted = frame.lsn().get() >= which.from
                    && which.kind.as_ref().is_none_or(|kind| name.is_some_and(|it| it.0 == *kind));
                if wanted {
                    printed += 1;
                    for line in lines(&frame, &names, (which.hex, json)) {
                        say(&line)?;
                    }
                }
            }
        }
    }
    Ok(code)
}

/// A frame as text: one line, and one for each record. As JSON: one.
fn lines(frame: &Frame<'_>, names: &Names, (whole, json): (bool, bool)) -> Vec<String> {
    let header = frame.header();
    let kind = match header.kind {
        FrameKind::Single | FrameKind::Records => "turn",
        FrameKind::Seal => "seal",
        FrameKind::Close => "close",
        FrameKind::Life => "life",
    };
    let named = names.of(header.stream);
    let its_kind = named.map_or("", |(kind, _)| kind);
    let name = named.map(|(kind, name)| format!("{kind}/{name}"));
    let whose = |oid: Oid| match names.of(oid.stream) {
        Some((kind, name)) => format!("{kind}/{name}#{}", oid.number),
        None => oid.to_string(),
    };
    let mut seq = header.seq;
    let mut records = Vec::new();
    for record in frame.records().flatten() {
        let event = record.kind.is_numbered();
        records.push((record, event.then_some(seq)));
        if event {
            seq = seq.checked_add(1).unwrap_or(Seq::MAX);
        }
    }
    if json {
        let records: Vec<Value> = records
            .iter()
            .map(|(record, seq)| {
                json!({
                    "kind": format!("{:?}", record.kind).to_lowercase(),
                    "seq": seq.map(Seq::get),
                    "version": record.version,
                    "bytes": record.payload.len(),
                    "hex": hex(record.payload),
                    "text": std::str::from_utf8(record.payload).ok(),
                    "note": Noted::read(its_kind, record).map(|noted| note_json(&noted, &whose)),
                })
            })
            .collect();
        let value = json!({
            "lsn": frame.lsn().get(),
            "end": frame.end(),
            "kind": kind,
            "time": time(header.time),
            "stream": header.stream.to_string(),
            "actor": name,
            "seq": header.seq.get(),
            "records": records,
        });
        return vec![value.to_string()];
    }
    let owner = match (&name, kind) {
        (Some(name), _) => name.clone(),
        (None, "turn") => header.stream.to_string(),
        (None, _) => String::new(),
    };
    let mut lines = vec![format!("{} {} {kind} {owner}", frame.lsn(), time(header.time))];
    for (record, seq) in records {
        let what = match seq {
            Some(seq) => format!("event {seq}"),
            None => format!("{:?}", record.kind).to_lowercase(),
        };
        let (version, shown) = (record.version, payload(record.payload, whole));
        if let Some(noted) = Noted::read(its_kind, &record).filter(|_| !whole) {
            lines.push(format!("  {what} v{version}: {}", note_line(&noted, &whose)));
            continue;
        }
        lines.push(format!("  {what} v{version} {} bytes {shown}", record.payload.len()));
    }
    lines
}

pub(crate) fn tail(store: &Path, follow: bool, last: usize, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let mut names = Names::default();
    let mut held: VecDeque<Vec<String>> = VecDeque::new();
    let mut cursor = view.frames(near_the_end(&view));
    let mut code = GOOD;
    let mut caught_up = false;
    loop {
        while let Some(seen) = cursor.next()? {
            let printed = match seen {
                Seen::Bad(finding) => {
                    code = FINDINGS;
                    vec![if json {
                        finding_json(&finding).to_string()
                    } else {
                        finding.to_string()
                    }]
                }
                Seen::Frame(frame) => {
                    names.see(&frame);
                    lines(&frame, &names, (false, json))
                }
            };
            if caught_up {
                for line in printed {
                    say(&line)?;
                }
                continue;
            }
            held.push_back(printed);
            if held.len() > last {
                held.pop_front();
            }
        }
        caught_up = true;
        for line in held.drain(..).flatten() {
            say(&line)?;
        }
        if !follow {
            return Ok(code);
        }
        wait();
    }
}

/// Where the last two segments begin.
fn near_the_end(view: &View) -> u64 {
    let segments = view.segments();
    segments.iter().rev().nth(1).map_or(0, |segment| segment.base)
}

fn wait() {
    #[expect(clippy::disallowed_methods, reason = "nobody tells a reader of files")]
    std::thread::sleep(POLL);
}

pub(crate) fn history(
    store: &Path,
    actor: &str,
    (after, whole): (u64, bool),
    json: bool,
) -> Result<u8, Failure> {
    let Some((kind, name)) = actor.split_once('/') else {
        return Err(Failure::Usage(format!("{actor} is no actor: expected KIND/NAME")));
    };
    let Some(after) = Seq::new(after) else {
        return Err(Failure::Usage(format!("no event has the number {after}")));
    };
    let view = Store::read_only(store)?;
    let mut failed = None;
    let bad = view.history(kind, name, after, &mut |event| {
        let rewound = event.rewound.map(Seq::get);
        let meta: Vec<_> = event.labels.meta().collect();
        let tags: Vec<_> = event.labels.tags().collect();
        let line = if json {
            json!({
                "rewound": rewound,
                "meta": meta,
                "tags": tags,
                "seq": event.seq.get(),
                "time": time(event.time),
                "lsn": event.lsn.get(),
                "version": event.version,
                "bytes": event.bytes.len(),
                "hex": hex(event.bytes),
                "text": std::str::from_utf8(event.bytes).ok(),
            })
            .to_string()
        } else {
            let (seq, lsn, version) = (event.seq, event.lsn, event.version);
            let what = match rewound {
                Some(to) => format!("back to {to}"),
                None => format!(
                    "v{version} {} bytes {}",
                    event.bytes.len(),
                    payload(event.bytes, whole)
                ),
            };
            let said = meta
                .iter()
                .map(|(key, value)| format!(" {}={}", key.escape_debug(), value.escape_debug()));
            let said: String =
                said.chain(tags.iter().map(|tag| format!(" #{}", tag.escape_debug()))).collect();
            format!("{seq} {} at {lsn} {what}{said}", time(event.time))
        };
        match say(&line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failed) = failed {
        return Err(failed);
    }
    for finding in &bad {
        if json { say_json(&finding_json(finding))? } else { say_finding(finding)? }
    }
    Ok(if bad.is_empty() { GOOD } else { FINDINGS })
}

pub(crate) fn names(store: &Path, kind: Option<&str>, json: bool) -> Result<u8, Failure> {
    let view = Store::read_only(store)?;
    let names = view.names(kind)?;
    if json {
        let names: Vec<_> =
            names.iter().map(|actor| json!({ "kind": actor.kind, "name": actor.name })).collect();
        say_json(&json!(names))?;
    } else {
        for actor in names {
            say(&format!("{}/{}", actor.kind, actor.name))?;
        }
    }
    Ok(GOOD)
}
