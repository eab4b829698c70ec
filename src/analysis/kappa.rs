//! How far two who say the same things agree beyond chance.

use super::float;

/// Cohen's kappa of two raters who put the same things in one of three classes each.
///
/// `table[i][j]` counts what the first put in class i and the second in class j. 1 is full
/// agreement, 0 what chance alone gives, and below 0 less than that. None where nothing was rated,
/// or both put everything in one class, of which chance explains all.
/// Source: Cohen 1960, Educational and Psychological Measurement 20, 37-46.
pub fn kappa(table: &[[u64; 3]; 3]) -> Option<f64> {
    let total = float(table.iter().flatten().sum());
    let row = |it: usize| float(table[it].iter().sum());
    let column = |it: usize| float(table.iter().map(|row| row[it]).sum());
    let agreed = float((0..3).map(|it| table[it][it]).sum()) / total;
    let by_chance: f64 = (0..3).map(|it| row(it) * column(it)).sum::<f64>() / (total * total);
    (0.0 < total && by_chance < 1.0).then(|| (agreed - by_chance) / (1.0 - by_chance))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(table: [[u64; 3]; 3], expected: f64) {
        let kappa = kappa(&table).unwrap();
        assert!((kappa - expected).abs() < 1e-12, "{kappa} {expected}");
    }

    #[test]
    fn worked_values_are_those_of_the_formula() {
        // 84 of 100 agree; by chance 0.5·0.5 + 0.3·0.3 + 0.2·0.2 = 0.38 would.
        near([[44, 5, 1], [5, 23, 2], [1, 2, 17]], (0.84 - 0.38) / 0.62);
        // Two classes alone: 35 of 50 agree, 0.5 by chance.
        near([[20, 0, 5], [0, 0, 0], [10, 0, 15]], 0.4);
        near([[7, 0, 0], [0, 8, 0], [0, 0, 9]], 1.0);
        near([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 0.0);
        near([[0, 0, 5], [0, 0, 0], [5, 0, 0]], -1.0);
    }

    #[test]
    fn where_there_is_nothing_to_tell_apart_there_is_none() {
        assert_eq!(kappa(&[[0; 3]; 3]), None);
        assert_eq!(kappa(&[[9, 0, 0], [0; 3], [0; 3]]), None);
    }
}
