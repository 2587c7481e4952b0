use super::candidate::Candidate;
use crate::generation::{GenerateError, Generator, Prompt, TextEvent, TextRequest, WeighRequest};
use crate::quiz::ItemKind;
use crate::sampling::SamplingParams;
use crate::text::{ChatMessage, Role};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

/// A model that answers the questions, always taking the likeliest token, or says how likely an answer is.
#[derive(Clone)]
pub struct Reader {
    generator: Generator,
}

/// What the reader made of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Answer(String),
    /// The key was likeliest in `right` of the orders in which the options were shown.
    Choices {
        right: usize,
        asked: usize,
        /// The key's probability among the options, in the mean over the orders.
        key: f64,
        /// The same without the passage.
        key_unread: f64,
    },
    /// How much likelier "True" is than "False", as a natural logarithm.
    Statement {
        log_odds: f64,
        /// The same without the passage: what the reader says of anything.
        log_odds_unread: f64,
    },
}

impl Reading {
    /// Of a statement: whether the passage made it likelier. A small reader says "False" to nearly everything;
    /// what it says without the passage is taken off (contextual calibration: Zhao et al., 2021).
    pub(super) fn holds(&self) -> Option<bool> {
        match self {
            Self::Statement { log_odds, log_odds_unread } => Some(log_odds > log_odds_unread),
            _ => None,
        }
    }
}

const MAX_ANSWER_TOKENS: usize = 32;

impl Reader {
    pub fn new(generator: Generator) -> Self {
        Self { generator }
    }

    pub fn name(&self) -> &str {
        self.generator.model_name()
    }

    /// Reads the passage and answers.
    ///
    /// # Errors
    /// The reader's engine failed, or a passage that does not fit its context.
    pub async fn read(&self, item: &Candidate, context: &str) -> Result<Reading, GenerateError> {
        match item.kind {
            ItemKind::ShortAnswer => {
                let task =
                    format!("Question: {}\nAnswer with as few words of the text as possible.", item.question);
                Ok(Reading::Answer(self.reply(context, task).await?))
            }
            ItemKind::TrueFalse => {
                let task = format!("Statement: {}\nIs the statement True or False?", item.question);
                let options = ["True", "False"];
                let read = self.weigh(Some(context), &task, &options).await?;
                let unread = self.weigh(None, &task, &options).await?;
                Ok(Reading::Statement { log_odds: read[0] - read[1], log_odds_unread: unread[0] - unread[1] })
            }
            ItemKind::MultipleChoice => self.choose(item, context).await,
        }
    }

    /// Every option comes to stand everywhere once, so that a reader that likes a place gains nothing.
    async fn choose(&self, item: &Candidate, context: &str) -> Result<Reading, GenerateError> {
        let mut options: Vec<&str> = item.options().collect();
        let asked = options.len();
        let (mut right, mut key, mut key_unread) = (0, 0.0, 0.0);
        for _ in 0..asked {
            options.rotate_left(1);
            let list: String = options.iter().map(|option| format!("- {option}\n")).collect();
            let task = format!("Question: {}\n{list}Which of these is the answer?", item.question);
            let place =
                options.iter().position(|option| *option == item.answer).expect("the key is an option");
            let read = shares(&self.weigh(Some(context), &task, &options).await?);
            right += usize::from(read.iter().all(|share| *share <= read[place]));
            key += read[place];
            key_unread += shares(&self.weigh(None, &task, &options).await?)[place];
        }
        let asked_times = asked as f64;
        Ok(Reading::Choices { right, asked, key: key / asked_times, key_unread: key_unread / asked_times })
    }

    /// The log-probability of each reply to the task, after the passage if there is one.
    async fn weigh(
        &self,
        context: Option<&str>,
        task: &str,
        replies: &[&str],
    ) -> Result<Vec<f64>, GenerateError> {
        let content = context.map_or_else(|| task.to_owned(), |context| prompt(context, task));
        let weigh = |reply: &&str| {
            let message = ChatMessage { role: Role::User, content: content.clone() };
            let prompt = Prompt::Chat(vec![message]);
            self.generator.weigh(WeighRequest { prompt, before: String::new(), text: (*reply).to_owned() })
        };
        let Some((first, others)) = replies.split_first() else { return Ok(Vec::new()) };
        // What the first has read, the others need not.
        let mut weighed = vec![weigh(first).await?];
        weighed.extend(try_join_all(others.iter().map(weigh)).await?);
        Ok(weighed.iter().map(|of| of.logprobs.iter().map(|logprob| f64::from(*logprob)).sum()).collect())
    }

    async fn reply(&self, context: &str, task: String) -> Result<String, GenerateError> {
        let message = ChatMessage { role: Role::User, content: prompt(context, &task) };
        let request = TextRequest {
            prompt: Prompt::Chat(vec![message]),
            max_new_tokens: Some(MAX_ANSWER_TOKENS),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            grammar: None,
            stop: vec!["\n".to_owned()],
            stop_token_ids: Vec::new(),
            ignore_eos: false,
        };
        let mut stream = self.generator.generate(request).await?;
        let mut text = String::new();
        while let Some(event) = stream.next().await {
            match event {
                TextEvent::Delta(delta) => text.push_str(&delta.text),
                TextEvent::Finished(_) => break,
                TextEvent::Failed(error) => return Err(error),
            }
        }
        Ok(text.trim().to_owned())
    }
}

/// The passage first: all that is asked about it shares its KV cache.
fn prompt(context: &str, task: &str) -> String {
    format!("{context}\n\n{task}")
}

/// Probabilities in proportion, of log-probabilities.
fn shares(weights: &[f64]) -> Vec<f64> {
    let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let odds: Vec<f64> = weights.iter().map(|weight| (weight - most).exp()).collect();
    let all: f64 = odds.iter().sum();
    odds.into_iter().map(|odds| odds / all).collect()
}
