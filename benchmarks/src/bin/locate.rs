//! Prints how many points a second one core places into 100,489 irregular cells.

fn main() {
    let found = citycell_benchmarks::locate::run(317, 5_000_000);
    let points_per_s = found.points as f64 / found.locate_s;
    println!(
        "locate: {:.2} M points/s, {} cells, built in {:.2} s, hash {:016x}",
        points_per_s / 1e6,
        found.cells,
        found.build_s,
        found.hash
    );
}
