use super::item::RejectReason;
use super::spec::ItemKind;
use super::wording::fold_spaces;

/// An item as the model wrote it: fields read, nothing checked yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) evidence: Option<String>,
    /// `true` or `false` for a true/false item.
    pub(super) answer: String,
    pub(super) question: String,
    /// Three for a multiple-choice item, none else.
    pub(super) distractors: Vec<String>,
    pub(super) explanation: Option<String>,
}

/// Wrong options beside the key.
pub(super) const DISTRACTORS: usize = 3;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDraft {
    evidence: Option<String>,
    answer: WireAnswer,
    question: String,
    #[serde(default)]
    distractors: Vec<String>,
    explanation: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum WireAnswer {
    Truth(bool),
    Text(String),
}

impl Draft {
    /// Reads a reply. The grammar makes this succeed: a reply that does not is a defect of ours, and no item.
    ///
    /// # Errors
    /// [`RejectReason::Malformed`]: broken JSON, or fields that do not fit the kind.
    pub(super) fn parse(kind: ItemKind, reply: &str) -> Result<Self, RejectReason> {
        let wire: WireDraft = serde_json::from_str(reply).map_err(|_| RejectReason::Malformed)?;
        let answer = match (kind, wire.answer) {
            (ItemKind::TrueFalse, WireAnswer::Truth(truth)) => truth.to_string(),
            (ItemKind::MultipleChoice | ItemKind::ShortAnswer, WireAnswer::Text(text)) => text,
            _ => return Err(RejectReason::Malformed),
        };
        let distractors = if kind == ItemKind::MultipleChoice { DISTRACTORS } else { 0 };
        if wire.distractors.len() != distractors {
            return Err(RejectReason::Malformed);
        }
        let draft = Self {
            // An answer that rests on evidence is a span of it, and stays as it stands there.
            answer: if wire.evidence.is_some() { answer } else { option(&answer) },
            evidence: wire.evidence,
            question: fold_spaces(&wire.question),
            distractors: wire.distractors.iter().map(|text| option(text)).collect(),
            explanation: wire.explanation.as_deref().map(fold_spaces),
        };
        if draft.texts().any(|text| text.is_empty() || text.chars().any(is_invisible)) {
            return Err(RejectReason::Malformed);
        }
        Ok(draft)
    }

    /// What the model may have made up: everything but the evidence.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.answer, &self.question]
            .into_iter()
            .chain(&self.distractors)
            .chain(&self.explanation)
            .map(String::as_str)
    }
}

/// An answer or distractor as it is shown: white space folded, no punctuation left hanging.
fn option(text: &str) -> String {
    let hanging = [' ', '.', ',', ';', ':', '!', '?', '。', '、', '？'];
    fold_spaces(text).trim_end_matches(hanging).to_owned()
}

/// Control characters, those that turn the direction of text, and those that stand for nothing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use ItemKind::*;

    fn check(kind: ItemKind, reply: &str, expected: bool) {
        assert_eq!(Draft::parse(kind, reply).is_ok(), expected, "{reply}");
    }

    #[test]
    fn replies() {
        check(ShortAnswer, r#"{"evidence":"It is so.","answer":"so","question":"How is it?"}"#, true);
        check(ShortAnswer, r#"{"answer":"so","question":"How is it?","explanation":"It is."}"#, true);
        check(MultipleChoice, r#"{"answer":"a","question":"q?","distractors":["b","c","d"]}"#, true);
        check(TrueFalse, r#"{"answer":true,"question":"Water is wet."}"#, true);
        check(TrueFalse, r#"{"answer":"true","question":"Water is wet."}"#, false);
        check(ShortAnswer, r#"{"answer":true,"question":"Is it?"}"#, false);
        check(MultipleChoice, r#"{"answer":"a","question":"q?","distractors":["b","c"]}"#, false);
        check(ShortAnswer, r#"{"answer":"a","question":"q?","distractors":["b","c","d"]}"#, false);
        check(ShortAnswer, r#"{"answer":"a","question":"q?","thought":"hm"}"#, false);
        check(ShortAnswer, r#"{"answer":"a"}"#, false);
        check(ShortAnswer, r#"{"answer":"...","question":"q?"}"#, false);
        check(ShortAnswer, "{\"answer\":\"a\",\"question\":\"q\u{202e}?\"}", false);
        check(ShortAnswer, r#"{"answer":"","question":"q?"}"#, false);
        check(ShortAnswer, r#"{"answer":"a","question":"q\u0000?"}"#, false);
        check(ShortAnswer, r#"{"answer":"a","question":"q"#, false);
        check(ShortAnswer, "", false);
    }

    #[test]
    fn texts_are_tidied() {
        let reply = r#"{"answer":"New  York. ","question":"Where\n is it ?","explanation":" It is there."}"#;
        let draft = Draft::parse(ShortAnswer, reply).unwrap();
        assert_eq!(draft.answer, "New York");
        assert_eq!(draft.question, "Where is it ?");
        assert_eq!(draft.explanation.unwrap(), "It is there.");
    }
}
