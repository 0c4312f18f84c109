//! Numbers as whole units of 10^-scale, so that sums do not depend on their order.
//!
//! Integers and decimals convert exactly; a decimal with more digits than the scale keeps is rounded
//! half away from zero. A float is multiplied by 10^scale as a float and then rounded half away from
//! zero: 2.5 with scale 0 is 3, -2.5 is -3.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use crate::expression::{EvaluatedRows, FailedRow};

/// The largest value in units: two thousand million of them add up without overflow.
pub const UNITS_MAX: i128 = 1 << 96;

/// The units of every value; what is too large is null and among the failed rows.
pub(super) fn fixed_point(
    evaluated: EvaluatedRows,
    scale: u8,
) -> (Decimal128Array, Vec<FailedRow>) {
    let EvaluatedRows { values, mut failed } = evaluated;
    if let Some(units) = units_of_integers(&values, scale) {
        return (units, failed);
    }
    let units = units_of(&values, scale);
    let failed_before = failed.len();
    for (row, units) in units.iter().enumerate() {
        if units.is_none() && values.is_valid(row) {
            let detail = format!("the value is too large for {scale} decimals");
            failed.push(FailedRow { row, detail });
        }
    }
    if failed.len() > failed_before {
        failed.sort_by_key(|failed| failed.row);
    }
    (typed(units.into_iter().collect(), scale), failed)
}

fn typed(units: Decimal128Array, scale: u8) -> Decimal128Array {
    let scale = i8::try_from(scale).unwrap_or(i8::MAX);
    units.with_data_type(DataType::Decimal128(38, scale))
}

/// The units of 64-bit integers, none of which is too large at such a scale.
fn units_of_integers(values: &ArrayRef, scale: u8) -> Option<Decimal128Array> {
    const SCALE_MAX: u8 = 9;
    const { assert!(1_u128 << 63 <= UNITS_MAX as u128 / 10_u128.pow(SCALE_MAX as u32)) };
    let values = values.as_primitive_opt::<Int64Type>().filter(|_| scale <= SCALE_MAX)?;
    let unit = 10_i128.pow(u32::from(scale));
    // What a null holds is of no importance.
    let units = values.values().iter().map(|value| i128::from(*value) * unit).collect();
    Some(typed(Decimal128Array::new(units, values.nulls().cloned()), scale))
}

fn units_of(values: &ArrayRef, scale: u8) -> Vec<Option<i128>> {
    match values.data_type() {
        DataType::Int64 => {
            let values = values.as_primitive::<Int64Type>();
            values.iter().map(|value| scaled(i128::from(value?), 0, scale)).collect()
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            values.iter().map(|value| float_units(value?, scale)).collect()
        }
        DataType::Decimal128(_, from) => {
            let from = u8::try_from(*from).unwrap_or(0);
            let values = values.as_primitive::<Decimal128Type>();
            values.iter().map(|value| scaled(value?, from, scale)).collect()
        }
        _ => vec![None; values.len()],
    }
}

/// `value` in units of 10^-`from` as units of 10^-`to`.
fn scaled(value: i128, from: u8, to: u8) -> Option<i128> {
    let units = if to >= from {
        value.checked_mul(10_i128.checked_pow(u32::from(to - from))?)?
    } else {
        divided(value, 10_i128.checked_pow(u32::from(from - to))?)
    };
    in_limits(units)
}

/// `value / divisor`, rounded half away from zero; `divisor` is positive.
fn divided(value: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (value / divisor, value % divisor);
    let away = remainder.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
    if away { quotient + value.signum() } else { quotient }
}

#[expect(clippy::cast_possible_truncation, reason = "the limit was checked on the float")]
#[expect(clippy::cast_precision_loss, reason = "the limit is a power of two")]
fn float_units(value: f64, scale: u8) -> Option<i128> {
    let units = (value * 10_f64.powi(i32::from(scale))).round();
    (units.abs() <= UNITS_MAX as f64).then_some(units as i128)
}

fn in_limits(units: i128) -> Option<i128> {
    (units.unsigned_abs() <= UNITS_MAX.unsigned_abs()).then_some(units)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use proptest::prelude::*;

    use super::*;

    fn units(values: ArrayRef, scale: u8) -> (Vec<Option<i128>>, usize) {
        let (units, failed) = fixed_point(EvaluatedRows { values, failed: Vec::new() }, scale);
        (units.iter().collect(), failed.len())
    }

    #[test]
    fn floats_round_half_away_from_zero_and_large_ones_fail() {
        let floats = arrow::array::Float64Array::from(vec![
            Some(2.5),
            Some(-2.5),
            Some(0.4),
            None,
            Some(1e30),
        ]);
        let expected = vec![Some(3), Some(-3), Some(0), None, None];
        assert_eq!(units(Arc::new(floats), 0), (expected, 1));
    }

    proptest! {
        #[test]
        fn integers_are_exact(value in any::<i64>(), scale in 0_u8..=9) {
            let exact = i128::from(value) * 10_i128.pow(u32::from(scale));
            let (units, failed) = units(Arc::new(Int64Array::from(vec![value])), scale);
            prop_assert_eq!((units, failed), (vec![Some(exact)], 0));
        }

        #[test]
        fn decimals_are_exact_or_rounded_half_away_from_zero(
            value in -1_000_000_000_000_i64..1_000_000_000_000, from in 0_u8..9, to in 0_u8..9,
        ) {
            let decimals = Decimal128Array::from(vec![i128::from(value)])
                .with_data_type(DataType::Decimal128(38, from as i8));
            let (units, _) = units(Arc::new(decimals), to);
            let units = units[0].expect("within limits");
            // Compared over a common denominator, in integers only.
            let exact = i128::from(value) * 10_i128.pow(u32::from(to));
            let rounded = units * 10_i128.pow(u32::from(from));
            let unit = 10_i128.pow(u32::from(from));
            prop_assert!(2 * (exact - rounded).abs() <= unit);
            if 2 * (exact - rounded).abs() == unit {
                prop_assert!(rounded.abs() > exact.abs());
            }
        }

        #[test]
        fn floats_written_with_that_many_decimals_are_exact(
            value in -1_000_000_000_000_i64..1_000_000_000_000, scale in 0_u8..=6,
        ) {
            let text = format!("{value}e-{scale}");
            let float: f64 = text.parse().expect("a number");
            let (units, _) = units(Arc::new(arrow::array::Float64Array::from(vec![float])), scale);
            prop_assert_eq!(units[0], Some(i128::from(value)));
        }
    }
}
