//! Names that everybody knows and hardly any sentence is about: what stands in a name's place in a statement that is to
//! be false. Another name of the same text might be right as well, and one that a small model makes up is no name.
//! A treaty's place is taken by a treaty, as far as a name or the words around it say what it is a name of.

use super::number::MONTHS;
use super::word::describes;
use super::wording::{are_initials, contains};

/// What a name is a name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Month,
    Weekday,
    Person,
    Place,
    Water,
    School,
    Company,
    Body,
    Law,
    Event,
}

/// Names of one kind.
struct Names {
    kind: Kind,
    /// As they stand in a sentence without an article.
    bare: &'static [&'static str],
    /// As they follow "the".
    after_the: &'static [&'static str],
    /// A name of this kind ends with one of these, or has it before "of", "on" or "for".
    heads: &'static [&'static str],
}

/// What can stand in a name's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamesElsewhere {
    pub(super) names: Vec<&'static str>,
    /// They are names of the same kind of thing, as far as can be told.
    pub(super) are_alike: bool,
}

#[rustfmt::skip]
const ALL: [Names; 10] = [
    Names { kind: Kind::Month, bare: &MONTHS, after_the: &[], heads: &[] },
    Names {
        kind: Kind::Weekday,
        bare: &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        after_the: &[],
        heads: &[],
    },
    Names {
        kind: Kind::Person,
        bare: &[
            "Isaac Newton", "Marie Curie", "Charles Darwin", "Leonardo da Vinci", "Albert Einstein", "Julius Caesar",
            "William Shakespeare", "Thomas Edison", "Abraham Lincoln", "Florence Nightingale",
        ],
        after_the: &[],
        heads: &[],
    },
    Names {
        kind: Kind::Place,
        bare: &[
            "Canada", "Japan", "Brazil", "Egypt", "Sweden", "India", "California", "Siberia", "London", "Chicago",
            "Rome", "Vienna", "Mexico", "Norway", "Berlin", "Shanghai",
        ],
        after_the: &[
            "Netherlands", "Soviet Union", "Roman Empire", "Ottoman Empire", "Alps", "Sahara", "Philippines",
            "Arctic", "Moon", "United States",
        ],
        heads: &[
            "City", "County", "Country", "State", "States", "Republic", "Kingdom", "Empire", "Province", "Island",
            "Islands", "Peninsula", "Coast", "Valley", "Desert", "Mountain", "Mountains", "Territory", "Region",
            "District",
        ],
    },
    Names {
        kind: Kind::Water,
        bare: &["Lake Superior", "Lake Geneva", "Loch Ness", "Hudson Bay"],
        after_the: &["Pacific Ocean", "Amazon", "Nile", "Danube", "Black Sea", "Panama Canal"],
        heads: &["River", "Ocean", "Sea", "Lake", "Canal", "Bay", "Strait", "Gulf"],
    },
    Names {
        kind: Kind::School,
        bare: &["Oxford University", "Harvard University", "Stanford University", "Eton College"],
        after_the: &["University of Oxford", "University of Tokyo", "Sorbonne", "London School of Economics"],
        heads: &["University", "College", "School", "Institute", "Academy", "Laboratory"],
    },
    Names {
        kind: Kind::Company,
        bare: &["Microsoft", "Toyota", "Siemens", "General Electric", "Boeing", "Nokia"],
        after_the: &["Ford Motor Company", "East India Company", "Coca-Cola Company"],
        heads: &["Company", "Corporation", "Inc", "Ltd", "Motors", "Industries", "Records", "Airlines"],
    },
    Names {
        kind: Kind::Body,
        bare: &["NASA", "UNESCO", "Greenpeace", "Interpol", "Scotland Yard", "FIFA"],
        after_the: &[
            "United Nations", "Red Cross", "Royal Navy", "World Bank", "Supreme Court", "House of Lords",
            "Royal Society", "World Health Organization", "Salvation Army",
        ],
        heads: &[
            "Court", "Council", "Commission", "Committee", "Union", "Party", "Parliament", "Agency", "Foundation",
            "Association", "Ministry", "Department", "Government", "Society", "Army", "Navy", "Bureau", "Assembly",
            "Senate", "Congress", "Organization", "Organisation", "Service", "Authority", "League", "Club", "Museum",
            "Nations", "Confederation",
        ],
    },
    Names {
        kind: Kind::Law,
        bare: &["Magna Carta"],
        after_the: &[
            "Treaty of Versailles", "Geneva Convention", "Kyoto Protocol", "Code of Hammurabi", "Treaty of Westphalia",
            "Declaration of Independence", "Stamp Act",
        ],
        heads: &[
            "Treaty", "Treaties", "Act", "Charter", "Convention", "Constitution", "Directive", "Agreement", "Bill",
            "Declaration", "Protocol", "Accord",
        ],
    },
    Names {
        kind: Kind::Event,
        bare: &["World War I", "World War II"],
        after_the: &[
            "French Revolution", "Cold War", "Olympic Games", "Crimean War", "Great Depression", "Congress of Vienna",
        ],
        heads: &[
            "War", "Revolution", "Games", "Olympics", "Battle", "Conference", "Cup", "Festival", "Crisis", "Depression",
            "Championship",
        ],
    },
];

/// What is "... by" somebody who has a name of their own.
#[rustfmt::skip]
const BY_PERSONS: [&str; 14] = [
    "written", "invented", "discovered", "designed", "painted", "composed", "described", "directed", "proposed", "named",
    "formulated", "drawn", "sung", "led",
];
/// What is "... by" a business.
#[rustfmt::skip]
const BY_COMPANIES: [&str; 8] =
    ["owned", "operated", "manufactured", "produced", "sold", "managed", "sponsored", "run"];
/// What follows the name of a person.
#[rustfmt::skip]
const OF_PERSONS: [&str; 12] = [
    "invented", "wrote", "said", "argued", "proposed", "discovered", "painted", "composed", "married", "died", "born", "who",
];

/// What a name is a name of, between the words around it.
fn kind_of(name: &str, before: &str, after: &str) -> Option<Kind> {
    if let Some(names) =
        ALL.iter().find(|names| names.bare.contains(&name) || names.after_the.contains(&name))
    {
        return Some(names.kind);
    }
    let mut before = before.split_whitespace().rev().map(str::to_lowercase).peekable();
    let follows_the = before.next_if(|word| word == "the").is_some();
    let (last, last_but_one) = (before.next().unwrap_or_default(), before.next().unwrap_or_default());
    let next = after.split_whitespace().find(|word| word.contains(char::is_alphabetic)).unwrap_or_default();
    let is_by = |verbs: &[&str]| last == "by" && verbs.contains(&&*last_but_one);
    let words: Vec<&str> = name.split(' ').collect();
    let is_capitalised = |word: &&str| {
        word.starts_with(char::is_uppercase) && word.chars().skip(1).all(|c| c.is_lowercase() || c == '.')
    };
    let is_person = !follows_the
        && words.iter().all(is_capitalised)
        && (is_by(&BY_PERSONS) || words.len() > 1 && OF_PERSONS.contains(&next));
    if is_person {
        return Some(Kind::Person);
    }
    let head = words.iter().position(|word| matches!(*word, "of" | "on" | "for")).unwrap_or(words.len());
    let with_head = |word: &str| ALL.iter().find(|names| names.heads.contains(&word)).map(|names| names.kind);
    if let Some(kind) = head.checked_sub(1).and_then(|last| with_head(words[last])) {
        return Some(kind);
    }
    match &*last {
        _ if words[0] == "Lake" => Some(Kind::Water),
        // "English", "Latin": what is written in them is in no place.
        "in" | "near" | "across" | "throughout" | "outside" if !describes(name) && name != "Latin" => {
            Some(Kind::Place)
        }
        _ if is_by(&BY_COMPANIES) => Some(Kind::Company),
        "by" if name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase()) => Some(Kind::Body),
        _ => None,
    }
}

/// What can stand in the place of `name` in an English sentence, between `before` and `after`, and makes it false;
/// `None` where nothing would read well. `is_known` says that something is in the text itself.
pub(super) fn names_elsewhere(
    name: &str,
    before: &str,
    after: &str,
    is_known: impl Fn(&str) -> bool,
) -> Option<NamesElsewhere> {
    let is_joint = |c: char| matches!(c, '\'' | '’' | '-' | '/');
    // "Watt's", "NSF-funded", "TCP/IP": the name is part of a word that is none. "(HP)" is short for something.
    let is_part = name.contains(is_joint) || after.starts_with(is_joint) || before.ends_with(is_joint);
    if is_part || before.ends_with('(') {
        return None;
    }
    let after_the =
        before.split_whitespace().next_back().is_some_and(|word| word.eq_ignore_ascii_case("the"));
    // "Newton" and "Isaac Newton", "UN" and "United Nations" may be one.
    let may_be_it = |other: &str| {
        contains(name, other)
            || contains(other, name)
            || are_initials(name, other)
            || are_initials(other, name)
    };
    let usable = |names: &'static Names| {
        let all = if after_the { names.after_the } else { names.bare };
        all.iter().copied().filter(|other| !may_be_it(other) && !is_known(other))
    };
    let kind = kind_of(name, before, after);
    let of_kind: Vec<&str> = ALL.iter().filter(|names| Some(names.kind) == kind).flat_map(usable).collect();
    if !of_kind.is_empty() {
        return Some(NamesElsewhere { names: of_kind, are_alike: true });
    }
    // What most names are names of.
    let others = ALL
        .iter()
        .filter(|names| matches!(names.kind, Kind::Person | Kind::Place | Kind::Company | Kind::Body));
    let names: Vec<&str> = others.flat_map(usable).collect();
    (!names.is_empty()).then_some(NamesElsewhere { names, are_alike: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_the_name_or_by_what_stands_around_it() {
        let check = |name: &str, before: &str, after: &str, expected: Option<Kind>| {
            assert_eq!(kind_of(name, before, after), expected, "{before}[{name}]{after}");
        };
        check("June", "It rose in ", ".", Some(Kind::Month));
        check("European Union", "Laws of the ", " hold.", Some(Kind::Body));
        check("Treaty of Amsterdam", "The ", " holds.", Some(Kind::Law));
        check("University of Melbourne", "The ", ", founded in 1853.", Some(Kind::School));
        check("Lake Constance", "It leaves ", ".", Some(Kind::Water));
        check("Perth", "It ends in ", ".", Some(Kind::Place));
        check("Louis Pouzin", "It was designed by ", ".", Some(Kind::Person));
        check("Plato", "It was written by ", ".", Some(Kind::Person));
        check("Alonzo Church", "It was invented by ", ".", Some(Kind::Person));
        check("Louis Pouzin", "So ", ", who made it.", Some(Kind::Person));
        check("Telstra", "It is run by ", ".", Some(Kind::Company));
        check("NSF", "It was funded by ", ".", Some(Kind::Body));
        check("DNA", "Genes are made of ", ".", None);
        check("World War II", "It fell in ", ".", Some(Kind::Event));
        check("Gobi", "It lives in the ", ".", Some(Kind::Place));
        check("English", "It was written in ", ".", None);
        check("Harvard", "She studied at ", ".", None);
        check("Rankine", "The ", " cycle is used.", None);
    }

    #[test]
    fn another_of_what_stands_there() {
        let check = |name: &str, before: &str, after: &str, known: &str, expected: Option<(&str, bool)>| {
            let found = names_elsewhere(name, before, after, |other| contains(known, other));
            let Some((some, are_alike)) = expected else { return assert_eq!(found, None, "{name}") };
            let found = found.expect("there are names");
            assert!(found.are_alike == are_alike && found.names.contains(&some), "{name}: {found:?}");
            assert!(!found.names.iter().any(|name| contains(known, name)), "{name}: {found:?}");
            let is_it = |other: &&str| {
                other.contains(name)
                    || [("UN", "United Nations"), ("U.S", "United States")].contains(&(name, *other))
            };
            assert!(!found.names.iter().any(is_it), "{name}: {found:?}");
        };
        check("Telstra", "It is run by ", ".", "", Some(("Toyota", true)));
        check("European Union", "Laws of the ", " hold.", "", Some(("Red Cross", true)));
        check("June", "It rose in ", ".", "It fell in May.", Some(("July", true)));
        check("Friday", "On ", " it rose.", "", Some(("Monday", true)));
        // Not what the text speaks of itself.
        check("Paris", "He left it in ", ".", "He lived in London and Rome.", Some(("Vienna", true)));
        // Nor what may be the same.
        check("Newton", "It was discovered by ", ".", "", Some(("Marie Curie", true)));
        check("UN", "It was adopted by the ", ".", "", Some(("Red Cross", true)));
        check("U.S", "It lies in the ", ".", "", Some(("Sahara", true)));
        // Of any kind, where none can be told, or its names do not stand so.
        check("Rankine", "The ", " cycle is used.", "", Some(("Alps", false)));
        check("Isaac Newton", "It was made by the ", ", who died.", "", Some(("Alps", false)));
        check("Watt's", "It was ", " engine.", "", None);
        check("Davies", "It was ", "’ engine.", "", None);
        check("NSF-funded", "It was ", " then.", "", None);
        check("X.25", "It was joined by ", "/X.75 gateways.", "", None);
        check("HP", "It fills the first (", ") cylinder.", "", None);
    }
}
