//! What an item has to pass before it leaves: one function a check, each without state, each able to
//! say no for one reason alone.

use super::draft::Draft;
use super::flaws::Flaw;
use super::item::{Check, Evidence, QuizItem, RejectReason};
use super::language::Language;
use super::options::{clash_of_options, options_are_uniform};
use super::script::is_unspaced;
use super::source::Source;
use super::spec::ItemKind;
use super::word::is_filler;
use super::wording::{contains, fold_spaces, has_interrogative, likeness, names_stand_in, plain, words};

/// What a draft is held against.
pub(super) struct Brief<'a> {
    pub(super) kind: ItemKind,
    pub(super) language: &'a Language,
    /// What the user wrote of the subject: words of it are never taken for the prompt's.
    pub(super) subject: &'a str,
    /// With a source, where the draft's evidence is said to stand in it.
    pub(super) evidence: Option<(&'a Source, &'a Evidence)>,
}

/// Every check that needs no other item, in order of cost to the reader if it were missed.
///
/// # Errors
/// The first check's reason that failed.
pub(super) fn check_alone(draft: &Draft, brief: &Brief<'_>) -> Result<Vec<Check>, RejectReason> {
    let is_choice = brief.kind == ItemKind::MultipleChoice;
    let is_statement = brief.kind == ItemKind::TrueFalse;
    let mut passed = vec![Check::WellFormed];
    let mut check = |check: Check, ok: bool, reason: RejectReason| {
        passed.push(check);
        if ok { Ok(()) } else { Err(reason) }
    };
    if let Some((source, evidence)) = brief.evidence {
        // In German, say, a capital tells no name.
        let invents_none =
            is_statement || brief.language.code() != "en" || names_stand_in(&draft.question, brief.subject);
        let grounded = is_grounded(draft, brief.kind, source, evidence) && invents_none;
        check(Check::Grounded, grounded, RejectReason::NotGrounded)?;
    }
    let asks = is_statement || brief.language.code() != "en" || asks_in_english(&draft.question);
    // A statement reads no worse than the sentence of the source that it is.
    let reads = |text: &str| has_words(text) && !repeats_itself(text);
    let reads_so_in_source =
        brief.evidence.is_some_and(|(_, evidence)| is_statement && !reads(&evidence.text));
    let is_readable = reads(&draft.question) || reads_so_in_source && has_words(&draft.question);
    check(Check::ReadableQuestion, asks && is_readable, RejectReason::UnreadableQuestion)?;
    check(Check::Language, is_in_language(draft, brief.language), RejectReason::WrongLanguage)?;
    let options = || draft.distractors.iter().chain([&draft.answer]);
    let prompt_free = !has_prompt_text(draft, brief.subject, brief.evidence.map(|(_, evidence)| evidence))
        && (is_statement || !options().any(|option| is_placeholder(option)));
    check(Check::NoPromptText, prompt_free, RejectReason::PromptText)?;
    if is_choice {
        let clash = clash_of_options(draft);
        check(
            Check::DistinctOptions,
            clash.is_none(),
            RejectReason::Flawed(clash.unwrap_or(Flaw::DuplicateOptions)),
        )?;
        check(Check::UniformOptions, options_are_uniform(draft), RejectReason::Flawed(Flaw::UnevenOptions))?;
    }
    if !is_statement {
        check(Check::AnswerNotInQuestion, !gives_answer_away(draft), RejectReason::AnswerInQuestion)?;
        if let Some((_, evidence)) = brief.evidence {
            let copied = is_copied(&draft.question, &evidence.text);
            check(Check::NotCopied, !copied, RejectReason::Copied)?;
        }
    }
    Ok(passed)
}

/// The evidence stands in the source where it says, and what the item asserts stands in the evidence:
/// the answer, or the statement, word for word if true and changed in one place if false.
fn is_grounded(draft: &Draft, kind: ItemKind, source: &Source, evidence: &Evidence) -> bool {
    let len = evidence.end.saturating_sub(evidence.start);
    let place: String = source.text().chars().skip(evidence.start).take(len).collect();
    let in_place = len > 0 && place == evidence.text && draft.evidence.as_ref() == Some(&evidence.text);
    in_place
        && match kind {
            ItemKind::TrueFalse if draft.answer == "true" => draft.question == fold_spaces(&evidence.text),
            ItemKind::TrueFalse => changes_one_place(&fold_spaces(&evidence.text), &draft.question),
            ItemKind::MultipleChoice | ItemKind::ShortAnswer => evidence.text.contains(&draft.answer),
        }
}

/// Whether `changed` differs from `original` in one short stretch, and to a reader too.
fn changes_one_place(original: &str, changed: &str) -> bool {
    const MAX_STRETCH: usize = 60;
    let (a, b): (Vec<char>, Vec<char>) = (original.chars().collect(), changed.chars().collect());
    let before = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let after = a[before..].iter().rev().zip(b[before..].iter().rev()).take_while(|(a, b)| a == b).count();
    let stretch = |text: &[char]| text.len() - before - after;
    plain(original) != plain(changed) && stretch(&a) <= MAX_STRETCH && stretch(&b) <= MAX_STRETCH
}

/// Long enough to say something.
fn has_words(text: &str) -> bool {
    const MIN_WORDS: usize = 3;
    const MIN_UNSPACED_CHARS: usize = 5;
    if text.chars().any(is_unspaced) {
        return text.chars().filter(|c| c.is_alphanumeric()).count() >= MIN_UNSPACED_CHARS;
    }
    words(text).len() >= MIN_WORDS
}

/// The same words over and over, or noise.
fn repeats_itself(text: &str) -> bool {
    const MAX_TIMES: usize = 3;
    if text.chars().any(is_unspaced) {
        let letters: Vec<char> = text.chars().filter(|c| c.is_alphanumeric()).collect();
        let repeats = |n: usize| {
            letters.windows(n * (MAX_TIMES + 1)).any(|run| run.chunks(n).all(|unit| unit == &run[..n]))
        };
        return (1..=8).any(repeats);
    }
    let words = words(text);
    let long_words = words.iter().filter(|word| word.chars().count() > 3);
    let most_repeated = long_words.map(|word| words.iter().filter(|other| *other == word).count()).max();
    let stutters = words.windows(2).any(|pair| pair[0] == pair[1] && !pair[0].chars().all(char::is_numeric))
        || words.windows(6).any(|run| run[..3] == run[3..]);
    // A word of forty letters is noise in any language that spaces its words.
    let noise = words.iter().any(|word| word.chars().count() > 40);
    most_repeated.unwrap_or(0) > MAX_TIMES || stutters || noise
}

/// An English question has a word that asks, or begins with a verb that does: "A chess club is a club?" has none.
fn asks_in_english(question: &str) -> bool {
    #[rustfmt::skip]
    const OPENINGS: &[&str] = &[
        "is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "can", "could", "will", "would", "should",
        "may", "might", "must", "name", "give", "tell", "identify",
    ];
    let first = words(question).into_iter().next().unwrap_or_default();
    has_interrogative(question) == Some(true) || OPENINGS.contains(&first.as_str())
}

/// The question is in the script of the language, and in Japanese and Chinese so is what it is with.
fn is_in_language(draft: &Draft, language: &Language) -> bool {
    let Some(script) = language.script() else { return true };
    script.fits(&draft.question) && draft.explanation.as_deref().is_none_or(|text| script.fits(text))
}

/// Words of the instructions, of the reply's format, of templates, and fillers for what was not made.
fn has_prompt_text(draft: &Draft, subject: &str, evidence: Option<&Evidence>) -> bool {
    let known = format!("{subject} {}", evidence.map_or("", |evidence| &evidence.text)).to_lowercase();
    // Where the user speaks of passages or JSON, so may the item.
    let leaks = |text: &str, phrase: &&str| text.contains(*phrase) && !known.contains(*phrase);
    draft.texts().any(|text| {
        let text = text.to_lowercase();
        PROMPT_PHRASES.iter().any(|phrase| leaks(&text, phrase))
    })
}

#[rustfmt::skip]
const PROMPT_PHRASES: &[&str] = &[
    "the passage", "this passage", "given text", "the text", "text above", "the above", "the sentence above",
    "the given sentence", "the evidence", "distractor", "multiple-choice question", "multiple choice question",
    "true or false", "true/false", "the correct answer", "the wrong answer", "wrong answers", "the answer is",
    "quiz question", "json", "as an ai", "language model", "a short answer", "the following question",
    "following is true", "following is not true", "following statements",
    "\"question\"", "\"answer\"", "question:", "answer:", "explanation:", "<|", "|>", "[inst]", "[/inst]", "</s>", "```", "{\"", "\"}",
    "\\n", "____",
    "本文によ", "本文中", "この文章", "文章によ", "上の文", "次の文", "選択肢", "正解は", "誤答", "問題文", "回答：", "質問：", "根拠",
];

/// `A`, `B)`, `option 1`, `none of the above`: what stands where an option should.
fn is_placeholder(option: &str) -> bool {
    #[rustfmt::skip]
    const PLACEHOLDERS: &[&str] = &[
        "noneoftheabove", "alloftheabove", "bothaandb", "noneofthese", "allofthese", "noneofthem", "answer", "choice",
        "option", "wronganswer", "correctanswer", "anotheranswer", "na", "none", "null", "true", "false", "todo",
        "上記のすべて", "上記以外", "該当なし", "どれでもない", "答え",
    ];
    let plain = plain(option);
    let numbered = ["option", "choice", "answer", "distractor", "選択肢"].iter().any(|word| {
        plain
            .strip_prefix(word)
            .is_some_and(|rest| rest.chars().count() <= 1 && rest.chars().all(char::is_alphanumeric))
    });
    let mut chars = option.chars();
    let lettered = matches!(
        (chars.next(), chars.next()),
        (Some('A'..='E' | 'a'..='e' | '1'..='4'), Some(')' | '.' | ':'))
    ) && chars.next().is_some_and(char::is_whitespace);
    plain.is_empty() || numbered || lettered || PLACEHOLDERS.contains(&plain.as_str())
}

/// The answer stands in the question; a word as short as an article does not count.
fn gives_answer_away(draft: &Draft) -> bool {
    let answer = plain(&draft.answer);
    let min_chars =
        if answer.chars().any(is_unspaced) || answer.chars().all(char::is_numeric) { 2 } else { 3 };
    let stands_in_it = answer.chars().count() >= min_chars && contains(&draft.question, &draft.answer);
    stands_in_it || says_the_same_words(&draft.question, &draft.answer)
}

/// Every telling word of an answer of several is in the question, in the singular or the plural: "What was
/// the 1994 Work Council Directive?", "1994 Works Council Directive".
fn says_the_same_words(question: &str, answer: &str) -> bool {
    let stems = |text: &str| -> Vec<String> {
        let words = words(text).into_iter().filter(|word| !is_filler(word));
        words.map(|word| word.strip_suffix('s').unwrap_or(&word).to_owned()).collect()
    };
    let (asked, said) = (stems(question), stems(answer));
    said.len() > 1 && said.iter().all(|word| asked.contains(word))
}

/// The question is its evidence with a question mark.
fn is_copied(question: &str, evidence: &str) -> bool {
    const COPIED: f32 = 0.8;
    let (plain_question, plain_evidence) = (plain(question), plain(evidence));
    if plain_evidence.contains(&plain_question) {
        return true;
    }
    likeness(question, evidence) >= COPIED && has_interrogative(question) != Some(true)
}

/// What an item must not repeat.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) question: &'a str,
    pub(super) answer: &'a str,
}

/// Questions at least this alike are one question.
const SAME_QUESTION: f32 = 0.6;
/// With the same answer, less is enough.
const SAME_ANSWER_QUESTION: f32 = 0.4;

/// Whether the item asks what one before it asked.
pub(super) fn is_repeat(item: Asked<'_>, earlier: Asked<'_>) -> bool {
    let likeness = likeness(item.question, earlier.question);
    plain(item.question) == plain(earlier.question)
        || likeness >= SAME_QUESTION
        || likeness >= SAME_ANSWER_QUESTION && plain(item.answer) == plain(earlier.answer)
}

/// Whether two items that rest on the same sentence are answered by the same words of it.
pub(super) fn is_same_fact(item: &QuizItem, earlier: &QuizItem) -> bool {
    let is_statement = |item: &QuizItem| item.kind == ItemKind::TrueFalse;
    let same_evidence = item.evidence.is_some()
        && item.evidence.as_ref().map(|evidence| &evidence.text)
            == earlier.evidence.as_ref().map(|evidence| &evidence.text);
    same_evidence
        && !is_statement(item)
        && !is_statement(earlier)
        && plain(&item.answer.text) == plain(&earlier.answer.text)
}

/// Whether the item is what `entry` forbids: its question, one like it, or its answer.
pub(super) fn is_excluded(item: Asked<'_>, kind: ItemKind, entry: &str) -> bool {
    let is_answer = kind != ItemKind::TrueFalse && plain(item.answer) == plain(entry);
    is_answer || plain(item.question) == plain(entry) || likeness(item.question, entry) >= SAME_QUESTION
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "むかし。The Eiffel Tower in Paris was finished in 1889 by Gustave Eiffel.";
    const EVIDENCE: &str = "The Eiffel Tower in Paris was finished in 1889 by Gustave Eiffel.";

    fn draft(question: &str, answer: &str, distractors: &[&str]) -> Draft {
        Draft {
            evidence: Some(EVIDENCE.to_owned()),
            answer: answer.to_owned(),
            question: question.to_owned(),
            distractors: distractors.iter().map(|&text| text.to_owned()).collect(),
            explanation: None,
        }
    }

    fn check_grounded(kind: ItemKind, draft: &Draft, start: usize, expected: Option<RejectReason>) {
        let source = Source::new(SOURCE.to_owned()).unwrap();
        let end = start + EVIDENCE.chars().count();
        let evidence = Evidence { text: EVIDENCE.to_owned(), start, end };
        let language = Language::parse("en").unwrap();
        let brief =
            Brief { kind, language: &language, subject: SOURCE, evidence: Some((&source, &evidence)) };
        assert_eq!(check_alone(draft, &brief).err(), expected, "{draft:?}");
    }

    #[test]
    fn grounded_items() {
        use ItemKind::*;
        use RejectReason::*;
        let check = |kind: ItemKind, question: &str, answer: &str, expected: Option<RejectReason>| {
            let distractors: &[&str] =
                if kind == MultipleChoice { &["London", "Madrid", "Rome"] } else { &[] };
            check_grounded(kind, &draft(question, answer, distractors), 4, expected);
        };
        check(ShortAnswer, "Who finished the Eiffel Tower?", "Gustave Eiffel", None);
        check(ShortAnswer, "Where does the tower stand?", "Paris", None);
        check(ShortAnswer, "Where does the tower stand?", "Lyon", Some(NotGrounded));
        check(ShortAnswer, "Where does Gustave's tower stand?", "Paris", None);
        check(ShortAnswer, "Where does the Olympic tower stand?", "Paris", Some(NotGrounded));
        check(ShortAnswer, "Where has the tower stood since 1890?", "Paris", Some(NotGrounded));
        check(ShortAnswer, "In which city is the Paris tower?", "Paris", Some(AnswerInQuestion));
        check(ShortAnswer, "Was the Eiffel Tower in Paris finished in 1889?", "Gustave Eiffel", Some(Copied));
        check(ShortAnswer, "When was the tower by Eiffel finished?", "1889", None);
        check(
            ShortAnswer,
            "Was the Eiffel Tower in Paris finished in by Gustave Eiffel?",
            "1889",
            Some(Copied),
        );
        check(ShortAnswer, "According to the passage, where is it?", "Paris", Some(PromptText));
        check(ShortAnswer, "Where?", "Paris", Some(UnreadableQuestion));
        check(ShortAnswer, "塔はどこにありますか？", "Paris", Some(WrongLanguage));
        check(MultipleChoice, "Where does the tower stand?", "Paris", None);
        check(ShortAnswer, "The tower of Eiffel stands in a city?", "Paris", Some(UnreadableQuestion));
        check(
            ShortAnswer,
            "Was the tower the work of gustaves and eiffels?",
            "Gustave Eiffel",
            Some(AnswerInQuestion),
        );
        check(TrueFalse, EVIDENCE, "true", None);
        check(TrueFalse, EVIDENCE, "false", Some(NotGrounded));
        check(TrueFalse, &EVIDENCE.replace("1889", "1789"), "false", None);
        check(TrueFalse, &EVIDENCE.replace("1889", "1789"), "true", Some(NotGrounded));
        check(TrueFalse, "It was built on the Moon.", "false", Some(NotGrounded));
    }

    #[test]
    fn a_statement_reads_no_worse_than_its_sentence() {
        let check = |sentence: &str, statement: &str, expected: Option<RejectReason>| {
            let source = Source::new(sentence.to_owned()).unwrap();
            let evidence = Evidence { text: sentence.to_owned(), start: 0, end: sentence.chars().count() };
            let truth = (sentence == statement).to_string();
            let draft = Draft { evidence: Some(sentence.to_owned()), ..draft(statement, &truth, &[]) };
            let language = Language::parse("en").unwrap();
            let kind = ItemKind::TrueFalse;
            let evidence = Some((&source, &evidence));
            let brief = Brief { kind, language: &language, subject: sentence, evidence };
            assert_eq!(check_alone(&draft, &brief).err(), expected, "{statement}");
        };
        let long = "Union law of the Union binds the Union and those in the Union.";
        check(long, long, None);
        check(long, &long.replace("binds", "frees"), None);
        check("Notes", "Notes", Some(RejectReason::UnreadableQuestion));
        let short = "The Union binds its states.";
        check(short, &short.replace("its", "the the"), Some(RejectReason::UnreadableQuestion));
    }

    #[test]
    fn evidence_stands_at_its_place() {
        let draft = draft("Where does the tower stand?", "Paris", &[]);
        check_grounded(ItemKind::ShortAnswer, &draft, 4, None);
        check_grounded(ItemKind::ShortAnswer, &draft, 3, Some(RejectReason::NotGrounded));
        check_grounded(ItemKind::ShortAnswer, &draft, 400, Some(RejectReason::NotGrounded));
    }

    #[test]
    fn options() {
        use RejectReason::*;
        let check = |answer: &str, distractors: [&str; 3], expected: Option<RejectReason>| {
            let mut draft = draft("Which of the four is meant here?", answer, &distractors);
            draft.evidence = None;
            let language = Language::parse("en").unwrap();
            let kind = ItemKind::MultipleChoice;
            let brief = Brief { kind, language: &language, subject: "towns", evidence: None };
            assert_eq!(check_alone(&draft, &brief).err(), expected, "{answer} {distractors:?}");
        };
        check("Paris", ["London", "Madrid", "Rome"], None);
        check("Paris", ["London", "paris.", "Rome"], Some(Flawed(Flaw::DuplicateOptions)));
        check("Paris", ["London", "LONDON", "Rome"], Some(Flawed(Flaw::DuplicateOptions)));
        check("Nile", ["Amazon", "The Nile", "Danube"], Some(Flawed(Flaw::DuplicateOptions)));
        check("C", ["C++", "C#", "Cobol"], None);
        check("1889", ["1789", "1900", "1,889"], Some(Flawed(Flaw::DuplicateOptions)));
        check("1.5", ["15", "150", "1500"], None);
        check("San Jose", ["Edison", "San Jose, CA", "Paris"], Some(Flawed(Flaw::OverlappingOptions)));
        check("The South Rhine", ["Danube", "Rhine", "Elbe"], Some(Flawed(Flaw::OverlappingOptions)));
        check("Rhine", ["North Elbe", "South Elbe", "Elbe"], None);
        check("Paris", ["London", "Madrid", "1889"], Some(Flawed(Flaw::UnevenOptions)));
        check("Paris", ["London", "a small town", "Rome"], Some(Flawed(Flaw::UnevenOptions)));
        check("1889", ["1789", "1900 or so", "1901"], Some(Flawed(Flaw::UnevenOptions)));
        check("60%", ["50%", "40%", "7,000"], None);
        check(
            "Paris",
            ["London", "The old town by the great river of the north", "Rome"],
            Some(Flawed(Flaw::UnevenOptions)),
        );
        check("Paris", ["London", "None of the above", "Rome"], Some(PromptText));
        check("Paris", ["B) London", "Madrid", "Rome"], Some(PromptText));
        check("Paris", ["Option A", "Madrid", "Rome"], Some(PromptText));
    }

    #[test]
    fn prompt_text() {
        let check = |question: &str, subject: &str, expected: bool| {
            assert_eq!(
                has_prompt_text(&draft(question, "Paris", &[]), subject, None),
                expected,
                "{question}"
            );
        };
        check("According to the passage, where is it?", "towers", true);
        check("Who wrote the passage of arms?", "the passage of arms", false);
        check("Which statement of the following is true?", "towers", true);
        check("What does JSON stand for?", "towers", true);
        check("What does JSON stand for?", "JSON and its uses", false);
        check("Where is <|im_end|> it?", "towers", true);
        check("本文によると、塔はどこにありますか？", "塔", true);
        check("塔はどこにありますか？", "塔", false);
        check("Where is the tower?", "towers", false);
    }

    #[test]
    fn readable_questions() {
        let check = |question: &str, expected: bool| {
            assert_eq!(has_words(question) && !repeats_itself(question), expected, "{question}")
        };
        check("Where is it?", true);
        check("What?", false);
        check("??? !!!", false);
        check("What is the the name of it?", false);
        check("What is the name of the name of the name of the name of it?", false);
        check("Which year did the war that ended the war begin?", true);
        check("首都はどこ？", true);
        check("何？", false);
        check("のののののののは何ですか？", false);
        check("東京東京東京東京はどこ？", false);
        check(&format!("What is {}?", "x".repeat(60)), false);
    }

    #[test]
    fn repeats() {
        let check = |question: &str, answer: &str, expected: bool| {
            let earlier = Asked { question: "What is the capital of France?", answer: "Paris" };
            assert_eq!(is_repeat(Asked { question, answer }, earlier), expected, "{question}");
        };
        check("What is the capital of France?", "Lyon", true);
        check("what is the capital of france", "Paris", true);
        check("What is the capital city of France?", "Paris", true);
        check("Which city is the capital of France?", "Paris", true);
        check("What is the capital of Spain?", "Madrid", false);
        check("Where does the Seine meet the Marne?", "Paris", false);
        check("Who painted the ceiling of the chapel?", "Michelangelo", false);
    }

    #[test]
    fn excluded() {
        let item = Asked { question: "What is the capital of France?", answer: "Paris" };
        let check = |kind: ItemKind, entry: &str, expected: bool| {
            assert_eq!(is_excluded(item, kind, entry), expected, "{entry}");
        };
        check(ItemKind::ShortAnswer, "paris", true);
        check(ItemKind::ShortAnswer, "What's the capital of France?", true);
        check(ItemKind::ShortAnswer, "London", false);
        check(ItemKind::TrueFalse, "Paris", false);
    }
}
