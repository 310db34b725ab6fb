//! What a forward costs, by its number of rows.
//!
//! In any unit: decoders compare costs and never print them. The program measures; of clocks this
//! crate has the model's, [`CausalLm::now`](crate::CausalLm::now), or none.

use crate::lm::LmError;

/// T(rows): measured points, joined by straight lines.
#[derive(Debug, Clone, PartialEq)]
pub struct CostModel {
    /// Rows and cost, by rows.
    points: Vec<(usize, f64)>,
}

impl Default for CostModel {
    /// 1 for one row and 0.045 for each further one: measured with small models on CPUs, to be
    /// used where nothing was.
    fn default() -> Self {
        Self { points: vec![(1, 1.0), (2, 1.045)] }
    }
}

impl CostModel {
    /// The costs of forwards of these numbers of rows, in any order. Between points and beyond
    /// the last one it is a straight line; a single point is taken to be the same for all.
    /// Where a measurement says that more rows cost less, it is taken to be noise: the costs
    /// are made to rise.
    ///
    /// # Errors
    /// [`LmError::BadCost`] without a point for one row, or for costs that are not positive.
    pub fn new(points: impl IntoIterator<Item = (usize, f64)>) -> Result<Self, LmError> {
        let mut points: Vec<_> = points.into_iter().collect();
        points.sort_by_key(|point| point.0);
        points.dedup_by_key(|point| point.0);
        let bad = |what| Err(LmError::BadCost { what });
        if points.first().is_none_or(|point| point.0 != 1) {
            return bad("expected the cost of a forward of 1 row, and none of 0 rows".into());
        }
        let mut highest = 0.0;
        for (rows, cost) in &mut points {
            if !(cost.is_finite() && *cost > 0.0) {
                return bad(format!("{cost} for {rows} rows: expected more than 0"));
            }
            highest = cost.max(highest);
            *cost = highest;
        }
        Ok(Self { points })
    }

    /// The cost of a forward of `rows` rows, at least 1.
    pub fn cost(&self, rows: usize) -> f64 {
        let after = self.points.partition_point(|point| point.0 <= rows);
        let [.., first, second] = self.points[..(after + 1).min(self.points.len())] else {
            return self.points[0].1;
        };
        let slope = (second.1 - first.1) / (second.0 - first.0) as f64;
        first.1 + slope * (rows as f64 - first.0 as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_points() {
        let model = CostModel::new([(4, 1.6), (1, 1.0), (8, 1.5), (16, 3.2)]).expect("sound");
        for (rows, cost) in
            [(1, 1.0), (2, 1.2), (3, 1.4), (4, 1.6), (6, 1.6), (8, 1.6), (12, 2.4), (24, 4.8)]
        {
            assert!((model.cost(rows) - cost).abs() < 1e-9, "{rows}: {}", model.cost(rows));
        }
        assert_eq!(CostModel::new([(1, 2.0)]).expect("sound").cost(9), 2.0);
        for points in [vec![], vec![(2, 1.0)], vec![(0, 1.0), (1, 1.0)], vec![(1, -1.0)]] {
            assert!(CostModel::new(points).is_err());
        }
        assert!(CostModel::new([(1, 1.0), (2, f64::NAN)]).is_err());
    }
}
