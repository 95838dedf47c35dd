//! From figures to tables, to a list of losses, and to a chart.

use std::path::Path;

use crate::child::LIMIT;
use crate::columns::{Column, SECTIONS, Section};
use crate::large::{self, Large};
use crate::machine;
use crate::options::Options;
use crate::run::{Case, Plan, Results};
use crate::stats::{digits, ratio, spread};
use crate::store::{Ask, Peer};
use crate::stores::{LEFT_OUT, PEERS};
use crate::svg::{self, Bar, Kind, Panel};
use crate::table::{cell, markdown};

/// Behind a figure of something less than was asked.
const MARK: &str = " \u{2020}";
const OURS: &str = PEERS[0].name;

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
    pub(crate) fn text(&self, chart: Option<&str>) -> String {
        let mut text = self.head();
        if let Some(chart) = chart {
            text.push_str(&format!("![The figures as bars, on a logarithmic scale]({chart})\n\n"));
        }
        for section in SECTIONS {
            if section.columns.iter().any(|column| self.plan().cases.contains(&column.case)) {
                text.push_str(&self.section(section));
            }
        }
        if self.plan().cases.contains(&Case::Kill) {
            text.push_str(&self.kills());
        }
        text.push_str(&large::table(self.large));
        text.push_str(&self.losses());
        text.push_str(&stores());
        text
    }

    fn head(&self) -> String {
        let plan = self.plan();
        let scale = plan.scale;
        let at = &self.circumstances;
        let mut text = format!(
            "Measured {} on {}. {}, release, thin LTO. Medians of {} rounds in which the stores \
             take turns; {} ms for a figure after {} ms of warming up; {} events of 128 bytes in \
             {} streams. In brackets: times the limit, measured in the same rounds. **Bold** is \
             the best store of a column. By\n\n\
             ```console\n\
             cargo run --release --manifest-path benches/peers/Cargo.toml -- {}\n\
             ```\n\n",
            at.date,
            at.machine,
            at.compiler,
            plan.rounds,
            scale.measure.as_millis(),
            scale.warm.as_millis(),
            scale.events(),
            scale.streams,
            self.options.command,
        );
        if self.options.quick {
            text.push_str("**A quick run: that it works, not how fast.**\n\n");
        }
        text
    }

    fn section(&self, section: &Section) -> String {
        let mut stores: Vec<_> = self.plan().peers().collect();
        // By the first column, the best first; those without a figure last, as they are listed.
        let first = &section.columns[0];
        stores.sort_by(|this, that| {
            let figure = |peer: &Peer| self.honest(peer, first);
            match (figure(this), figure(that)) {
                (Some(this), Some(that)) if first.unit.more_is_better() => that.total_cmp(&this),
                (Some(this), Some(that)) => this.total_cmp(&that),
                (this, that) => that.is_some().cmp(&this.is_some()),
            }
        });
        let mut head = vec!["store".to_owned()];
        head.extend(section.columns.iter().map(|column| column.title.to_owned()));
        let mut limit = vec!["*limit*".to_owned()];
        limit.extend(section.columns.iter().map(|column| {
            self.limit(column).map_or_else(String::new, |it| format!("*{}*", column.unit.show(it)))
        }));
        let mut rows = vec![head, limit];
        for peer in &stores {
            let mut row = vec![shown(peer.name)];
            row.extend(section.columns.iter().map(|column| self.cell(peer, column)));
            rows.push(row);
        }
        let (title, intro) = (section.title, section.intro);
        format!("### {title}\n\n{intro}\n\n{}\n{}", markdown(&rows), self.remarks(section, &stores))
    }

    /// Why there are figures with a mark, and why there are none.
    fn remarks(&self, section: &Section, stores: &[&Peer]) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut remark = |line: String| {
            if !lines.contains(&line) {
                lines.push(line);
            }
        };
        for column in section.columns {
            for peer in stores {
                let name = peer.name;
                if let Some(why) = column.ask.and_then(|ask| peer.cannot(ask)) {
                    remark(format!("- *none*, {name}: {why}."));
                } else if let Some(why) = self.results.failed(name, column.case) {
                    remark(format!("- *failed*, {name}: {}.", cell(why)));
                }
                if let Some(why) = column.ask.and_then(|ask| peer.less(ask)) {
                    remark(format!("-{MARK} {name}: {why}."));
                }
            }
        }
        if lines.is_empty() { String::new() } else { lines.join("\n") + "\n\n" }
    }

    fn cell(&self, peer: &Peer, column: &Column) -> String {
        let Some(figure) = self.figure(peer, column) else {
            let cannot = column.ask.is_some_and(|ask| peer.cannot(ask).is_some());
            let failed = self.results.failed(peer.name, column.case).is_some();
            return match (cannot, failed) {
                (true, _) => "none".to_owned(),
                (false, true) => "failed".to_owned(),
                (false, false) => String::new(),
            };
        };
        let mut text = column.unit.show(figure);
        if self.best(column).is_some_and(|best| !column.unit.is_better(best, figure))
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

    fn figure(&self, peer: &Peer, column: &Column) -> Option<f64> {
        self.results.median(peer.name, column.what)
    }

    fn limit(&self, column: &Column) -> Option<f64> {
        self.results.median(LIMIT, column.what)
    }

    /// Its figure, if it is one of what was asked.
    fn honest(&self, peer: &Peer, column: &Column) -> Option<f64> {
        let less = column.ask.is_some_and(|ask| peer.less(ask).is_some());
        if less { None } else { self.figure(peer, column) }
    }

    fn best(&self, column: &Column) -> Option<f64> {
        let better = |this, that| if column.unit.is_better(that, this) { that } else { this };
        self.plan().peers().filter_map(|peer| self.honest(peer, column)).reduce(better)
    }

    fn kills(&self) -> String {
        let mut rows = vec![vec!["store".to_owned(), "answered".to_owned(), "lost".to_owned()]];
        for peer in self.plan().peers() {
            let sum = |what| self.results.all(peer.name, what).iter().sum::<f64>();
            let mut row = vec![shown(peer.name)];
            if peer.cannot(Ask::Append).is_some() {
                row.extend(["every append is durable".to_owned(), String::new()]);
            } else if self.results.failed(peer.name, Case::Kill).is_some() {
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
    fn losses(&self) -> String {
        let columns: Vec<_> = SECTIONS.iter().flat_map(|section| section.columns).collect();
        let mut lines = Vec::new();
        let mut compared = 0;
        for column in columns {
            let Some(ours) = self.figure(&PEERS[0], column) else { continue };
            compared += 1;
            let mut ahead: Vec<_> = self
                .plan()
                .peers()
                .filter_map(|peer| Some((peer.name, self.honest(peer, column)?)))
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
        let doubt = self.doubt();
        let list = if lines.is_empty() { "- nowhere.".to_owned() } else { lines.join("\n") };
        format!(
            "### Where Annals is behind\n\n\
             Stores that are better than Annals, and by which factor, in {} of {compared} columns. \
             {doubt}\n\n{list}\n\n",
            lines.len()
        )
    }

    /// How much the rounds differ: a factor below that says little.
    fn doubt(&self) -> String {
        let mut spreads: Vec<_> = SECTIONS
            .iter()
            .flat_map(|section| section.columns)
            .filter(|column| column.in_chart)
            .flat_map(|column| {
                let all = |peer: &Peer| spread(self.results.all(peer.name, column.what));
                self.plan().peers().filter_map(all).collect::<Vec<_>>()
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

    pub(crate) fn chart(&self) -> String {
        let columns = SECTIONS.iter().flat_map(|section| section.columns);
        let panels: Vec<_> = columns
            .filter(|column| column.in_chart)
            .map(|column| self.panel(column))
            .filter(|panel| !panel.bars.is_empty())
            .collect();
        let at = &self.circumstances;
        let note = format!("{}. {}. Logarithmic scales.", at.date, at.machine);
        svg::draw("Annals and others at the same work, 128-byte events", &note, &panels)
    }

    fn panel(&self, column: &Column) -> Panel {
        let mut bars: Vec<_> = self
            .plan()
            .peers()
            .filter_map(|peer| {
                let kind = match self.honest(peer, column) {
                    None => Kind::Less,
                    Some(_) if peer.name == OURS => Kind::Ours,
                    Some(_) => Kind::Peer,
                };
                let figure = self.figure(peer, column)?;
                Some(Bar { name: peer.name.to_owned(), figure, kind })
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

/// What there is to know besides the figures.
fn stores() -> String {
    let title = ["store", "version", "kind", "durable", "unsynced", "1,024 in flight", "checks"];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    for peer in PEERS {
        let name = shown(peer.name);
        let version = machine::version(peer.package).unwrap_or("?");
        let package = if peer.package == peer.name {
            version.to_owned()
        } else {
            format!("{} {version}", peer.package)
        };
        let mut row = vec![name, package];
        row.extend([peer.kind, peer.durable, peer.unsynced, peer.in_flight, peer.checks].map(cell));
        rows.push(row);
    }
    let mut text = format!("### What each call does\n\n{}\n", markdown(&rows));
    for (name, why) in LEFT_OUT {
        text.push_str(&format!("- Left out: {name}. {why}.\n"));
    }
    text
}

fn shown(name: &str) -> String {
    if name == OURS { format!("**{name}**") } else { name.to_owned() }
}

const BEGIN: &str = "<!-- generated by benches/peers: begin -->\n";
const END: &str = "<!-- generated by benches/peers: end -->\n";

/// The document with what stands between the marks replaced; `None` if it has no marks.
pub(crate) fn replace(document: &str, generated: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{generated}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("before\n{BEGIN}old\n{END}after\n");
        let replaced = replace(&document, "new\n").unwrap();
        assert_eq!(replaced, format!("before\n{BEGIN}\nnew\n\n{END}after\n"));
        assert_eq!(replace(&replaced, "new\n").unwrap(), replaced);
        assert_eq!(replace("no marks", "new"), None);
    }
}
