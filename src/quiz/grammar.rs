//! The grammar of one item: compact JSON whose fields come in the order that helps a model most,
//! evidence, answer, question, then the rest.
//!
//! With a source nothing in it can be invented: the evidence is a sentence of the source, the answer
//! are words of that sentence. A true statement is the sentence itself, a false one the sentence with
//! one number, name or word replaced, so that the key is right whatever the model writes.

use super::falsify::{Change, Substitute, change};
use super::form::Form;
use super::language::Language;
use super::number::{self, Apart, number_in};
use super::script::is_unspaced;
use super::span::answer_spans;
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
    /// Of the passage: what may stand in another's place in a false statement.
    pub(super) names: &'a [String],
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
            self.choosable().iter().enumerate().map(grounded).collect()
        };
        rules.define("QUESTION", &question(self.language));
        rules.define("STATEMENT", &statement(self.language));
        rules.define("EXPLANATION", &explanation());
        for form in Form::ALL {
            rules.define(terminal(form), &format!("/{}/", form_regex(form)));
        }
        format!("start: {}\n{}", starts.join(" | "), rules.text)
    }

    /// The candidates the model may choose from. Of false statements without spaces between words it is
    /// the first alone: what replaces a word there may go on like the sentence does, in every sentence at
    /// once, and from three sentences on that is more work than the parser may take.
    fn choosable(&self) -> Vec<&str> {
        let falsifies = self.kind == ItemKind::TrueFalse && !self.truth;
        let is_unspaced = |sentence: &&str| sentence.chars().any(is_unspaced);
        if falsifies && self.candidates.iter().any(is_unspaced) {
            return self.candidates[..1].to_vec();
        }
        // Where some can be made false without a doubt, or else by rule, the others are left alone.
        let that = |is_good: fn(&Change) -> bool| -> Vec<&str> {
            let change = |sentence: &str| change(&fold_spaces(sentence), self.names, self.language);
            let good = |sentence: &&&str| change(sentence).is_some_and(|change| is_good(&change));
            self.candidates.iter().filter(good).copied().collect()
        };
        match falsifies {
            true => [that(Change::is_plain), that(Change::is_sure), self.candidates.to_vec()]
                .into_iter()
                .find(|sentences| !sentences.is_empty())
                .unwrap_or_default(),
            false => self.candidates.to_vec(),
        }
    }

    fn item_from_memory(&self, rules: &mut Rules) -> String {
        let explanation = format!("{} EXPLANATION {}", literal(",\"explanation\":\""), literal("\"}"));
        match self.kind {
            ItemKind::TrueFalse => {
                let head = literal(&format!("{{\"answer\":{},\"question\":\"", self.truth));
                format!("{head} STATEMENT {} {explanation}", literal("\""))
            }
            kind => {
                for form in Form::ALL {
                    let rest = self.rest(kind, terminal(form));
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
            let texts: Vec<&str> = spans
                .iter()
                .filter(|span| span.form == form)
                .map(|span| &sentence[span.bytes.clone()])
                .collect();
            let mut in_common = Vec::new();
            for (n, text) in texts.into_iter().enumerate() {
                // The wrong choices beside a number are others like it.
                let numbers = if self.kind == ItemKind::MultipleChoice { number_like(text) } else { None };
                let Some(numbers) = numbers else {
                    in_common.push(literal(&json_inner(text)));
                    continue;
                };
                let other = format!("OTHER_{idx}_{n}_{}", terminal(form));
                rules.define(&other, &format!("/{numbers}/ & ~{}", literal(&json_inner(text))));
                let name = format!("{}_{n}", rule("item", idx, form));
                let rest = self.rest(self.kind, &other);
                rules.define(&name, &format!("{} {rest} {}", literal(&json_inner(text)), literal("}")));
                items.push(name);
            }
            // An empty rule would be an empty answer.
            if in_common.is_empty() {
                continue;
            }
            let answer = format!("ANSWER_{idx}_{}", terminal(form));
            rules.define(&answer, &in_common.join(" | "));
            items.push(rule("item", idx, form));
            rules.define(
                &rule("item", idx, form),
                &format!("{answer} {} {}", self.rest(self.kind, terminal(form)), literal("}")),
            );
        }
        let evidence = literal(&format!("{{\"evidence\":\"{}\",\"answer\":\"", json_inner(sentence)));
        format!("{evidence} ({})", items.join(" | "))
    }

    /// From the end of the answer to the end of the last field; `other` is what a wrong answer is made of.
    fn rest(&self, kind: ItemKind, other: &str) -> String {
        let question = format!("{} QUESTION {}", literal("\",\"question\":\""), literal("\""));
        if kind == ItemKind::ShortAnswer {
            return question;
        }
        let (first, next, last) = (literal(",\"distractors\":[\""), literal("\",\""), literal("\"]"));
        format!("{question} {first} {other} {next} {other} {next} {other} {last}")
    }

    fn statement_about(&self, evidence: &str, idx: usize, rules: &mut Rules) -> String {
        let sentence = fold_spaces(evidence);
        // One place, not any: a model that copies a sentence seldom leaves it where it may, and is then made
        // to at the last place there is.
        let change = if self.truth { None } else { change(&sentence, self.names, self.language) };
        let head = |truth: bool| {
            format!("{{\"evidence\":\"{}\",\"answer\":{truth},\"question\":\"", json_inner(evidence))
        };
        // Without a word to replace, the sentence can only be said as it is.
        let Some(Change { bytes, substitute }) = change else {
            return literal(&format!("{}{}\"}}", head(true), json_inner(&sentence)));
        };
        let (before, after) = (json_inner(&sentence[..bytes.start]), json_inner(&sentence[bytes.end..]));
        let original = json_inner(&sentence[bytes]);
        let substitute = match substitute {
            Substitute::Number(regex) => format!("/{regex}/ & ~{}", literal(&original)),
            Substitute::Elsewhere(others) => any_of(others.names.into_iter()),
            Substitute::OneOf(texts) => any_of(texts.iter().map(String::as_str)),
            Substitute::Opposite(text) | Substitute::Denial(text) => literal(&text),
            Substitute::Free(form) => {
                // Not the original, nor a word that begins like it.
                let stem: String = original.chars().take(STEM_CHARS).collect();
                rules.define(&format!("ORIGINAL_{idx}"), &format!("{} /(?s:.*)/", literal(&stem)));
                rules.define(&format!("WORDS_{idx}"), &format!("/{}/", replacement_regex(form)));
                format!("WORDS_{idx} & ~ORIGINAL_{idx}")
            }
        };
        let name = format!("SUBSTITUTE_{idx}");
        rules.define(&name, &substitute);
        [literal(&(head(false) + &before)), name, literal(&(after + "\"}"))].join(" ")
    }
}

/// A short-answer item of which all but the question is given.
pub(super) fn asking_for(evidence: &str, answer: &str, language: &Language) -> GrammarSpec {
    let (evidence, answer) = (json_inner(evidence), json_inner(answer));
    let before = format!("{{\"evidence\":\"{evidence}\",\"answer\":\"{answer}\",\"question\":\"");
    let question = question(language);
    GrammarSpec::Lark(format!(
        "start: {} QUESTION {}\nQUESTION: {question}\n",
        literal(&before),
        literal("\"}")
    ))
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

// What follows are regular expressions that llguidance turns into automata over UTF-8 bytes while a
// mask is computed, within a bound on its work. So classes are made of few long ranges rather than of
// Unicode properties, and each text is one class counted: what such classes let through too much,
// white space in excess say, is put right when the draft is read.

/// What a JSON string may not hold unescaped, and what shows as nothing.
const NOT_TEXT: &str = r#""\\\x00-\x1f\x7f-\xa0"#;
/// Nor an answer or a wrong one: what would be left open.
const BRACKETS: &str = r"\[\]{}<>";
/// How a sentence begins: a digit, a capital, or any character beyond ASCII.
const SENTENCE_START: &str = r"[0-9A-Z\xa1-\x{10ffff}]";
/// The letters that begin the forms. Each is a part of what [`Form::of`] takes for its form.
const CAPITALS: &str =
    "A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢĤĦĨĪĬĮİĴĶĹĻĽĿŁŃŅŇŊŌŎŐŒŔŖŘŚŜŞŠŢŤŦŨŪŬŮŰŲŴŶŸŹŻŽΆΈ-ΊΌΎΏΑ-ΡΣ-ΫЀ-Я";
const SMALL_LETTERS: &str = "a-zß-öø-ÿāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįıĵķĺļľŀłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷźżžά-ώа-џ";
/// Hebrew to Myanmar, Ethiopic, Khmer, kana, kanji, Hangul: scripts without case.
const UNCASED_LETTERS: &str = r"\x{5d0}-\x{5ea}\x{620}-\x{64a}\x{671}-\x{6d3}\x{904}-\x{939}\x{985}-\x{9b9}\x{a05}-\x{a39}\x{a85}-\x{ab9}\x{b05}-\x{b39}\x{b85}-\x{bb9}\x{c05}-\x{c39}\x{c85}-\x{cb9}\x{d05}-\x{d39}\x{d85}-\x{dc6}\x{e01}-\x{e46}\x{e81}-\x{ec6}\x{1000}-\x{102a}\x{1200}-\x{135a}\x{1780}-\x{17b3}\x{3041}-\x{30ff}\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}";

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

/// Texts of one form, 1 to 48 characters.
fn form_regex(form: Form) -> String {
    match form {
        Form::Number => r"[0-9]{1,9}(?:[.,][0-9]{1,6}){0,3}%?".to_owned(),
        Form::Quantity => {
            let unit = format!("[{CAPITALS}{SMALL_LETTERS}{UNCASED_LETTERS}]");
            format!("[0-9]{{1,9}} ?{unit}[^{NOT_TEXT}{BRACKETS}]{{0,28}}")
        }
        Form::Name => format!("[{CAPITALS}][^{NOT_TEXT}{BRACKETS}]{{1,47}}"),
        Form::Phrase => format!("[{SMALL_LETTERS}][^{NOT_TEXT}{BRACKETS}]{{1,47}}"),
        Form::Plain => format!("[{UNCASED_LETTERS}][^{NOT_TEXT}{BRACKETS}]{{0,39}}"),
    }
}

/// Other numbers like the one in a text, and what stands around it as it is: "1840s" is no choice beside "1842", nor
/// "12 km" beside "12 years". `None` where it is about no number.
fn number_like(text: &str) -> Option<String> {
    let start = number_in(text)?;
    let (number, regex) = number::others(&text[start..], Apart::AtAll)?;
    Some(escaped(&text[..start]) + &regex + &escaped(&text[start + number.end..]))
}

/// A text as it stands in JSON, in a regular expression.
fn escaped(text: &str) -> String {
    let mut regex = String::new();
    for c in json_inner(text).chars() {
        // An escaped angle bracket is the edge of a word.
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
            regex.push('\\');
        }
        regex.push(c);
    }
    regex
}

/// Letters of a word by which words are told apart.
const STEM_CHARS: usize = 3;

/// One or a few words of a form, to stand in the middle of a sentence.
fn replacement_regex(form: Form) -> String {
    match form {
        Form::Number | Form::Quantity => form_regex(Form::Number),
        Form::Name => {
            let name = format!("[{CAPITALS}][{SMALL_LETTERS}’'-]{{2,14}}");
            format!("{name}(?: {name}){{0,2}}")
        }
        Form::Phrase => format!("[{SMALL_LETTERS}][{SMALL_LETTERS}’'-]{{2,15}}"),
        // One range, Hebrew to Hangul: the letters' own many ranges, less one word, are too much work.
        Form::Plain => r"[\x{5d0}-\x{d7a3}]{1,12}".to_owned(),
    }
}

/// One question, ended by its mark and holding no other.
fn question(language: &Language) -> String {
    sentence(r"?？؟", 5, language.question_marks())
}

fn statement(language: &Language) -> String {
    sentence(r"?？؟", 8, language.full_stops())
}

fn explanation() -> String {
    sentence("", 5, None)
}

fn sentence(without: &str, min_chars: usize, ends: Option<&[char]>) -> String {
    const MAX_CHARS: usize = 160;
    let end = ends.map_or(String::new(), |ends| format!("[{}]", ends.iter().collect::<String>()));
    format!(r#"/{SENTENCE_START}(?:[^{without}{NOT_TEXT}]|\\"){{{min_chars},{MAX_CHARS}}}{end}/"#)
}

/// The inside of a JSON string.
pub(super) fn json_inner(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a string is JSON");
    quoted[1..quoted.len() - 1].to_owned()
}

fn any_of<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.map(|text| literal(&json_inner(text))).collect::<Vec<_>>().join(" | ")
}

/// A Lark string: JSON's syntax, in which U+007F must be escaped.
fn literal(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON").replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::super::falsify::names;
    use super::super::seed::{Purpose, derive};
    use super::*;
    use crate::model::Model;
    use crate::sampling::{GrammarCompiler, GrammarError};
    use crate::text::{TokenId, Tokenizer};
    use std::path::Path;
    use std::sync::{Arc, LazyLock};

    const ENGLISH: &[&str] = &[
        "The Eiffel Tower in Paris was finished in 1889 by Gustave Eiffel.",
        "States in four nations contain \"Amazonas\" in their names,\nwith 60% in Brazil.",
    ];
    const JAPANESE: &[&str] =
        &["琵琶湖は、滋賀県にある日本最大の面積を持つ湖で、面積は669平方キロメートルである。"];

    /// A real vocabulary: what a grammar costs and allows depends on it.
    static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
        let models_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let model = Model::open("smollm2-135m-instruct", &models_dir)
            .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"));
        Arc::new(Tokenizer::open(&model).unwrap())
    });
    static COMPILER: LazyLock<GrammarCompiler> =
        LazyLock::new(|| GrammarCompiler::new(Arc::clone(&TOKENIZER), TOKENIZER.vocab_size()).unwrap());

    /// A reply as a model without sense would write it, and the tokens it took.
    fn random_walk(spec: &GrammarSpec, budget: usize, seed: u64) -> (String, usize) {
        let mut grammar = COMPILER.compile(spec, budget).unwrap_or_else(|error| panic!("{error}\n{spec:?}"));
        let mut reply: Vec<TokenId> = Vec::new();
        while !grammar.is_finished() {
            let forced = grammar.forced().unwrap();
            if !forced.is_empty() {
                reply.extend(forced);
                continue;
            }
            let mask = grammar.mask().unwrap();
            let allowed: Vec<TokenId> =
                (0..TOKENIZER.vocab_size() as TokenId).filter(|token| mask.allows(*token)).collect();
            let draw = derive(seed, Purpose::Sampling, reply.len(), 0) as usize;
            reply.push(grammar.accept(allowed[draw % allowed.len()]).unwrap());
        }
        let bytes = reply.iter().flat_map(|token| TOKENIZER.token_bytes(*token).to_vec()).collect();
        (String::from_utf8(bytes).unwrap(), reply.len())
    }

    fn check(kind: ItemKind, language: &str, truth: bool, candidates: &[&str]) {
        let names = names(candidates.iter().copied());
        let language = Language::parse(language).unwrap();
        let spec = ItemGrammar { kind, language: &language, truth, candidates, names: &names }.spec();
        let shortest = match COMPILER.compile(&spec, 0) {
            Err(GrammarError::BudgetTooSmall { shortest, .. }) => shortest,
            other => panic!("{:?}\n{spec:?}", other.err()),
        };
        for (seed, budget) in [shortest, shortest + 7, shortest + 30, 1000, 1000].into_iter().enumerate() {
            let (reply, tokens) = random_walk(&spec, budget, seed as u64);
            assert!(tokens <= budget, "{tokens} of {budget}: {reply}");
            let evidence = match Draft::parse(kind, &reply) {
                Ok(draft) => check_draft(kind, draft, candidates, &reply),
                // Random bytes make invisible characters now and then; the JSON is whole all the same.
                Err(_) => {
                    let reply = serde_json::from_str::<serde_json::Value>(&reply).unwrap();
                    assert_ne!(reply["answer"], "", "{reply}");
                    reply["evidence"].is_string()
                }
            };
            assert_eq!(evidence, !candidates.is_empty(), "{reply}");
        }
    }

    /// Whether the draft rests on evidence; checked, if it does.
    fn check_draft(kind: ItemKind, draft: Draft, candidates: &[&str], reply: &str) -> bool {
        for distractor in &draft.distractors {
            assert_eq!(Form::of(distractor), Form::of(&draft.answer), "{reply}");
        }
        let Some(evidence) = &draft.evidence else { return false };
        assert!(candidates.contains(&evidence.as_str()), "{reply}");
        match kind {
            ItemKind::TrueFalse => {
                assert_eq!(draft.question == fold_spaces(evidence), draft.answer == "true", "{reply}");
            }
            ItemKind::MultipleChoice | ItemKind::ShortAnswer => {
                assert!(evidence.contains(&draft.answer), "{reply}");
            }
        }
        true
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
    fn wrong_choices_differ_in_their_number() {
        let check = |text: &str, before: &str, after: &str| {
            let regex = number_like(text).expect("it is about a number");
            let number = regex.strip_prefix(before).and_then(|regex| regex.strip_suffix(after));
            assert!(number.is_some_and(|number| number.contains('[')), "{text}: {regex}");
        };
        check("1980s", "19", "s");
        check("early 1980s", "early 19", "s");
        check("mid-1980s", "mid\\-19", "s");
        check("12 km", "", " km");
        check("November 1987", "November 19", "");
        check("1 July 1851", "1 July 18", "");
        assert_eq!(number_like("Gustave Eiffel"), None);
        assert_eq!(number_like("early steam"), None);
    }

    #[test]
    fn a_false_statement_may_rest_on_any_of_many_sentences() {
        let japanese = [
            "オランダ（ , , , ）は、西ヨーロッパに位置する立憲君主制国家。",
            "東はドイツ、南はベルギーと国境を接し、北と西は北海に面する。",
            "ベルギー、ルクセンブルクと合わせてベネルクスと呼ばれる。",
            "憲法上の首都はアムステルダム（事実上の首都はデン・ハーグ）。",
        ];
        let english = ENGLISH.iter().cycle().take(12).copied().collect::<Vec<_>>();
        for (tag, candidates) in [("ja", &japanese[..]), ("en", &english)] {
            let language = Language::parse(tag).unwrap();
            let (kind, truth, names) = (ItemKind::TrueFalse, false, &names(candidates.iter().copied()));
            let grammar = ItemGrammar { kind, language: &language, truth, candidates, names };
            COMPILER.compile(&grammar.spec(), 300).unwrap_or_else(|error| panic!("{tag}: {error}"));
        }
    }

    #[test]
    fn a_question_ends_with_its_mark() {
        let language = Language::parse("ja").unwrap();
        let grammar = ItemGrammar {
            kind: ItemKind::ShortAnswer,
            language: &language,
            truth: true,
            candidates: JAPANESE,
            names: &[],
        };
        let (reply, _) = random_walk(&grammar.spec(), 400, 1);
        let question = serde_json::from_str::<serde_json::Value>(&reply).unwrap()["question"].to_string();
        assert_eq!(question.trim_matches('"').matches(['？', '?']).count(), 1, "{question}");
        assert!(question.trim_matches('"').ends_with(['？', '?']), "{question}");
    }
}
