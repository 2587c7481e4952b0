//! Markdown as plain text: what is marked stays, the marks go. Enough for quoting sentences of it, not a
//! renderer: code blocks, tables and images are left out, since nobody asks about them.

/// The first heading of the highest level, if there is one, and the text.
pub(super) fn plain(markdown: &str) -> (Option<String>, String) {
    let mut title: Option<(usize, String)> = None;
    let mut text = String::new();
    let mut fence: Option<&str> = None;
    for line in without_front_matter(markdown).lines() {
        let trimmed = line.trim_start();
        let opener = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, opener) {
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, Some(mark)) => fence = Some(mark),
            (Some(_), _) => {}
            (None, None) if trimmed.starts_with('|') => {}
            (None, None) => {
                let (level, content) = heading(trimmed);
                let content = inline(unquoted(content));
                if level > 0 {
                    if !content.is_empty() && title.as_ref().is_none_or(|(highest, _)| level < *highest) {
                        title = Some((level, content.clone()));
                    }
                    // A paragraph of its own, so that it is never taken for the sentence before.
                    text.push_str(&format!("\n{content}\n\n"));
                } else {
                    text.push_str(&content);
                    text.push('\n');
                }
            }
        }
    }
    (title.map(|(_, title)| title), text.trim().to_owned())
}

/// What stands between two lines of `---` on top is for programs.
fn without_front_matter(markdown: &str) -> &str {
    let Some(rest) = markdown.strip_prefix("---\n") else { return markdown };
    rest.split_once("\n---\n").map_or(markdown, |(_, text)| text)
}

/// Its level, from 1, and what it says; level 0 for a line that is none.
fn heading(line: &str) -> (usize, &str) {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let rest = &line[level..];
    if (1..=6).contains(&level) && (rest.is_empty() || rest.starts_with(' ')) {
        (level, rest.trim().trim_end_matches('#').trim_end())
    } else {
        (0, line)
    }
}

/// Without the marks of quotations and lists.
fn unquoted(line: &str) -> &str {
    let line = line.trim_start_matches("> ").trim_start_matches('>');
    let item = ["- ", "* ", "+ "].into_iter().find_map(|mark| line.strip_prefix(mark));
    item.unwrap_or(line)
}

/// Links as their text, images as nothing, without the marks of emphasis and code.
fn inline(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['!', '[', '*', '`', '_', '\\', '<']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let image = from.strip_prefix("![").and_then(link);
        let link = from.strip_prefix('[').and_then(link);
        let escaped = from.strip_prefix('\\').and_then(|from| from.chars().next());
        rest = if let Some((_, after)) = image {
            after
        } else if let Some((label, after)) = link {
            plain.push_str(&inline(label));
            after
        } else if let Some(c) = escaped.filter(char::is_ascii_punctuation) {
            plain.push(c);
            &from[1 + c.len_utf8()..]
        } else if let Some((url, after)) = from.strip_prefix('<').and_then(|from| from.split_once('>')) {
            if url.contains("://") {
                plain.push_str(url);
            }
            after
        } else {
            let mark = &from[..1];
            let in_word = mark == "_" && plain.ends_with(char::is_alphanumeric) && {
                from[1..].starts_with(char::is_alphanumeric)
            };
            let alone = from[1..].starts_with(' ') && (plain.is_empty() || plain.ends_with(' '));
            if in_word || alone || matches!(mark, "!" | "[" | "\\" | "<") {
                plain.push_str(mark);
            }
            &from[1..]
        };
    }
    plain.push_str(rest);
    plain.trim_end().to_owned()
}

/// The label and what follows of `label](target)`.
fn link(from: &str) -> Option<(&str, &str)> {
    let (label, rest) = from.split_once(']')?;
    let rest = rest.strip_prefix('(')?;
    let (_, after) = rest.split_once(')')?;
    Some((label, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(markdown: &str, expected: &str) {
        assert_eq!(plain(markdown).1, expected, "{markdown}");
    }

    #[test]
    fn marks_go_and_words_stay() {
        check("The **Nile** is *very* long, `see` [here](a.html).", "The Nile is very long, see here.");
        check("![a map](map.png)The Nile\\*", "The Nile*");
        check("- one\n- two\n> quoted", "one\ntwo\nquoted");
        check("snake_case and _emphasis_", "snake_case and emphasis");
        check("2 * 3 is 6! [sic]", "2 * 3 is 6! [sic]");
        check("<https://a.org> <b>bold</b>", "https://a.org bold");
        check("before\n```\ncode\n```\nafter\n| a | b |", "before\nafter");
        check("---\ntitle: x\n---\nText.", "Text.");
    }

    #[test]
    fn titles() {
        let check = |markdown: &str, expected: Option<&str>| {
            assert_eq!(plain(markdown).0.as_deref(), expected, "{markdown}");
        };
        check("## Second\n# First #\n# Third", Some("First"));
        check("#hashtag", None);
        check("no heading", None);
        assert_eq!(plain("# Nile\nIt is long.").1, "Nile\n\nIt is long.");
    }

    #[test]
    fn hostile_text_is_quick() {
        for unit in ["[", "![", "](", "*", "<", "\\", "#", "> "] {
            plain(&unit.repeat(100_000));
        }
    }
}
