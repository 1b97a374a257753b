use davy_model::Timestamp;

const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// A day in UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(pub(crate) i64);

impl Day {
    pub(crate) fn of(time: Timestamp) -> Self {
        Self(time.0.div_euclid(DAY_US))
    }

    /// The file of that day.
    pub(crate) fn file_name(self) -> String {
        let (year, month, day) = civil(self.0);
        format!("events-{year:04}-{month:02}-{day:02}.db")
    }

    /// The day of a file by its name.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let date = name.strip_prefix("events-")?.strip_suffix(".db")?;
        let mut parts = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        if !(0..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let found = Self(days_from_civil(year, month, day));
        (found.file_name() == name).then_some(found)
    }

    /// The hour a moment is counted to in this day's file, since 1970-01-01T00: its own, or the nearest of the day.
    pub(crate) fn hour_of(self, time: Timestamp) -> i64 {
        hour_at(time).clamp(self.0 * 24, self.0 * 24 + 23)
    }

    /// The first moment after this day.
    pub(crate) fn end(self) -> Timestamp {
        Timestamp((self.0 + 1).saturating_mul(DAY_US))
    }
}

/// The hour of a moment, counted from 1970-01-01T00.
pub(crate) fn hour_at(time: Timestamp) -> i64 {
    time.0.div_euclid(HOUR_US)
}

/// The first moment of an hour.
pub(crate) fn hour_start(hour: i64) -> Timestamp {
    Timestamp(hour.saturating_mul(HOUR_US))
}

/// Year, month and day of a day number, in the proleptic Gregorian calendar: years are counted from March, so
/// that the leap day is the last of its year, in eras of 400 years or 146,097 days.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_month)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        for (secs, name) in [
            (0, "events-1970-01-01.db"),
            (951_782_400, "events-2000-02-29.db"),
            (1_772_323_199, "events-2026-02-28.db"),
            (1_772_323_200, "events-2026-03-01.db"),
            (-1, "events-1969-12-31.db"),
        ] {
            assert_eq!(Day::of(Timestamp::from_secs(secs)).file_name(), name);
        }
    }

    #[test]
    fn other_names_are_no_days() {
        for name in [
            "main.db",
            "events-2026-02-30.db",
            "events-2026-1-1.db",
            "events-.db",
            "events-99999999999999999999-01-01.db",
            "events-9223372036854775807-12-9223372036854775807.db",
            "events-2026-01-01.db.corrupt-1",
        ] {
            assert_eq!(Day::of_file_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_lead_back(day in -700_000_i64..2_900_000) {
            prop_assert_eq!(Day::of_file_name(&Day(day).file_name()), Some(Day(day)));
        }

        #[test]
        fn any_name_is_survived(name in "events-[0-9-]{0,60}\\.db") {
            let _ = Day::of_file_name(&name);
        }
    }
}
