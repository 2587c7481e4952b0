//! Numbers in a text, and others that may stand in their place: near ones as wrong choices, far ones in false
//! statements.

use super::form::Form;
use std::ops::Range;

/// With one of these before it a time is another, "early 1980s".
pub(super) const PARTS_OF_TIMES: [&str; 3] = ["early", "late", "mid"];

/// How far another number is from the one whose place it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// Anything else will do, and near is best: a wrong choice.
    AtAll,
    /// Nobody takes one for the other: a false statement.
    Plainly,
    /// The same, and larger: "over 7,000" says that it is over 5,000 too.
    Above,
    /// The same, and smaller.
    Below,
}

/// What a number counts, as far as its form and what follows tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `19th`
    Ordinal,
    /// `1889`
    Year,
    /// `1950s`
    Decade,
    /// `1800s`
    Century,
    /// `12 December`, `12日`
    Day,
    /// `12月`
    Month,
    Other,
}

/// The number that a text begins with.
struct Number<'a> {
    /// Digits, with points and commas between.
    text: &'a str,
    kind: Kind,
    /// What follows, the ending of an ordinal included.
    rest: &'a str,
}

const ORDINAL_ENDING: usize = 2;
#[rustfmt::skip]
pub(super) const MONTHS: [&str; 12] = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
];

impl<'a> Number<'a> {
    fn leading(text: &'a str) -> Self {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',');
        let len = text.find(|c| !is_part(c)).unwrap_or(text.len());
        let number = text[..len].trim_end_matches(['.', ',']);
        let rest = &text[number.len()..];
        let is_ordinal = ["st", "nd", "rd", "th"].iter().any(|ending| {
            rest.strip_prefix(ending).is_some_and(|after| !after.starts_with(char::is_alphanumeric))
        });
        let is_year = number.len() == 4
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && ["1", "20"].iter().any(|start| number.starts_with(start));
        let kind = match rest.chars().next() {
            _ if is_ordinal => Kind::Ordinal,
            Some('s') if is_year && number.ends_with("00") => Kind::Century,
            Some('s') if is_year && number.ends_with('0') => Kind::Decade,
            _ if is_year => Kind::Year,
            Some('月') => Kind::Month,
            Some('日') => Kind::Day,
            _ if MONTHS.iter().any(|month| rest.trim_start().starts_with(month)) => Kind::Day,
            _ => Kind::Other,
        };
        Self { text: number, kind, rest }
    }
}

/// The number that a text begins with, what belongs to its form included, and a regular expression for others like it:
/// as long and as round, a year in the same century (of this one rather in the last), a day or a month of the
/// calendar. The original may match it. `None` if there is no other.
pub(super) fn others(text: &str, apart: Apart) -> Option<(Range<usize>, String)> {
    let Number { text: number, kind, .. } = Number::leading(text);
    let is_this_century = number.starts_with("20") && matches!(number.as_bytes().get(2), Some(b'0'..=b'2'));
    let whole = |numbers: &mut dyn Iterator<Item = u64>| alternatives(number, apart, numbers);
    let regex = match (kind, apart) {
        (Kind::Ordinal, _) => {
            // What is no century may be any.
            let tens = if number.parse().is_ok_and(|number: u64| number <= 21) { 0 } else { 9 };
            format!("{}th", whole(&mut (4..=20).chain((3..=tens).map(|ten| 10 * ten)))?)
        }
        (Kind::Day, _) => whole(&mut (1..=28))?,
        (Kind::Month, _) => whole(&mut (1..=12))?,
        (Kind::Century, _) => whole(&mut (14..=20).map(|century| 100 * century))?,
        (Kind::Decade, Apart::AtAll) if is_this_century => "(19[6-9]0|20[0-2]0)".to_owned(),
        (Kind::Year, Apart::AtAll) if is_this_century => "20[0-2][0-9]".to_owned(),
        (Kind::Decade | Kind::Year, Apart::Above) if is_this_century => return None,
        (Kind::Decade, _) if is_this_century => "19[5-8]0".to_owned(),
        (Kind::Year, _) if is_this_century => "19[5-8][0-9]".to_owned(),
        _ => digits(number, kind, apart)?,
    };
    let ending = if kind == Kind::Ordinal { ORDINAL_ENDING } else { 0 };
    Some((0..number.len() + ending, regex))
}

/// Those of some numbers that are as far apart from the original as they should be.
fn alternatives(original: &str, apart: Apart, numbers: &mut dyn Iterator<Item = u64>) -> Option<String> {
    let original = original.parse().unwrap_or(0);
    let far = if original >= 1000 { 150 } else { 2 };
    let is_apart = |number: &u64| match apart {
        Apart::AtAll => true,
        Apart::Plainly => number.abs_diff(original) > far,
        Apart::Above => *number > original + far,
        Apart::Below => *number + far < original,
    };
    let numbers: Vec<String> = numbers.filter(is_apart).map(|number| number.to_string()).collect();
    (!numbers.is_empty()).then(|| format!("({})", numbers.join("|")))
}

/// Other numbers, digit by digit. The one that tells how large a number is, the first or of a year the third, is
/// another.
fn digits(number: &str, kind: Kind, apart: Apart) -> Option<String> {
    let is_year = matches!(kind, Kind::Year | Kind::Decade);
    let is_fraction = number.starts_with("0.") || number.starts_with("0,");
    // Zeros at the end stay, but for those of 0.00.
    let round_from = match is_year || number.trim_matches(['0', '.', ',']).is_empty() {
        true => number.len(),
        false => number.trim_end_matches(['0', ',']).len().max(1),
    };
    let telling = match (is_year, is_fraction) {
        (true, _) => 2,
        (_, true) => number.find(|c| !matches!(c, '0' | '.' | ',')).unwrap_or(number.len() - 1),
        _ => 0,
    };
    // A year to come stays one.
    let least = if is_year { if number.starts_with("20") { b'3' } else { b'0' } } else { b'1' };
    let mut regex = String::new();
    for (at, c) in number.char_indices() {
        match c {
            '.' | ',' => regex.extend(['\\', c]),
            _ if at == telling => {
                let digit = c as u8;
                let is_apart = |other: &u8| match apart {
                    Apart::AtAll => true,
                    Apart::Plainly => other.abs_diff(digit) > 1,
                    Apart::Above => *other > digit + 1,
                    Apart::Below => *other + 1 < digit,
                };
                let others: String = (least..=b'9').filter(is_apart).map(char::from).collect();
                if others.is_empty() {
                    return None;
                }
                regex.extend(["[", &others, "]"]);
            }
            _ if at < telling || at >= round_from || kind == Kind::Decade && at == 3 => regex.push(c),
            _ => regex.push_str("[0-9]"),
        }
    }
    Some(regex)
}

/// Where the year of an English date begins: "July 1969", "July 20, 1969".
fn year_of_date(text: &str) -> Option<usize> {
    let (date, year) = text.rsplit_once(' ')?;
    let is_year = year.len() == 4 && Number::leading(year).kind == Kind::Year;
    let has_month = date.split(' ').any(|word| MONTHS.contains(&word));
    (is_year && has_month).then(|| date.len() + 1)
}

/// Where the number begins that an answer is about, if it is about one: "12 km", "July 1969", "early 1980s".
pub(super) fn number_in(text: &str) -> Option<usize> {
    if let Some(year) = year_of_date(text) {
        return Some(year);
    }
    let after = |part: &&str| text.strip_prefix(*part)?.strip_prefix([' ', '-']);
    let number = PARTS_OF_TIMES.iter().find_map(after).unwrap_or(text);
    matches!(Form::of(number), Form::Number | Form::Quantity).then(|| text.len() - number.len())
}

/// The text with the first of its numbers made a little smaller or larger, nearest first: as long as it was, and with
/// the ending it then has. None if it has no number, or one that is part of a name, as in "CO2".
pub(super) fn neighbours(text: &str) -> Vec<String> {
    /// More than an item has other options.
    const STEPS: u64 = 4;
    const MAX_DIGITS: usize = 15;
    let Some(start) = text.find(|c: char| c.is_ascii_digit()) else { return Vec::new() };
    let Number { text: number, kind, rest } = Number::leading(&text[start..]);
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let is_in_name = text[..start].ends_with(|c: char| c.is_ascii_alphabetic() || c == '-');
    let Some(value) = digits.parse::<u64>().ok().filter(|_| digits.len() <= MAX_DIGITS && !is_in_name) else {
        return Vec::new();
    };
    let unit = match kind {
        Kind::Century => 100,
        Kind::Decade => 10,
        Kind::Ordinal | Kind::Year | Kind::Day | Kind::Month => 1,
        // As round.
        Kind::Other => {
            10_u64.pow((digits.len() - digits.trim_end_matches('0').len()) as u32 * u32::from(value > 0))
        }
    };
    let written = |other: u64| {
        let other_digits = match digits.starts_with('0') {
            true => format!("{other:0width$}", width = digits.len()),
            false => other.to_string(),
        };
        let mut next = other_digits.chars();
        let number: String =
            number.chars().map(|c| if c.is_ascii_digit() { next.next().unwrap_or(c) } else { c }).collect();
        let rest = match kind {
            Kind::Ordinal => format!("{}{}", ordinal_ending(other), &rest[ORDINAL_ENDING..]),
            _ => rest.to_owned(),
        };
        let is_like_it =
            other_digits.len() == digits.len() && other > 0 && !(kind == Kind::Month && other > 12);
        is_like_it.then(|| format!("{}{number}{rest}", &text[..start]))
    };
    let near = (1..=STEPS).flat_map(|step| [value.checked_sub(step * unit), Some(value + step * unit)]);
    near.flatten().filter_map(written).collect()
}

fn ordinal_ending(number: u64) -> &'static str {
    match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, apart: Apart, expected: Option<(&str, &str)>) {
        let found = others(text, apart);
        let found = found.as_ref().map(|(range, regex)| (&text[range.clone()], &regex[..]));
        assert_eq!(found, expected, "{text} {apart:?}");
    }

    #[test]
    fn plainly_other_numbers() {
        let check =
            |text: &str, number: &str, regex: &str| check(text, Apart::Plainly, Some((number, regex)));
        check("1889.", "1889", "18[0123456][0-9]");
        check("1900", "1900", "19[23456789][0-9]");
        check("2005", "2005", "19[5-8][0-9]");
        check("2050", "2050", "20[3789][0-9]");
        check("1950s", "1950", "19[0123789]0");
        check("2010s", "2010", "19[5-8]0");
        check("1800s", "1800", "(1400|1500|1600|2000)");
        check("384,400 km", "384,400", r"[156789][0-9][0-9]\,[0-9]00");
        check("95,000 people", "95,000", r"[1234567][0-9]\,000");
        check("8 days", "8", "[123456]");
        check("60%", "60", "[123489]0");
        check("0", "0", "[23456789]");
        check("0.5", "0.5", r"0\.[123789]");
        check("0.05", "0.05", r"0\.0[123789]");
        check("0.0", "0.0", r"0\.[23456789]");
        check("20.5 km", "20.5", r"[456789][0-9]\.[0-9]");
        check("3rd", "3rd", "(6|7|8|9|10|11|12|13|14|15|16|17|18|19|20)th");
        check("50th", "50th", "(4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|20|30|40|60|70|80|90)th");
        check("26 December", "26", "(1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|20|21|22|23)");
        check("10月", "10", "(1|2|3|4|5|6|7)");
    }

    #[test]
    fn numbers_beyond_a_bound() {
        check("7,000", Apart::Above, Some(("7,000", r"[9]\,000")));
        check("95,000", Apart::Above, None);
        check("95,000", Apart::Below, Some(("95,000", r"[1234567][0-9]\,000")));
        check("1 day", Apart::Below, None);
        check("1889", Apart::Above, None);
        check("2005", Apart::Above, None);
    }

    #[test]
    fn wrong_choices() {
        let check = |text: &str, number: &str, regex: &str| check(text, Apart::AtAll, Some((number, regex)));
        check("1889", "1889", "18[0123456789][0-9]");
        check("2005", "2005", "20[0-2][0-9]");
        check("2010s", "2010", "(19[6-9]0|20[0-2]0)");
        check("1800s", "1800", "(1400|1500|1600|1700|1800|1900|2000)");
        check("8", "8", "[123456789]");
        check("3月", "3", "(1|2|3|4|5|6|7|8|9|10|11|12)");
    }

    #[test]
    fn near_numbers() {
        let check = |text: &str, expected: &[&str]| {
            let found = neighbours(text);
            assert_eq!(found[..expected.len().min(found.len())], *expected, "{text}");
        };
        check("10th century", &["11th century", "12th century"]);
        check("2nd", &["1st", "3rd"]);
        check("1000", &["1001", "1002"]);
        check("007", &["006", "008"]);
        check("0.5", &["0.4", "0.6"]);
        check("7,000 km", &["6,000 km", "8,000 km"]);
        check("10", &["20"]);
        check("1850s and 1860s", &["1840s and 1860s", "1860s and 1860s"]);
        check("1800s", &["1700s", "1900s"]);
        check("12月", &["11月", "10月"]);
        check("July 4, 1776", &["July 3, 1776", "July 5, 1776"]);
        for text in ["CO2", "COVID-19", "Paris", "", "1234567890123456"] {
            assert_eq!(neighbours(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn years_of_dates() {
        assert_eq!(year_of_date("July 20, 1969"), Some(9));
        assert_eq!(year_of_date("July 20"), None);
        assert_eq!(year_of_date("Apollo 1969"), None);
    }
}
