//! What chat templates take from Python: `json.dumps`, `strftime`, and how values print.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};
use serde_json::Value as Json;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints a value as `str()` does.
pub(super) fn print(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => escape_formatter(out, state, value),
    }
}

/// `json.dumps` with the options transformers hands on.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = options.get::<Option<usize>>("indent")?.map(|indent| indent.min(MAX_INDENT));
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;
    let (item_separator, key_separator) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "separators: not a pair")),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };

    let json = serde_json::to_value(value);
    let mut json = json.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    if sort_keys {
        json.sort_all_objects();
    }
    let layout = Layout { indent, ensure_ascii, item_separator, key_separator };
    let mut text = String::new();
    layout.write(&json, 0, &mut text);
    Ok(text)
}

/// More would only be an attack.
const MAX_INDENT: usize = 16;

struct Layout {
    indent: Option<usize>,
    ensure_ascii: bool,
    item_separator: String,
    key_separator: String,
}

impl Layout {
    fn write(&self, json: &Json, depth: usize, out: &mut String) {
        match json {
            Json::Array(items) => self.write_items(('[', ']'), items, depth, out, |item, out| {
                self.write(item, depth + 1, out);
            }),
            Json::Object(entries) => {
                self.write_items(('{', '}'), entries, depth, out, |(key, value), out| {
                    self.write_string(key, out);
                    out.push_str(&self.key_separator);
                    self.write(value, depth + 1, out);
                })
            }
            Json::String(text) => self.write_string(text, out),
            Json::Null | Json::Bool(_) | Json::Number(_) => out.push_str(&json.to_string()),
        }
    }

    fn write_items<T>(
        &self,
        (open, close): (char, char),
        items: impl IntoIterator<Item = T>,
        depth: usize,
        out: &mut String,
        write_item: impl Fn(T, &mut String),
    ) {
        out.push(open);
        let mut is_empty = true;
        for item in items {
            if !is_empty {
                out.push_str(&self.item_separator);
            }
            is_empty = false;
            self.break_line(depth + 1, out);
            write_item(item, out);
        }
        if !is_empty {
            self.break_line(depth, out);
        }
        out.push(close);
    }

    fn break_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        if !self.ensure_ascii {
            return out.push_str(&quoted);
        }
        for char in quoted.chars() {
            if char.is_ascii() {
                out.push(char);
            } else {
                out.extend(char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
}

/// The time now, in UTC, in the words of `format`: `%d %b %Y` is `22 Nov 2026`.
pub(super) fn strftime_now(format: String) -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(&format, since_epoch.as_secs())
}

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Directives we do not know stay as they are.
fn strftime(format: &str, unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let (year, month, day, day_of_year) = civil_date(days);
    let weekday = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let hour12 = (hour + 11) % 12 + 1;
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            text.push(char);
            continue;
        }
        let directive = chars.next();
        // glibc: `%-d` is `%d` without the zero in front.
        let (padding, directive) = match directive {
            Some('-') => (0, chars.next()),
            other => (2, other),
        };
        let number = |number: u64| format!("{number:0padding$}");
        text += &match directive {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100),
            Some('m') => number(month),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('d') => number(day),
            Some('j') => format!("{day_of_year:03}"),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('H') => number(hour),
            Some('I') => number(hour12),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => "%".to_owned(),
        };
    }
    text
}

/// Year, month (1–12), day of the month and day of the year (both from 1) of a day since 1970-01-01.
fn civil_date(days: u64) -> (u64, u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    let mut day = days;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = day + 1;
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for len in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < len {
            break;
        }
        day -= len;
        month += 1;
    }
    (year, month, day + 1, day_of_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_time(format: &str, unix_seconds: u64, expected: &str) {
        assert_eq!(strftime(format, unix_seconds), expected, "{format} at {unix_seconds}");
    }

    #[test]
    fn times_as_python_writes_them() {
        check_time("%d %b %Y", 0, "01 Jan 1970");
        check_time("%A, %-d %B %y %H:%M:%S", 951_782_400, "Tuesday, 29 February 00 00:00:00");
        check_time("%Y-%m-%d %j", 1_735_603_200, "2024-12-31 366");
        check_time("%a %I%p %%", 1_795_305_600 + 13 * 3600, "Sun 01PM %");
        check_time("%Q 5%", 0, "%Q 5%");
    }

    fn check_json(json: &str, options: &[(&str, Value)], expected: &str) {
        let value = Value::from_serialize(serde_json::from_str::<Json>(json).unwrap());
        let text = tojson(&value, options.iter().cloned().collect()).unwrap();
        assert_eq!(text, expected, "{json} {options:?}");
    }

    #[test]
    fn json_as_python_writes_it() {
        let json = r#"{"b":[1,2.5,{}],"a":"日\n🎉<"}"#;
        check_json(json, &[], r#"{"b": [1, 2.5, {}], "a": "日\n🎉<"}"#);
        check_json(json, &[("sort_keys", true.into())], r#"{"a": "日\n🎉<", "b": [1, 2.5, {}]}"#);
        check_json(
            json,
            &[("ensure_ascii", true.into())],
            r#"{"b": [1, 2.5, {}], "a": "\u65e5\n\ud83c\udf89<"}"#,
        );
        check_json(
            json,
            &[("indent", 2.into())],
            "{\n  \"b\": [\n    1,\n    2.5,\n    {}\n  ],\n  \"a\": \"日\\n🎉<\"\n}",
        );
        check_json(json, &[("separators", vec![",", ":"].into())], r#"{"b":[1,2.5,{}],"a":"日\n🎉<"}"#);
    }
}
