//! Agreement of two who sort the same things, beyond what chance alone would give.

use super::float;

/// Cohen's kappa of a table that counts how often the one said the row and the other the column.
///
/// 1 is full agreement, 0 as much as chance gives, below 0 less. None where it is not defined:
/// nothing was sorted, or both put everything into the same one class.
/// Source: Cohen 1960, Educational and Psychological Measurement 20, 37-46.
pub fn kappa<const N: usize>(table: &[[u64; N]; N]) -> Option<f64> {
    let total = float(table.as_flattened().iter().sum());
    let part = |counts: u64| float(counts) / total;
    let class = |it: usize| (table[it].iter().sum(), table.iter().map(|row| row[it]).sum());
    let agreed: f64 = (0..N).map(|it| part(table[it][it])).sum();
    let by_chance: f64 = (0..N).map(class).map(|(row, column)| part(row) * part(column)).sum();
    let beyond = 1.0 - by_chance;
    (0.0 < total && 1e-12 < beyond).then(|| (agreed - by_chance) / beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_worked_examples() {
        let near = |table: [[u64; 2]; 2], wanted: f64| {
            let found = kappa(&table).unwrap();
            assert!((found - wanted).abs() < 1e-4, "{table:?}: {found}");
        };
        near([[20, 5], [10, 15]], 0.4);
        // The same agreement, and less of it beyond chance.
        near([[45, 15], [25, 15]], 0.1304);
        near([[25, 35], [5, 35]], 0.2593);
        near([[10, 0], [0, 10]], 1.0);
        near([[0, 10], [10, 0]], -1.0);
        // 70 of 100 agree, and 41 would by chance.
        let three = kappa(&[[44, 5, 1], [7, 20, 3], [9, 5, 6]]).unwrap();
        assert!((three - 0.29 / 0.59).abs() < 1e-9, "{three}");
    }

    #[test]
    fn where_nothing_could_be_told_apart_there_is_none() {
        assert_eq!(kappa(&[[0, 0], [0, 0]]), None);
        assert_eq!(kappa(&[[7, 0], [0, 0]]), None);
        assert_eq!(kappa(&[[7, 3], [0, 0]]), Some(0.0));
    }
}
