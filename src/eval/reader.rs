use super::candidate::Candidate;
use crate::generation::{GenerateError, Generator, Prompt, TextEvent, TextRequest};
use crate::quiz::ItemKind;
use crate::sampling::{GrammarSpec, SamplingParams};
use crate::text::{ChatMessage, Role};
use serde::{Deserialize, Serialize};

/// A model that answers the questions, always taking the likeliest token.
#[derive(Clone)]
pub struct Reader {
    generator: Generator,
}

/// What the reader made of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Answer(String),
    /// The key was picked in `right` of the orders in which the options were shown.
    Choices {
        right: usize,
        asked: usize,
    },
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
                Ok(Reading::Answer(self.reply(context, task, None).await?))
            }
            ItemKind::TrueFalse => {
                let task = format!("Statement: {}\nIs the statement True or False?", item.question);
                let options = vec!["True".to_owned(), "False".to_owned()];
                let reply = self.reply(context, task, Some(options)).await?;
                Ok(Reading::Choices {
                    right: usize::from(reply.eq_ignore_ascii_case(&item.answer)),
                    asked: 1,
                })
            }
            ItemKind::MultipleChoice => self.choose(item, context).await,
        }
    }

    /// Every option comes to stand everywhere once, so that a reader that likes a place gains nothing.
    async fn choose(&self, item: &Candidate, context: &str) -> Result<Reading, GenerateError> {
        let mut options: Vec<String> = item.options().map(str::to_owned).collect();
        let asked = options.len();
        let mut right = 0;
        for _ in 0..asked {
            options.rotate_left(1);
            let list: String = options.iter().map(|option| format!("- {option}\n")).collect();
            let task = format!("Question: {}\n{list}Which of these is the answer?", item.question);
            let reply = self.reply(context, task, Some(options.clone())).await?;
            right += usize::from(reply == item.answer);
        }
        Ok(Reading::Choices { right, asked })
    }

    /// The reply, one of `options` where there are any.
    async fn reply(
        &self,
        context: &str,
        task: String,
        options: Option<Vec<String>>,
    ) -> Result<String, GenerateError> {
        let grammar = options.map(|options| {
            let literals: Vec<String> = options
                .iter()
                .map(|option| serde_json::to_string(option).expect("a string is JSON"))
                .collect();
            GrammarSpec::Lark(format!("start: {}", literals.join(" | ")))
        });
        let message = ChatMessage { role: Role::User, content: format!("{context}\n\n{task}") };
        let request = TextRequest {
            prompt: Prompt::Chat(vec![message]),
            max_new_tokens: Some(if grammar.is_some() { 4 * MAX_ANSWER_TOKENS } else { MAX_ANSWER_TOKENS }),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            grammar,
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
