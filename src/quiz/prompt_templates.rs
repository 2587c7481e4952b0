//! A model's own words for asking, in place of those of `prompt`: what it was trained to be asked with.
//!
//! The template is a jinja program that the training script runs too. Here it is run once for each task,
//! when the model is opened, on a mark that stands for the passage or the topic; what comes before and
//! after the mark is kept, and asking is writing the one between the other two.

use super::language::Language;
use super::prompt::{About, ItemPrompt};
use super::spec::ItemKind;
use crate::text::{ChatMessage, Role};
use minijinja::{Environment, UndefinedBehavior, Value, context};

/// How items are asked for of one model.
pub struct PromptTemplates {
    languages: Vec<String>,
    system: String,
    /// By [`Task`], about a passage and about a topic.
    users: [[Frame; 2]; Task::ALL.len()],
    read: Option<ReadFrame>,
}

/// Why a model's templates cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quiz template for {task} about a {about}: {reason}")]
pub struct TemplateError {
    task: &'static str,
    about: &'static str,
    reason: String,
}

/// The text around what is asked about.
#[derive(Debug)]
struct Frame {
    before: String,
    after: String,
}

/// The text around a passage and what is to be answered from it.
#[derive(Debug)]
struct ReadFrame {
    before: String,
    between: String,
    after: String,
}

/// What a template can be asked for, as it is told.
#[derive(Clone, Copy)]
enum Task {
    MultipleChoice,
    ShortAnswer,
    TrueStatement,
    FalseStatement,
}

/// Stands for the passage or the topic; a template has no reason to hold it.
const MARK: &str = "\u{f8ff}";
/// Stands for the question, likewise.
const QUESTION_MARK: &str = "\u{f8fe}";
/// Instructions one rendering may take: a template of this kind takes some dozens.
const FUEL: u64 = 100_000;
const SUBJECTS: [&str; 2] = ["passage", "topic"];

impl PromptTemplates {
    /// `system` is said as it is; `user` is a template that is given `task` and either `passage` or
    /// `topic`, and shows that once; `read`, of a model that was trained to answer too, is given `passage` and
    /// `question`, and shows each once in this order. Items in other languages than `languages` (`en`) are asked for as
    /// they are of any model.
    ///
    /// # Errors
    /// A template does not parse, fails, or does not show what it is about once.
    pub fn new(
        languages: Vec<String>,
        system: String,
        user: &str,
        read: Option<&str>,
    ) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let frame = |task: Task, about: &'static str| {
            let other = SUBJECTS.iter().find(|subject| **subject != about).expect("there are two");
            let context = context! {
                task => task.name(),
                ..Value::from_iter([(about, Value::from(MARK)), (*other, Value::from(()))])
            };
            let rendered = environment.render_str(user, context).map_err(|error| error.to_string());
            rendered.and_then(|text| frame_of(&text)).map_err(|reason| TemplateError {
                task: task.name(),
                about,
                reason,
            })
        };
        let mut users = Vec::with_capacity(Task::ALL.len());
        for task in Task::ALL {
            users.push([frame(task, SUBJECTS[0])?, frame(task, SUBJECTS[1])?]);
        }
        let users = users.try_into().expect("one for each task");
        let read = read.map(|read| {
            let context = context! { passage => MARK, question => QUESTION_MARK };
            let rendered = environment.render_str(read, context).map_err(|error| error.to_string());
            let frame = rendered.and_then(|text| read_frame_of(&text));
            frame.map_err(|reason| TemplateError { task: "read", about: SUBJECTS[0], reason })
        });
        Ok(Self { languages, system, users, read: read.transpose()? })
    }

    pub(super) fn speak(&self, language: &Language) -> bool {
        self.languages.iter().any(|code| code == language.code())
    }

    /// The passage comes before the task, if the template has it so: all items of it share that much.
    pub(super) fn messages(&self, prompt: &ItemPrompt<'_>) -> Vec<ChatMessage> {
        let frames = &self.users[Task::of(prompt) as usize];
        let (frame, subject) = match prompt.about {
            About::Passage(passage) => (&frames[0], passage),
            About::Topic { topic, .. } => (&frames[1], topic),
        };
        self.said(format!("{}{subject}{}", frame.before, frame.after))
    }

    /// What has questions answered, if the model was trained to.
    pub(super) fn reading(&self) -> Option<ReadTemplate<'_>> {
        self.read.as_ref().map(|frame| ReadTemplate { templates: self, frame })
    }

    fn said(&self, user: String) -> Vec<ChatMessage> {
        vec![
            ChatMessage { role: Role::System, content: self.system.clone() },
            ChatMessage { role: Role::User, content: user },
        ]
    }
}

/// How a model that was trained to is asked to answer.
#[derive(Clone, Copy)]
pub(super) struct ReadTemplate<'a> {
    templates: &'a PromptTemplates,
    frame: &'a ReadFrame,
}

impl ReadTemplate<'_> {
    /// What has a question answered from a passage; the reply is `{"answer":"..."}`.
    pub(super) fn messages(&self, passage: &str, question: &str) -> Vec<ChatMessage> {
        let ReadFrame { before, between, after } = self.frame;
        self.templates.said(format!("{before}{passage}{between}{question}{after}"))
    }
}

impl Task {
    const ALL: [Self; 4] =
        [Self::MultipleChoice, Self::ShortAnswer, Self::TrueStatement, Self::FalseStatement];

    fn of(prompt: &ItemPrompt<'_>) -> Self {
        match prompt.kind {
            ItemKind::MultipleChoice => Self::MultipleChoice,
            ItemKind::ShortAnswer => Self::ShortAnswer,
            ItemKind::TrueFalse if prompt.truth => Self::TrueStatement,
            ItemKind::TrueFalse => Self::FalseStatement,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::MultipleChoice => "multiple_choice",
            Self::ShortAnswer => "short_answer",
            Self::TrueStatement => "true_statement",
            Self::FalseStatement => "false_statement",
        }
    }
}

fn frame_of(text: &str) -> Result<Frame, String> {
    match text.split(MARK).collect::<Vec<_>>()[..] {
        [before, after] => Ok(Frame { before: before.to_owned(), after: after.to_owned() }),
        ref parts => Err(format!("it shows it {} times instead of once", parts.len() - 1)),
    }
}

fn read_frame_of(text: &str) -> Result<ReadFrame, String> {
    let Frame { before, after } = frame_of(text)?;
    match after.split(QUESTION_MARK).collect::<Vec<_>>()[..] {
        [between, after] if !before.contains(QUESTION_MARK) => {
            Ok(ReadFrame { before, between: between.to_owned(), after: after.to_owned() })
        }
        _ => Err("it does not show the question once, after the passage".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::Difficulty;

    const USER: &str =
        "{% if passage %}{{ passage }}{% else %}Topic: {{ topic }}{% endif %}\n\nWrite: {{ task }}";

    fn user(kind: ItemKind, truth: bool, about: About<'_>) -> String {
        let templates = PromptTemplates::new(vec!["en".to_owned()], "Quiz.".to_owned(), USER, None).unwrap();
        let language = Language::parse("en").unwrap();
        let difficulty = Difficulty::Medium;
        let (audience, exclude, templates) = (None, &[], Some(&templates));
        let prompt =
            ItemPrompt { about, kind, truth, difficulty, language: &language, audience, exclude, templates };
        let messages = prompt.messages();
        assert_eq!((messages.len(), messages[0].content.as_str()), (2, "Quiz."));
        messages[1].content.clone()
    }

    #[test]
    fn what_is_asked_for() {
        let (passage, topic) =
            (About::Passage("{{ It }} is so."), About::Topic { topic: "rivers", angle: 1 });
        assert_eq!(
            user(ItemKind::MultipleChoice, true, passage),
            "{{ It }} is so.\n\nWrite: multiple_choice"
        );
        assert_eq!(user(ItemKind::ShortAnswer, true, topic), "Topic: rivers\n\nWrite: short_answer");
        assert_eq!(user(ItemKind::TrueFalse, true, topic), "Topic: rivers\n\nWrite: true_statement");
        assert_eq!(user(ItemKind::TrueFalse, false, passage), "{{ It }} is so.\n\nWrite: false_statement");
    }

    #[test]
    fn templates_that_cannot_be_used() {
        let check = |user: &str, says: &str| {
            let error = PromptTemplates::new(Vec::new(), String::new(), user, None).err().expect(user);
            assert!(error.to_string().contains(says), "{error}");
        };
        check("{{ passage }", "syntax error");
        check("{{ passage }}", "about a topic: it shows it 0 times");
        check("{{ passage or topic }} {{ passage }}", "about a passage: it shows it 2 times");
        check("{{ passage or topic }} {{ tsak }}", "undefined");
        check("{% for n in range(100000) %}{{ n }}{% endfor %}", "fuel");
    }

    #[test]
    fn what_is_to_be_answered() {
        let read = |read: Option<&str>| PromptTemplates::new(Vec::new(), "Quiz.".to_owned(), USER, read);
        let templates = read(Some("{{ passage }}\n\nAnswer: {{ question }}")).unwrap();
        let messages = templates.reading().unwrap().messages("{{ It }} is so.", "Is it?");
        assert_eq!(messages[1].content, "{{ It }} is so.\n\nAnswer: Is it?");
        assert!(read(None).unwrap().reading().is_none());
        let check = |text: &str, says: &str| {
            let error = read(Some(text)).err().expect(text).to_string();
            assert!(error.contains(says), "{error}");
        };
        check("{{ question }}", "for read about a passage: it shows it 0 times");
        check("{{ passage }}", "does not show the question once, after the passage");
        check("{{ question }} {{ passage }}", "does not show the question once, after the passage");
        check("{{ passage }} {{ asked }}", "undefined");
    }
}
