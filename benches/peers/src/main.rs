//! Annals and other stores at the same work, in one run: see `benches/README.md`.
#![expect(clippy::disallowed_methods, reason = "benches measure real time on a real disk")]
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

mod child;
mod limit;
mod options;
mod run;
mod stats;
mod store;
mod stores;
mod support;
mod work;
#[path = "../../log/writer.rs"]
#[expect(dead_code, reason = "only the limit's ring is needed here")]
mod writer;

use std::process::ExitCode;

use options::{Options, USAGE};
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
    let results = run::run(&options.plan, &home);
    println!("{results:#?}");
    ExitCode::SUCCESS
}
