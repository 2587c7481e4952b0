//! The grammar of one item: compact JSON whose fields come in the order that helps a model most,
//! evidence, answer, question, then the rest.
//!
//! With a source nothing in it can be invented: the evidence is a sentence of the source, the answer
//! are words of that sentence. A true statement is the sentence itself, a false one the sentence with
//! one name, number or word replaced, so that the key is right whatever the model writes.

use super::language::Language;
use super::span::{Form, answer_spans, replaceable_spans};
use super::spec::ItemKind;
use super::wording::fold_spaces;
use crate::sampling::GrammarSpec;
use std::fmt::Write;

/// What an item must look like.
pub(super) struct ItemGrammar<'a> {
    pub(super) kind: ItemKind,
    pub(super) language: &'a Language,
    /// Of a true/false item: which of the two is asked for.
    pub(super) truth: bool,
    /// Sentences of the source to rest on, one of which the model chooses; empty without a source.
    pub(super) candidates: &'a [&'a str],
}

impl ItemGrammar<'_> {
    pub(super) fn spec(&self) -> GrammarSpec {
        GrammarSpec::Lark(self.lark())
    }

    /// Terminals are in capitals and are regular, so that within one no boundary is guessed greedily.
    fn lark(&self) -> String {
        let mut rules = Rules::default();
        let starts: Vec<String> = if self.candidates.is_empty() {
            vec![self.item_from_memory(&mut rules)]
        } else {
            let grounded = |(idx, sentence): (usize, &&str)| match self.kind {
                ItemKind::TrueFalse => self.statement_about(sentence, idx, &mut rules),
                _ => self.question_about(sentence, idx, &mut rules),
            };
            self.candidates.iter().enumerate().map(grounded).collect()
        };
        rules.define("QUESTION", &question(self.language));
        rules.define("STATEMENT", &statement(self.language));
        rules.define("SENTENCE", &format!("/{NOT_SPACE}( ?{NOT_SPACE}){{5,140}}/"));
        for form in Form::ALL {
            rules.define(terminal(form), &format!("/{}/", form_regex(form)));
        }
        format!("start: {}\n{}", starts.join(" | "), rules.text)
    }

    fn item_from_memory(&self, rules: &mut Rules) -> String {
        let explanation = format!("{} SENTENCE {}", literal(",\"explanation\":\""), literal("\"}"));
        match self.kind {
            ItemKind::TrueFalse => {
                let head = literal(&format!("{{\"answer\":{},\"question\":\"", self.truth));
                format!("{head} STATEMENT {} {explanation}", literal("\""))
            }
            kind => {
                for form in Form::ALL {
                    let rest = self.rest(kind, form);
                    rules.define(&rule("item", 0, form), &format!("{} {rest} {explanation}", terminal(form)));
                }
                let items = Form::ALL.map(|form| rule("item", 0, form)).join(" | ");
                format!("{} ({items})", literal("{\"answer\":\""))
            }
        }
    }

    fn question_about(&self, sentence: &str, idx: usize, rules: &mut Rules) -> String {
        let spans = answer_spans(sentence);
        let mut items = Vec::new();
        for form in Form::ALL {
            let answers: Vec<String> = spans
                .iter()
                .filter(|span| span.form == form)
                .map(|span| literal(&json_inner(&sentence[span.bytes.clone()])))
                .collect();
            if answers.is_empty() {
                continue;
            }
            let answer = format!("ANSWER_{idx}_{}", terminal(form));
            rules.define(&answer, &answers.join(" | "));
            items.push(rule("item", idx, form));
            rules.define(
                &rule("item", idx, form),
                &format!("{answer} {} {}", self.rest(self.kind, form), literal("}")),
            );
        }
        let evidence = literal(&format!("{{\"evidence\":\"{}\",\"answer\":\"", json_inner(sentence)));
        format!("{evidence} ({})", items.join(" | "))
    }

    /// From the end of the answer to the end of the last field.
    fn rest(&self, kind: ItemKind, form: Form) -> String {
        let question = format!("{} QUESTION {}", literal("\",\"question\":\""), literal("\""));
        if kind == ItemKind::ShortAnswer {
            return question;
        }
        let (first, next, last) = (literal(",\"distractors\":[\""), literal("\",\""), literal("\"]"));
        let form = terminal(form);
        format!("{question} {first} {form} {next} {form} {next} {form} {last}")
    }

    fn statement_about(&self, evidence: &str, idx: usize, rules: &mut Rules) -> String {
        let sentence = fold_spaces(evidence);
        let spans = if self.truth { Vec::new() } else { replaceable_spans(&sentence) };
        // Without a word to replace, the sentence can only be said as it is.
        let truth = spans.is_empty();
        let head = format!("{{\"evidence\":\"{}\",\"answer\":{truth},\"question\":\"", json_inner(evidence));
        if truth {
            return literal(&format!("{head}{}\"}}", json_inner(&sentence)));
        }
        let falsified: Vec<String> = spans
            .iter()
            .map(|span| {
                let (start, end) = (span.bytes.start, span.bytes.end);
                let (before, after) = (json_inner(&sentence[..start]), json_inner(&sentence[end..]));
                let original = literal(&json_inner(&sentence[start..end]));
                let replacement = format!("(REPLACEMENT_{} & ~{original})", terminal(span.form));
                [non_empty_literal(&before), replacement, non_empty_literal(&after)].join(" ")
            })
            .collect();
        for form in Form::ALL {
            let replacement = format!("REPLACEMENT_{}", terminal(form));
            rules.define(&replacement, &format!("/{}/", replacement_regex(form)));
        }
        let name = format!("FALSE_{idx}");
        rules.define(&name, &falsified.join(" | "));
        format!("{} {name} {}", literal(&head), literal("\"}"))
    }
}

#[derive(Default)]
struct Rules {
    text: String,
    defined: std::collections::HashSet<String>,
}

impl Rules {
    /// Adds a rule, or nothing if there is one of this name.
    fn define(&mut self, name: &str, body: &str) {
        if self.defined.insert(name.to_owned()) {
            writeln!(self.text, "{name}: {body}").expect("a string takes any text");
        }
    }
}

/// A character of a JSON string that needs no escape and is not white space, nor one of the invisible
/// ones that turn text around or stand for nothing.
const PLAIN: &str = r#"\s"\\\p{Cc}\u202a-\u202e\u2066-\u2069\ufeff\ufffd"#;
const NOT_SPACE: &str = r#"(?:[^\s"\\\p{Cc}\u202a-\u202e\u2066-\u2069\ufeff\ufffd]|\\")"#;

fn terminal(form: Form) -> &'static str {
    match form {
        Form::Number => "NUMBER",
        Form::Quantity => "QUANTITY",
        Form::Name => "NAME",
        Form::Phrase => "PHRASE",
        Form::Plain => "PLAIN",
    }
}

fn rule(name: &str, idx: usize, form: Form) -> String {
    format!("{name}_{idx}_{}", terminal(form).to_lowercase())
}

/// Texts of one form, as [`Form::of`] tells them apart, 1 to about 48 characters.
fn form_regex(form: Form) -> String {
    // Nothing loose at the end, so that options look alike.
    let tail = |max: usize| format!(r"(?: ?[^{PLAIN}]){{0,{max}}} ?[^.,;:!?…、。{PLAIN}]");
    match form {
        Form::Number => NUMBER.to_owned(),
        Form::Quantity => {
            format!(r"\p{{N}}[\p{{N}}.,]{{0,12}} ?[^\p{{N}}.,%;:!?…、。{PLAIN}](?:{})?", tail(28))
        }
        Form::Name => format!(r"\p{{Uppercase}}{}", tail(45)),
        Form::Phrase => format!(r"\p{{Lowercase}}{}", tail(45)),
        Form::Plain => format!(r"[^\p{{N}}\p{{Uppercase}}\p{{Lowercase}}\p{{P}}{PLAIN}](?:{})?", tail(38)),
    }
}

const NUMBER: &str = r"\p{N}(?:[\p{N}.,]{0,10}\p{N})?%?";

/// One or a few words of a form, to stand in the middle of a sentence.
fn replacement_regex(form: Form) -> String {
    let letter = r"[\p{L}\p{M}\p{N}'’-]";
    match form {
        Form::Number => NUMBER.to_owned(),
        Form::Quantity => format!(r"\p{{N}}{{1,6}} ?\p{{L}}(?:{letter}){{0,14}}"),
        Form::Name => format!(r"\p{{Uppercase}}{letter}{{1,14}}(?: \p{{Uppercase}}{letter}{{1,14}}){{0,2}}"),
        Form::Phrase => format!(r"\p{{Lowercase}}{letter}{{2,15}}"),
        Form::Plain => r"[\p{Lo}ー]{1,12}".to_owned(),
    }
}

fn question(language: &Language) -> String {
    // One question, ended by its mark and holding no other.
    let inside = format!(r#"(?:[^?？؟{PLAIN}]|\\")"#);
    let start = r"[¿«『「]?[\p{Lu}\p{Lt}\p{Lo}\p{N}]";
    match language.question_marks() {
        Some(marks) => format!("/{start}(?: ?{inside}){{4,160}} ?[{}]/", marks.iter().collect::<String>()),
        None => format!("/{start}(?: ?{inside}){{4,160}}/"),
    }
}

fn statement(language: &Language) -> String {
    let inside = format!(r#"(?:[^?？؟{PLAIN}]|\\")"#);
    let start = r"[«『「]?[\p{Lu}\p{Lt}\p{Lo}\p{N}]";
    match language.full_stops() {
        Some(stops) => format!("/{start}(?: ?{inside}){{8,160}}[{}]/", stops.iter().collect::<String>()),
        None => format!("/{start}(?: ?{inside}){{8,160}}/"),
    }
}

/// The inside of a JSON string.
pub(super) fn json_inner(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a string is JSON");
    quoted[1..quoted.len() - 1].to_owned()
}

/// A Lark string: JSON's syntax, in which U+007F must be escaped.
fn literal(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON").replace('\u{7f}', "\\u007f")
}

fn non_empty_literal(text: &str) -> String {
    if text.is_empty() { String::new() } else { literal(text) }
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::*;
    use crate::quiz::seed::{Purpose, derive};
    use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar, toktrie::ApproximateTokEnv};

    const ENGLISH: &[&str] = &[
        "The Eiffel Tower in Paris was finished in 1889 by Gustave Eiffel.",
        "States in four nations contain \"Amazonas\" in their names,\nwith 60% in Brazil.",
    ];
    const JAPANESE: &[&str] =
        &["琵琶湖は、滋賀県にある日本最大の面積を持つ湖で、面積は669平方キロメートルである。"];

    fn matcher(grammar: &ItemGrammar<'_>) -> Matcher {
        let lark = grammar.lark();
        let mut factory = ParserFactory::new_simple(&ApproximateTokEnv::single_byte_env()).unwrap();
        factory.quiet();
        let parser = factory.create_parser(TopLevelGrammar::from_lark(lark.clone()));
        Matcher::new(Ok(parser.unwrap_or_else(|error| panic!("{error}\n{lark}"))))
    }

    /// A reply as a model without sense would write it, within the grammar.
    fn random_walk(mut matcher: Matcher, seed: u64) -> String {
        let mut reply = Vec::new();
        for step in 0..20_000 {
            let mask = matcher.compute_mask_or_eos().unwrap();
            if matcher.is_stopped() {
                return String::from_utf8(reply).unwrap();
            }
            let allowed: Vec<u32> = mask.iter().filter(|token| *token < 256).collect();
            let Some(len) = std::num::NonZero::new(allowed.len()) else {
                return String::from_utf8(reply).unwrap();
            };
            let draw = derive(seed, Purpose::Sampling, step, 0) as usize;
            // Letters more often than not, so that words come about.
            let letters: Vec<u32> =
                allowed.iter().copied().filter(|b| (*b as u8).is_ascii_alphanumeric()).collect();
            let token = match letters.len() {
                0 => allowed[draw % len],
                n if draw % 10 < 7 => letters[draw / 16 % n],
                _ => allowed[draw / 16 % len],
            };
            matcher.consume_token(token).unwrap();
            reply.push(token as u8);
        }
        panic!("no end after {} bytes: {}", reply.len(), String::from_utf8_lossy(&reply));
    }

    fn check(kind: ItemKind, language: &str, truth: bool, candidates: &[&str]) {
        let language = Language::parse(language).unwrap();
        let grammar = ItemGrammar { kind, language: &language, truth, candidates };
        let matcher = matcher(&grammar);
        for seed in 0..8 {
            let reply = random_walk(matcher.deep_clone(), seed);
            let draft = Draft::parse(kind, &reply).unwrap_or_else(|reason| panic!("{reason:?}: {reply}"));
            for distractor in &draft.distractors {
                assert_eq!(Form::of(distractor), Form::of(&draft.answer), "{reply}");
            }
            let Some(evidence) = &draft.evidence else {
                assert!(candidates.is_empty() && draft.explanation.is_some(), "{reply}");
                continue;
            };
            assert!(candidates.contains(&evidence.as_str()), "{reply}");
            match kind {
                ItemKind::TrueFalse => {
                    assert_eq!(draft.question == fold_spaces(evidence), draft.answer == "true", "{reply}")
                }
                _ => assert!(evidence.contains(&draft.answer), "{reply}"),
            }
        }
    }

    #[test]
    fn every_reply_parses_and_rests_on_its_candidates() {
        for kind in [ItemKind::MultipleChoice, ItemKind::TrueFalse, ItemKind::ShortAnswer] {
            for truth in [true, false] {
                check(kind, "en", truth, ENGLISH);
                check(kind, "ja", truth, JAPANESE);
                check(kind, "en", truth, &[]);
                check(kind, "th", truth, &["กรุงเทพมหานครเป็นเมืองหลวง"]);
                check(kind, "en", truth, &["it is so"]);
            }
        }
    }

    #[test]
    fn a_question_ends_with_one_mark() {
        let language = Language::parse("ja").unwrap();
        let grammar =
            ItemGrammar { kind: ItemKind::ShortAnswer, language: &language, truth: true, candidates: &[] };
        let draft = Draft::parse(grammar.kind, &random_walk(matcher(&grammar), 1)).unwrap();
        assert!(draft.question.ends_with(['？', '?']), "{}", draft.question);
    }
}
