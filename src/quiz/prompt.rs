//! What the model is told: first what all items of a passage share word for word, so that its KV cache
//! is made once, and what is asked of this item last.

use super::language::Language;
use super::prompt_templates::PromptTemplates;
use super::spec::{Difficulty, ItemKind};
use crate::text::{ChatMessage, Role};

/// One item, as it is asked for.
pub(super) struct ItemPrompt<'a> {
    pub(super) about: About<'a>,
    pub(super) kind: ItemKind,
    /// Of a true/false item: which of the two is asked for.
    pub(super) truth: bool,
    pub(super) difficulty: Difficulty,
    pub(super) language: &'a Language,
    pub(super) audience: Option<&'a str>,
    /// Not to be asked again; the last few are shown.
    pub(super) exclude: &'a [String],
    /// The model's own, if it has some.
    pub(super) templates: Option<&'a PromptTemplates>,
}

#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// A subject, and the side of it to ask about (any number names one).
    Topic {
        topic: &'a str,
        angle: u64,
    },
    Passage(&'a str),
}

/// Excluded questions are checked all; showing more than a few would crowd out the rest.
const MAX_SHOWN: usize = 8;
const MAX_SHOWN_CHARS: usize = 120;

impl ItemPrompt<'_> {
    pub(super) fn messages(&self) -> Vec<ChatMessage> {
        if let Some(templates) = self.templates.filter(|templates| templates.speak(self.language)) {
            return templates.messages(self);
        }
        let words = if self.language.code() == "ja" { &JAPANESE } else { &ENGLISH };
        let (system, subject) = match self.about {
            About::Topic { topic, .. } => (words.topic_system, format!("{}{topic}", words.topic)),
            About::Passage(passage) => (words.passage_system, format!("{}\n{passage}", words.passage)),
        };
        let user = format!("{subject}\n\n{}", self.request(words));
        vec![
            ChatMessage { role: Role::System, content: system.to_owned() },
            ChatMessage { role: Role::User, content: user },
        ]
    }

    fn request(&self, words: &Words) -> String {
        let by_kind = match self.kind {
            ItemKind::MultipleChoice => &words.multiple_choice,
            ItemKind::ShortAnswer => &words.short_answer,
            ItemKind::TrueFalse if self.truth => &words.true_statement,
            ItemKind::TrueFalse => &words.false_statement,
        };
        let (task, format) = match self.about {
            About::Topic { .. } => (by_kind.topic, by_kind.topic_format),
            About::Passage(_) => (by_kind.passage, by_kind.passage_format),
        };
        let mut lines = vec![task.to_owned()];
        let asks = self.kind != ItemKind::TrueFalse;
        if let (About::Topic { angle, .. }, true) = (self.about, asks) {
            let angles = words.angles;
            let angle = angles[(angle % angles.len() as u64) as usize];
            lines.push(words.angle.replace("{}", angle));
        }
        lines.push(match self.difficulty {
            Difficulty::Easy => words.easy.to_owned(),
            Difficulty::Medium => words.medium.to_owned(),
            Difficulty::Hard => words.hard.to_owned(),
        });
        if let Some(audience) = self.audience {
            lines.push(words.audience.replace("{}", audience));
        }
        lines.push(words.language.replace("{}", &format!("{} ({})", self.language.name(), self.language)));
        if !self.exclude.is_empty() {
            lines.push(words.exclude.to_owned());
            let shown = &self.exclude[self.exclude.len().saturating_sub(MAX_SHOWN)..];
            lines.extend(shown.iter().map(|entry| {
                let entry: String = entry.chars().take(MAX_SHOWN_CHARS).collect();
                format!("- {entry}")
            }));
        }
        lines.push(format!("{}\n{format}", words.format));
        lines.join("\n")
    }
}

/// The instructions in one language.
struct Words {
    passage_system: &'static str,
    topic_system: &'static str,
    passage: &'static str,
    topic: &'static str,
    multiple_choice: ByKind,
    short_answer: ByKind,
    true_statement: ByKind,
    false_statement: ByKind,
    angle: &'static str,
    angles: &'static [&'static str],
    easy: &'static str,
    medium: &'static str,
    hard: &'static str,
    audience: &'static str,
    language: &'static str,
    exclude: &'static str,
    format: &'static str,
}

struct ByKind {
    passage: &'static str,
    passage_format: &'static str,
    topic: &'static str,
    topic_format: &'static str,
}

const ENGLISH: Words = Words {
    passage_system: "You write quiz questions. You use only what the passage says. You reply with one line of JSON.",
    topic_system: "You write quiz questions about facts you are sure of. You reply with one line of JSON.",
    passage: "Passage:",
    topic: "Topic: ",
    multiple_choice: ByKind {
        passage: "Write one multiple-choice question. Copy a sentence of the passage, take a few words of it as \
                  the answer, write the question they answer, then three wrong answers of the same kind.",
        passage_format: r#"{"evidence":"the sentence","answer":"words of it","question":"...?","distractors":["...","...","..."]}"#,
        topic: "Write one multiple-choice question: the right answer first, then the question, then three wrong \
                answers of the same kind, and one sentence that explains the right one.",
        topic_format: r#"{"answer":"...","question":"...?","distractors":["...","...","..."],"explanation":"..."}"#,
    },
    short_answer: ByKind {
        passage: "Write one question with a short answer. Copy a sentence of the passage, take a few words of it \
                  as the answer, and write the question they answer.",
        passage_format: r#"{"evidence":"the sentence","answer":"words of it","question":"...?"}"#,
        topic: "Write one question with a short answer: the answer first, then the question, and one sentence \
                that explains the answer.",
        topic_format: r#"{"answer":"...","question":"...?","explanation":"..."}"#,
    },
    true_statement: ByKind {
        passage: "Choose the sentence of the passage that is best worth knowing and copy it as a true statement.",
        passage_format: r#"{"evidence":"the sentence","answer":true,"question":"the sentence"}"#,
        topic: "Write one statement that is true, and one sentence that explains why.",
        topic_format: r#"{"answer":true,"question":"...","explanation":"..."}"#,
    },
    false_statement: ByKind {
        passage: "Copy a sentence of the passage, then make a false statement of it: change one name, number or \
                  word to a different one.",
        passage_format: r#"{"evidence":"the sentence","answer":false,"question":"the changed sentence"}"#,
        topic: "Write one statement that sounds right but is false, and one sentence that says what is true.",
        topic_format: r#"{"answer":false,"question":"...","explanation":"..."}"#,
    },
    angle: "Ask about {}.",
    angles: &[
        "a name",
        "a place",
        "a number or a date",
        "a cause or a reason",
        "a part or a kind of something",
        "how something works",
        "the first, the largest or the best known",
        "a word and what it means",
    ],
    easy: "Difficulty: easy, for beginners.",
    medium: "Difficulty: medium.",
    hard: "Difficulty: hard, for experts.",
    audience: "Audience: {}.",
    language: "Language: {}. The question makes sense on its own.",
    exclude: "Do not ask these again:",
    format: "Format:",
};

const JAPANESE: Words = Words {
    passage_system: "あなたはクイズの作問者です。文章に書かれていることだけを使います。一行のJSONで答えます。",
    topic_system: "あなたはクイズの作問者です。確かな事実だけを使います。一行のJSONで答えます。",
    passage: "文章：",
    topic: "テーマ：",
    multiple_choice: ByKind {
        passage: "四択問題を一問作ってください。文章から一文を写し、その中の語を正解とし、それが答えになる質問を書き、\
                  同じ種類の誤答を三つ書きます。",
        passage_format: r#"{"evidence":"写した文","answer":"その中の語","question":"…？","distractors":["…","…","…"]}"#,
        topic: "四択問題を一問作ってください。まず正解、次に質問、同じ種類の誤答を三つ、最後に正解の説明を一文で書きます。",
        topic_format: r#"{"answer":"…","question":"…？","distractors":["…","…","…"],"explanation":"…"}"#,
    },
    short_answer: ByKind {
        passage: "短く答えられる問題を一問作ってください。文章から一文を写し、その中の語を正解とし、それが答えになる\
                  質問を書きます。",
        passage_format: r#"{"evidence":"写した文","answer":"その中の語","question":"…？"}"#,
        topic: "短く答えられる問題を一問作ってください。まず正解、次に質問、最後に正解の説明を一文で書きます。",
        topic_format: r#"{"answer":"…","question":"…？","explanation":"…"}"#,
    },
    true_statement: ByKind {
        passage: "文章の中で最も知る価値のある一文を選び、正しい記述としてそのまま写してください。",
        passage_format: r#"{"evidence":"写した文","answer":true,"question":"写した文"}"#,
        topic: "正しい記述を一つ書き、その理由を一文で説明してください。",
        topic_format: r#"{"answer":true,"question":"…","explanation":"…"}"#,
    },
    false_statement: ByKind {
        passage: "文章から一文を写し、名前、数、語のどれか一つを別のものに変えて、誤った記述にしてください。",
        passage_format: r#"{"evidence":"写した文","answer":false,"question":"変えた文"}"#,
        topic: "正しそうに見えて誤っている記述を一つ書き、本当は何が正しいかを一文で説明してください。",
        topic_format: r#"{"answer":false,"question":"…","explanation":"…"}"#,
    },
    angle: "{}を問います。",
    angles: &[
        "名前",
        "場所",
        "数や年",
        "原因や理由",
        "部分や種類",
        "仕組み",
        "最初のもの、最大のもの、最も有名なもの",
        "言葉の意味",
    ],
    easy: "難しさ：易しい（初心者向け）。",
    medium: "難しさ：普通。",
    hard: "難しさ：難しい（詳しい人向け）。",
    audience: "対象：{}。",
    language: "言語：日本語。質問はそれだけで意味が通るように書きます。",
    exclude: "次のことはもう問いません：",
    format: "形式：",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt<'a>(language: &'a Language, about: About<'a>, kind: ItemKind) -> ItemPrompt<'a> {
        ItemPrompt {
            about,
            kind,
            truth: true,
            difficulty: Difficulty::Medium,
            language,
            audience: None,
            exclude: &[],
            templates: None,
        }
    }

    fn shown(prompt: &ItemPrompt<'_>) -> String {
        let messages = prompt.messages();
        messages
            .iter()
            .map(|message| format!("{:?}: {}", message.role, message.content))
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_passage_in_english() {
        let language = Language::parse("en").unwrap();
        let exclude = ["Where is it?".to_owned(), "x".repeat(500)];
        let prompt = ItemPrompt {
            audience: Some("school children"),
            exclude: &exclude,
            difficulty: Difficulty::Easy,
            ..prompt(&language, About::Passage("The tower is in Paris."), ItemKind::MultipleChoice)
        };
        insta::assert_snapshot!(shown(&prompt), @r#"
        System: You write quiz questions. You use only what the passage says. You reply with one line of JSON.
        User: Passage:
        The tower is in Paris.

        Write one multiple-choice question. Copy a sentence of the passage, take a few words of it as the answer, write the question they answer, then three wrong answers of the same kind.
        Difficulty: easy, for beginners.
        Audience: school children.
        Language: English (en). The question makes sense on its own.
        Do not ask these again:
        - Where is it?
        - xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
        Format:
        {"evidence":"the sentence","answer":"words of it","question":"...?","distractors":["...","...","..."]}
        "#);
    }

    #[test]
    fn a_topic_in_another_language() {
        let language = Language::parse("pt-BR").unwrap();
        let about = About::Topic { topic: "a Lua", angle: 2 };
        insta::assert_snapshot!(shown(&prompt(&language, about, ItemKind::ShortAnswer)), @r#"
        System: You write quiz questions about facts you are sure of. You reply with one line of JSON.
        User: Topic: a Lua

        Write one question with a short answer: the answer first, then the question, and one sentence that explains the answer.
        Ask about a number or a date.
        Difficulty: medium.
        Language: Portuguese (pt-BR). The question makes sense on its own.
        Format:
        {"answer":"...","question":"...?","explanation":"..."}
        "#);
    }

    #[test]
    fn a_false_statement_in_japanese() {
        let language = Language::parse("ja").unwrap();
        let prompt = ItemPrompt {
            truth: false,
            difficulty: Difficulty::Hard,
            ..prompt(&language, About::Passage("琵琶湖は日本最大の湖である。"), ItemKind::TrueFalse)
        };
        insta::assert_snapshot!(shown(&prompt), @r#"
        System: あなたはクイズの作問者です。文章に書かれていることだけを使います。一行のJSONで答えます。
        User: 文章：
        琵琶湖は日本最大の湖である。

        文章から一文を写し、名前、数、語のどれか一つを別のものに変えて、誤った記述にしてください。
        難しさ：難しい（詳しい人向け）。
        言語：日本語。質問はそれだけで意味が通るように書きます。
        形式：
        {"evidence":"写した文","answer":false,"question":"変えた文"}
        "#);
    }

    #[test]
    fn items_of_a_passage_share_their_beginning() {
        let language = Language::parse("en").unwrap();
        let passage = "The tower is in Paris.";
        let [a, b] = [ItemKind::MultipleChoice, ItemKind::TrueFalse]
            .map(|kind| shown(&prompt(&language, About::Passage(passage), kind)));
        let shared = a.find(passage).unwrap() + passage.len();
        assert_eq!(a[..shared], b[..shared]);
    }

    #[test]
    fn formats_are_json() {
        for words in [&ENGLISH, &JAPANESE] {
            for kind in
                [&words.multiple_choice, &words.short_answer, &words.true_statement, &words.false_statement]
            {
                for format in [kind.passage_format, kind.topic_format] {
                    assert!(serde_json::from_str::<serde_json::Value>(format).is_ok(), "{format}");
                }
            }
        }
    }
}
