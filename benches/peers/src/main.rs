//! Annals and others at the same work, in one run: see `benches/README.md`.
#![expect(clippy::disallowed_methods, reason = "benches measure real time on a real disk")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

#[path = "../../actors/account.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod account;
mod actors;
mod child;
mod columns;
mod family;
mod large;
mod limit;
mod machine;
mod options;
mod report;
mod run;
mod stats;
mod store;
mod stores;
mod support;
mod svg;
mod table;
mod work;
#[path = "../../log/writer.rs"]
#[expect(dead_code, reason = "only the limit's ring is needed here")]
mod writer;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use options::{Options, USAGE};
use report::{Circumstances, Report};
use store::Answer;
use support::home::Home;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    if let Some(order) = child::Order::from_arguments(&words) {
        return match child::run(&order) {
            // Without the ends of what a store keeps in statics.
            Ok(()) => std::process::exit(0),
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let options = match Options::parse(&arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let home = Home::new("peers");
    let circumstances = Circumstances::now(&home.dir);
    let results = run::run(&options.plan, &home);
    let plan = &options.plan;
    let large = large::run(&options.large, plan.rounds, plan.scale, &home);
    drop(home);
    let report = Report { options: &options, circumstances, results: &results, large: &large };
    for family in plan.families() {
        print!("{}", report.text(family, None));
    }
    let written = options.write.as_deref().map_or(Ok(()), |docs| write(&report, docs));
    if let Err(error) = &written {
        eprintln!("{error}");
    }
    // A store that fails where it should not is worth a look.
    let failed = !results.failures.is_empty();
    if failed || written.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The document and its charts. What was not measured stays as it is.
fn write(report: &Report<'_>, docs: &Path) -> Answer<()> {
    for family in report.options.plan.families() {
        let path = docs.join("compare.md");
        let document = fs::read_to_string(&path)?;
        let chart = family.chart();
        let generated = report.text(family, Some(chart));
        let replaced = report::replace(&document, family, &generated);
        fs::write(path, replaced.ok_or("compare.md has no marks")?)?;
        fs::write(docs.join(chart), report.chart(family))?;
    }
    Ok(())
}
