use super::plan::Capacity;
use super::prompt_templates::PromptTemplates;
use crate::generation::{GenerateError, Generator, Likelihood, TextRequest, TextSummary, WeighRequest};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// What a quiz needs of a model: a [`Generator`], or in tests something that plays one.
pub(super) trait Writer: Send + Sync + 'static {
    fn model_name(&self) -> &str;
    fn context_len(&self) -> usize;
    /// Replies that can be written at the same time.
    fn slots(&self) -> usize;
    fn count_tokens(&self, text: &str) -> usize;
    /// Resolves when the reply is accepted, to a future of the whole of it. Dropping either cancels.
    fn write(&self, request: TextRequest) -> BoxFuture<'static, Result<Reply, GenerateError>>;
    /// Dropping it cancels.
    fn weigh(&self, request: WeighRequest) -> BoxFuture<'static, Result<Likelihood, GenerateError>>;
}

/// A reply being written.
pub(super) type Reply = BoxFuture<'static, Result<(String, TextSummary), GenerateError>>;

impl dyn Writer {
    /// Calls `f` with what the model can take, and how it is asked.
    pub(super) fn with_capacity<T>(
        &self,
        templates: Option<&Arc<PromptTemplates>>,
        f: impl FnOnce(&Capacity<'_>) -> T,
    ) -> T {
        let count_tokens = &|text: &str| self.count_tokens(text);
        f(&Capacity { context_len: self.context_len(), count_tokens, templates })
    }
}

impl Writer for Generator {
    fn model_name(&self) -> &str {
        Generator::model_name(self)
    }

    fn context_len(&self) -> usize {
        self.engine().limits().context_len
    }

    fn slots(&self) -> usize {
        self.engine().limits().slots
    }

    fn count_tokens(&self, text: &str) -> usize {
        Generator::count_tokens(self, text)
    }

    fn write(&self, request: TextRequest) -> BoxFuture<'static, Result<Reply, GenerateError>> {
        let generator = self.clone();
        Box::pin(async move {
            let stream = generator.generate(request).await?;
            Ok(Box::pin(stream.collect()) as Reply)
        })
    }

    fn weigh(&self, request: WeighRequest) -> BoxFuture<'static, Result<Likelihood, GenerateError>> {
        let generator = self.clone();
        Box::pin(async move { generator.weigh(request).await })
    }
}
