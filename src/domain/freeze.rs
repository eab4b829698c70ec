//! Freezes: times in which nothing goes forward.

use jiff::{
    civil::{Date, DateTime, Time, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};

use super::Timestamp;

/// A time in which nothing goes forward, by the clocks of a zone. Going back is never frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    when: When,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum When {
    /// Begins on these days at `from`, and ends at the next `to`.
    Weekly { days: Vec<Weekday>, from: Time, to: Time },
    /// Once.
    Once { from: DateTime, to: DateTime },
}

/// A freeze as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreezeText {
    /// `mon` to `sun`: the days it begins on; empty for one that comes once.
    pub days: Vec<String>,
    /// `18:00`, or `2026-12-20T18:00` for one that comes once.
    pub from: String,
    /// The same. A time that is not after `from` is on the next day.
    pub to: String,
    /// The zone whose clocks are meant, `Europe/Berlin` or `UTC`.
    pub zone: String,
}

/// Why a text is no freeze.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FreezeError {
    /// The field of [`FreezeText`].
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// The end of a freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thaw {
    /// When it is.
    pub at: Timestamp,
    /// The same by the clocks of the zone: `2026-11-22 08:00 Europe/Berlin`.
    pub local: String,
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
/// Freezes that follow each other without a gap are one up to here; more is a freeze for ever.
const FOLLOWING_MAX: usize = 64;

impl Freeze {
    /// Reads what an operator wrote.
    ///
    /// # Errors
    /// Names the field that is wrong. The zones are those of the program's own database.
    pub fn read(text: &FreezeText) -> Result<Self, FreezeError> {
        let fault = |field, problem: String| FreezeError { field, problem };
        let zone = TimeZoneDatabase::bundled().get(&text.zone).map_err(|_| {
            let problem = format!("`{}` is not a zone: write it like `Europe/Berlin`", text.zone);
            fault("zone", problem)
        })?;
        let when = if text.days.is_empty() {
            let read = |field, text: &str| {
                let time = text.parse::<DateTime>().ok().filter(|it| is_minute(it.time()));
                time.ok_or_else(|| fault(field, format!("`{text}` is not like `2026-12-20T18:00`")))
            };
            let (from, to) = (read("from", &text.from)?, read("to", &text.to)?);
            if to <= from {
                return Err(fault("to", format!("`{}` is not after `from`", text.to)));
            }
            When::Once { from, to }
        } else {
            let day = |it: &String| DAYS.iter().find(|(name, _)| name == it).map(|(_, day)| *day);
            let days: Option<Vec<Weekday>> = text.days.iter().map(day).collect();
            let days = days.ok_or_else(|| {
                fault("days", "are of mon, tue, wed, thu, fri, sat, sun".to_owned())
            })?;
            let read = |field, text: &str| {
                let time = text.parse::<Time>().ok().filter(|it| text.len() == 5 && is_minute(*it));
                time.ok_or_else(|| fault(field, format!("`{text}` is not like `18:00`")))
            };
            When::Weekly { days, from: read("from", &text.from)?, to: read("to", &text.to)? }
        };
        Ok(Self { when, zone })
    }

    /// The freeze as it is written.
    pub fn text(&self) -> FreezeText {
        let zone = self.zone.iana_name().unwrap_or("UTC").to_owned();
        match &self.when {
            When::Once { from, to } => {
                let show = |it: &DateTime| it.strftime("%Y-%m-%dT%H:%M").to_string();
                FreezeText { days: Vec::new(), from: show(from), to: show(to), zone }
            }
            When::Weekly { days, from, to } => {
                let named = DAYS.iter().filter(|(_, day)| days.contains(day));
                let days = named.map(|(name, _)| (*name).to_owned()).collect();
                let show = |it: &Time| it.strftime("%H:%M").to_string();
                FreezeText { days, from: show(from), to: show(to), zone }
            }
        }
    }

    /// When it ends, if it holds at this time.
    fn end(&self, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let spans = match &self.when {
            When::Once { from, to } => vec![(*from, *to)],
            When::Weekly { days, from, to } => {
                let today = self.zone.to_datetime(now).date();
                let begun = [today.yesterday().ok(), Some(today)].into_iter().flatten();
                let begun = begun.filter(|it| days.contains(&it.weekday()));
                begun.map(|it| (it.to_datetime(*from), end_of(it, *from, *to))).collect()
            }
        };
        // Where a clock shows a time twice or not at all, the freeze is the longer one.
        let span = |(from, to): (DateTime, DateTime)| {
            let from = self.zone.to_ambiguous_timestamp(from).earlier().ok()?;
            let to = self.zone.to_ambiguous_timestamp(to).later().ok()?;
            (from <= now && now < to).then_some(to)
        };
        spans.into_iter().filter_map(span).max()
    }
}

/// When the last of the freezes ends that hold now or follow without a gap; none when none holds.
pub(super) fn thaw(freezes: &[Freeze], now: Timestamp) -> Option<Thaw> {
    let mut at =
        i64::try_from(now.0).ok().and_then(|it| jiff::Timestamp::from_millisecond(it).ok())?;
    let mut last = None;
    for _ in 0..FOLLOWING_MAX {
        let Some((end, freeze)) = freezes.iter().find_map(|it| Some((it.end(at)?, it))) else {
            break;
        };
        (at, last) = (end, Some(freeze));
    }
    let local = at.to_zoned(last?.zone.clone()).strftime("%Y-%m-%d %H:%M %Q").to_string();
    Some(Thaw { at: Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0)), local })
}

fn end_of(day: Date, from: Time, to: Time) -> DateTime {
    let day = if from < to { day } else { day.tomorrow().unwrap_or(day) };
    day.to_datetime(to)
}

fn is_minute(time: Time) -> bool {
    time.second() == 0 && time.subsec_nanosecond() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekly(days: &[&str], from: &str, to: &str, zone: &str) -> Freeze {
        let days = days.iter().map(|it| (*it).to_owned()).collect();
        let [from, to, zone] = [from, to, zone].map(str::to_owned);
        Freeze::read(&FreezeText { days, from, to, zone }).unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp(u64::try_from(at.as_millisecond()).unwrap())
    }

    fn until(freezes: &[Freeze], now: &str) -> String {
        thaw(freezes, utc(now)).map_or_else(String::new, |it| it.local)
    }

    /// T7
    #[test]
    fn a_freeze_is_kept_by_the_clocks_of_its_zone() {
        let nights = [weekly(&["fri", "sat"], "18:00", "08:00", "Europe/Berlin")];
        assert_eq!(until(&nights, "2026-11-20T16:59:59Z"), "");
        assert_eq!(until(&nights, "2026-11-20T17:00:00Z"), "2026-11-21 08:00 Europe/Berlin");
        assert_eq!(until(&nights, "2026-11-21T07:00:00Z"), "", "Saturday morning");
        assert_eq!(until(&nights, "2026-11-22T06:59:00Z"), "2026-11-22 08:00 Europe/Berlin");
        assert_eq!(until(&nights, "2026-11-22T18:00:00Z"), "", "Sunday night");
        assert_eq!(
            until(&nights, "2026-07-03T16:00:00Z"),
            "2026-07-04 08:00 Europe/Berlin",
            "summer"
        );
        assert_eq!(
            thaw(&nights, utc("2026-07-03T16:00:00Z")).unwrap().at,
            utc("2026-07-04T06:00:00Z")
        );
    }

    /// T7
    #[test]
    fn where_clocks_change_a_freeze_is_the_longer_one() {
        let night = [weekly(&["sun"], "02:30", "02:45", "Europe/Berlin")];
        // Shown twice on 25 October 2026: from the first 02:30 (CEST) to the second 02:45 (CET).
        assert_eq!(until(&night, "2026-10-25T00:29:00Z"), "");
        assert_eq!(until(&night, "2026-10-25T00:30:00Z"), "2026-10-25 02:45 Europe/Berlin");
        assert_eq!(until(&night, "2026-10-25T01:44:00Z"), "2026-10-25 02:45 Europe/Berlin");
        assert_eq!(until(&night, "2026-10-25T01:45:00Z"), "");
        // Not shown at all on 29 March 2026: it is not lost.
        assert_ne!(until(&night, "2026-03-29T01:00:00Z"), "");
    }

    #[test]
    fn freezes_that_follow_each_other_are_one() {
        let all = [
            weekly(&["fri"], "18:00", "00:00", "UTC"),
            weekly(&["sat", "sun"], "00:00", "00:00", "UTC"),
        ];
        assert_eq!(until(&all, "2026-11-20T20:00:00Z"), "2026-11-23 00:00 UTC");
        let always = [weekly(&DAYS.map(|it| it.0), "00:00", "00:00", "UTC")];
        assert_ne!(until(&always, "2026-11-20T20:00:00Z"), "");
    }

    #[test]
    fn a_freeze_may_come_once() {
        let text = FreezeText {
            days: vec![],
            from: "2026-12-20T18:00".to_owned(),
            to: "2027-01-02T06:00".to_owned(),
            zone: "America/New_York".to_owned(),
        };
        let freeze = Freeze::read(&text).unwrap();
        assert_eq!(freeze.text(), text);
        assert_eq!(until(std::slice::from_ref(&freeze), "2026-12-20T22:59:00Z"), "");
        assert_eq!(until(&[freeze], "2026-12-25T00:00:00Z"), "2027-01-02 06:00 America/New_York");
    }

    #[test]
    fn what_is_no_freeze_is_refused_by_its_field() {
        let good = weekly(&["mon"], "18:00", "08:00", "UTC").text();
        let field = |text: &FreezeText| Freeze::read(text).unwrap_err().field;
        assert_eq!(field(&FreezeText { zone: "Mars/Olympus".to_owned(), ..good.clone() }), "zone");
        assert_eq!(field(&FreezeText { days: vec!["monday".to_owned()], ..good.clone() }), "days");
        for wrong in ["24:00", "8:00", "18:00:30", "2026-12-20T18:00", ""] {
            assert_eq!(field(&FreezeText { from: wrong.to_owned(), ..good.clone() }), "from");
        }
        let once = |from: &str| FreezeText {
            days: vec![],
            from: from.to_owned(),
            to: "2027-01-02T06:00".to_owned(),
            ..good.clone()
        };
        assert_eq!(field(&once("2027-01-02T06:00")), "to");
        for wrong in ["18:00", "2026-12-20T18:00:30", "2026-12-20T18:00:00.5", ""] {
            assert_eq!(field(&once(wrong)), "from", "{wrong}");
        }
    }
}
