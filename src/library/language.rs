//! What language a text is in, where it can be told without a dictionary.

use super::document::UNKNOWN_LANGUAGE;

/// Words in this share of a text that no other language has all of.
const ENGLISH_WORDS: &[&str] = &["the", "of", "and", "is", "was", "that", "with"];
const MIN_ENGLISH_SHARE: f32 = 0.1;

/// The primary subtag of a language tag, in lower case; `None` if it cannot be one.
pub(super) fn primary_subtag(tag: &str) -> Option<String> {
    let primary = tag.split('-').next().filter(|primary| (2..=3).contains(&primary.len()))?;
    primary.bytes().all(|byte| byte.is_ascii_alphabetic()).then(|| primary.to_ascii_lowercase())
}

/// Japanese by its kana, English by its small words, or [`UNKNOWN_LANGUAGE`].
pub(super) fn guess(text: &str) -> &'static str {
    if text.chars().any(|c| matches!(c, 'ぁ'..='ゖ')) {
        return "ja";
    }
    let (mut words, mut english, mut the) = (0, 0, false);
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        words += 1;
        english += usize::from(ENGLISH_WORDS.contains(&word.as_str()));
        the |= word == "the";
    }
    if the && english as f32 >= MIN_ENGLISH_SHARE * words as f32 { "en" } else { UNKNOWN_LANGUAGE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses() {
        let check = |text: &str, expected: &str| assert_eq!(guess(text), expected, "{text}");
        check("The Nile is the longest river in Africa.", "en");
        check("琵琶湖は日本最大の湖である。", "ja");
        check("Der Rhein ist ein Strom in Mitteleuropa.", "und");
        check(
            "Le film The Wall est sorti en 1982 avec un grand succès auprès du public et de la presse.",
            "und",
        );
        check("长江是亚洲最长的河流。", "und");
        check("", "und");
    }

    #[test]
    fn tags() {
        let check = |tag: &str, expected: Option<&str>| assert_eq!(primary_subtag(tag).as_deref(), expected);
        check("en", Some("en"));
        check("PT-br", Some("pt"));
        check("english", None);
        check("", None);
        check("日本", None);
    }
}
