//! HTML as plain text: elements that stand on lines of their own become paragraphs, what nobody reads
//! (scripts, styles, navigation, comments) goes. Not a parser of the standard: it makes no tree, and text
//! that is wrongly nested stays text.

/// The title, if there is one, and the text.
pub(super) fn plain(html: &str) -> (Option<String>, String) {
    let mut title = None;
    let mut text = String::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        push_folded(&mut text, &rest[..at]);
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let (name, after) = match tag(rest) {
            Tag::Named(name, after) => (name, after),
            Tag::None => {
                text.push('<');
                rest = &rest[1..];
                continue;
            }
            Tag::Unclosed => break,
        };
        rest = after;
        if SKIPPED.contains(&name.as_str()) {
            let (skipped, after) = until_end(rest, &name);
            if name == "title" && title.is_none() {
                let mut words = String::new();
                push_folded(&mut words, skipped);
                title = Some(words.trim().to_owned()).filter(|title| !title.is_empty());
            }
            rest = after;
        } else if !INLINE.contains(&name.trim_start_matches('/')) {
            let line = text.trim_end_matches(' ').len();
            text.truncate(line);
            text.push_str(if matches!(name.as_str(), "br" | "li" | "/li" | "tr") { "\n" } else { "\n\n" });
        }
    }
    push_folded(&mut text, rest);
    (title, tidy(&text))
}

/// Elements whose content is not read as text.
const SKIPPED: &[&str] = &[
    "title", "script", "style", "noscript", "template", "svg", "math", "nav", "footer", "form", "select",
    "button", "iframe", "object", "table",
];
/// Elements that do not end a line.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "del", "em", "font", "i", "img", "ins",
    "kbd", "mark", "q", "ruby", "rb", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt",
    "u", "var", "wbr",
];

/// What the `<` that a text begins with is.
enum Tag<'a> {
    /// The tag's name in lower case, with the `/` of an end tag, and what follows it.
    Named(String, &'a str),
    /// A sign.
    None,
    /// A tag without an end: the file was cut off, and nothing after it is a tag either.
    Unclosed,
}

fn tag(text: &str) -> Tag<'_> {
    let inside = &text[1..];
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '!' | '?' | ':' | '-');
    if !inside.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
        return Tag::None;
    }
    let mut quote = None;
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (None, '>') => {
                let name: String = inside[..at].chars().take_while(|c| is_name(*c)).collect();
                let name = name.to_ascii_lowercase();
                let name = name.strip_suffix('/').filter(|name| !name.is_empty()).unwrap_or(&name).to_owned();
                return Tag::Named(name, &inside[at + 1..]);
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    Tag::Unclosed
}

/// What stands before the end tag of this name, and after it.
fn until_end<'a>(text: &'a str, name: &str) -> (&'a str, &'a str) {
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let start = from + at;
        let after = &text[start + 2..];
        if after.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            let rest = after.split_once('>').map_or("", |(_, rest)| rest);
            return (&text[..start], rest);
        }
        from = start + 2;
    }
    (text, "")
}

/// Adds text with its white space folded and its entities read.
fn push_folded(text: &mut String, raw: &str) {
    for c in decoded(raw).chars() {
        if !c.is_whitespace() {
            text.push(c);
        } else if !text.is_empty() && !text.ends_with([' ', '\n']) {
            text.push(' ');
        }
    }
}

/// Entities as the characters they stand for; those that are not known as they are.
fn decoded(raw: &str) -> String {
    const MAX_ENTITY: usize = 32;
    let mut text = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(MAX_ENTITY).position(|byte| byte == b';');
        let entity = end.and_then(|end| rest.get(..=end));
        let known = entity.and_then(|entity| Some((htmlescape::decode_html(entity).ok()?, entity.len())));
        let (decoded, len) = known.unwrap_or_else(|| ("&".to_owned(), 1));
        text.push_str(&decoded);
        rest = &rest[len..];
    }
    text.push_str(rest);
    text
}

/// No white space at the ends of lines, at most one empty line between two.
fn tidy(text: &str) -> String {
    let mut tidy = String::new();
    let mut empty = 0;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        tidy.push_str(line);
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(html: &str, expected: &str) {
        assert_eq!(plain(html).1, expected, "{html}");
    }

    #[test]
    fn texts() {
        check("<p>The <b>Nile</b> is\n long.</p><p>Very.</p>", "The Nile is long.\n\nVery.");
        check("<ul><li>one<li>two</ul>", "one\ntwo");
        check("a<br>b<BR/>c", "a\nb\nc");
        check("<a title='a > b'>link</a>s", "links");
        check("Caf&eacute; &amp; bar &#8212; &x; &", "Café & bar — &x; &");
        check("3 < 4 and 5 > 4", "3 < 4 and 5 > 4");
        check("<!doctype html><!-- a <p> -->x", "x");
        check("<script>if (a < b) {}</script>x<style>p {}</STYLE >y", "xy");
        check("<svg><path/>", "");
    }

    #[test]
    fn titles() {
        let (title, text) = plain("<html><head><title> The\n Nile &amp; Egypt</title></head><body>Text.");
        assert_eq!((title.as_deref(), text.as_str()), (Some("The Nile & Egypt"), "Text."));
        assert_eq!(plain("<title></title>x").0, None);
    }

    #[test]
    fn hostile_text_is_quick() {
        for unit in ["<", "<a ", "</", "&", "<!--", "<script>", "&amp", "<a '"] {
            plain(&unit.repeat(60_000));
        }
    }
}
