//! Prints the figures of the whole way, of its stages and of many live cells beside their floors.
//! The last line is JSON.

use citycell_benchmarks::city::{City, FULL};
use citycell_benchmarks::{live_cells, live_cells_way, stages, whole_way};
use serde_json::json;

fn main() {
    let city = City::new(FULL);
    let ways = whole_way::measure(&city, FULL);
    for way in &ways {
        println!(
            "whole way, {}: {:.2} M events/s, typed serde_json alone {:.2}, ratio {:.2}, {} rows",
            way.name, way.whole_m_per_s, way.typed_m_per_s, way.ratio, way.rows
        );
    }
    let stages = stages::measure(&city, FULL);
    println!(
        "stages, M/s: decode {:.2}, locate points {:.1}, locate codes {:.1}, prepare {:.2} (with \
         locate), combine {:.1}",
        stages.decode, stages.locate_points, stages.locate_codes, stages.prepare, stages.combine
    );
    let live = live_cells::measure(live_cells::FULL);
    println!(
        "aggregate, equal keys changed per epoch: {:.2} s per M with {} live cells, {:.2} with {}, \
         ratio {:.2}",
        live.many_s_per_m,
        live_cells::FULL.many,
        live.few_s_per_m,
        live_cells::FULL.few,
        live.ratio
    );
    let live_way = live_cells_way::measure(live_cells_way::FULL);
    println!(
        "whole way, equal cells changed per epoch: {:.2} s per M events with {} live cells, {:.2} \
         with {}, ratio {:.2}",
        live_way.many_s_per_m,
        live_cells_way::FULL.many,
        live_way.few_s_per_m,
        live_cells_way::FULL.few,
        live_way.ratio
    );
    let hash = ways
        .iter()
        .fold(stages.hash ^ live.hash ^ live_way.hash, |hash, way| hash.rotate_left(1) ^ way.hash);
    println!(
        "{}",
        json!({
            "benchmark": "whole_way",
            "by_point": ways[0].ratio,
            "by_code": ways[1].ratio,
            "last_of_each_sensor": ways[2].ratio,
            "live_cells": live_way.ratio,
            "live_cells_aggregate": live.ratio,
            "hash": format!("{hash:016x}"),
        })
    );
}
