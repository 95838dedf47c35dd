//! From figures to tables, to a list of losses, and to a chart.

use std::path::Path;

use crate::child::LIMIT;
use crate::columns::{Column, Section};
use crate::family::{Entrant, Family};
use crate::large::{self, Large};
use crate::machine;
use crate::options::Options;
use crate::run::{Case, Plan, Results};
use crate::stats::{digits, ratio, spread};
use crate::store::Ask;
use crate::stores::PEERS;
use crate::svg::{self, Bar, Kind, Panel};
use crate::table::{cell, markdown};

/// Behind a figure of something less than was asked.
const MARK: &str = " \u{2020}";
pub(crate) const OURS: &str = PEERS[0].name;

/// Where and how it was measured; asked before the measurement begins.
pub(crate) struct Circumstances {
    machine: String,
    date: String,
    compiler: String,
}

impl Circumstances {
    pub(crate) fn now(dir: &Path) -> Self {
        Self {
            machine: machine::describe(dir),
            date: machine::date(),
            compiler: machine::compiler(),
        }
    }
}

/// Everything that a run has found.
pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) circumstances: Circumstances,
    pub(crate) results: &'a Results,
    pub(crate) large: &'a [Large],
}

impl Report<'_> {
    fn plan(&self) -> &Plan {
        &self.options.plan
    }

    /// The generated part of the document. `chart` is a path to the picture, if there is one.
    pub(crate) fn text(&self, family: Family, chart: Option<&str>) -> String {
        let mut text = self.head(family);
        if let Some(chart) = chart {
            text.push_str(&format!("![The figures as bars, on a logarithmic scale]({chart})\n\n"));
        }
        for section in family.sections() {
            if section.columns.iter().any(|column| self.plan().cases.contains(&column.case)) {
                text.push_str(&self.section(family, section));
            }
        }
        if family == Family::Stores {
            if self.plan().cases.contains(&Case::Kill) {
                text.push_str(&self.kills());
            }
            text.push_str(&large::table(self.large));
        }
        text.push_str(&self.losses(family));
        text.push_str(&facts(family));
        text
    }

    fn head(&self, family: Family) -> String {
        let plan = self.plan();
        let scale = plan.scale;
        let at = &self.circumstances;
        let mut text = format!(
            "Measured {} on {}. {}, release, thin LTO. Medians of {} rounds in which all \
             take turns; {} ms for a figure after {} ms of warming up; {}. In brackets: times the \
             limit, measured in the same rounds. **Bold** is the best of a column. By\n\n\
             ```console\n\
             cargo run --release --manifest-path benches/peers/Cargo.toml -- {}\n\
             ```\n\n",
            at.date,
            at.machine,
            at.compiler,
            plan.rounds,
            scale.measure.as_millis(),
            scale.warm.as_millis(),
            match family {
                Family::Stores =>
                    format!("{} events of 128 bytes in {} streams", scale.events(), scale.streams),
                Family::Actors => format!(
                    "states of 48 bytes, events of 128, {} actors in memory or asleep, {} \
                     messages between two looks at the clock",
                    scale.sleepers(),
                    scale.batch()
                ),
            },
            self.options.command,
        );
        if self.options.quick {
            text.push_str("**A quick run: that it works, not how fast.**\n\n");
        }
        text
    }

    fn section(&self, family: Family, section: &Section) -> String {
        let is_in = |it: &Entrant| section.columns.iter().any(|column| it.is_in(column.case));
        let mut stores: Vec<_> = self.plan().entrants(family).filter(is_in).collect();
        // By the first column, the best first; those without a figure last, as they are listed.
        let first = &section.columns[0];
        stores.sort_by(|this, that| match (self.honest(*this, first), self.honest(*that, first)) {
            (Some(this), Some(that)) if first.unit.more_is_better() => that.total_cmp(&this),
            (Some(this), Some(that)) => this.total_cmp(&that),
            (this, that) => that.is_some().cmp(&this.is_some()),
        });
        let mut head = vec![noun(family).to_owned()];
        head.extend(section.columns.iter().map(|column| column.title.to_owned()));
        let mut limit = vec!["*limit*".to_owned()];
        limit.extend(section.columns.iter().map(|column| {
            self.limit(column).map_or_else(String::new, |it| format!("*{}*", column.unit.show(it)))
        }));
        let mut rows = vec![head, limit];
        for peer in &stores {
            let mut row = vec![shown(peer.name())];
            row.extend(section.columns.iter().map(|column| self.cell(*peer, column)));
            rows.push(row);
        }
        let (title, intro) = (section.title, section.intro);
        format!("### {title}\n\n{intro}\n\n{}\n{}", markdown(&rows), self.remarks(section, &stores))
    }

    /// Why there are figures with a mark, and why there are none.
    fn remarks(&self, section: &Section, stores: &[Entrant]) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut remark = |line: String| {
            if !lines.contains(&line) {
                lines.push(line);
            }
        };
        for column in section.columns {
            for peer in stores {
                let name = peer.name();
                if let Some(why) = peer.cannot(column.case, column.ask) {
                    remark(format!("- *none*, {name}: {why}."));
                } else if let Some(why) = self.results.failed(name, column.case) {
                    remark(format!("- *failed*, {name}: {}.", cell(why)));
                }
                if let Some(why) = peer.less(column.ask) {
                    remark(format!("-{MARK} {name}: {why}."));
                }
            }
        }
        if lines.is_empty() { String::new() } else { lines.join("\n") + "\n\n" }
    }

    fn cell(&self, peer: Entrant, column: &Column) -> String {
        let Some(figure) = self.figure(peer, column) else {
            let cannot = peer.cannot(column.case, column.ask).is_some();
            let failed = self.results.failed(peer.name(), column.case).is_some();
            return match (cannot, failed) {
                (true, _) => "none".to_owned(),
                (false, true) => "failed".to_owned(),
                (false, false) => String::new(),
            };
        };
        let mut text = column.unit.show(figure);
        let family = column.case.family();
        if self.best(family, column).is_some_and(|best| !column.unit.is_better(best, figure))
            && self.honest(peer, column).is_some()
        {
            text = format!("**{text}**");
        }
        if let Some(ratio) = self.limit(column).and_then(|limit| ratio(figure, limit)) {
            text.push_str(&format!(" ({ratio})"));
        }
        if self.honest(peer, column).is_none() {
            text.push_str(MARK);
        }
        text
    }

    fn figure(&self, peer: Entrant, column: &Column) -> Option<f64> {
        self.results.median(peer.name(), column.what)
    }

    fn limit(&self, column: &Column) -> Option<f64> {
        self.results.median(LIMIT, column.what)
    }

    /// Its figure, if it is one of what was asked.
    fn honest(&self, peer: Entrant, column: &Column) -> Option<f64> {
        if peer.less(column.ask).is_some() { None } else { self.figure(peer, column) }
    }

    fn best(&self, family: Family, column: &Column) -> Option<f64> {
        let better = |this, that| if column.unit.is_better(that, this) { that } else { this };
        let entrants = self.plan().entrants(family);
        entrants.filter_map(|peer| self.honest(peer, column)).reduce(better)
    }

    fn kills(&self) -> String {
        let mut rows = vec![vec!["store".to_owned(), "answered".to_owned(), "lost".to_owned()]];
        for peer in self.plan().entrants(Family::Stores) {
            let sum = |what| self.results.all(peer.name(), what).iter().sum::<f64>();
            let mut row = vec![shown(peer.name())];
            if peer.cannot(Case::Kill, Some(Ask::Append)).is_some() {
                row.extend(["every append is durable".to_owned(), String::new()]);
            } else if self.results.failed(peer.name(), Case::Kill).is_some() {
                row.extend(["failed".to_owned(), String::new()]);
            } else {
                let (answered, lost) = (sum("kill acknowledged"), sum("kill lost"));
                row.push(format!("{answered:.0}"));
                row.push(if lost > 0.0 { format!("**{lost:.0}**") } else { "0".to_owned() });
            }
            rows.push(row);
        }
        format!(
            "### What `kill -9` takes\n\n\
             One thread appends without waiting for the disk and notes each answer in a mapped \
             file, until it is killed; then the store is opened and counted. Summed over the \
             rounds. This is about the process, not about power.\n\n{}\n",
            markdown(&rows)
        )
    }

    /// In which columns somebody is ahead of us, and by how much.
    fn losses(&self, family: Family) -> String {
        let columns: Vec<_> = columns(family).collect();
        let mut lines = Vec::new();
        let mut compared = 0;
        for column in columns {
            let Some(ours) = self.results.median(OURS, column.what) else { continue };
            compared += 1;
            let mut ahead: Vec<_> = self
                .plan()
                .entrants(family)
                .filter_map(|peer| Some((peer.name(), self.honest(peer, column)?)))
                .filter(|(name, figure)| *name != OURS && column.unit.is_better(*figure, ours))
                .map(|(name, figure)| (name, (figure / ours).max(ours / figure)))
                .collect();
            ahead.sort_by(|this, that| that.1.total_cmp(&this.1));
            if !ahead.is_empty() {
                let names: Vec<_> =
                    ahead.iter().map(|(name, by)| format!("{name} {}x", digits(*by))).collect();
                lines.push(format!("- {}: {}.", column.long, names.join(", ")));
            }
        }
        if compared == 0 {
            return String::new();
        }
        let doubt = self.doubt(family);
        let (title, others) = match family {
            Family::Stores => ("Where Annals is behind", "Stores"),
            Family::Actors => ("Where Annals' actors are behind", "Others"),
        };
        let list = if lines.is_empty() { "- nowhere.".to_owned() } else { lines.join("\n") };
        format!(
            "### {title}\n\n\
             {others} that are better than Annals, and by which factor, in {} of {compared} \
             columns. {doubt}\n\n{list}\n\n",
            lines.len()
        )
    }

    /// How much the rounds differ: a factor below that says little.
    fn doubt(&self, family: Family) -> String {
        let mut spreads: Vec<_> = columns(family)
            .filter(|column| column.in_chart)
            .flat_map(|column| {
                let all = |peer: Entrant| spread(self.results.all(peer.name(), column.what));
                self.plan().entrants(family).filter_map(all).collect::<Vec<_>>()
            })
            .collect();
        spreads.sort_by(f64::total_cmp);
        let at = |parts: usize| spreads.get(spreads.len() * parts / 10).copied().unwrap_or(1.0);
        format!(
            "Between the rounds of one figure the largest is {}x the smallest (median of all \
             figures; {}x for the worst tenth).",
            digits(at(5)),
            digits(at(9))
        )
    }

    pub(crate) fn chart(&self, family: Family) -> String {
        let panels: Vec<_> = columns(family)
            .filter(|column| column.in_chart)
            .map(|column| self.panel(column))
            .filter(|panel| !panel.bars.is_empty())
            .collect();
        let at = &self.circumstances;
        let note = format!("{}. {}. Logarithmic scales.", at.date, at.machine);
        let title = match family {
            Family::Stores => "Annals and others at the same work, 128-byte events",
            Family::Actors => "Actors: Annals and others at the same work",
        };
        svg::draw(title, &note, &panels)
    }

    fn panel(&self, column: &Column) -> Panel {
        let mut bars: Vec<_> = self
            .plan()
            .entrants(column.case.family())
            .filter_map(|peer| {
                let kind = match self.honest(peer, column) {
                    None => Kind::Less,
                    Some(_) if peer.name() == OURS => Kind::Ours,
                    Some(_) => Kind::Peer,
                };
                let figure = self.figure(peer, column)?;
                Some(Bar { name: peer.name().to_owned(), figure, kind })
            })
            .collect();
        bars.extend(self.limit(column).map(|figure| Bar {
            name: "limit".to_owned(),
            figure,
            kind: Kind::Limit,
        }));
        bars.sort_by(|this, that| this.figure.total_cmp(&that.figure));
        if column.unit.more_is_better() {
            bars.reverse();
        }
        Panel { title: column.long.to_owned(), unit: column.unit, bars }
    }
}

fn columns(family: Family) -> impl Iterator<Item = &'static Column> {
    family.sections().iter().flat_map(|section| section.columns)
}

/// What a row is.
fn noun(family: Family) -> &'static str {
    match family {
        Family::Stores => "store",
        Family::Actors => "actors",
    }
}

/// What there is to know besides the figures.
fn facts(family: Family) -> String {
    let (title, head): (_, &[&str]) = match family {
        Family::Stores => (
            "What each call does",
            &["version", "kind", "durable", "unsynced", "1,024 in flight", "checks"],
        ),
        Family::Actors => (
            "What each of them is",
            &["version", "runs on", "told by", "full mailbox", "after a crash", "upkeep"],
        ),
    };
    let mut rows = vec![vec![noun(family).to_owned()]];
    rows[0].extend(head.iter().map(|it| (*it).to_owned()));
    for entrant in family.entrants() {
        let version = machine::version(entrant.package()).unwrap_or("?");
        let package = if entrant.package() == entrant.name() {
            version.to_owned()
        } else {
            format!("{} {version}", entrant.package())
        };
        let mut row = vec![shown(entrant.name()), package];
        row.extend(entrant.facts().map(cell));
        rows.push(row);
    }
    let mut text = format!("### {title}\n\n{}\n", markdown(&rows));
    for (name, why) in family.left_out() {
        text.push_str(&format!("- Left out: {name}. {why}.\n"));
    }
    text
}

fn shown(name: &str) -> String {
    if name == OURS { format!("**{name}**") } else { name.to_owned() }
}

/// What stands around the generated part of a family.
fn marks(family: Family) -> (String, String) {
    let of = match family {
        Family::Stores => "",
        Family::Actors => ", actors",
    };
    let mark = |end| format!("<!-- generated by benches/peers{of}: {end} -->\n");
    (mark("begin"), mark("end"))
}

/// The document with what stands between the marks replaced; `None` if it has no marks.
pub(crate) fn replace(document: &str, family: Family, generated: &str) -> Option<String> {
    let (begin, end) = marks(family);
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{generated}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn only_what_is_between_the_marks_of_the_family_is_replaced() {
        for family in Family::ALL {
            let (begin, end) = marks(family);
            let document = format!("before\n{begin}old\n{end}after\n");
            let replaced = replace(&document, family, "new\n").unwrap();
            assert_eq!(replaced, format!("before\n{begin}\nnew\n\n{end}after\n"));
            assert_eq!(replace(&replaced, family, "new\n").unwrap(), replaced);
            assert_eq!(replace("no marks", family, "new"), None);
            for other in Family::ALL.into_iter().filter(|other| *other != family) {
                assert_eq!(replace(&document, other, "new"), None);
            }
        }
    }

    #[test]
    fn the_document_has_marks_and_a_chart_for_each_family() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let document = std::fs::read_to_string(docs.join("compare.md")).unwrap();
        for family in Family::ALL {
            assert!(replace(&document, family, "").is_some(), "{}", family.name());
            assert!(docs.join(family.chart()).is_file(), "{}", family.chart());
        }
    }

    fn report_of(results: &Results, family: Family) -> String {
        let words = format!("--family {}", family.name());
        let words: Vec<_> = words.split(' ').map(OsString::from).collect();
        let options = Options::parse(&words).unwrap().unwrap();
        let circumstances = Circumstances::now(Path::new("/"));
        Report { options: &options, circumstances, results, large: &[] }.text(family, None)
    }

    #[test]
    fn a_row_is_shown_where_somebody_takes_part_and_losses_are_named() {
        let mut results = Results::default();
        for (name, figure) in [(LIMIT, 8e6), ("annals", 2e6), ("actix", 4e6), ("kameo", 1e6)] {
            results.add(name, "tell-1-1 rate", figure);
        }
        let text = report_of(&results, Family::Actors);
        let (messages, rest) = text.split_once("### Commands").unwrap();
        assert!(messages.contains("| **4.00 M/s** (0.50x)"), "{messages}");
        assert!(messages.contains("- *none*, ractor: a mailbox has no bound."), "{messages}");
        assert!(!messages.contains("| actix-sqlite"), "{messages}");
        let (commands, _) = rest.split_once("\n### ").unwrap();
        assert!(commands.contains("| actix-sqlite"), "{commands}");
        assert!(!commands.contains("| xtra"), "{commands}");
        assert!(rest.contains("in 1 of 1 columns"), "{rest}");
        assert!(rest.contains(": actix 2.00x.\n"), "{rest}");
    }

    #[test]
    fn a_store_that_does_less_is_marked_and_is_not_ahead() {
        let mut results = Results::default();
        for (name, figure) in [("annals", 1e3), ("sled", 5e3), ("lmdb", 2e3)] {
            results.add(name, "durable-1 rate", figure);
        }
        let text = report_of(&results, Family::Stores);
        assert!(text.contains("| 5.00 K/s \u{2020}"), "{text}");
        assert!(text.contains("- durable appends, 1 thread: lmdb 2.00x.\n"), "{text}");
    }
}
