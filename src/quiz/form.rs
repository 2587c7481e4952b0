//! What an answer looks like at first sight: a number, a name, small words.

/// What an answer looks like at first sight; the options of one question share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// `1889`, `7,000,000`, `60%`
    Number,
    /// A number and more: `13 million`, `5月`
    Quantity,
    /// Begins with a capital.
    Name,
    /// Begins with a small letter.
    Phrase,
    /// Begins with a letter that has no case, or a sign.
    Plain,
}

impl Form {
    pub(super) const ALL: [Form; 5] = [Form::Number, Form::Quantity, Form::Name, Form::Phrase, Form::Plain];

    pub(super) fn of(text: &str) -> Self {
        match text.chars().next() {
            Some('0'..='9') => {
                let digits = text.strip_suffix('%').unwrap_or(text);
                let is_number = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ','))
                    && digits.ends_with(|c: char| c.is_ascii_digit());
                if is_number { Form::Number } else { Form::Quantity }
            }
            Some(first) if first.is_uppercase() => Form::Name,
            Some(first) if first.is_lowercase() => Form::Phrase,
            _ => Form::Plain,
        }
    }

    pub(super) fn is_strong(self) -> bool {
        matches!(self, Form::Number | Form::Quantity | Form::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let check = |text: &str, expected: Form| assert_eq!(Form::of(text), expected, "{text}");
        check("1889", Form::Number);
        check("5,500,000", Form::Number);
        check("60%", Form::Number);
        check("13 million", Form::Quantity);
        check("5月", Form::Quantity);
        check("12.", Form::Quantity);
        check("Paris", Form::Name);
        check("Élan", Form::Name);
        check("water", Form::Phrase);
        check("東京", Form::Plain);
        check("", Form::Plain);
    }
}
