use super::TextError;
use crate::model::Model;

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

/// The model's own chat template, a Jinja program.
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Reads the model's template; a manifest's `chat_template` wins over the file's.
    pub fn open(_model: &Model) -> Result<Self, TextError> {
        todo!()
    }

    /// The prompt for a reply to `messages`.
    ///
    /// # Errors
    /// [`TextError::Template`]: the template raised an error.
    pub fn render(&self, _messages: &[ChatMessage]) -> Result<String, TextError> {
        todo!()
    }
}
