//! Names that everybody knows and hardly any sentence is about: what stands in a name's place in a statement that is to
//! be false. Another name of the same text might be right as well, and one that a small model makes up is no name.
//! A treaty's place is taken by a treaty, as far as a name or the words around it say what it is a name of.

use super::number::MONTHS;
use super::wording::contains;

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

/// Names that may stand in another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamesElsewhere {
    pub(super) names: Vec<&'static str>,
    /// They are names of the same kind of thing, as far as can be told.
    pub(super) are_alike: bool,
}

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Kind {
    const ALL: [Self; 10] = [
        Self::Month,
        Self::Weekday,
        Self::Person,
        Self::Place,
        Self::Water,
        Self::School,
        Self::Company,
        Self::Body,
        Self::Law,
        Self::Event,
    ];

    /// As they stand in a sentence without an article.
    #[rustfmt::skip]
    fn bare(self) -> &'static [&'static str] {
        match self {
            Self::Month => &MONTHS,
            Self::Weekday => &WEEKDAYS,
            Self::Person => &[
                "Isaac Newton", "Marie Curie", "Charles Darwin", "Leonardo da Vinci", "Albert Einstein", "Julius Caesar",
                "William Shakespeare", "Thomas Edison", "Abraham Lincoln", "Florence Nightingale",
            ],
            Self::Place => &[
                "Canada", "Japan", "Brazil", "Egypt", "Sweden", "India", "California", "Siberia", "London", "Chicago",
                "Rome", "Vienna", "Mexico", "Norway", "Berlin", "Shanghai",
            ],
            Self::Water => &["Lake Superior", "Lake Geneva", "Loch Ness", "Hudson Bay"],
            Self::School => &["Oxford University", "Harvard University", "Stanford University", "Eton College"],
            Self::Company => &["Microsoft", "Toyota", "Siemens", "General Electric", "Boeing", "Nokia"],
            Self::Body => &["NASA", "UNESCO", "Greenpeace", "Interpol", "Scotland Yard", "FIFA"],
            Self::Law => &["Magna Carta"],
            Self::Event => &["World War I", "World War II"],
        }
    }

    /// As they follow "the".
    #[rustfmt::skip]
    fn after_the(self) -> &'static [&'static str] {
        match self {
            Self::Month | Self::Weekday | Self::Person => &[],
            Self::Place => &[
                "Netherlands", "Soviet Union", "Roman Empire", "Ottoman Empire", "Alps", "Sahara", "Philippines",
                "Arctic", "Moon", "United States",
            ],
            Self::Water => &["Pacific Ocean", "Amazon", "Nile", "Danube", "Black Sea", "Panama Canal"],
            Self::School => &["University of Oxford", "University of Tokyo", "Sorbonne", "London School of Economics"],
            Self::Company => &["Ford Motor Company", "East India Company", "Coca-Cola Company"],
            Self::Body => &[
                "United Nations", "Red Cross", "Royal Navy", "World Bank", "Supreme Court", "House of Lords",
                "Royal Society", "World Health Organization", "Salvation Army",
            ],
            Self::Law => &[
                "Treaty of Versailles", "Geneva Convention", "Kyoto Protocol", "Bill of Rights", "Treaty of Westphalia",
                "Declaration of Independence", "Stamp Act",
            ],
            Self::Event => &[
                "French Revolution", "Cold War", "Olympic Games", "Crimean War", "Great Depression", "Congress of Vienna",
            ],
        }
    }

    /// A name that is about something of this kind ends so, or has this before "of".
    #[rustfmt::skip]
    fn heads(self) -> &'static [&'static str] {
        match self {
            Self::Month | Self::Weekday | Self::Person => &[],
            Self::Place => &[
                "City", "County", "Country", "State", "States", "Republic", "Kingdom", "Empire", "Province", "Island",
                "Islands", "Peninsula", "Coast", "Valley", "Desert", "Mountain", "Mountains", "Park", "Street", "Territory",
                "Region", "District",
            ],
            Self::Water => &["River", "Ocean", "Sea", "Lake", "Canal", "Bay", "Strait", "Gulf", "Channel"],
            Self::School => &["University", "College", "School", "Institute", "Academy", "Laboratory"],
            Self::Company => &["Company", "Corporation", "Inc", "Ltd", "Motors", "Industries", "Records", "Airlines"],
            Self::Body => &[
                "Court", "Council", "Commission", "Committee", "Union", "Party", "Parliament", "Church", "Agency",
                "Foundation", "Association", "Bank", "Ministry", "Department", "Government", "Society", "Army", "Navy",
                "Bureau", "Assembly", "Senate", "Congress", "Organization", "Organisation", "Service", "Authority",
                "League", "Club", "Museum", "Nations", "Confederation",
            ],
            Self::Law => &[
                "Treaty", "Treaties", "Act", "Charter", "Convention", "Constitution", "Directive", "Agreement", "Law",
                "Bill", "Declaration", "Protocol", "Code", "Accord",
            ],
            Self::Event => &[
                "War", "Wars", "Revolution", "Games", "Olympics", "Battle", "Conference", "Cup", "Festival", "Crisis",
                "Depression", "Championship",
            ],
        }
    }

    /// Of a name between the words around it.
    fn of(name: &str, before: &str, after: &str) -> Option<Self> {
        const OF_PERSONS: [&str; 12] = [
            "invented",
            "wrote",
            "said",
            "argued",
            "proposed",
            "discovered",
            "painted",
            "composed",
            "married",
            "died",
            "born",
            "who",
        ];
        if MONTHS.contains(&name) {
            return Some(Self::Month);
        }
        if WEEKDAYS.contains(&name) {
            return Some(Self::Weekday);
        }
        let words: Vec<&str> = name.split(' ').collect();
        let head_of = |word: &str| Self::ALL.into_iter().find(|kind| kind.heads().contains(&word));
        let head = words.iter().position(|word| matches!(*word, "of" | "on" | "for")).unwrap_or(words.len());
        let by_head = head.checked_sub(1).and_then(|last| head_of(words[last]));
        // "Lake Constance", "River Thames"
        let by_head = by_head.or_else(|| head_of(words[0]).filter(|kind| *kind == Self::Water));
        if by_head.is_some() {
            return by_head;
        }
        let last_before = before.split_whitespace().next_back().unwrap_or_default().to_lowercase();
        let next =
            after.split_whitespace().find(|word| word.contains(char::is_alphabetic)).unwrap_or_default();
        let is_full_name = (2..=3).contains(&words.len())
            && words.iter().all(|word| {
                word.starts_with(char::is_uppercase)
                    && word.chars().skip(1).all(|c| c.is_lowercase() || c == '.')
            });
        match &*last_before {
            "in" | "at" | "near" | "across" | "throughout" | "into" | "outside" => Some(Self::Place),
            _ if is_full_name && (last_before == "by" || OF_PERSONS.contains(&next)) => Some(Self::Person),
            _ if name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase()) => Some(Self::Body),
            "by" => Some(Self::Company),
            _ => None,
        }
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
    let usable = |kind: Kind| {
        let all = if after_the { kind.after_the() } else { kind.bare() };
        all.iter().copied().filter(|other| !contains(name, other) && !is_known(other))
    };
    let of_kind: Vec<&str> = Kind::of(name, before, after).into_iter().flat_map(usable).collect();
    if !of_kind.is_empty() {
        return Some(NamesElsewhere { names: of_kind, are_alike: true });
    }
    let kinds = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Month | Kind::Weekday));
    let names: Vec<&str> = kinds.flat_map(usable).collect();
    (!names.is_empty()).then_some(NamesElsewhere { names, are_alike: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_the_name_or_by_what_stands_around_it() {
        let check = |name: &str, before: &str, after: &str, expected: Option<Kind>| {
            assert_eq!(Kind::of(name, before, after), expected, "{before}[{name}]{after}");
        };
        check("June", "It rose in ", ".", Some(Kind::Month));
        check("European Union", "Laws of the ", " hold.", Some(Kind::Body));
        check("Treaty of Amsterdam", "The ", " holds.", Some(Kind::Law));
        check("University of Melbourne", "The ", ", founded in 1853.", Some(Kind::School));
        check("Lake Constance", "It leaves ", ".", Some(Kind::Water));
        check("Perth", "It ends in ", ".", Some(Kind::Place));
        check("Louis Pouzin", "It was made by ", ".", Some(Kind::Person));
        check("Louis Pouzin", "So ", ", who made it.", Some(Kind::Person));
        check("Telstra", "It is run by ", ".", Some(Kind::Company));
        check("NSF", "It asked ", " for money.", Some(Kind::Body));
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
        };
        check("Telstra", "It is run by ", ".", "", Some(("Toyota", true)));
        check("European Union", "Laws of the ", " hold.", "", Some(("Red Cross", true)));
        check("June", "It rose in ", ".", "It fell in May.", Some(("July", true)));
        check("Friday", "On ", " it rose.", "", Some(("Monday", true)));
        // Not what the text speaks of itself.
        check("Paris", "He left it in ", ".", "He lived in London and Rome.", Some(("Vienna", true)));
        // Of any kind, where none can be told, or its names do not stand so.
        check("Rankine", "The ", " cycle is used.", "", Some(("Nile", false)));
        check("Isaac Newton", "It was made by the ", ", who died.", "", Some(("Nile", false)));
        check("Watt's", "It was ", " engine.", "", None);
        check("Davies", "It was ", "’ engine.", "", None);
        check("NSF-funded", "It was ", " then.", "", None);
        check("X.25", "It was joined by ", "/X.75 gateways.", "", None);
        check("HP", "It fills the first (", ") cylinder.", "", None);
    }
}
