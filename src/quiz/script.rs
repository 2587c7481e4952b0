/// A writing system, as far as a program can tell by looking at characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Hebrew,
    Arabic,
    Thaana,
    Devanagari,
    Bengali,
    Gujarati,
    Odia,
    Tamil,
    Telugu,
    Kannada,
    Malayalam,
    Sinhala,
    Thai,
    Lao,
    Tibetan,
    Myanmar,
    Georgian,
    Ethiopic,
    Khmer,
    Hangul,
    Han,
    /// Kana; of a language, kana and kanji.
    Japanese,
}

impl Script {
    /// The script of a four-letter code, any case; `None` for one we cannot tell.
    pub(super) fn from_iso_15924(code: &str) -> Option<Self> {
        use Script::*;
        let known = match code.to_ascii_lowercase().as_str() {
            "latn" => Latin,
            "grek" => Greek,
            "cyrl" => Cyrillic,
            "armn" => Armenian,
            "hebr" => Hebrew,
            "arab" => Arabic,
            "thaa" => Thaana,
            "deva" => Devanagari,
            "beng" => Bengali,
            "gujr" => Gujarati,
            "orya" => Odia,
            "taml" => Tamil,
            "telu" => Telugu,
            "knda" => Kannada,
            "mlym" => Malayalam,
            "sinh" => Sinhala,
            "thai" => Thai,
            "laoo" => Lao,
            "tibt" => Tibetan,
            "mymr" => Myanmar,
            "geor" => Georgian,
            "ethi" => Ethiopic,
            "khmr" => Khmer,
            "hang" | "kore" => Hangul,
            "hani" | "hans" | "hant" => Han,
            "jpan" | "hira" | "kana" | "hrkt" => Japanese,
            _ => return None,
        };
        Some(known)
    }

    /// The script of a letter, by Unicode block; `None` for digits, marks and anything rarer.
    pub(super) fn of(c: char) -> Option<Self> {
        use Script::*;
        if c.is_ascii() {
            return c.is_ascii_alphabetic().then_some(Latin);
        }
        let script = match u32::from(c) {
            0x00aa | 0x00ba | 0x00c0..=0x00d6 | 0x00d8..=0x00f6 | 0x00f8..=0x024f => Latin,
            0x1e00..=0x1eff | 0x2c60..=0x2c7f | 0xa720..=0xa7ff | 0xff21..=0xff3a | 0xff41..=0xff5a => Latin,
            0x0370..=0x03ff | 0x1f00..=0x1fff => Greek,
            0x0400..=0x052f | 0x1c80..=0x1c8f | 0x2de0..=0x2dff | 0xa640..=0xa69f => Cyrillic,
            0x0530..=0x058f => Armenian,
            0x0590..=0x05ff | 0xfb1d..=0xfb4f => Hebrew,
            0x0600..=0x06ff | 0x0750..=0x077f | 0x08a0..=0x08ff | 0xfb50..=0xfdff | 0xfe70..=0xfeff => Arabic,
            0x0780..=0x07bf => Thaana,
            0x0900..=0x097f | 0xa8e0..=0xa8ff => Devanagari,
            0x0980..=0x09ff => Bengali,
            0x0a80..=0x0aff => Gujarati,
            0x0b00..=0x0b7f => Odia,
            0x0b80..=0x0bff => Tamil,
            0x0c00..=0x0c7f => Telugu,
            0x0c80..=0x0cff => Kannada,
            0x0d00..=0x0d7f => Malayalam,
            0x0d80..=0x0dff => Sinhala,
            0x0e00..=0x0e7f => Thai,
            0x0e80..=0x0eff => Lao,
            0x0f00..=0x0fff => Tibetan,
            0x1000..=0x109f | 0xa9e0..=0xa9ff | 0xaa60..=0xaa7f => Myanmar,
            0x10a0..=0x10ff | 0x1c90..=0x1cbf => Georgian,
            0x1200..=0x139f => Ethiopic,
            0x1780..=0x17ff => Khmer,
            0x1100..=0x11ff | 0x3130..=0x318f | 0xac00..=0xd7af => Hangul,
            0x3041..=0x3096 | 0x309d..=0x309f | 0x30a1..=0x30fa | 0x30fc..=0x30ff | 0x31f0..=0x31ff => {
                Japanese
            }
            0xff66..=0xff9d => Japanese,
            0x3005..=0x3007 | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x323af => Han,
            _ => return None,
        };
        Some(script)
    }

    /// Whether `text` is written in this script: the greater part of its letters are, and Japanese
    /// and Chinese are told apart by kana. Text without letters passes.
    pub(super) fn fits(self, text: &str) -> bool {
        let (mut own, mut letters, mut kana, mut han) = (0, 0, 0, 0);
        for script in text.chars().filter_map(Script::of) {
            letters += 1;
            own += usize::from(script == self);
            kana += usize::from(script == Script::Japanese);
            han += usize::from(script == Script::Han);
        }
        // Names and terms stay in Latin letters in any language, so half is asked for and no more;
        // a Japanese or Chinese character says as much as several letters.
        match self {
            Script::Japanese => letters == 0 || (kana + han) * 3 >= letters,
            Script::Han => letters == 0 || (han * 3 >= letters && kana * 4 <= han),
            _ => own * 2 >= letters,
        }
    }
}

/// Whether the character comes from a script that writes words without spaces between them.
pub(super) fn is_unspaced(c: char) -> bool {
    use Script::*;
    matches!(Script::of(c), Some(Japanese | Han | Thai | Lao | Khmer | Myanmar | Tibetan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_of_sentences() {
        let check = |script: Script, text: &str, expected: bool| {
            assert_eq!(script.fits(text), expected, "{script:?} {text}");
        };
        check(Script::Japanese, "フランスの首都はどこですか？", true);
        check(Script::Japanese, "HTTPの正式名称は何？", true);
        check(Script::Japanese, "What is the capital of France?", false);
        check(Script::Han, "法国的首都是哪里？", true);
        check(Script::Han, "フランスの首都はどこですか？", false);
        check(Script::Latin, "Quelle est la capitale de la France ?", true);
        check(Script::Latin, "フランスの首都はどこですか？", false);
        check(Script::Cyrillic, "Какой город является столицей Франции?", true);
        check(Script::Hangul, "프랑스의 수도는 어디입니까?", true);
        check(Script::Latin, "1 + 1 = ?", true);
    }
}
