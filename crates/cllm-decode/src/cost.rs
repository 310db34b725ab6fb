//! What forwards cost: T(n), the time of one with n rows, as it was measured.

use crate::lm::LmError;

/// Times of forwards by their rows, linear between the measured ones.
#[derive(Debug, Clone, PartialEq)]
pub struct CostModel {
    points: Vec<(usize, f64)>,
}

impl CostModel {
    /// From pairs of rows and time, in any unit: the first of one row, rows ascending.
    ///
    /// # Errors
    /// [`LmError::BadCosts`] if they are not like that, or a time is not above 0.
    pub fn new(points: Vec<(usize, f64)>) -> Result<Self, LmError> {
        let times = points.iter().all(|&(_, time)| time.is_finite() && time > 0.0);
        let rows = points.is_sorted_by(|a, b| a.0 < b.0);
        match points.first() {
            Some((1, _)) if times && rows => Ok(Self { points }),
            _ => Err(LmError::BadCosts),
        }
    }

    /// T(`rows`); beyond the last measured one along the last line.
    pub fn of(&self, rows: usize) -> f64 {
        let after = self.points.partition_point(|&(n, _)| n < rows);
        let (a, b) = match after {
            0 => return self.points[0].1,
            _ if self.points.len() == 1 => return self.points[0].1,
            _ if after == self.points.len() => (self.points[after - 2], self.points[after - 1]),
            _ => (self.points[after - 1], self.points[after]),
        };
        let slope = (b.1 - a.1) / (b.0 - a.0) as f64;
        a.1 + slope * (rows as f64 - a.0 as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_on_lines() {
        let costs = CostModel::new(vec![(1, 4.0), (2, 5.0), (6, 9.0)]).unwrap();
        for (rows, time) in [(0, 4.0), (1, 4.0), (2, 5.0), (3, 6.0), (6, 9.0), (8, 11.0)] {
            assert_eq!(costs.of(rows), time);
        }
        assert_eq!(CostModel::new(vec![(1, 4.0)]).unwrap().of(9), 4.0);
        for bad in
            [vec![], vec![(2, 1.0)], vec![(1, 0.0)], vec![(1, 1.0), (1, 2.0)], vec![(1, f64::NAN)]]
        {
            assert_eq!(CostModel::new(bad), Err(LmError::BadCosts));
        }
    }
}
