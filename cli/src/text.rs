//! Lines, JSON, hex, progress bars: how things are said.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::time::Duration;

use annals::{Affected, Finding, HybridTime, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::fail::Failure;

/// Bytes of a payload that are shown unless all are asked for.
const PREVIEW: usize = 32;

/// One line on the standard output.
pub(crate) fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(())
}

pub(crate) fn say_json(value: &Value) -> Result<(), Failure> {
    say(&value.to_string())
}

/// On the standard error, which may be closed too.
pub(crate) fn complain(failure: &Failure) {
    drop(writeln!(io::stderr(), "annals: {failure}"));
}

/// A bar on the standard error, if that is a terminal.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(0).with_message(what);
        let style = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// One that only says that something goes on.
    pub(crate) fn spinner(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(Some(bar))
    }

    pub(crate) fn tell(&self, progress: Progress) -> ControlFlow<()> {
        if let Some(bar) = &self.0 {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes what is written to it.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// A payload, or its beginning: hex, then what of it is text.
pub(crate) fn payload(bytes: &[u8], all: bool) -> String {
    let shown = if all { bytes } else { bytes.get(..PREVIEW).unwrap_or(bytes) };
    let more = if shown.len() < bytes.len() { ".." } else { "" };
    let text: String = String::from_utf8_lossy(shown)
        .chars()
        .map(|letter| {
            if letter.is_control() || letter == char::REPLACEMENT_CHARACTER { '.' } else { letter }
        })
        .collect();
    format!("{}{more} |{text}{more}|", hex(shown))
}

/// Milliseconds since the epoch, as a date.
pub(crate) fn time(time: HybridTime) -> String {
    let (seconds, millis) = (time.millis() / 1000, time.millis() % 1000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, after Howard Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// How long ago, in the two units that matter.
pub(crate) fn ago(age: Duration) -> String {
    let (millis, seconds) = (age.as_millis(), age.as_secs());
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        86_400.. => format!("{days} d {} h", hours % 24),
    }
}

/// Rows as lines whose cells stand below each other.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

pub(crate) fn finding_json(finding: &Finding) -> Value {
    let streams = finding
        .streams
        .as_ref()
        .map(|streams| streams.iter().map(affected_json).collect::<Vec<_>>());
    json!({
        "severity": finding.severity.to_string(),
        "file": finding.file,
        "offset": finding.offset,
        "from": finding.lsns.start,
        "to": finding.lsns.end,
        "what": finding.what.to_string(),
        "streams": streams,
    })
}

pub(crate) fn affected_json(affected: &Affected) -> Value {
    json!({
        "stream": affected.stream.to_string(),
        "actor": affected.name.as_ref().map(|(kind, name)| format!("{kind}/{name}")),
        "from": affected.from.get(),
        "frames": affected.frames,
    })
}

/// A finding, and under it whom it concerns.
pub(crate) fn say_finding(finding: &Finding) -> Result<(), Failure> {
    say(&finding.to_string())?;
    for affected in finding.streams.iter().flatten() {
        say(&format!("  {}", affected_line(affected)))?;
    }
    Ok(())
}

pub(crate) fn affected_line(affected: &Affected) -> String {
    let name = affected.name.as_ref().map(|(kind, name)| format!("{kind}/{name}"));
    let name = name.unwrap_or_else(|| affected.stream.to_string());
    format!("{name}: a hole from event {} on", affected.from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units_and_cells_stand_below_each_other() {
        let of = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(ago(Duration::from_millis(999)), "999 ms");
        assert_eq!([of(1), of(59), of(60), of(3_599)], ["1 s", "59 s", "1 min 0 s", "59 min 59 s"]);
        assert_eq!([of(3_600), of(86_399), of(200_000)], ["1 h 0 min", "23 h 59 min", "2 d 7 h"]);
        let rows = [["a", "bc", ""], ["def", "g", "h"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), ["a    bc", "def  g   h"]);
    }
}
