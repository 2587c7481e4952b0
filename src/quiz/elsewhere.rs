//! Names that everybody knows and hardly any sentence is about: what stands in a name's place in a statement that is to
//! be false. Another name of the same text might be right as well, and one that a small model makes up is no name.

use super::number::MONTHS;
use super::wording::contains;

/// As they stand in a sentence without an article.
#[rustfmt::skip]
const BARE: [&str; 24] = [
    "Isaac Newton", "Marie Curie", "Charles Darwin", "Leonardo da Vinci", "Albert Einstein", "Julius Caesar",
    "William Shakespeare", "Thomas Edison",
    "Canada", "Japan", "Brazil", "Egypt", "Sweden", "India", "California", "Siberia", "London", "Chicago", "Rome", "Vienna",
    "NASA", "Microsoft", "Toyota", "Oxford University",
];

/// As they follow "the".
#[rustfmt::skip]
const AFTER_THE: [&str; 18] = [
    "United Nations", "Red Cross", "Royal Navy", "World Bank", "Supreme Court", "House of Lords", "Soviet Union",
    "Roman Empire", "Ottoman Empire", "Netherlands", "Pacific Ocean", "Alps", "Sahara", "Amazon", "Bible", "Olympic Games",
    "French Revolution", "Cold War",
];

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// What can stand in the place of `name` in an English sentence, between `before` and `after`, and makes it false;
/// empty where nothing would read well. `is_known` says that something is in the text itself.
pub(super) fn names_elsewhere(
    name: &str,
    before: &str,
    after: &str,
    is_known: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    let is_apostrophe = |c: char| matches!(c, '\'' | '’');
    // "Watt's", "NSF-funded": the name is part of a word that is none. "(HP)" is short for something.
    let is_part = name.contains(is_apostrophe) || name.contains('-') || after.starts_with(is_apostrophe);
    if is_part || before.ends_with('(') {
        return Vec::new();
    }
    let all: &[&'static str] = if MONTHS.contains(&name) {
        &MONTHS
    } else if WEEKDAYS.contains(&name) {
        &WEEKDAYS
    } else if before.split_whitespace().next_back().is_some_and(|word| word.eq_ignore_ascii_case("the")) {
        &AFTER_THE
    } else {
        &BARE
    };
    all.iter().copied().filter(|other| !contains(name, other) && !is_known(other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_of_what_stands_there() {
        let check = |name: &str, before: &str, after: &str, known: &str, some: &str, count: usize| {
            let found = names_elsewhere(name, before, after, |other| contains(known, other));
            assert_eq!((found.contains(&some), found.len()), (count > 0, count), "{name}: {found:?}");
        };
        check("Telstra", "It is run by ", ".", "", "NASA", BARE.len());
        check("European Union", "Laws of the ", " hold.", "", "Red Cross", AFTER_THE.len());
        check("June", "It rose in ", ".", "It fell in May.", "July", 10);
        check("Friday", "On ", " it rose.", "", "Monday", 6);
        // Not what the text speaks of itself.
        check("Paris", "He left ", ".", "He lived in London and Rome.", "Vienna", BARE.len() - 2);
        check("Watt's", "It was ", " engine.", "", "NASA", 0);
        check("Davies", "It was ", "’ engine.", "", "NASA", 0);
        check("NSF-funded", "It was ", " then.", "", "NASA", 0);
        check("HP", "It fills the first (", ") cylinder.", "", "NASA", 0);
    }
}
