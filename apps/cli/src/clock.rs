//! Time as people read and write it: in the zone of this host, and in RFC 3339 for programs.

use davy_model::Timestamp;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, ToSpan, Zoned};

/// Now, and the zone that people here live in.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    now: Zoned,
}

impl Clock {
    /// The system's clock and zone.
    pub(crate) fn system() -> Self {
        Self { now: Zoned::now() }
    }

    /// A clock that stands at `now` in UTC.
    #[cfg(test)]
    pub(crate) fn standing(now: Timestamp) -> Self {
        Self { now: jiff_time(now).to_zoned(TimeZone::UTC) }
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.now.timestamp().as_microsecond())
    }

    fn zone(&self) -> TimeZone {
        self.now.time_zone().clone()
    }

    /// `03:12:41` when it is of today, `2026-02-03 03:12:41` when not.
    pub(crate) fn moment(&self, time: Timestamp) -> String {
        self.written(time, "%H:%M:%S")
    }

    /// As [`Clock::moment`], with milliseconds.
    pub(crate) fn fine_moment(&self, time: Timestamp) -> String {
        self.written(time, "%H:%M:%S%.3f")
    }

    fn written(&self, time: Timestamp, clock: &str) -> String {
        let at = jiff_time(time).to_zoned(self.zone());
        let of_day = at.strftime(clock).to_string();
        if at.date() == self.now.date() { of_day } else { format!("{} {of_day}", at.strftime("%Y-%m-%d")) }
    }
}

fn jiff_time(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// `time` in RFC 3339, in UTC, to the microsecond.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    jiff_time(time).strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The moment that a person means by `10m`, `2h`, `1d` (before now) or by a date and time.
///
/// # Errors
/// A sentence that says what is understood.
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    let now = Zoned::now();
    let moment = if let Ok(span) = text.parse::<Span>() {
        now.checked_sub(span.abs()).map(|z| z.timestamp())
    } else if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        Ok(stamp)
    } else {
        text.parse::<jiff::civil::DateTime>()
            .and_then(|d| d.to_zoned(now.time_zone().clone()))
            .map(|z| z.timestamp())
    };
    moment.map(|m| Timestamp(m.as_microsecond())).map_err(|_| {
        "expected a time ago such as 90s, 10m, 2h or 1d, or a moment such as 2026-02-03T03:12:41Z or \
         \"2026-02-03 03:12\" in local time"
            .to_owned()
    })
}

/// A length of time such as `90s`, `10m` or `1h30m`, in whole seconds.
///
/// # Errors
/// A sentence that says what is understood.
pub(crate) fn length(text: &str) -> Result<u32, String> {
    let says = "expected a length of time such as 90s, 10m or 1h30m, of at least a second and at most 7 days";
    let span: Span = text.parse().map_err(|_| says.to_owned())?;
    let long = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| says.to_owned())?;
    let week = 7.days().to_duration(SpanRelativeTo::days_are_24_hours()).unwrap_or(SignedDuration::ZERO);
    if long < SignedDuration::from_secs(1) || long > week {
        return Err(says.to_owned());
    }
    u32::try_from(long.as_secs()).map_err(|_| says.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Timestamp = Timestamp::from_secs(1_770_120_000); // 2026-02-03T12:00:00Z

    #[test]
    fn writes_the_day_only_when_it_is_another() {
        let clock = Clock::standing(NOON);
        assert_eq!(clock.moment(NOON.plus_secs(-60.0)), "11:59:00");
        assert_eq!(clock.fine_moment(Timestamp(NOON.0 - 86_400_000_000 + 1500)), "2026-02-02 12:00:00.001");
        assert_eq!(rfc3339(Timestamp(NOON.0 + 5)), "2026-02-03T12:00:00.000005Z");
    }

    #[test]
    fn understands_times_as_people_write_them() {
        assert_eq!(since("2026-02-03T12:00:00Z"), Ok(NOON));
        let ago = Clock::system().now().secs_since(since("10m").expect("a span"));
        assert!((599.0..601.0).contains(&ago), "{ago}");
        assert!(since("1d").is_ok());
        assert!(since("2026-02-03 03:12").is_ok());
        assert!(since("yesterday-ish").is_err());
        assert_eq!(length("1h30m"), Ok(5400));
        assert_eq!(length("10m"), Ok(600));
        assert!(length("0s").is_err());
        assert!(length("-5m").is_err());
        assert!(length("30d").is_err());
    }

    proptest! {
        #[test]
        fn no_stamp_and_no_text_panics(micros in any::<i64>(), text in ".{0,24}") {
            let clock = Clock::standing(NOON);
            let _ = (clock.moment(Timestamp(micros)), rfc3339(Timestamp(micros)), since(&text), length(&text));
        }
    }
}
