use super::script::Script;
use std::fmt;

/// The language a quiz is written in: a BCP 47 tag whose primary language we know by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Language {
    tag: String,
    code: &'static str,
    name: &'static str,
    script: Option<Script>,
}

impl Language {
    /// Reads a tag such as `en`, `pt-BR`, `sr-Latn` or `zh-Hant-TW`, in any case.
    ///
    /// # Errors
    /// What is wrong with the tag, as the end of a sentence that names it.
    pub fn parse(tag: &str) -> Result<Self, &'static str> {
        let subtags = parse_subtags(tag)?;
        let (code, name, script) =
            LANGUAGES.iter().find(|(code, ..)| code.eq_ignore_ascii_case(subtags.language)).ok_or(
                "names a language that is not known here; use its ISO 639 code, such as en, ja or pt-BR",
            )?;
        let script = match subtags.script {
            Some(script) => Script::from_iso_15924(script),
            None => *script,
        };
        Ok(Self { tag: tag.to_owned(), code, name, script })
    }

    /// The tag as it was given.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The primary language subtag, in lower case.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The language's name in English.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The script it is written in, where there is one only.
    pub(super) fn script(&self) -> Option<Script> {
        self.script
    }

    /// The marks that end a question, where the language has them; the first is the usual one.
    pub(super) fn question_marks(&self) -> Option<&'static [char]> {
        match self.code {
            "ja" | "zh" | "cmn" | "yue" | "wuu" | "lzh" | "nan" => Some(&['？', '?']),
            "ar" | "fa" | "ps" | "ur" | "ckb" => Some(&['؟', '?']),
            "el" => Some(&[';', '\u{37e}', '?']),
            // The mark stands inside the sentence (Armenian), or there is none to rely on.
            "hy" | "th" | "lo" | "km" | "my" | "bo" | "dz" | "am" | "ti" => None,
            _ => Some(&['?']),
        }
    }

    /// The marks that end a statement, where the language has them; the first is the usual one.
    pub(super) fn full_stops(&self) -> Option<&'static [char]> {
        match self.code {
            "ja" | "zh" | "cmn" | "yue" | "wuu" | "lzh" | "nan" => Some(&['。', '．']),
            "hi" | "bn" | "as" | "ne" | "mr" | "sa" | "or" | "pa" | "bho" | "mai" | "kok" => {
                Some(&['।', '.'])
            }
            "ur" => Some(&['۔', '.']),
            "hy" => Some(&['։', ':']),
            "am" | "ti" => Some(&['።', '.']),
            "my" => Some(&['။', '.']),
            "km" => Some(&['។', '.']),
            "th" | "lo" | "bo" | "dz" => None,
            _ => Some(&['.']),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tag)
    }
}

struct Subtags<'a> {
    language: &'a str,
    script: Option<&'a str>,
}

/// RFC 5646's longest tag without extensions is 35 characters.
const MAX_TAG_LEN: usize = 35;

/// The `langtag` production of RFC 5646, section 2.1.
fn parse_subtags(tag: &str) -> Result<Subtags<'_>, &'static str> {
    const ILL_FORMED: &str = "is not a BCP 47 language tag, such as en, ja or pt-BR";
    let alpha = |s: &str, lens: std::ops::RangeInclusive<usize>| {
        lens.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let digits = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| b.is_ascii_digit());
    let alphanumeric = |s: &str, lens: std::ops::RangeInclusive<usize>| {
        lens.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric())
    };

    if tag.is_empty() || tag.len() > MAX_TAG_LEN {
        return Err(ILL_FORMED);
    }
    let mut subtags = tag.split('-').peekable();
    let language = subtags.next().filter(|s| alpha(s, 2..=3)).ok_or(ILL_FORMED)?;
    if subtags.next_if(|s| alpha(s, 3..=3)).is_some() {
        // An extended language: at most three subtags.
        let _ = subtags.next_if(|s| alpha(s, 3..=3)).and_then(|_| subtags.next_if(|s| alpha(s, 3..=3)));
    }
    let script = subtags.next_if(|s| alpha(s, 4..=4));
    let _region = subtags.next_if(|s| alpha(s, 2..=2) || digits(s, 3));
    let is_variant =
        |s: &str| alphanumeric(s, 5..=8) || (alphanumeric(s, 4..=4) && s.as_bytes()[0].is_ascii_digit());
    while subtags.next_if(|s| is_variant(s)).is_some() {}
    while let Some(singleton) = subtags.next() {
        let lens = if singleton.eq_ignore_ascii_case("x") { 1..=8 } else { 2..=8 };
        if !alphanumeric(singleton, 1..=1) || subtags.next_if(|s| alphanumeric(s, lens.clone())).is_none() {
            return Err(ILL_FORMED);
        }
        while subtags.next_if(|s| alphanumeric(s, lens.clone())).is_some() {}
    }
    Ok(Subtags { language, script })
}

use Script::*;

/// ISO 639-1, and some languages that have a three-letter code only: code, English name, and the
/// script where one is in general use.
#[rustfmt::skip]
const LANGUAGES: &[(&str, &str, Option<Script>)] = &[
    ("aa", "Afar", Some(Latin)),
    ("ab", "Abkhazian", Some(Cyrillic)),
    ("af", "Afrikaans", Some(Latin)),
    ("ak", "Akan", Some(Latin)),
    ("am", "Amharic", Some(Ethiopic)),
    ("an", "Aragonese", Some(Latin)),
    ("ar", "Arabic", Some(Arabic)),
    ("as", "Assamese", Some(Bengali)),
    ("av", "Avaric", Some(Cyrillic)),
    ("ay", "Aymara", Some(Latin)),
    ("az", "Azerbaijani", None),
    ("ba", "Bashkir", Some(Cyrillic)),
    ("be", "Belarusian", Some(Cyrillic)),
    ("bg", "Bulgarian", Some(Cyrillic)),
    ("bi", "Bislama", Some(Latin)),
    ("bm", "Bambara", None),
    ("bn", "Bengali", Some(Bengali)),
    ("bo", "Tibetan", Some(Tibetan)),
    ("br", "Breton", Some(Latin)),
    ("bs", "Bosnian", None),
    ("ca", "Catalan", Some(Latin)),
    ("ce", "Chechen", Some(Cyrillic)),
    ("ch", "Chamorro", Some(Latin)),
    ("co", "Corsican", Some(Latin)),
    ("cr", "Cree", None),
    ("cs", "Czech", Some(Latin)),
    ("cu", "Church Slavic", Some(Cyrillic)),
    ("cv", "Chuvash", Some(Cyrillic)),
    ("cy", "Welsh", Some(Latin)),
    ("da", "Danish", Some(Latin)),
    ("de", "German", Some(Latin)),
    ("dv", "Dhivehi", Some(Thaana)),
    ("dz", "Dzongkha", Some(Tibetan)),
    ("ee", "Ewe", Some(Latin)),
    ("el", "Greek", Some(Greek)),
    ("en", "English", Some(Latin)),
    ("eo", "Esperanto", Some(Latin)),
    ("es", "Spanish", Some(Latin)),
    ("et", "Estonian", Some(Latin)),
    ("eu", "Basque", Some(Latin)),
    ("fa", "Persian", Some(Arabic)),
    ("ff", "Fulah", None),
    ("fi", "Finnish", Some(Latin)),
    ("fj", "Fijian", Some(Latin)),
    ("fo", "Faroese", Some(Latin)),
    ("fr", "French", Some(Latin)),
    ("fy", "Western Frisian", Some(Latin)),
    ("ga", "Irish", Some(Latin)),
    ("gd", "Scottish Gaelic", Some(Latin)),
    ("gl", "Galician", Some(Latin)),
    ("gn", "Guarani", Some(Latin)),
    ("gu", "Gujarati", Some(Gujarati)),
    ("gv", "Manx", Some(Latin)),
    ("ha", "Hausa", None),
    ("he", "Hebrew", Some(Hebrew)),
    ("hi", "Hindi", Some(Devanagari)),
    ("ho", "Hiri Motu", Some(Latin)),
    ("hr", "Croatian", Some(Latin)),
    ("ht", "Haitian Creole", Some(Latin)),
    ("hu", "Hungarian", Some(Latin)),
    ("hy", "Armenian", Some(Armenian)),
    ("hz", "Herero", Some(Latin)),
    ("ia", "Interlingua", Some(Latin)),
    ("id", "Indonesian", Some(Latin)),
    ("ie", "Interlingue", Some(Latin)),
    ("ig", "Igbo", Some(Latin)),
    ("ii", "Sichuan Yi", None),
    ("ik", "Inupiaq", Some(Latin)),
    ("io", "Ido", Some(Latin)),
    ("is", "Icelandic", Some(Latin)),
    ("it", "Italian", Some(Latin)),
    ("iu", "Inuktitut", None),
    ("ja", "Japanese", Some(Japanese)),
    ("jv", "Javanese", None),
    ("ka", "Georgian", Some(Georgian)),
    ("kg", "Kongo", Some(Latin)),
    ("ki", "Kikuyu", Some(Latin)),
    ("kj", "Kuanyama", Some(Latin)),
    ("kk", "Kazakh", None),
    ("kl", "Kalaallisut", Some(Latin)),
    ("km", "Khmer", Some(Khmer)),
    ("kn", "Kannada", Some(Kannada)),
    ("ko", "Korean", Some(Hangul)),
    ("kr", "Kanuri", None),
    ("ks", "Kashmiri", None),
    ("ku", "Kurdish", None),
    ("kv", "Komi", Some(Cyrillic)),
    ("kw", "Cornish", Some(Latin)),
    ("ky", "Kyrgyz", None),
    ("la", "Latin", Some(Latin)),
    ("lb", "Luxembourgish", Some(Latin)),
    ("lg", "Ganda", Some(Latin)),
    ("li", "Limburgish", Some(Latin)),
    ("ln", "Lingala", Some(Latin)),
    ("lo", "Lao", Some(Lao)),
    ("lt", "Lithuanian", Some(Latin)),
    ("lu", "Luba-Katanga", Some(Latin)),
    ("lv", "Latvian", Some(Latin)),
    ("mg", "Malagasy", Some(Latin)),
    ("mh", "Marshallese", Some(Latin)),
    ("mi", "Maori", Some(Latin)),
    ("mk", "Macedonian", Some(Cyrillic)),
    ("ml", "Malayalam", Some(Malayalam)),
    ("mn", "Mongolian", None),
    ("mr", "Marathi", Some(Devanagari)),
    ("ms", "Malay", None),
    ("mt", "Maltese", Some(Latin)),
    ("my", "Burmese", Some(Myanmar)),
    ("na", "Nauru", Some(Latin)),
    ("nb", "Norwegian Bokmål", Some(Latin)),
    ("nd", "North Ndebele", Some(Latin)),
    ("ne", "Nepali", Some(Devanagari)),
    ("ng", "Ndonga", Some(Latin)),
    ("nl", "Dutch", Some(Latin)),
    ("nn", "Norwegian Nynorsk", Some(Latin)),
    ("no", "Norwegian", Some(Latin)),
    ("nr", "South Ndebele", Some(Latin)),
    ("nv", "Navajo", Some(Latin)),
    ("ny", "Chichewa", Some(Latin)),
    ("oc", "Occitan", Some(Latin)),
    ("oj", "Ojibwa", None),
    ("om", "Oromo", Some(Latin)),
    ("or", "Odia", Some(Odia)),
    ("os", "Ossetian", Some(Cyrillic)),
    ("pa", "Punjabi", None),
    ("pi", "Pali", None),
    ("pl", "Polish", Some(Latin)),
    ("ps", "Pashto", Some(Arabic)),
    ("pt", "Portuguese", Some(Latin)),
    ("qu", "Quechua", Some(Latin)),
    ("rm", "Romansh", Some(Latin)),
    ("rn", "Rundi", Some(Latin)),
    ("ro", "Romanian", None),
    ("ru", "Russian", Some(Cyrillic)),
    ("rw", "Kinyarwanda", Some(Latin)),
    ("sa", "Sanskrit", None),
    ("sc", "Sardinian", Some(Latin)),
    ("sd", "Sindhi", None),
    ("se", "Northern Sami", Some(Latin)),
    ("sg", "Sango", Some(Latin)),
    ("si", "Sinhala", Some(Sinhala)),
    ("sk", "Slovak", Some(Latin)),
    ("sl", "Slovenian", Some(Latin)),
    ("sm", "Samoan", Some(Latin)),
    ("sn", "Shona", Some(Latin)),
    ("so", "Somali", None),
    ("sq", "Albanian", Some(Latin)),
    ("sr", "Serbian", None),
    ("ss", "Swati", Some(Latin)),
    ("st", "Southern Sotho", Some(Latin)),
    ("su", "Sundanese", None),
    ("sv", "Swedish", Some(Latin)),
    ("sw", "Swahili", None),
    ("ta", "Tamil", Some(Tamil)),
    ("te", "Telugu", Some(Telugu)),
    ("tg", "Tajik", None),
    ("th", "Thai", Some(Thai)),
    ("ti", "Tigrinya", Some(Ethiopic)),
    ("tk", "Turkmen", None),
    ("tl", "Tagalog", Some(Latin)),
    ("tn", "Tswana", Some(Latin)),
    ("to", "Tongan", Some(Latin)),
    ("tr", "Turkish", Some(Latin)),
    ("ts", "Tsonga", Some(Latin)),
    ("tt", "Tatar", None),
    ("tw", "Twi", Some(Latin)),
    ("ty", "Tahitian", Some(Latin)),
    ("ug", "Uyghur", None),
    ("uk", "Ukrainian", Some(Cyrillic)),
    ("ur", "Urdu", Some(Arabic)),
    ("uz", "Uzbek", None),
    ("ve", "Venda", Some(Latin)),
    ("vi", "Vietnamese", Some(Latin)),
    ("vo", "Volapük", Some(Latin)),
    ("wa", "Walloon", Some(Latin)),
    ("wo", "Wolof", None),
    ("xh", "Xhosa", Some(Latin)),
    ("yi", "Yiddish", Some(Hebrew)),
    ("yo", "Yoruba", Some(Latin)),
    ("za", "Zhuang", Some(Latin)),
    ("zh", "Chinese", Some(Han)),
    ("zu", "Zulu", Some(Latin)),
    ("ast", "Asturian", Some(Latin)),
    ("bho", "Bhojpuri", Some(Devanagari)),
    ("ceb", "Cebuano", Some(Latin)),
    ("ckb", "Central Kurdish", Some(Arabic)),
    ("cmn", "Mandarin Chinese", Some(Han)),
    ("fil", "Filipino", Some(Latin)),
    ("gsw", "Swiss German", Some(Latin)),
    ("haw", "Hawaiian", Some(Latin)),
    ("hmn", "Hmong", Some(Latin)),
    ("ilo", "Iloko", Some(Latin)),
    ("kok", "Konkani", None),
    ("lzh", "Literary Chinese", Some(Han)),
    ("mai", "Maithili", Some(Devanagari)),
    ("nan", "Min Nan Chinese", None),
    ("nds", "Low German", Some(Latin)),
    ("sco", "Scots", Some(Latin)),
    ("tok", "Toki Pona", Some(Latin)),
    ("tpi", "Tok Pisin", Some(Latin)),
    ("wuu", "Wu Chinese", Some(Han)),
    ("yue", "Cantonese", Some(Han)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tag: &str, expected: Option<&str>) {
        assert_eq!(Language::parse(tag).ok().map(|language| language.name()), expected, "{tag}");
    }

    #[test]
    fn tags() {
        check("en", Some("English"));
        check("EN", Some("English"));
        check("en-US", Some("English"));
        check("es-419", Some("Spanish"));
        check("pt-BR", Some("Portuguese"));
        check("zh-Hant-TW", Some("Chinese"));
        check("zh-cmn-Hans-CN", Some("Chinese"));
        check("de-CH-1901", Some("German"));
        check("sl-rozaj-biske", Some("Slovenian"));
        check("en-u-ca-gregory", Some("English"));
        check("en-x-kids", Some("English"));
        check("fil", Some("Filipino"));
        check("ja-JP", Some("Japanese"));
    }

    #[test]
    fn not_tags() {
        for tag in
            ["", "e", "english", "en_US", "en-", "-en", "en--US", "en US", "日本語", "en-u", "en-US-US"]
        {
            check(tag, None);
        }
        check("xx", None);
        check("qqq", None);
        check(&format!("en-x-{}", "a-".repeat(40)), None);
    }

    #[test]
    fn a_script_subtag_wins() {
        assert_eq!(Language::parse("sr").unwrap().script(), None);
        assert_eq!(Language::parse("sr-Latn").unwrap().script(), Some(Script::Latin));
        assert_eq!(Language::parse("ja-Latn").unwrap().script(), Some(Script::Latin));
        assert_eq!(Language::parse("zh-Hant").unwrap().script(), Some(Script::Han));
    }
}
