//! Reads the hospital's log: one line per activity, fields separated by `;`, names in line 1.
//!
//! Columns are found by name, a field may stand in double quotes, lines may end in CR LF, and
//! whatever cannot be understood is an error with its line. Within a case, activities are ordered
//! by time, then by their place in the file.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::case::Activity;

/// One patient's way through the hospital.
#[derive(Debug)]
pub(crate) struct Pathway {
    /// The case's name in the file.
    pub(crate) name: String,
    /// What happened, in order.
    pub(crate) rows: Vec<Row>,
}

/// One activity.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// Milliseconds since 1970-01-01.
    pub(crate) at: i64,
    /// Line in the file.
    pub(crate) line: usize,
    pub(crate) activity: Activity,
    /// A laboratory's result, where there is one.
    pub(crate) value: Option<f32>,
}

/// Why the file could not be used.
#[derive(Debug)]
pub(crate) enum CsvError {
    Io(PathBuf, io::Error),
    Column(&'static str),
    Line { line: usize, what: &'static str, text: String },
}

impl fmt::Display for CsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Column(name) => write!(f, "the first line names no column `{name}`"),
            Self::Line { line, what, text } => write!(f, "line {line}: {what} in {text:?}"),
        }
    }
}

impl std::error::Error for CsvError {}

/// All cases of a file, in the order in which they first appear.
pub(crate) fn read(path: &Path) -> Result<Vec<Pathway>, CsvError> {
    parse(&fs::read_to_string(path).map_err(|error| CsvError::Io(path.to_owned(), error))?)
}

fn parse(text: &str) -> Result<Vec<Pathway>, CsvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let names = lines.next().and_then(|(_, line)| fields(line)).unwrap_or_default();
    let columns = Columns::find(&names)?;
    let mut pathways: Vec<Pathway> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
        let wrong = |what| CsvError::Line { line, what, text: text.to_owned() };
        let fields = fields(text).ok_or_else(|| wrong("a quote without its partner"))?;
        if fields.len() != names.len() {
            return Err(wrong("another number of fields than names"));
        }
        let (name, row) = columns.row(line, &fields).map_err(wrong)?;
        let index = *index_of.entry(name).or_insert_with_key(|name| {
            pathways.push(Pathway { name: name.clone(), rows: Vec::new() });
            pathways.len() - 1
        });
        pathways[index].rows.push(row);
    }
    for pathway in &mut pathways {
        // Stable: what happened at the same time stays in the order of the file.
        pathway.rows.sort_by_key(|row| row.at);
    }
    Ok(pathways)
}

/// Which field is which.
struct Columns {
    case: usize,
    activity: usize,
    time: usize,
    leucocytes: usize,
    crp: usize,
    lactic_acid: usize,
}

impl Columns {
    fn find(names: &[String]) -> Result<Self, CsvError> {
        let find = |name: &'static str| {
            names.iter().position(|other| other.trim() == name).ok_or(CsvError::Column(name))
        };
        Ok(Self {
            case: find("Case ID")?,
            activity: find("Activity")?,
            time: find("Complete Timestamp")?,
            leucocytes: find("Leucocytes")?,
            crp: find("CRP")?,
            lactic_acid: find("LacticAcid")?,
        })
    }

    fn row(&self, line: usize, fields: &[String]) -> Result<(String, Row), &'static str> {
        let activity =
            Activity::from_name(fields[self.activity].trim()).ok_or("an unknown activity")?;
        let at = millis(fields[self.time].trim()).ok_or("a time that is none")?;
        let value = match activity {
            Activity::Leucocytes => number(&fields[self.leucocytes])?,
            Activity::Crp => number(&fields[self.crp])?,
            Activity::LacticAcid => number(&fields[self.lactic_acid])?,
            _ => None,
        };
        let name = fields[self.case].trim();
        if name.is_empty() {
            return Err("no case");
        }
        Ok((name.to_owned(), Row { at, line, activity, value }))
    }
}

/// The fields of a line; `None` if a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ';' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    (!quoted).then_some(fields)
}

fn number(text: &str) -> Result<Option<f32>, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_not_a_number| "a value that is no number")
}

/// `2014/10/22 11:15:41.000` as milliseconds since 1970, without time zone; the milliseconds may
/// be left out.
fn millis(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "000"));
    let [year, month, day] = numbers(date, '/')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let fraction: i64 = (fraction.len() == 3).then(|| fraction.parse().ok())??;
    let possible = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && (0..1000).contains(&fraction);
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    possible.then_some(seconds * 1000 + fraction)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| part.parse::<i64>().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 in the Gregorian calendar, with years that begin in March, so that the
/// leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + of_year - 719_468
}

/// A time as `2014-10-22 11:15:41`.
pub(crate) fn date(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Backwards: guess the year from the days, and correct the guess.
    let mut year = 1970 + days.div_euclid(366);
    while self::days(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && self::days(year, month + 1, 1) <= days {
        month += 1;
    }
    let day = days - self::days(year, month, 1) + 1;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02}", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Activity;Case ID;Complete Timestamp;CRP;LacticAcid;Leucocytes\n";

    #[test]
    fn rows_are_ordered_by_time_and_then_by_their_place_in_the_file() {
        let text = format!(
            "{HEAD}CRP;A;2014/02/01 00:00:01.000;21.0;;\r\n\"ER Triage\";A;2014/02/01 \
             00:00:00.000;;;\nLeucocytes;A;2014/02/01 00:00:01.000;;;9.6\n"
        );
        let pathways = parse(&text).unwrap();
        let rows: Vec<_> = pathways[0].rows.iter().map(|row| (row.line, row.value)).collect();
        assert_eq!(rows, [(3, None), (2, Some(21.0)), (4, Some(9.6))]);
    }

    #[test]
    fn what_cannot_be_understood_is_an_error_with_its_line() {
        for bad in [
            "Nothing;A;2014/02/01 00:00:01.000;;;",
            "CRP;A;2014/13/01 00:00:01.000;;;",
            "CRP;A;2014/02/01;;;",
            "CRP;A;2014/02/01 00:00:01.000;many;;",
            "CRP;A;2014/02/01 00:00:01.000;;",
            "CRP;;2014/02/01 00:00:01.000;;;",
            "\"CRP;A;2014/02/01 00:00:01.000;;;",
        ] {
            let error = parse(&format!("{HEAD}{bad}\n")).unwrap_err();
            assert!(matches!(error, CsvError::Line { line: 2, .. }), "{bad}: {error}");
        }
        assert!(matches!(parse("Case ID;Activity\n"), Err(CsvError::Column(_))));
    }

    #[test]
    fn times_go_to_milliseconds_and_back() {
        assert_eq!(millis("1970/01/01 00:00:00.000"), Some(0));
        for (text, seconds) in [
            ("2000/02/29 12:00:00", 951_825_600),
            ("2013/11/07 08:18:29", 1_383_812_309),
            ("2015/01/01 00:00:00", 1_420_070_400),
            ("2016/12/31 23:59:59", 1_483_228_799),
        ] {
            assert_eq!(millis(text), Some(seconds * 1000));
            assert_eq!(date(seconds * 1000), text.replace('/', "-"));
        }
    }
}
