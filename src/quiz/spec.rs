use super::language::Language;
use super::source::Source;
use crate::sampling::SamplingParams;
use std::fmt::Display;
use std::sync::Arc;

/// A quiz as asked for on the wire or the command line; [`QuizSpec`] is the checked form.
///
/// Unknown fields are kept out by `deny_unknown_fields`: a misspelt option is an error that names it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuizRequest {
    /// What to ask about, from the server's library or else the model's memory; or `source`.
    pub topic: Option<String>,
    /// A text to ask about; or `topic`.
    pub source: Option<String>,
    pub count: Option<u64>,
    pub kind: Option<OneOrMany>,
    pub difficulty: Option<String>,
    pub language: Option<String>,
    pub audience: Option<String>,
    pub exclude: Option<Vec<String>>,
    pub seed: Option<u64>,
    pub candidates: Option<u64>,
    pub round_trip: Option<String>,
    pub clean: Option<String>,
    pub distinct: Option<String>,
    pub plausible: Option<String>,
    /// Whose quiz it is: with a name, what they were asked before does not come again.
    pub user: Option<String>,
    /// Which of the server's models; not part of [`QuizSpec`].
    pub model: Option<String>,
    pub max_tokens: Option<u64>,
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u64>,
    pub min_p: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

/// How drafts are chosen and checked: these fields of a [`QuizRequest`], for those who ask for quizzes in
/// other ways. Their flags are named alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::Args)]
pub struct DraftPolicies {
    /// Drafts of each question, of which the best is kept; one more where it is not as clean and plausible prefer
    #[arg(long, value_name = "N")]
    pub candidates: Option<u64>,
    /// off, prefer or require: does the question ask for its answer and no other words?
    #[arg(long, value_name = "POLICY")]
    pub round_trip: Option<String>,
    /// off, prefer or require: does it keep the rules of item writing?
    #[arg(long, value_name = "POLICY")]
    pub clean: Option<String>,
    /// off, prefer or require: does it ask what was not asked, in other words either? Needs embeddings
    #[arg(long, value_name = "POLICY")]
    pub distinct: Option<String>,
    /// off, prefer or require: are the wrong choices near the right one, and not too near? Needs embeddings
    #[arg(long, value_name = "POLICY")]
    pub plausible: Option<String>,
}

impl From<DraftPolicies> for QuizRequest {
    fn from(drafts: DraftPolicies) -> Self {
        let DraftPolicies { candidates, round_trip, clean, distinct, plausible } = drafts;
        Self { candidates, round_trip, clean, distinct, plausible, ..Self::default() }
    }
}

/// `"a"` or `["a", "b"]`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A quiz that can be written: every field within its limits.
#[derive(Clone, Debug)]
pub struct QuizSpec {
    pub subject: Subject,
    pub count: usize,
    /// At least one; items take them in turn.
    pub kinds: Vec<ItemKind>,
    pub difficulty: Difficulty,
    pub language: Language,
    pub audience: Option<String>,
    /// Questions, or answers, that must not come again.
    pub exclude: Vec<String>,
    pub seed: u64,
    /// Drafts of each item, of which the best is kept.
    pub candidates: usize,
    /// Whether the question has to ask for its key and no other words.
    pub round_trip: CheckPolicy,
    /// Whether the item has to keep the item-writing rules.
    pub clean: CheckPolicy,
    /// Whether the question has to ask, in any words, what was not asked before; `None`: as the server has it.
    pub distinct: Option<CheckPolicy>,
    /// Whether the wrong choices have to be plausible; `None`: as the server has it.
    pub plausible: Option<CheckPolicy>,
    pub user: Option<String>,
    /// Budget of one item, in tokens, what the grammar writes included; `None`: what it needs.
    pub max_item_tokens: Option<usize>,
    /// The seed in it is not used: each attempt at an item has its own.
    pub sampling: SamplingParams,
}

/// What the quiz is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Topic(String),
    Source(Arc<Source>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    MultipleChoice,
    TrueFalse,
    ShortAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    Easy,
    Medium,
    Hard,
}

/// What becomes of drafts that fail a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckPolicy {
    /// It is not looked at.
    Off,
    /// One that passes is chosen before one that does not.
    Prefer,
    /// They are thrown away.
    Require,
}

/// A field of a quiz request that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// The field, as on the wire.
    pub param: String,
    pub message: String,
}

const MAX_TOPIC_CHARS: usize = 500;
/// The longest source, in Unicode code points.
pub const MAX_SOURCE_CHARS: usize = 200_000;
const MAX_COUNT: usize = 50;
const MAX_AUDIENCE_CHARS: usize = 200;
const MAX_USER_CHARS: usize = 200;
const MAX_EXCLUDED: usize = 200;
const MAX_EXCLUDED_CHARS: usize = 500;
const MAX_ITEM_TOKENS: usize = 8192;
const MAX_CANDIDATES: usize = 8;

const DEFAULT_COUNT: u64 = 5;
const DEFAULT_CANDIDATES: u64 = 1;
const DEFAULT_ROUND_TRIP: CheckPolicy = CheckPolicy::Off;
const DEFAULT_CLEAN: CheckPolicy = CheckPolicy::Prefer;
/// Low enough for a small model to stay on its subject, high enough that a second attempt differs.
const DEFAULT_TEMPERATURE: f32 = 0.7;
const DEFAULT_TOP_P: f32 = 0.95;
/// A seed that was not asked for is echoed to be used again, and JavaScript reads JSON numbers as
/// doubles: 53 bits survive that.
const RANDOM_SEED_BITS: u32 = 53;

impl TryFrom<QuizRequest> for QuizSpec {
    type Error = SpecError;

    fn try_from(request: QuizRequest) -> Result<Self, SpecError> {
        let seed = request.seed.map_or_else(random_seed, Ok)?;
        let sampling = sampling_params(&request)?;
        Ok(Self {
            subject: subject(request.topic, request.source)?,
            count: count(request.count.unwrap_or(DEFAULT_COUNT))?,
            kinds: kinds(request.kind)?,
            difficulty: request.difficulty.as_deref().map_or(Ok(Difficulty::Medium), difficulty)?,
            language: language(request.language.as_deref().unwrap_or("en"))?,
            audience: audience(request.audience)?,
            exclude: exclude(request.exclude.unwrap_or_default())?,
            seed,
            candidates: candidates(request.candidates.unwrap_or(DEFAULT_CANDIDATES))?,
            round_trip: policy("round_trip", request.round_trip.as_deref())?.unwrap_or(DEFAULT_ROUND_TRIP),
            clean: policy("clean", request.clean.as_deref())?.unwrap_or(DEFAULT_CLEAN),
            distinct: policy("distinct", request.distinct.as_deref())?,
            plausible: policy("plausible", request.plausible.as_deref())?,
            user: user(request.user)?,
            max_item_tokens: request.max_tokens.map(max_item_tokens).transpose()?,
            sampling,
        })
    }
}

impl Subject {
    /// The topic or the source, as it was given.
    pub fn text(&self) -> &str {
        match self {
            Self::Topic(topic) => topic,
            Self::Source(source) => source.text(),
        }
    }
}

impl SpecError {
    fn new(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: param.into(), message: message.into() }
    }
}

impl ItemKind {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::TrueFalse => "true_false",
            Self::ShortAnswer => "short_answer",
        }
    }
}

impl CheckPolicy {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

impl Difficulty {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
        }
    }
}

fn subject(topic: Option<String>, source: Option<String>) -> Result<Subject, SpecError> {
    match (topic, source) {
        (Some(topic), None) => {
            let topic = line("topic", &topic, MAX_TOPIC_CHARS)?;
            if !topic.chars().any(char::is_alphanumeric) {
                return Err(SpecError::new(
                    "topic",
                    "`topic` is empty; say in a few words what to ask about",
                ));
            }
            Ok(Subject::Topic(topic))
        }
        (None, Some(source)) => {
            let chars = source.chars().count();
            if chars > MAX_SOURCE_CHARS {
                return Err(too_long("source", chars, MAX_SOURCE_CHARS));
            }
            Source::new(source).map(Arc::new).map(Subject::Source).ok_or_else(|| {
                SpecError::new("source", "`source` has no sentence to ask about; send at least one")
            })
        }
        (Some(_), Some(_)) => {
            Err(SpecError::new("source", "`topic` and `source` exclude each other; send one of them"))
        }
        (None, None) => {
            Err(SpecError::new("topic", "`topic` or `source` is needed: what is the quiz about?"))
        }
    }
}

fn count(count: u64) -> Result<usize, SpecError> {
    in_range("count", count, 1, MAX_COUNT)
}

fn candidates(candidates: u64) -> Result<usize, SpecError> {
    in_range("candidates", candidates, 1, MAX_CANDIDATES)
}

fn policy(param: &str, name: Option<&str>) -> Result<Option<CheckPolicy>, SpecError> {
    let Some(name) = name else { return Ok(None) };
    let known = [CheckPolicy::Off, CheckPolicy::Prefer, CheckPolicy::Require];
    known.into_iter().find(|policy| policy.name() == name).map(Some).ok_or_else(|| {
        let known = known.map(CheckPolicy::name).join(", ");
        SpecError::new(param, format!("`{param}` {} is not known; use {known}", quoted(name)))
    })
}

fn max_item_tokens(tokens: u64) -> Result<usize, SpecError> {
    in_range("max_tokens", tokens, 1, MAX_ITEM_TOKENS)
}

fn in_range(param: &str, value: u64, min: usize, max: usize) -> Result<usize, SpecError> {
    usize::try_from(value)
        .ok()
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| out_of_range(param, value, min, max))
}

fn kinds(kind: Option<OneOrMany>) -> Result<Vec<ItemKind>, SpecError> {
    let names = match kind {
        None => return Ok(vec![ItemKind::MultipleChoice]),
        Some(OneOrMany::One(name)) => vec![name],
        Some(OneOrMany::Many(names)) => names,
    };
    if names.is_empty() || names.len() > MAX_COUNT {
        let message = format!("`kind` lists {} kinds; it must be from 1 to {MAX_COUNT}", names.len());
        return Err(SpecError::new("kind", message));
    }
    let known = [ItemKind::MultipleChoice, ItemKind::TrueFalse, ItemKind::ShortAnswer];
    let kind_of = |name: &String| {
        known.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = known.map(ItemKind::name).join(", ");
            SpecError::new("kind", format!("`kind` {} is not known; use {known}", quoted(name)))
        })
    };
    names.iter().map(kind_of).collect()
}

fn difficulty(name: &str) -> Result<Difficulty, SpecError> {
    let known = [Difficulty::Easy, Difficulty::Medium, Difficulty::Hard];
    known.into_iter().find(|difficulty| difficulty.name() == name).ok_or_else(|| {
        let known = known.map(Difficulty::name).join(", ");
        SpecError::new("difficulty", format!("`difficulty` {} is not known; use {known}", quoted(name)))
    })
}

fn language(tag: &str) -> Result<Language, SpecError> {
    Language::parse(tag)
        .map_err(|reason| SpecError::new("language", format!("`language` {} {reason}", quoted(tag))))
}

fn audience(audience: Option<String>) -> Result<Option<String>, SpecError> {
    let audience = audience.map(|audience| line("audience", &audience, MAX_AUDIENCE_CHARS)).transpose()?;
    Ok(audience.filter(|audience| !audience.is_empty()))
}

fn user(user: Option<String>) -> Result<Option<String>, SpecError> {
    let user = user.map(|user| line("user", &user, MAX_USER_CHARS)).transpose()?;
    Ok(user.filter(|user| !user.is_empty()))
}

fn exclude(entries: Vec<String>) -> Result<Vec<String>, SpecError> {
    if entries.len() > MAX_EXCLUDED {
        let message = format!("`exclude` has {} entries, the limit is {MAX_EXCLUDED}", entries.len());
        return Err(SpecError::new("exclude", message));
    }
    let entries: Result<Vec<_>, _> =
        entries.iter().map(|entry| line("exclude", entry, MAX_EXCLUDED_CHARS)).collect();
    Ok(entries?.into_iter().filter(|entry| !entry.is_empty()).collect())
}

/// One line of text: white space folded to single spaces, none at the ends, no other control
/// characters.
fn line(param: &str, text: &str, max_chars: usize) -> Result<String, SpecError> {
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let chars = folded.chars().count();
    if chars > max_chars {
        return Err(too_long(param, chars, max_chars));
    }
    if folded.chars().any(char::is_control) {
        return Err(SpecError::new(param, format!("`{param}` has control characters in it; leave them out")));
    }
    Ok(folded)
}

fn sampling_params(request: &QuizRequest) -> Result<SamplingParams, SpecError> {
    let number = |param: &str, value: Option<f32>, default: f32, min: f32, max: f32| {
        let value = value.unwrap_or(default);
        if (min..=max).contains(&value) { Ok(value) } else { Err(out_of_range(param, value, min, max)) }
    };
    let defaults = SamplingParams::default();
    let top_p = number("top_p", request.top_p, DEFAULT_TOP_P, 0.0, 1.0)?;
    if top_p == 0.0 {
        return Err(SpecError::new("top_p", "`top_p` must be above 0, and at most 1"));
    }
    let repetition_penalty =
        number("repetition_penalty", request.repetition_penalty, defaults.repetition_penalty, 0.0, 2.0)?;
    if repetition_penalty == 0.0 {
        return Err(SpecError::new(
            "repetition_penalty",
            "`repetition_penalty` must be above 0, and at most 2",
        ));
    }
    Ok(SamplingParams {
        temperature: number("temperature", request.temperature, DEFAULT_TEMPERATURE, 0.0, 2.0)?,
        top_k: in_range("top_k", request.top_k.unwrap_or(0), 0, 1_000_000)?,
        top_p,
        min_p: number("min_p", request.min_p, defaults.min_p, 0.0, 1.0)?,
        repetition_penalty,
        frequency_penalty: number("frequency_penalty", request.frequency_penalty, 0.0, -2.0, 2.0)?,
        presence_penalty: number("presence_penalty", request.presence_penalty, 0.0, -2.0, 2.0)?,
        ..defaults
    })
}

fn random_seed() -> Result<u64, SpecError> {
    let random = getrandom::u64().map_err(|error| {
        SpecError::new("seed", format!("no random seed to be had ({error}); send `seed`"))
    })?;
    Ok(random >> (u64::BITS - RANDOM_SEED_BITS))
}

fn out_of_range(param: &str, value: impl Display, min: impl Display, max: impl Display) -> SpecError {
    SpecError::new(param, format!("`{param}` is {value}; it must be from {min} to {max}"))
}

fn too_long(param: &str, chars: usize, max_chars: usize) -> SpecError {
    SpecError::new(param, format!("`{param}` has {chars} characters, the limit is {max_chars}"))
}

/// A value from outside, cut short for a message.
fn quoted(value: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut short: String = value.chars().take(MAX_CHARS).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The field an error names, or `ok`.
    fn check(request: serde_json::Value, expected: &str) {
        let spec = serde_json::from_value::<QuizRequest>(request.clone()).map(QuizSpec::try_from).unwrap();
        match &spec {
            Ok(_) => assert_eq!("ok", expected, "{request}"),
            Err(error) => {
                assert_eq!(error.param, expected, "{request}: {error}");
                assert!(error.message.contains(&error.param), "{error}");
            }
        }
    }

    #[test]
    fn limits() {
        check(json!({"topic": "the Moon"}), "ok");
        check(json!({"topic": "月"}), "ok");
        check(json!({"topic": null, "source": "The Moon is bright."}), "ok");
        check(json!({}), "topic");
        check(json!({"topic": ""}), "topic");
        check(json!({"topic": " \n\t"}), "topic");
        check(json!({"topic": "?!"}), "topic");
        check(json!({"topic": "the\u{0}Moon"}), "topic");
        check(json!({"topic": "a".repeat(500)}), "ok");
        check(json!({"topic": "a".repeat(501)}), "topic");
        check(json!({"topic": "月".repeat(500)}), "ok");
        check(json!({"topic": "a", "source": "b"}), "source");
        check(json!({"source": ""}), "source");
        check(json!({"source": "\u{1}\n . . ."}), "source");
        check(json!({"source": "The Moon is bright. ".repeat(10_000)}), "ok");
        check(json!({"source": "a".repeat(200_001)}), "source");
        check(json!({"topic": "a", "count": 0}), "count");
        check(json!({"topic": "a", "count": 1}), "ok");
        check(json!({"topic": "a", "count": 50}), "ok");
        check(json!({"topic": "a", "count": 51}), "count");
        check(json!({"topic": "a", "count": 1000}), "count");
        check(json!({"topic": "a", "kind": "true_false"}), "ok");
        check(json!({"topic": "a", "kind": ["true_false", "short_answer"]}), "ok");
        check(json!({"topic": "a", "kind": []}), "kind");
        check(json!({"topic": "a", "kind": "essay"}), "kind");
        check(json!({"topic": "a", "kind": ["true_false", "essay"]}), "kind");
        check(json!({"topic": "a", "difficulty": "hard"}), "ok");
        check(json!({"topic": "a", "difficulty": "nightmare"}), "difficulty");
        check(json!({"topic": "a", "language": "pt-BR"}), "ok");
        check(json!({"topic": "a", "language": ""}), "language");
        check(json!({"topic": "a", "language": "en_US"}), "language");
        check(json!({"topic": "a", "language": "qq"}), "language");
        check(json!({"topic": "a", "audience": "children"}), "ok");
        check(json!({"topic": "a", "audience": "a".repeat(201)}), "audience");
        check(json!({"topic": "a", "audience": "\u{7}"}), "audience");
        check(json!({"topic": "a", "exclude": vec!["b"; 200]}), "ok");
        check(json!({"topic": "a", "exclude": vec!["b"; 201]}), "exclude");
        check(json!({"topic": "a", "exclude": ["b".repeat(501)]}), "exclude");
        check(json!({"topic": "a", "seed": u64::MAX}), "ok");
        check(json!({"topic": "a", "candidates": 8}), "ok");
        check(json!({"topic": "a", "candidates": 0}), "candidates");
        check(json!({"topic": "a", "candidates": 9}), "candidates");
        check(json!({"topic": "a", "round_trip": "require", "clean": "off"}), "ok");
        check(json!({"topic": "a", "round_trip": "yes"}), "round_trip");
        check(json!({"topic": "a", "clean": ""}), "clean");
        check(json!({"topic": "a", "distinct": "require", "plausible": "prefer"}), "ok");
        check(json!({"topic": "a", "distinct": "no"}), "distinct");
        check(json!({"topic": "a", "plausible": "On"}), "plausible");
        check(json!({"topic": "a", "user": "ann@example.org"}), "ok");
        check(json!({"topic": "a", "user": "a".repeat(201)}), "user");
        check(json!({"topic": "a", "max_tokens": 0}), "max_tokens");
        check(json!({"topic": "a", "max_tokens": 8193}), "max_tokens");
        check(json!({"topic": "a", "temperature": 0}), "ok");
        check(json!({"topic": "a", "temperature": 2.1}), "temperature");
        check(json!({"topic": "a", "temperature": -0.1}), "temperature");
        check(json!({"topic": "a", "temperature": 1e300}), "temperature");
        check(json!({"topic": "a", "top_p": 0}), "top_p");
        check(json!({"topic": "a", "top_p": 1.1}), "top_p");
        check(json!({"topic": "a", "min_p": 1.5}), "min_p");
        check(json!({"topic": "a", "frequency_penalty": -2.5}), "frequency_penalty");
        check(json!({"topic": "a", "presence_penalty": 2.5}), "presence_penalty");
        check(json!({"topic": "a", "repetition_penalty": 0}), "repetition_penalty");
        check(json!({"topic": "a", "model": "m"}), "ok");
    }

    #[test]
    fn white_space_is_folded() {
        let request = QuizRequest { topic: Some("  the\n Moon ".into()), ..Default::default() };
        let spec = QuizSpec::try_from(request).unwrap();
        assert_eq!(spec.subject, Subject::Topic("the Moon".into()));
    }

    #[test]
    fn a_random_seed_survives_javascript() {
        let request = QuizRequest { topic: Some("the Moon".into()), ..Default::default() };
        for _ in 0..100 {
            let seed = QuizSpec::try_from(request.clone()).unwrap().seed;
            assert!(seed < 1 << 53);
        }
    }
}
