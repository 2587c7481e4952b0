//! What is asked of every target: the same prompts, in the same order, of the same seed.

use crate::eval::{EvalSet, ITEM_KINDS, SplitMix};
use serde::Serialize;
use serde_json::{Value, json};

/// What the requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Quizzes about a passage, at /v1/quizzes or in process
    Quiz,
    /// Chat completions held to the JSON schema of one question: a quiz item, from any server
    Schema,
    /// Chat completions in plain text, all of one length
    Chat,
    /// Prompts of random tokens, one token each in reply (in process only)
    Prefill,
    /// Replies to a short prompt of random tokens (in process only)
    Decode,
}

/// How the requests are made.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadOptions {
    pub workload: Workload,
    /// Tokens of a reply: all of them for `chat` and `decode`, at most so many for `schema`.
    pub output_tokens: usize,
    /// Tokens of a prompt of `prefill`.
    pub prompt_tokens: usize,
    /// Items of a quiz.
    pub items: usize,
    pub seed: u64,
    /// Replies of `chat` go on past the model's end-of-reply token, so that all have one length.
    pub ignore_eos: bool,
    pub sampling: Sampling,
}

/// Only what is given is sent; the rest is the target's default.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sampling {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<u64>,
    pub min_p: Option<f32>,
}

/// One request, ready for any target that can take its kind.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// The body of a quiz request.
    Quiz(Value),
    Chat(ChatWork),
    Tokens {
        prompt: Vec<u64>,
        output_tokens: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) struct ChatWork {
    pub(super) system: &'static str,
    pub(super) user: String,
    pub(super) output_tokens: usize,
    pub(super) ignore_eos: bool,
    pub(super) schema: Option<Value>,
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
}

/// Which request of a run it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) run: usize,
    /// Which of the loads; warm-ups have one of their own.
    pub(super) load: usize,
    pub(super) idx: usize,
}

/// A short prompt for `decode`.
const DECODE_PROMPT_TOKENS: usize = 16;
const CHAT_SYSTEM: &str = "You are a teacher who explains texts to students, thoroughly and in plain words.";
const CHAT_TASK: &str = "Explain this text to me, sentence by sentence.";
const SCHEMA_SYSTEM: &str = "You write questions that test whether a text was understood. Reply in JSON.";
const SCHEMA_TASK: &str = "Write one multiple-choice question about this text, with four different options of \
    which exactly one is right, and the index of that one, from 0 to 3.";

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiz => "quiz",
            Self::Schema => "schema",
            Self::Chat => "chat",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }

    /// Its requests come to items that can be valid.
    pub fn has_items(self) -> bool {
        matches!(self, Self::Quiz | Self::Schema)
    }

    /// What one request is, for the head of a report.
    pub fn describe(self, options: &WorkloadOptions) -> String {
        let WorkloadOptions { output_tokens, prompt_tokens, items, .. } = options;
        match self {
            Self::Quiz => format!("quizzes of {items} items about a passage"),
            Self::Schema => {
                format!(
                    "chat completions held to the JSON schema of one question, {output_tokens} tokens at most"
                )
            }
            Self::Chat if options.ignore_eos => format!("chat completions of {output_tokens} tokens"),
            Self::Chat => format!("chat completions of {output_tokens} tokens at most"),
            Self::Prefill => format!("prompts of {prompt_tokens} random tokens, one token each in reply"),
            Self::Decode => {
                format!(
                    "replies of {output_tokens} tokens to prompts of {DECODE_PROMPT_TOKENS} random tokens"
                )
            }
        }
    }
}

impl WorkloadOptions {
    /// The request at a place. Requests of the same run and index are about the same passage, whatever the
    /// load; but for quizzes, each begins with a number of its own, so that no cache knows its text.
    pub(super) fn work(&self, set: &EvalSet, place: Place) -> Work {
        let number = self.number(place);
        let passage = || {
            let order = self.order(set.passages.len(), place.run + place.idx / set.passages.len());
            &set.passages[order[place.idx % set.passages.len()]]
        };
        match self.workload {
            Workload::Quiz => {
                let passage = passage();
                let mut body = json!({
                    "source": passage.context, "language": passage.language, "count": self.items,
                    "kind": ITEM_KINDS.map(crate::quiz::ItemKind::name), "seed": number,
                });
                self.sampling.write(&mut body);
                Work::Quiz(body)
            }
            Workload::Schema | Workload::Chat => {
                let schema = (self.workload == Workload::Schema).then(item_schema);
                let (system, task) = match &schema {
                    Some(_) => (SCHEMA_SYSTEM, SCHEMA_TASK),
                    None => (CHAT_SYSTEM, CHAT_TASK),
                };
                Work::Chat(ChatWork {
                    system,
                    user: format!("Text {number:06}:\n{}\n\n{task}", passage().context),
                    output_tokens: self.output_tokens,
                    ignore_eos: self.ignore_eos && schema.is_none(),
                    schema,
                    sampling: self.sampling.clone(),
                    seed: number,
                })
            }
            Workload::Prefill => {
                Work::Tokens { prompt: random(number, self.prompt_tokens), output_tokens: 1 }
            }
            Workload::Decode => Work::Tokens {
                prompt: random(number, DECODE_PROMPT_TOKENS),
                output_tokens: self.output_tokens,
            },
        }
    }

    /// Six digits, another for every request.
    fn number(&self, place: Place) -> u64 {
        let Place { run, load, idx } = place;
        let of_run = SplitMix(self.seed.wrapping_mul(31).wrapping_add(run as u64)).next() % 900;
        (of_run * 1_000 + load as u64 * 100_003 + idx as u64) % 900_000 + 100_000
    }

    /// The passages of a run, shuffled.
    fn order(&self, n: usize, run: usize) -> Vec<usize> {
        let mut random = SplitMix(self.seed ^ ((run as u64) << 32));
        let mut order: Vec<usize> = (0..n).collect();
        for idx in (1..n).rev() {
            order.swap(idx, (random.next() % (idx as u64 + 1)) as usize);
        }
        order
    }
}

impl Sampling {
    pub(super) fn write(&self, body: &mut Value) {
        let values = [
            ("temperature", self.temperature.map(|value| json!(value))),
            ("top_p", self.top_p.map(|value| json!(value))),
            ("top_k", self.top_k.map(|value| json!(value))),
            ("min_p", self.min_p.map(|value| json!(value))),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                body[name] = value;
            }
        }
    }
}

fn random(seed: u64, n: usize) -> Vec<u64> {
    let mut random = SplitMix(seed);
    (0..n).map(|_| random.next()).collect()
}

/// One question, within what every server's schemas can say.
pub(super) fn item_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "question": {"type": "string", "minLength": 10, "maxLength": 200},
            "options": {
                "type": "array", "minItems": 4, "maxItems": 4,
                "items": {"type": "string", "minLength": 1, "maxLength": 80},
            },
            "answer": {"type": "integer", "enum": [0, 1, 2, 3]},
        },
        "required": ["question", "options", "answer"],
        "additionalProperties": false,
    })
}

/// Whether a reply under [`item_schema`] is an item that could be shown: whole JSON of the schema, a
/// question with its mark, four different options. The same for every target.
pub(super) fn is_valid_item(text: &str) -> bool {
    let Ok(item) = serde_json::from_str::<Value>(text) else { return false };
    let question = item["question"].as_str().unwrap_or_default().trim();
    let options: Vec<String> = item["options"]
        .as_array()
        .map(|options| {
            options.iter().filter_map(Value::as_str).map(|text| text.trim().to_lowercase()).collect()
        })
        .unwrap_or_default();
    let different =
        options.iter().enumerate().all(|(idx, text)| !text.is_empty() && !options[..idx].contains(text));
    question.ends_with(['?', '？'])
        && question.chars().count() >= 10
        && options.len() == 4
        && different
        && item["answer"].as_u64().is_some_and(|answer| answer < 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn options(workload: Workload) -> WorkloadOptions {
        WorkloadOptions {
            workload,
            output_tokens: 8,
            prompt_tokens: 32,
            items: 2,
            seed: 1,
            ignore_eos: true,
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        }
    }

    fn user(work: Work) -> String {
        match work {
            Work::Chat(chat) => chat.user,
            _ => panic!("a chat was asked for"),
        }
    }

    #[test]
    fn every_prompt_is_new_and_loads_have_the_same_passages() {
        let set = EvalSet::default_set();
        let options = options(Workload::Chat);
        let prompt = |run, load, idx| user(options.work(&set, Place { run, load, idx }));
        let mut seen = HashSet::new();
        for run in 0..3 {
            for load in 0..4 {
                for idx in 0..100 {
                    assert!(seen.insert(prompt(run, load, idx)), "{run} {load} {idx}");
                }
            }
        }
        let text = |prompt: String| prompt.split_once('\n').unwrap().1.to_owned();
        assert_eq!(text(prompt(0, 0, 5)), text(prompt(0, 3, 5)));
        assert_ne!(text(prompt(0, 0, 5)), text(prompt(0, 0, 6)));
        assert_eq!(prompt(2, 1, 77), prompt(2, 1, 77));
        let passages: HashSet<String> = (0..40).map(|idx| text(prompt(0, 0, idx))).collect();
        assert_eq!(passages.len(), 40, "no passage comes twice before all have come");
    }

    #[test]
    fn items_are_judged() {
        let check = |question: &str, options: &[&str], answer: i64, expected: bool| {
            let text = json!({"question": question, "options": options, "answer": answer}).to_string();
            assert_eq!(is_valid_item(&text), expected, "{text}");
        };
        let towns = ["Paris", "London", "Rome", "Madrid"];
        check("Where is the Eiffel Tower?", &towns, 0, true);
        check("Where is the Eiffel Tower", &towns, 0, false);
        check("Why?", &towns, 0, false);
        check("Where is the Eiffel Tower?", &towns[1..], 0, false);
        check("Where is the Eiffel Tower?", &["Paris", "paris ", "Rome", "Madrid"], 0, false);
        check("Where is the Eiffel Tower?", &towns, 4, false);
        assert!(!is_valid_item("{\"question\":\"Where is the Eiffel Tow"));
    }
}
