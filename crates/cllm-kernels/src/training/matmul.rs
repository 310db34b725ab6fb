//! `C = alpha A B` or `C += alpha A B` in f32, for matrices that are not worth packing.

use crate::pool::Pool;

/// A matrix somewhere in a slice: element (i, j) is `data[i * row + j * column]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// `(rows, columns)` whose rows are `stride` elements apart.
    ///
    /// # Panics
    /// If it does not lie within `data`.
    pub fn new(data: &'a [f32], (rows, columns): (usize, usize), stride: usize) -> Self {
        let fits = rows == 0 || columns == 0 || (rows - 1) * stride + columns <= data.len();
        assert!(fits, "a {rows} x {columns} matrix of stride {stride} in {} elements", data.len());
        Self { data, rows, columns, row: stride, column: 1 }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row: self.column, column: self.row, ..self }
    }
}

/// `c = beta c + alpha a b` on this thread, `c` having rows `stride` elements apart.
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(
    c: &mut [f32],
    stride: usize,
    (alpha, beta): (f32, f32),
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    assert_eq!(a.columns, b.rows, "the inner dimensions");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert!(stride >= n && (m - 1) * stride + n <= c.len(), "{m} x {n} of stride {stride}");
    let step = |s: usize| isize::try_from(s).expect("a slice is at most isize::MAX long");
    // SAFETY: `Matrix::new` checked that all of `a` and `b` lies within their slices, the
    // assertion above that all of `c` does; `c` is borrowed mutably, so it overlaps neither.
    #[expect(unsafe_code, reason = "a library's product takes pointers")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            step(stride),
            beta != 0.0,
            a.data.as_ptr(),
            step(a.column),
            step(a.row),
            b.data.as_ptr(),
            step(b.column),
            step(b.row),
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// [`multiply`] with the rows of `c` shared among the threads; `c` has no gaps.
pub fn matmul(pool: &mut Pool, c: &mut [f32], scales: (f32, f32), a: Matrix<'_>, b: Matrix<'_>) {
    let n = b.columns;
    if n == 0 || a.rows == 0 {
        return;
    }
    assert_eq!(c.len(), a.rows * n, "the result's shape");
    let rows = a.rows.div_ceil(pool.threads());
    pool.for_each_chunk(c, rows * n, &|piece, c| {
        let start = piece * rows;
        let part = Matrix { data: &a.data[start * a.row..], rows: c.len() / n, ..a };
        multiply(c, n, scales, part, b);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_transposed_and_strided() {
        let value = |i: usize| (i as f32 * 0.7).sin();
        let mut pool = Pool::new(2).unwrap();
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (17, 33, 9), (40, 8, 64)] {
            let a: Vec<f32> = (0..m * (k + 2)).map(value).collect();
            let b: Vec<f32> = (0..n * (k + 1)).map(|i| value(i + 7)).collect();
            let left = Matrix::new(&a, (m, k), k + 2);
            let right = Matrix::new(&b, (n, k), k + 1).t();
            let mut c: Vec<f32> = (0..m * n).map(value).collect();
            let before = c.clone();
            matmul(&mut pool, &mut c, (2.0, 1.0), left, right);
            for i in 0..m {
                for j in 0..n {
                    let sum: f32 = (0..k).map(|l| a[i * (k + 2) + l] * b[j * (k + 1) + l]).sum();
                    let want = before[i * n + j] + 2.0 * sum;
                    assert!((c[i * n + j] - want).abs() < 1e-4);
                }
            }
        }
    }
}
