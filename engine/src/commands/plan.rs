//! `citycell plan`: what a pipeline will do, write and keep.

mod rebuild;
mod state;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use citycell_operators::plan::{Location, Plan, Window};
use citycell_schemas::Grid;
use clap::Args;
use serde_json::json;

use self::rebuild::{Served, Start};
use self::state::{State, Volume};
use super::connection::ClickHouseArgs;
use super::files::FileArgs;
use crate::clickhouse::{ClickHouse, tables::PipelineTable, versions};
use crate::config::{Pipeline, format_duration};
use crate::{grid, pipeline};

/// Show the dataflow of pipelines, their tables, and the state they keep at worst. With `--grid`
/// ClickHouse is asked which versions serve, to say what a start would build anew.
#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    files: FileArgs,
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
    /// The grid that `run` is given: with it, say what a start would build anew.
    #[arg(long)]
    grid: Option<PathBuf>,
    #[command(flatten)]
    clickhouse: ClickHouseArgs,
    /// Print JSON, one object a line and pipeline.
    #[arg(long)]
    json: bool,
}

/// What a plan is held against.
struct Deployment {
    grid: Arc<Grid>,
    clickhouse: ClickHouse,
    served: Served,
}

/// Runs the command; exit code 1 if a file is not good.
///
/// # Errors
/// Folders, schemas or a grid that cannot be read, ClickHouse's, an output that is closed.
pub async fn run(args: &PlanArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let deployment = deployment(args).await?;
    let mut code = ExitCode::SUCCESS;
    let mut names = BTreeSet::new();
    for (index, file) in args.files.load()?.into_iter().enumerate() {
        match file.pipeline {
            Ok(pipeline) => {
                names.insert(pipeline.plan.name.clone());
                if index > 0 && !args.json {
                    writeln!(out)?;
                }
                let start = match &deployment {
                    Some(Deployment { grid, clickhouse, served }) => {
                        let runs = pipeline::Pipeline::from(pipeline.clone());
                        Some(rebuild::start(&runs, grid, served, clickhouse).await?)
                    }
                    None => None,
                };
                show(args, &pipeline, start.as_ref(), out)?;
            }
            Err(errors) => {
                eprintln!("{errors}\n");
                code = ExitCode::FAILURE;
            }
        }
    }
    if let (Some(Deployment { served, .. }), false) = (&deployment, args.json) {
        for name in rebuild::left_out(served, &names) {
            writeln!(out, "\n{name}: not among these files, its views would stand still")?;
        }
    }
    Ok(code)
}

async fn deployment(args: &PlanArgs) -> Result<Option<Deployment>, Box<dyn Error>> {
    let Some(path) = &args.grid else { return Ok(None) };
    let grid = Arc::clone(grid::load::load(path)?.located.grid());
    let clickhouse = ClickHouse::new(&args.clickhouse.settings()?);
    let served = versions::served(&clickhouse).await?;
    Ok(Some(Deployment { grid, clickhouse, served }))
}

fn show(
    args: &PlanArgs,
    pipeline: &Pipeline,
    start: Option<&Start>,
    out: &mut impl Write,
) -> io::Result<()> {
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
            "columns": table(pipeline).columns(),
            "state": state,
            "start": start,
        });
        writeln!(out, "{plan}")
    } else {
        print(pipeline, &state, out)?;
        start.map_or(Ok(()), |start| start.print(out))
    }
}

fn print(pipeline: &Pipeline, state: &[State], out: &mut impl Write) -> io::Result<()> {
    let table = table(pipeline);
    let name = &table.pipeline;
    writeln!(out, "{name}: {}\n\ndataflow", pipeline.description)?;
    for (step, what) in steps(pipeline) {
        writeln!(out, "  {step:<11}{what}")?;
    }
    writeln!(out, "\ntable {}, one row per change", table.history())?;
    for (column, kind) in table.columns() {
        writeln!(out, "  {column:<24}{kind}")?;
    }
    writeln!(out, "\nviews\n  {name:<24}now")?;
    writeln!(out, "  {:<24}as known at an epoch", format!("{name}_as_of(epoch)"))?;
    writeln!(out, "  {:<24}every change", format!("{name}_history"))?;
    writeln!(out, "\nstate at worst")?;
    for part in state {
        let (what, count, bytes) = (part.what, part.count, part.bytes_each);
        writeln!(out, "  {what:<11}{count:>12} x {bytes} bytes = {} MB", part.megabytes())?;
        writeln!(out, "  {:<11}{}", "", part.formula)?;
    }
    Ok(())
}

/// The pipeline's table; its version is a hash that follows from the grid too.
fn table(pipeline: &Pipeline) -> PipelineTable {
    let groups = pipeline.groups.clone();
    PipelineTable::new(&pipeline.plan, "<version>", groups, &Grid::default())
}

/// The operators in the order in which data flows, and what each does here.
fn steps(pipeline: &Pipeline) -> Vec<(&'static str, String)> {
    let plan = &pipeline.plan;
    let mut steps = vec![
        ("kafka", plan.topics.join(", ")),
        ("decode", format!("{}: {}", plan.schema, pipeline.fields.join(", "))),
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
