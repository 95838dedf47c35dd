//! Medians, ratios, and how a number is shown.

/// `None` of nothing.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) {
        Some(f64::midpoint(*sorted.get(middle - 1)?, upper))
    } else {
        Some(upper)
    }
}

/// How far the figures of the rounds lie apart: largest over smallest.
pub(crate) fn spread(figures: &[f64]) -> Option<f64> {
    let least = figures.iter().copied().reduce(f64::min)?;
    let most = figures.iter().copied().reduce(f64::max)?;
    (least > 0.0).then(|| most / least)
}

/// What a figure is, which says how it is shown and which end is the good one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things done in a second: more is better.
    Rate,
    /// Nanoseconds: less is better.
    Nanos,
    /// Seconds: less is better.
    Seconds,
    /// Bytes: less is better.
    Bytes,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::Rate
    }

    pub(crate) fn is_better(self, this: f64, that: f64) -> bool {
        if self.more_is_better() { this > that } else { this < that }
    }

    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Self::Rate if figure >= 1e6 => format!("{} M/s", digits(figure / 1e6)),
            Self::Rate if figure >= 1e3 => format!("{} K/s", digits(figure / 1e3)),
            Self::Rate => format!("{} /s", digits(figure)),
            Self::Nanos if figure >= 1e6 => format!("{} ms", digits(figure / 1e6)),
            Self::Nanos if figure >= 1e3 => format!("{} us", digits(figure / 1e3)),
            Self::Nanos => format!("{} ns", digits(figure)),
            Self::Seconds if figure >= 1.0 => format!("{} s", digits(figure)),
            Self::Seconds => Self::Nanos.show(figure * 1e9),
            Self::Bytes if figure >= 1024.0 * 1024.0 => {
                format!("{} MiB", digits(figure / 1024.0 / 1024.0))
            }
            Self::Bytes if figure >= 1024.0 => format!("{} KiB", digits(figure / 1024.0)),
            Self::Bytes => format!("{} B", digits(figure)),
        }
    }
}

/// Three digits that mean something.
pub(crate) fn digits(figure: f64) -> String {
    if figure >= 99.95 {
        format!("{figure:.0}")
    } else if figure >= 9.995 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}

/// `figure / limit`, as it is shown behind a figure.
pub(crate) fn ratio(figure: f64, limit: f64) -> Option<String> {
    let ratio = figure / limit;
    (limit > 0.0 && ratio.is_finite()).then(|| format!("{}x", digits(ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_however_many_there_are() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_number_shows_three_digits_and_its_unit() {
        assert_eq!(Unit::Rate.show(7_249.0), "7.25 K/s");
        assert_eq!(Unit::Rate.show(135_600.0), "136 K/s");
        assert_eq!(Unit::Rate.show(4_400_000.0), "4.40 M/s");
        assert_eq!(Unit::Nanos.show(572.4), "572 ns");
        assert_eq!(Unit::Nanos.show(11_160.0), "11.2 us");
        assert_eq!(Unit::Seconds.show(0.0285), "28.5 ms");
        assert_eq!(Unit::Seconds.show(2.0), "2.00 s");
        assert_eq!(Unit::Bytes.show(184.0), "184 B");
        assert_eq!(Unit::Bytes.show(4_403.0), "4.30 KiB");
        assert_eq!(digits(99.96), "100");
        assert_eq!(digits(9.999), "10.0");
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        assert_eq!(ratio(3.0, 2.0).as_deref(), Some("1.50x"));
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
    }

    #[test]
    fn the_good_end_depends_on_the_unit() {
        assert!(Unit::Rate.is_better(2.0, 1.0));
        assert!(Unit::Nanos.is_better(1.0, 2.0));
        assert!(!Unit::Bytes.is_better(2.0, 2.0));
    }

    #[test]
    fn the_spread_is_largest_over_smallest() {
        assert_eq!(spread(&[2.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(spread(&[0.0, 1.0]), None);
        assert_eq!(spread(&[]), None);
    }
}
