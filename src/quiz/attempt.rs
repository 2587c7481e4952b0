//! One attempt at one item: the request that has it written, and the item that comes of the reply.

use super::checks::{Brief, check_alone};
use super::draft::Draft;
use super::flaws::{Shown, flaws};
use super::grammar::{ItemGrammar, asking_for};
use super::ground::{Excerpt, Ground};
use super::item::{Answer, Check, Evidence, ItemStatus, QuizItem, RejectReason};
use super::language::Language;
use super::meaning::Comparison;
use super::options::replace_repeats;
use super::plan::QuizPlan;
use super::prompt::{About, ItemPrompt};
use super::prompt_templates::ReadTemplate;
use super::round_trip::WayBack;
use super::seed::{Purpose, derive, shuffle};
use super::source::Source;
use super::spec::{CheckPolicy, ItemKind, Subject};
use super::wording::{fold_spaces, is_about};
use crate::generation::{Prompt, TextRequest};
use crate::sampling::SamplingParams;
use sha2::{Digest, Sha256};

/// Sentences one attempt chooses from; the next attempt goes on to the next ones.
const CANDIDATES: usize = 3;
/// Drafts that are written beyond those the best is chosen from, while none has passed.
const RETRIES: usize = 5;
/// Those that keep to the item's own sentences; the rest look at what other items of the passage rest on.
const OWN_RETRIES: usize = 2;
/// Greedy decoding would write a rejected item once more.
const MIN_RETRY_TEMPERATURE: f32 = 0.5;

impl QuizPlan {
    /// What has the item written; the same for the same index and attempt.
    pub(super) fn request(&self, index: usize, attempt: usize) -> TextRequest {
        self.request_as(self.items[index].kind, index, attempt)
    }

    /// Drafts of an item that are written at the same time.
    pub(super) fn drafts_at_once(&self, index: usize) -> usize {
        // Who can read knows of each draft how good it is: then the next is written only if it could be better.
        if self.reads(index) { 1 } else { self.spec.candidates }
    }

    /// Whether the model answers the questions of the item to find out what they ask for.
    fn reads(&self, index: usize) -> bool {
        let item = &self.items[index];
        let asks = item.kind != ItemKind::TrueFalse && matches!(item.ground, Ground::Text(_));
        asks && self.spec.round_trip != CheckPolicy::Off && self.reader().is_some()
    }

    /// Whether a question is about a fact of its passage, so far as that can be told.
    pub(super) fn is_about_passage(&self, index: usize, item: &QuizItem) -> bool {
        match &self.items[index].ground {
            Ground::Text(excerpt)
                if item.kind != ItemKind::TrueFalse && self.spec.language.code() == "en" =>
            {
                is_about(&item.question, &excerpt.passage())
            }
            _ => true,
        }
    }

    /// How the model is asked for the way back from the question.
    pub(super) fn way_back(&self, index: usize, attempt: usize, question: &str) -> WayBack {
        if let (Some(reader), Ground::Text(excerpt)) = (self.reader(), &self.items[index].ground) {
            return WayBack::Read(Prompt::Chat(reader.messages(&excerpt.passage(), question)));
        }
        // Whatever the kind, the prompt for a short answer: after it a question follows most closely from the answer
        // before it.
        WayBack::Ask(self.request_as(ItemKind::ShortAnswer, index, attempt).prompt)
    }

    fn reader(&self) -> Option<ReadTemplate<'_>> {
        self.templates.as_ref().filter(|templates| templates.speak(&self.spec.language))?.reading()
    }

    fn request_as(&self, kind: ItemKind, index: usize, attempt: usize) -> TextRequest {
        let (item, spec) = (&self.items[index], &self.spec);
        let shown;
        let (about, candidates, names) = match &item.ground {
            Ground::Memory => {
                // Neighbours ask about different sides, and so does the next attempt.
                let first = derive(spec.seed, Purpose::Angle, 0, 0);
                let angle = first.wrapping_add((index + attempt) as u64);
                (About::Topic { topic: spec.subject.text(), angle }, Vec::new(), Vec::new())
            }
            Ground::Text(excerpt) => {
                shown = excerpt.passage();
                let sentences = self.candidates(excerpt, attempt);
                let sentences = sentences.map(|sentence| excerpt.source.sentence_text(sentence));
                let names = match kind {
                    ItemKind::TrueFalse if !item.truth => excerpt.names(),
                    _ => Vec::new(),
                };
                (About::Passage(&shown), sentences.collect(), names)
            }
        };
        let prompt = ItemPrompt {
            about,
            kind,
            truth: item.truth,
            difficulty: spec.difficulty,
            language: &spec.language,
            audience: spec.audience.as_deref(),
            exclude: &spec.exclude,
            templates: self.templates.as_deref(),
        };
        let grammar = ItemGrammar {
            kind,
            language: &spec.language,
            truth: item.truth,
            candidates: &candidates,
            names: &names,
        };
        let min_temperature = if attempt == 0 { 0.0 } else { MIN_RETRY_TEMPERATURE };
        TextRequest {
            prompt: Prompt::Chat(prompt.messages()),
            max_new_tokens: Some(item.max_new_tokens),
            sampling: SamplingParams {
                logprobs: (spec.candidates > 1).then_some(0),
                seed: derive(spec.seed, Purpose::Sampling, index, attempt),
                temperature: spec.sampling.temperature.max(min_temperature),
                ..spec.sampling.clone()
            },
            grammar: Some(grammar.spec()),
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        }
    }

    /// What has the likeliest question written for a given answer; `None` where it stands in no sentence.
    pub(super) fn request_for(&self, answer: &str) -> Option<TextRequest> {
        let item = self.items.first()?;
        let Ground::Text(excerpt) = &item.ground else { return None };
        let sentences = excerpt.shown.clone().map(|idx| excerpt.source.sentence_text(idx));
        let evidence = sentences.into_iter().find(|sentence| sentence.contains(answer))?;
        let request = self.request_as(ItemKind::ShortAnswer, 0, 0);
        Some(TextRequest {
            grammar: Some(asking_for(evidence, answer, &self.spec.language)),
            sampling: SamplingParams { temperature: 0.0, ..request.sampling },
            max_new_tokens: None,
            ..request
        })
    }

    /// The sentences an attempt may rest on.
    pub(super) fn candidates<'a>(
        &self,
        excerpt: &'a Excerpt,
        attempt: usize,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let (sentences, nth) = match attempt.checked_sub(self.spec.candidates + OWN_RETRIES) {
            Some(nth) if !excerpt.others.is_empty() => (&excerpt.others, nth),
            _ => (&excerpt.candidates, attempt),
        };
        let len = sentences.len();
        sentences.iter().copied().cycle().skip(nth * CANDIDATES % len).take(CANDIDATES.min(len))
    }

    /// Times an item is written before it is left out.
    pub(super) fn max_attempts(&self) -> usize {
        RETRIES + self.spec.candidates
    }

    /// The item that comes of a reply, if it passes every check that needs no other item.
    ///
    /// # Errors
    /// The first check's reason that failed.
    pub(super) fn item(&self, index: usize, attempt: usize, reply: &str) -> Result<QuizItem, RejectReason> {
        let (plan, spec) = (&self.items[index], &self.spec);
        let mut draft = Draft::parse(plan.kind, reply)?;
        let others = plan.ground.other_sentences(draft.evidence.as_deref());
        replace_repeats(&mut draft, &others);
        let (kind, language) = (plan.kind, &spec.language);
        let (checks, evidence, citation) = match &plan.ground {
            Ground::Memory => {
                let brief = Brief { kind, language, subject: spec.subject.text(), evidence: None };
                (check_alone(&draft, &brief)?, None, None)
            }
            Ground::Text(excerpt) => {
                let evidence = locate(&excerpt.source, self.candidates(excerpt, attempt), &draft)?;
                let subject = &excerpt.passage();
                let brief = Brief { kind, language, subject, evidence: Some((&excerpt.source, &evidence)) };
                let checks = check_alone(&draft, &brief)?;
                (checks, Some(evidence), excerpt.citation.as_deref().cloned())
            }
        };
        let shown =
            Shown { kind, question: &draft.question, answer: &draft.answer, distractors: &draft.distractors };
        let flaws = flaws(&shown);
        let mut checks = checks;
        match flaws.first() {
            Some(flaw) if spec.clean == CheckPolicy::Require => return Err(RejectReason::Flawed(*flaw)),
            Some(_) => {}
            None => checks.push(Check::Clean),
        }
        let explanation = match &evidence {
            Some(evidence) => correction(&draft, evidence, &spec.language),
            None => draft.explanation,
        };
        let (choices, choice_index) = match plan.kind {
            ItemKind::MultipleChoice => {
                let seed = derive(spec.seed, Purpose::Choices, index, attempt);
                let (choices, key) = shuffled(&draft.answer, draft.distractors, seed);
                (Some(choices), Some(key))
            }
            ItemKind::TrueFalse | ItemKind::ShortAnswer => (None, None),
        };
        Ok(QuizItem {
            id: self.id("item", index),
            index,
            kind: plan.kind,
            question: draft.question,
            choices,
            answer: Answer { text: draft.answer, choice_index },
            status: if evidence.is_some() { ItemStatus::Grounded } else { ItemStatus::Unverified },
            evidence,
            citation,
            explanation,
            checks,
            flaws,
        })
    }

    /// A name that follows from the whole request, its seed, what the library had for it and what the user was
    /// asked before included: the same quiz has the same names.
    pub(super) fn id(&self, prefix: &str, index: usize) -> String {
        const DIGITS: usize = 24;
        let spec = &self.spec;
        let mut subject = spec.subject.text().to_owned();
        for item in &self.items {
            if let Ground::Text(Excerpt { citation: Some(citation), .. }) = &item.ground {
                subject.push('\n');
                subject.push_str(&citation.passage);
            }
        }
        if let Some(Comparison { distinct, plausible, .. }) = &self.comparison {
            subject.push_str(&format!("\ndistinct {}, plausible {}", distinct.name(), plausible.name()));
        }
        for asked in &self.earlier {
            subject.push('\n');
            subject.push_str(&asked.item.question);
        }
        let subject = match spec.subject {
            Subject::Topic(_) => ("topic", subject),
            Subject::Source(_) => ("source", subject),
        };
        let sampling = &spec.sampling;
        let numbers = [
            sampling.temperature,
            sampling.top_p,
            sampling.min_p,
            sampling.repetition_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        ];
        let request = (
            subject,
            (spec.count, &spec.kinds, spec.difficulty, spec.language.tag()),
            (&spec.audience, &spec.exclude, spec.seed, spec.max_item_tokens),
            (spec.candidates, spec.round_trip.name(), spec.clean.name()),
            (numbers, sampling.top_k),
        );
        let request = serde_json::to_vec(&(prefix, index, request)).expect("texts and numbers are JSON");
        let digest = Sha256::digest(request);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{prefix}_{}", &hex[..DIGITS])
    }
}

/// Where the evidence stands: it is one of the sentences the attempt had to choose from.
fn locate(
    source: &Source,
    mut sentences: impl Iterator<Item = usize>,
    draft: &Draft,
) -> Result<Evidence, RejectReason> {
    let text = draft.evidence.as_deref().ok_or(RejectReason::NotGrounded)?;
    let sentence = sentences.find(|sentence| source.sentence_text(*sentence) == text);
    let place = &source.sentences()[sentence.ok_or(RejectReason::NotGrounded)?].chars;
    Ok(Evidence { text: text.to_owned(), start: place.start, end: place.end })
}

/// Of a false statement made from its evidence: what is wrong in it, and what the source says.
fn correction(draft: &Draft, evidence: &Evidence, language: &Language) -> Option<String> {
    let sentence = fold_spaces(&evidence.text);
    if draft.answer != "false" {
        return None;
    }
    let said: Vec<&str> = draft.question.split(' ').collect();
    let right: Vec<&str> = sentence.split(' ').collect();
    let before = said.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let after =
        said[before..].iter().rev().zip(right[before..].iter().rev()).take_while(|(a, b)| a == b).count();
    let differing = |words: &[&str]| {
        let text = words[before..words.len() - after].join(" ");
        text.trim_matches(|c: char| !c.is_alphanumeric() && c != '%').to_owned()
    };
    let (said, right) = (differing(&said), differing(&right));
    Some(match language.code() {
        // A denial: what stands in the place of "not", if anything, says little.
        "en" if right.is_empty() || said == "not" => format!("The source says: “{sentence}”"),
        "en" => format!("Not “{said}”: the source says “{right}”."),
        "ja" => format!("「{said}」ではなく「{right}」です。"),
        _ => format!("{said} → {right}"),
    })
}

/// All options in an order that follows from `seed`, and the key's place among them.
fn shuffled(key: &str, distractors: Vec<String>, seed: u64) -> (Vec<String>, usize) {
    let mut choices = vec![key.to_owned()];
    choices.extend(distractors);
    shuffle(&mut choices, seed);
    let key = choices.iter().position(|choice| choice == key).expect("the key is one of the choices");
    (choices, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::plan::Capacity;
    use crate::quiz::{QuizRequest, QuizSpec};

    const SOURCE: &str = "The Eiffel Tower in Paris was finished in 1889 by Gustave Eiffel.";

    fn plan(kind: &str, seed: u64) -> QuizPlan {
        let request = serde_json::json!({"source": SOURCE, "count": 2, "kind": kind, "seed": seed});
        let request = serde_json::from_value::<QuizRequest>(request).unwrap();
        let capacity = Capacity { context_len: 2048, count_tokens: &|text| text.len(), templates: None };
        QuizPlan::new(QuizSpec::try_from(request).unwrap(), None, Vec::new(), &capacity).unwrap()
    }

    #[test]
    fn a_multiple_choice_item() {
        let reply = serde_json::json!({
            "evidence": SOURCE, "answer": "Paris", "question": "Where does the famous iron tower stand?",
            "distractors": ["London", "Madrid", "Rome"],
        });
        let mut keys = std::collections::HashSet::new();
        for seed in 0..40 {
            let item = plan("multiple_choice", seed).item(0, 0, &reply.to_string()).unwrap();
            let key = item.answer.choice_index.unwrap();
            assert_eq!(item.choices.unwrap()[key], "Paris");
            assert_eq!(
                item.evidence.unwrap(),
                Evidence { text: SOURCE.to_owned(), start: 0, end: SOURCE.len() }
            );
            assert_eq!(item.status, ItemStatus::Grounded);
            keys.insert(key);
        }
        assert_eq!(keys.len(), 4, "the key comes to stand anywhere");
    }

    #[test]
    fn a_false_statement_is_put_right() {
        let plan = (0..).map(|seed| plan("true_false", seed)).find(|plan| !plan.items[0].truth).unwrap();
        let statement = SOURCE.replace("Gustave Eiffel", "Victor Hugo");
        let reply = serde_json::json!({"evidence": SOURCE, "answer": false, "question": statement});
        let item = plan.item(0, 0, &reply.to_string()).unwrap();
        assert_eq!(item.explanation.unwrap(), "Not “Victor Hugo”: the source says “Gustave Eiffel”.");
        let reply = serde_json::json!({"evidence": SOURCE, "answer": false, "question": SOURCE.replace("was", "was not")});
        let item = plan.item(0, 0, &reply.to_string()).unwrap();
        assert_eq!(item.explanation.unwrap(), format!("The source says: “{SOURCE}”"));
        let evidence = Evidence { text: "It is also old.".to_owned(), start: 0, end: 15 };
        let draft =
            serde_json::json!({"evidence": evidence.text, "answer": false, "question": "It is not old."});
        let draft = Draft::parse(ItemKind::TrueFalse, &draft.to_string()).unwrap();
        let english = Language::parse("en").unwrap();
        assert_eq!(correction(&draft, &evidence, &english).unwrap(), "The source says: “It is also old.”");
    }

    #[test]
    fn requests_and_names_follow_from_the_seed() {
        let request =
            |seed: u64, index: usize, attempt: usize| plan("short_answer", seed).request(index, attempt);
        assert_eq!(request(1, 0, 0).sampling, request(1, 0, 0).sampling);
        assert_ne!(request(1, 0, 0).sampling.seed, request(1, 0, 1).sampling.seed);
        assert_ne!(request(1, 0, 0).sampling.seed, request(1, 1, 0).sampling.seed);
        assert_ne!(request(1, 0, 0).sampling.seed, request(2, 0, 0).sampling.seed);
        let id = |seed: u64, index: usize| plan("short_answer", seed).id("item", index);
        assert_eq!(id(1, 0), id(1, 0));
        assert_ne!(id(1, 0), id(1, 1));
        assert_ne!(id(1, 0), id(2, 0));
    }

    #[test]
    fn evidence_from_nowhere_is_refused() {
        let reply = serde_json::json!({"evidence": "Paris is big.", "answer": "Paris", "question": "What is big here?"});
        let refused = plan("short_answer", 1).item(0, 0, &reply.to_string());
        assert_eq!(refused, Err(RejectReason::NotGrounded));
    }
}
