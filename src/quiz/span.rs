//! The words of a sentence that can be the answer to a question about it.

use super::form::Form;
use super::number::PARTS_OF_TIMES;
use super::script::{Script, is_unspaced};
use super::word::{
    Word, continues, describes, is_adjective, is_adverb, is_filler, is_ordinal, is_past, is_plural, words,
};
use std::collections::HashSet;
use std::ops::Range;
use unicode_normalization::char::is_combining_mark;

/// Part of a sentence: whole words, nothing loose at the ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// In the sentence.
    pub(super) bytes: Range<usize>,
    pub(super) form: Form,
}

/// An answer is read at a glance.
const MAX_SPAN_CHARS: usize = 48;
const MAX_SPAN_WORDS: usize = 5;
/// More small words than this are a clause rather than a name for something.
const MAX_PHRASE_WORDS: usize = 3;
/// A run of an unspaced script longer than this is several words, and we cannot tell which.
const MAX_UNSPACED_WORD: usize = 8;
/// A number goes on with these.
const SCALES: [&str; 5] = ["thousand", "million", "billion", "trillion", "percent"];
/// Before "of" they say how much of what follows is meant, or in what form, and nothing else.
#[rustfmt::skip]
const HEADS_OF_OTHERS: [&str; 24] = [
    "series", "number", "numbers", "variety", "range", "kind", "kinds", "type", "types", "sort", "sorts", "form", "forms",
    "part", "parts", "set", "group", "groups", "amount", "amounts", "pair", "lot", "means", "rest",
];
/// Keeps the grammar of one sentence small.
const MAX_SPANS: usize = 160;

/// Everything in the sentence that can be an answer; at least one span for any sentence with a letter
/// or digit, in order of place.
pub(super) fn answer_spans(sentence: &str) -> Vec<Span> {
    let words = words(sentence);
    let (mut spans, mut cut_short) = (Vec::new(), Vec::new());
    for first in 0..words.len() {
        spans.extend(windows(sentence, &words[first]));
        let mut last = first;
        loop {
            if is_answer(sentence, &words, first..last + 1) {
                let whole = !is_cut_short(sentence, &words, first..last + 1);
                let spans = if whole { &mut spans } else { &mut cut_short };
                spans.push(words[first].bytes.start..words[last].bytes.end);
            }
            if words[last].is_clausal || !words[last].joins_next || last + 1 - first >= MAX_SPAN_WORDS {
                break;
            }
            last += 1;
        }
    }
    if spans.is_empty() {
        spans = cut_short;
    }
    if spans.is_empty() {
        spans.extend(words.iter().map(|word| word.bytes.clone()));
    }
    let mut spans = distinct(sentence, spans);
    if spans.is_empty() {
        let is_word = |c: char| c.is_alphanumeric();
        let start = sentence.find(is_word).unwrap_or(0);
        let end = sentence.rfind(is_word).map_or(sentence.len(), |at| ceil_char(sentence, at + 1));
        spans.push(Span { bytes: start..end, form: Form::of(&sentence[start..end]) });
    }
    if spans.len() > MAX_SPANS {
        spans.sort_by_key(|span| !span.form.is_strong());
        spans.truncate(MAX_SPANS);
        spans.sort_by_key(|span| (span.bytes.start, span.bytes.end));
    }
    spans
}

/// Words that make the sentence false when something else of their form stands in their place: its
/// names and numbers, or else its longer words. May be empty.
pub(super) fn replaceable_spans(sentence: &str) -> Vec<Span> {
    const MAX_REPLACEABLE: usize = 12;
    const MIN_LETTERS: usize = 5;
    let mut spans = answer_spans(sentence);
    // "20th" is no answer without what it counts, nor "1980s" without "early" before it, and easily another.
    let is_number = |word: &Word| matches!(word.form, Form::Number | Form::Quantity);
    for Word { bytes, form, .. } in words(sentence).into_iter().filter(is_number) {
        let is_part =
            PARTS_OF_TIMES.iter().any(|part| sentence[..bytes.start].ends_with(&format!(" {part} ")));
        if !is_part && !is_ordinal(&sentence[bytes.clone()]) {
            continue;
        }
        if !spans.iter().any(|span| span.bytes == bytes) {
            spans.push(Span { bytes, form });
        }
    }
    spans.sort_by_key(|span| (span.bytes.start, span.bytes.end));
    let words_of = |span: &Span| sentence[span.bytes.clone()].split(' ').map(Form::of).collect::<Vec<_>>();
    let is_name = |span: &&Span| words_of(span).into_iter().all(Form::is_strong);
    let is_plain = |span: &&Span| span.form == Form::Plain;
    let is_long_word = |span: &&Span| {
        words_of(span).len() == 1 && sentence[span.bytes.clone()].chars().count() >= MIN_LETTERS
    };
    let mut chosen: Vec<Span> = spans.iter().filter(is_name).cloned().collect();
    if chosen.is_empty() {
        chosen = spans.iter().filter(is_plain).cloned().collect();
    }
    if chosen.is_empty() {
        chosen = spans.iter().filter(is_long_word).cloned().collect();
    }
    chosen.truncate(MAX_REPLACEABLE);
    chosen
}

fn is_answer(sentence: &str, words: &[Word], range: Range<usize>) -> bool {
    let (first, last) = (&words[range.start], &words[range.end - 1]);
    let before = range.start.checked_sub(1).map(|idx| &words[idx]).filter(|word| word.joins_next);
    let after = words.get(range.end).filter(|_| last.joins_next);
    let part_of_name = |left: &Word, right: &Word| {
        left.form == Form::Name && !left.is_filler && matches!(right.form, Form::Name | Form::Number)
            || left.form == Form::Number && right.form == Form::Number
    };
    let splits_name = before.is_some_and(|before| part_of_name(before, first))
        || after.is_some_and(|after| part_of_name(last, after));
    let splits_time = before.is_some_and(|before| {
        PARTS_OF_TIMES.contains(&&sentence[before.bytes.clone()])
            && matches!(first.form, Form::Number | Form::Quantity)
    });
    let is_phrase = words[range.clone()].iter().all(|word| word.form == Form::Phrase);
    let is_most_of_it = range.len() > 1 && range.len() * 2 > words.len();
    let is_several_words = first.form == Form::Plain && first.chars > MAX_UNSPACED_WORD;
    let is_clause = is_phrase && range.len() > MAX_PHRASE_WORDS;
    let is_loose = first.is_filler || last.is_filler;
    !(is_loose || splits_name || splits_time || is_most_of_it || is_several_words || is_clause)
}

/// Whether the words go with the one after them, and say little without it: "variable" of "variable cutoff",
/// "South American" of "South American continent", "series" of "series of dams"; or end with an adverb; or are an
/// adjective or what looks like a verb in the past, or letters that stand for the words before them. Told by English endings, so that it errs now and
/// then: what is left out is only one answer the less.
fn is_cut_short(sentence: &str, words: &[Word], range: Range<usize>) -> bool {
    let last = &words[range.end - 1];
    let text = |word: &Word| &sentence[word.bytes.clone()];
    let ends_loosely =
        last.form == Form::Phrase && (range.len() > 1 && is_past(text(last)) || is_adverb(text(last)));
    let is_adjective = last.form == Form::Phrase && range.len() == 1 && is_adjective(text(last));
    let (start, end) = (words[range.start].bytes.start, last.bytes.end);
    let is_abbreviation = sentence[..start].ends_with('(')
        && sentence[end..].starts_with(')')
        && sentence[start..end].chars().all(|c| c.is_ascii_uppercase());
    if is_adjective || is_abbreviation || ends_loosely {
        return true;
    }
    let next = words.get(range.end).filter(|_| last.joins_next);
    if next.is_some_and(|next| text(next) == "of" && HEADS_OF_OTHERS.contains(&text(last))) {
        return true;
    }
    let Some(next) = next.filter(|next| !next.is_filler) else { return false };
    let next_is_noun = match last.form {
        Form::Phrase if SCALES.contains(&text(last)) => false,
        Form::Phrase => matches!(next.form, Form::Phrase | Form::Name) && !is_plural(text(last)),
        Form::Name => next.form == Form::Phrase && describes(text(last)),
        // "500" of "500 million people".
        Form::Number => SCALES.contains(&text(next)),
        // "19th" of "19th century".
        Form::Quantity if is_ordinal(text(last)) => matches!(next.form, Form::Phrase | Form::Name),
        Form::Quantity | Form::Plain => false,
    };
    next_is_noun && !continues(text(next))
}

/// Whether a name in a sentence can be taken out of it as it is: not the head of a longer one ("Treaty" of
/// "Treaty on the Functioning of ..."), and not what describes the word after it ("ARPANET architecture").
pub(super) fn stands_alone(sentence: &str, bytes: &Range<usize>) -> bool {
    let mut after = sentence[bytes.end..].split(' ');
    // What follows the name without a space between is punctuation.
    if after.next() != Some("") {
        return true;
    }
    let Some(next) = after.next() else { return true };
    let bare = next.trim_end_matches(|c: char| !c.is_alphanumeric());
    let starts_name = |word: Option<&str>| word.is_some_and(|word| word.starts_with(char::is_uppercase));
    match next {
        "of" | "on" | "for" => match after.next() {
            Some("the") => !starts_name(after.next()),
            word => !starts_name(word),
        },
        _ => {
            let is_small = bare.starts_with(char::is_lowercase);
            // "Paris lies" ends the name, "American states" does not.
            let is_verb = bare.ends_with('s') && !describes(&sentence[bytes.clone()]);
            !is_small || is_filler(bare) || continues(bare) || is_verb
        }
    }
}

/// Parts of a run of an unspaced script that is too long to be one word.
fn windows(sentence: &str, word: &Word) -> Vec<Range<usize>> {
    let text = &sentence[word.bytes.clone()];
    if word.chars <= MAX_UNSPACED_WORD || !text.chars().all(|c| is_unspaced(c) || is_combining_mark(c)) {
        return Vec::new();
    }
    if text.chars().any(|c| Script::of(c) == Some(Script::Japanese)) {
        return vec![word.bytes.clone()]; // A long word in katakana is one word.
    }
    let mut bounds: Vec<usize> = text
        .char_indices()
        .filter(|(_, c)| !is_combining_mark(*c))
        .map(|(at, _)| word.bytes.start + at)
        .collect();
    bounds.push(word.bytes.end);
    let starts = 0..bounds.len();
    starts
        .flat_map(|start| {
            let ends = start + 2..=start + MAX_UNSPACED_WORD;
            ends.filter_map(|end| bounds.get(end)).map(|end| bounds[start]..*end).collect::<Vec<_>>()
        })
        .collect()
}

fn distinct(sentence: &str, ranges: Vec<Range<usize>>) -> Vec<Span> {
    let mut seen = HashSet::new();
    ranges
        .into_iter()
        .filter(|bytes| sentence[bytes.clone()].chars().count() <= MAX_SPAN_CHARS)
        .filter(|bytes| seen.insert(&sentence[bytes.clone()]))
        .map(|bytes| Span { form: Form::of(&sentence[bytes.clone()]), bytes })
        .collect()
}

fn ceil_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(sentence: &str, spans: Vec<Span>) -> Vec<&str> {
        spans.into_iter().map(|span| &sentence[span.bytes]).collect()
    }

    fn check(sentence: &str, expected: &[&str]) {
        assert_eq!(texts(sentence, answer_spans(sentence)), expected, "{sentence}");
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let check = |sentence: &str, has: &[&str], lacks: &[&str]| {
            let found = texts(sentence, answer_spans(sentence));
            assert!(has.iter().all(|text| found.contains(text)), "{sentence}: {found:?}");
            assert!(!lacks.iter().any(|text| found.contains(text)), "{sentence}: {found:?}");
        };
        check("He crossed the South American continent.", &["South American continent"], &["South American"]);
        check("There is a separate, variable cutoff of steam.", &["variable cutoff", "steam"], &["variable"]);
        check("It made use of the simpler Stephenson motions.", &[], &["simpler"]);
        check("In 1889 the tower opened.", &["1889", "tower"], &["tower opened"]);
        check("Each town elects one member.", &["member"], &[]);
        check("It cost seven hundred.", &["seven hundred"], &[]);
        check("Some 500 million people live there.", &["500 million"], &["500"]);
        check("It rose in the 19th century.", &["19th century"], &["19th"]);
        check("It rose on July 4th.", &["July 4th"], &[]);
        check("It rose in the early 1980s.", &["early 1980s"], &["1980s", "early"]);
        check(
            "Water is complicated and dangerous for the engine.",
            &["Water", "engine"],
            &["complicated", "dangerous"],
        );
        check("Steam first fills the high-pressure (HP) cylinder.", &["Steam"], &["HP"]);
        check("A series of dams holds water.", &["dams", "water"], &["series"]);
        check("All schools were privately run then.", &["schools"], &["privately"]);
        check("The assembly is elected by one family.", &["assembly", "family"], &[]);
    }

    #[test]
    fn verbs_are_no_answers() {
        check("Its gravity causes the tides of the sea.", &["gravity", "tides", "sea"]);
        check("In these cases the court has power.", &["cases", "cases the court", "court", "power"]);
        check(
            "The moon orbits the Earth at high speed.",
            &["moon", "Earth", "Earth at high speed", "high speed", "speed"],
        );
        check("They sow planted seeds.", &["sow", "planted seeds", "seeds"]);
        check("Michelangelo painted its ceiling.", &["Michelangelo", "ceiling"]);
    }

    #[test]
    fn what_stands_alone() {
        let check = |sentence: &str, name: &str, expected: bool| {
            let start = sentence.find(name).unwrap();
            assert_eq!(stands_alone(sentence, &(start..start + name.len())), expected, "{sentence}: {name}");
        };
        check("It rests on the Treaty on the Functioning of the Union.", "Treaty", false);
        check("It rests on the Treaty on the Functioning of the Union.", "Union", true);
        check("He led later ARPANET architecture.", "ARPANET", false);
        check("In Paris he met Hugo, a writer.", "Paris", true);
        check("In Paris he met Hugo, a writer.", "Hugo", true);
        check("So Hugo visited it.", "Hugo", true);
        check("So Hugo is here", "Hugo", true);
        check("That was Hugo", "Hugo", true);
    }

    #[test]
    fn names_and_numbers_stay_whole() {
        check("Gustave Eiffel built it in March 1889.", &["Gustave Eiffel", "March 1889"]);
        check("On July 4, 1776 the (large) war ended.", &["July 4, 1776", "large", "war"]);
        check("About 60% of it lies in Brazil.", &["60%", "Brazil"]);
    }

    #[test]
    fn japanese_runs() {
        check(
            "梅雨は、5月から7月にかけて東アジアでみられる気象現象の一種。",
            &["梅雨", "5月", "7月", "東アジア", "気象現象", "気象現象の一種", "一種"],
        );
        check("ジョン・スミスは来る。", &["ジョン・スミス"]);
    }

    #[test]
    fn unspaced_runs_are_cut() {
        let spans = answer_spans("埃菲尔铁塔位于法国首都巴黎。");
        assert!(texts("埃菲尔铁塔位于法国首都巴黎。", spans).contains(&"法国首都巴黎"));
        let thai = "กรุงเทพมหานครเป็นเมืองหลวง";
        for text in texts(thai, answer_spans(thai)) {
            assert!(!is_combining_mark(text.chars().next().unwrap()), "{text}");
        }
    }

    #[test]
    fn any_sentence_has_an_answer() {
        check("it is so.", &["it", "is", "so"]);
        check("---a", &["a"]);
    }

    #[test]
    fn what_makes_a_sentence_false() {
        let check = |sentence: &str, expected: &[&str]| {
            assert_eq!(texts(sentence, replaceable_spans(sentence)), expected, "{sentence}");
        };
        check("the tower of Paris is 330 metres tall", &["Paris", "330"]);
        check("plants need water", &["plants", "water"]);
        check("it is so", &[]);
    }

    proptest! {
        #[test]
        fn spans_are_in_the_sentence(sentence in "[a-zA-Z0-9 .,'()ぁ-んァ-ン一-龠ก-๛\u{301}%・-]{0,200}|.{0,80}") {
            prop_assume!(sentence.contains(char::is_alphanumeric));
            prop_assert!(!answer_spans(&sentence).is_empty());
            for span in answer_spans(&sentence) {
                let text = sentence.get(span.bytes.clone());
                prop_assert!(text.is_some());
                prop_assert!(span.form == Form::of(text.unwrap_or_default()));
                prop_assert!(text.is_some_and(|text| text.trim() == text));
            }
        }
    }
}
