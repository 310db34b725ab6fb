//! The nearest matrix of low rank, by randomized subspace iteration.

use cllm_decode::counter;
use nalgebra::DMatrix;

/// Columns beyond the rank that the search has: with them and [`ITERATIONS`] what is found keeps within
/// a few thousandths of what the exact decomposition keeps, on spectra that hardly fall too.
const OVERSAMPLING: usize = 8;
const ITERATIONS: usize = 4;
const SEED: u64 = 0;

/// `B A`, near to a matrix.
#[derive(Debug)]
pub(super) struct LowRank {
    /// `(r, inputs)`, row-major.
    pub(super) a: Vec<f32>,
    /// `(outputs, r)`, row-major.
    pub(super) b: Vec<f32>,
    /// The squares of the singular values that it has, summed: what it holds of the matrix's squares.
    pub(super) kept: f64,
}

/// The nearest matrix of rank `rank` to one of shape `(outputs, inputs)`, row-major, finite. Each factor
/// has the roots of the singular values. Ranks beyond the matrix's are filled with zeros.
///
/// Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1: signs at random instead of normal numbers,
/// the same on every machine. It costs some ten products with a matrix of r + 8 columns, where a
/// whole decomposition costs as many as the matrix has columns.
pub(super) fn low_rank(matrix: Vec<f32>, outputs: usize, inputs: usize, rank: usize) -> LowRank {
    // Columns first is what nalgebra has: the transpose, as it lies.
    let matrix = DMatrix::from_vec(inputs, outputs, matrix);
    let columns = (rank + OVERSAMPLING).min(inputs.min(outputs));
    let sign = |row: usize, column: usize| {
        let bits = counter::hash(SEED, (column * outputs + row) as u64);
        if bits & 1 == 0 { 1.0 } else { -1.0 }
    };
    let basis = |m: DMatrix<f32>| m.qr().q();
    let mut range = basis(&matrix * DMatrix::from_fn(outputs, columns, sign));
    for _ in 0..ITERATIONS {
        range = basis(&matrix * basis(matrix.tr_mul(&range)));
    }
    // The matrix is `range small^T`, nearly.
    let small = matrix.tr_mul(&range).svd(true, true);
    let (mut a, mut b) = (vec![0.0; rank * inputs], vec![0.0; outputs * rank]);
    let mut kept = 0.0;
    if let (Some(left), Some(right)) = (small.u, small.v_t) {
        // One singular vector of the inputs a column.
        let right = range * right.transpose();
        for (k, &value) in small.singular_values.iter().take(rank).enumerate() {
            kept += f64::from(value).powi(2);
            let root = value.sqrt();
            let row = a[k * inputs..][..inputs].iter_mut();
            row.zip(right.column(k).iter()).for_each(|(to, x)| *to = root * x);
            let column = b[k..].iter_mut().step_by(rank);
            column.zip(left.column(k).iter()).for_each(|(to, x)| *to = root * x);
        }
    }
    LowRank { a, b, kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of random factors whose k-th column has the size `size(k)`.
    fn matrix(outputs: usize, inputs: usize, size: impl Fn(usize) -> f32) -> Vec<f32> {
        let rank = outputs.min(inputs);
        let random =
            |seed, i: usize| (counter::index(seed, i as u64, 2001) as f32 - 1000.0) / 1000.0;
        let element = |row: usize, column: usize| -> f32 {
            let term = |k| size(k) * random(1, row * rank + k) * random(2, column * rank + k);
            (0..rank).map(term).sum()
        };
        (0..outputs * inputs).map(|i| element(i / inputs, i % inputs)).collect()
    }

    fn squares(values: impl IntoIterator<Item = f32>) -> f64 {
        values.into_iter().map(|x| f64::from(x).powi(2)).sum()
    }

    /// The squares that are left when the factors are taken off.
    fn left(m: &[f32], outputs: usize, inputs: usize, rank: usize, found: &LowRank) -> f64 {
        let product = |i: usize| -> f32 {
            let (row, column) = (i / inputs, i % inputs);
            (0..rank).map(|k| found.b[row * rank + k] * found.a[k * inputs + column]).sum()
        };
        squares((0..outputs * inputs).map(|i| m[i] - product(i)))
    }

    #[test]
    fn nearly_as_much_is_kept_as_by_the_whole_decomposition() {
        let (flat, steep) = (|_| 1.0, |k: usize| 0.8f32.powi(k as i32));
        for (outputs, inputs, rank) in [(90, 60, 8), (40, 100, 16), (64, 64, 1)] {
            for m in [matrix(outputs, inputs, flat), matrix(outputs, inputs, steep)] {
                let exact = DMatrix::from_row_slice(outputs, inputs, &m).singular_values();
                let best = squares(exact.iter().skip(rank).copied());
                let found = low_rank(m.clone(), outputs, inputs, rank);
                let rest = left(&m, outputs, inputs, rank, &found);
                let all = squares(m.iter().copied());
                let what = format!("{outputs} x {inputs}, {rank}: {rest} of {all}, best {best}");
                assert!(rest < best + 0.005 * all && rest > best * 0.99, "{what}");
                assert!((all - found.kept - rest).abs() < 1e-3 * all, "{what}, {}", found.kept);
            }
        }
    }

    #[test]
    fn a_matrix_of_the_rank_comes_back_and_zeros_are_zeros() {
        let m = matrix(30, 50, |k| if k < 4 { 1.0 } else { 0.0 });
        let all = squares(m.iter().copied());
        // A rank above the matrix's, and one above both of its sides.
        for rank in [4, 9, 70] {
            let found = low_rank(m.clone(), 30, 50, rank);
            assert_eq!((found.a.len(), found.b.len()), (rank * 50, 30 * rank));
            assert!(left(&m, 30, 50, rank, &found) < 1e-6 * all, "rank {rank}");
        }
        let found = low_rank(vec![0.0; 12], 3, 4, 2);
        assert!(found.a.iter().chain(&found.b).all(|x| x.is_finite()));
        assert_eq!(found.kept, 0.0);
    }
}
