//! `citycell plan`: what a pipeline will do, write and keep.

mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use citycell_operators::plan::{Location, Plan, Window};
use citycell_schemas::event::shipped;
use clap::Args;
use serde_json::json;

use self::state::{State, Volume};
use crate::config::{Pipeline, format_duration, load_pipeline};

/// Show the dataflow of a pipeline, its table, and the state it keeps at worst.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The pipeline file.
    file: PathBuf,
    /// How many cells have events.
    #[arg(long, default_value_t = 20_000)]
    cells: u64,
    /// How many values the group columns have together.
    #[arg(long, default_value_t = 10)]
    groups: u64,
    /// How many entities (sensors, spaces) report.
    #[arg(long, default_value_t = 50_000)]
    entities: u64,
    /// Events per second.
    #[arg(long, default_value_t = 10_000)]
    events_per_second: u64,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command; fails if the file is not good.
#[must_use]
pub fn run(args: &PlanArgs) -> ExitCode {
    match load_pipeline(&args.file, &shipped()) {
        Ok(pipeline) => show(args, &pipeline),
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn show(args: &PlanArgs, pipeline: &Pipeline) {
    let volume = Volume {
        cells: args.cells,
        groups: args.groups,
        entities: args.entities,
        events_per_second: args.events_per_second,
    };
    let state = state::worst_case(&pipeline.plan, volume);
    if args.json {
        let plan = json!({
            "plan": pipeline.plan,
            "reads": pipeline.fields,
            "steps": steps(pipeline),
            "columns": columns(pipeline),
            "state": state,
        });
        println!("{plan}");
    } else {
        print(pipeline, &state);
    }
}

fn print(pipeline: &Pipeline, state: &[State]) {
    println!("{}: {}\n\ndataflow", pipeline.plan.name, pipeline.description);
    for (step, what) in steps(pipeline) {
        println!("  {step:<11}{what}");
    }
    println!("\ntable {}_history", pipeline.plan.name);
    for (name, kind) in columns(pipeline) {
        println!("  {name:<24}{kind}");
    }
    println!("\nstate at worst");
    for part in state {
        println!(
            "  {:<11}{:>12} x {} bytes = {} MB",
            part.what,
            part.count,
            part.bytes_each,
            part.megabytes()
        );
        println!("  {:<11}{}", "", part.formula);
    }
}

/// The operators in the order in which data flows, and what each does here.
fn steps(pipeline: &Pipeline) -> Vec<(&'static str, String)> {
    let plan = &pipeline.plan;
    let mut steps = vec![
        ("kafka", plan.topics.join(", ")),
        ("decode", format!("{} as {}", pipeline.fields.join(", "), plan.schema)),
    ];
    let derived: Vec<_> =
        plan.derive.iter().map(|one| format!("{} = {}", one.name, one.expression)).collect();
    let filter = plan.filter.clone().map(|sql| format!("where {sql}"));
    let select: Vec<_> = derived.into_iter().chain(filter).collect();
    if !select.is_empty() {
        steps.push(("select", select.join("; ")));
    }
    steps.push(("locate", location(&plan.location)));
    steps.push(("window", window(plan)));
    if plan.identified {
        steps.push(("duplicates", "each id once; withdrawals take events back".to_owned()));
    }
    match (&plan.per, &plan.window) {
        (Some(per), _) => {
            let by = per.by.join(", ");
            steps
                .push(("entity", format!("{} per {by}", format!("{:?}", per.take).to_lowercase())));
        }
        (None, Window::Latest { by, .. }) => {
            steps.push(("entity", format!("latest per {}", by.join(", "))));
        }
        (None, Window::Tumbling { .. }) => {}
    }
    let slots = plan.slots.iter().map(|slot| format!("{slot:?}").to_lowercase());
    steps.push(("aggregate", slots.collect::<Vec<_>>().join(", ")));
    if !plan.roll_up.is_empty() {
        let levels = plan.roll_up.iter().map(|level| format!("{level:?}").to_lowercase());
        steps.push(("roll_up", levels.collect::<Vec<_>>().join(", ")));
    }
    let every = match plan.publish_every_ms {
        0 => "on every tick".to_owned(),
        every_ms => format!("at most every {}", format_duration(every_ms)),
    };
    steps.push(("changes", every));
    steps
}

fn location(location: &Location) -> String {
    match location {
        Location::Cell { column } => format!("cell code in {column}"),
        Location::Point { lon, lat, crs } => {
            format!("point ({lon}, {lat}) in {}", format!("{crs:?}").to_lowercase())
        }
    }
}

fn window(plan: &Plan) -> String {
    let late = format_duration(plan.allow_ms);
    match &plan.window {
        Window::Tumbling { size_ms } => {
            format!("tumbling {}, corrected for {late}", format_duration(*size_ms))
        }
        Window::Latest { expire_ms, forget_ms, .. } => format!(
            "none; unknown after {}, gone after {}, corrected for {late}",
            format_duration(*expire_ms),
            format_duration(*forget_ms)
        ),
    }
}

/// The columns of the history table that are the pipeline's own.
fn columns(pipeline: &Pipeline) -> Vec<(String, String)> {
    let groups =
        pipeline.groups.iter().map(|group| (group.name().clone(), group.data_type().to_string()));
    let measures =
        pipeline.plan.measures.iter().map(|one| (one.name.clone(), "Float64".to_owned()));
    groups.chain(measures).collect()
}
