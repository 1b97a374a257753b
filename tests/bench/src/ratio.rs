//! What to say of a handful of ratios.

use serde::Serialize;

/// Ratios of one load under one condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    /// The middle one.
    pub(crate) median: f64,
    /// The quarter below which a quarter lies.
    pub(crate) lower: f64,
    /// And above which a quarter lies.
    pub(crate) upper: f64,
    /// All, by round.
    pub(crate) rounds: Vec<f64>,
}

impl Ratio {
    /// Sums up the rounds; `None` without any.
    pub(crate) fn of(rounds: &[f64]) -> Option<Self> {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (sorted.len().checked_sub(1)? as f64);
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            Some(low + (high - low) * place.fract())
        };
        Some(Self { median: at(0.5)?, lower: at(0.25)?, upper: at(0.75)?, rounds: rounds.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        let ratio = Ratio::of(&[1.2, 1.0, 1.1]).expect("three rounds");
        assert!((ratio.median - 1.1).abs() < 1e-12 && (ratio.lower - 1.05).abs() < 1e-12);
        assert_eq!(Ratio::of(&[]), None);
        assert_eq!(Ratio::of(&[1.5]).map(|r| r.upper), Some(1.5));
    }
}
