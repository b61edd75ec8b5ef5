//! Measured figures, their format, and statistics of times.

use drover_lab::{LabError, Result};
use std::{fmt, time::Duration};

/// A measured figure.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) enum Figure {
    /// A time.
    Time(Duration),
    /// Memory in bytes.
    Memory(u64),
    /// CPU usage in percent of one core.
    Share(f64),
    /// Ratio of two figures.
    Ratio(f64),
    /// A number of things.
    Count(u64),
}

impl Figure {
    /// A time in milliseconds.
    pub(crate) const fn ms(ms: u64) -> Figure {
        Figure::Time(Duration::from_millis(ms))
    }

    /// Memory in MiB.
    pub(crate) const fn mib(mib: u64) -> Figure {
        Figure::Memory(mib << 20)
    }
}

impl fmt::Display for Figure {
    /// With three significant digits, which is more than the measurements are accurate to.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self {
            Figure::Count(count) => return write!(f, "{count}"),
            Figure::Time(time) => (time.as_secs_f64() * 1e3, "ms"),
            Figure::Memory(bytes) if *bytes < 1 << 20 => (*bytes as f64 / f64::from(1 << 10), "KiB"),
            Figure::Memory(bytes) => (*bytes as f64 / f64::from(1 << 20), "MiB"),
            Figure::Share(percent) => (*percent, "%"),
            Figure::Ratio(times) => (*times, "×"),
        };
        let decimals = match value {
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        write!(f, "{value:.decimals$} {unit}")
    }
}

/// Repeated measurements of a time.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    sorted: Vec<Duration>,
}

impl Samples {
    /// Fails if `times` is empty.
    pub(crate) fn new(mut times: Vec<Duration>) -> Result<Samples> {
        if times.is_empty() {
            return Err(LabError::new("nothing was measured", "there are no samples"));
        }
        times.sort_unstable();
        Ok(Samples { sorted: times })
    }

    /// A percentile, by the nearest-rank method: the smallest sample that `percent` percent of them do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Figure {
        Figure::Time(self.nearest(percent))
    }

    fn nearest(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Ratio of the median to that of others.
    pub(crate) fn against(&self, others: &Samples) -> Figure {
        Figure::Ratio(self.nearest(50).as_secs_f64() / others.nearest(50).as_secs_f64())
    }

    /// The median, by the nearest-rank method.
    pub(crate) fn median(&self) -> Figure {
        self.percentile(50)
    }

    /// The minimum and the maximum: `1.20 ms to 3.40 ms`.
    pub(crate) fn range(&self) -> String {
        format!("{} to {}", Figure::Time(self.sorted.first().copied().unwrap_or_default()), self.percentile(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples = Samples::new((1..=200).rev().map(Duration::from_millis).collect()).unwrap();
        assert_eq!([1, 50, 99, 100].map(|p| samples.percentile(p)), [2, 100, 198, 200].map(Figure::ms));
        assert_eq!(samples.range(), "1.00 ms to 200 ms");
        let one = Samples::new(vec![Duration::from_millis(7)]).unwrap();
        assert_eq!([0, 50, 99].map(|p| one.percentile(p)), [Figure::ms(7); 3]);
        assert_eq!(samples.against(&one).to_string(), "14.3 ×");
        assert!(Samples::new(Vec::new()).is_err());
    }

    #[test]
    fn figures_have_three_digits_and_are_ordered() {
        for (figure, text) in [
            (Figure::Time(Duration::from_micros(1234)), "1.23 ms"),
            (Figure::Time(Duration::from_micros(9996)), "10.0 ms"),
            (Figure::Time(Duration::from_micros(123_456)), "123 ms"),
            (Figure::Memory(3 << 19), "1.50 MiB"),
            (Figure::Memory(1 << 19), "512 KiB"),
            (Figure::Share(0.034), "0.03 %"),
            (Figure::Ratio(1.732), "1.73 ×"),
            (Figure::Count(0), "0"),
        ] {
            assert_eq!(figure.to_string(), text);
        }
        assert!(Figure::ms(9) < Figure::ms(10) && Figure::mib(31) > Figure::mib(30));
    }
}
