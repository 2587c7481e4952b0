//! Stop strings: ends a reply at the first of a few texts, and holds back only what could still
//! become one of them.

/// Watches a reply for stop strings as its text comes in.
#[derive(Debug, Default)]
pub(super) struct StopMatcher {
    stops: Vec<String>,
    /// Text that is the beginning of a stop string, and so is not certain yet.
    held: String,
}

impl StopMatcher {
    /// Empty stop strings would match everywhere and are left out.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Takes new text; returns what became certain, and whether a stop string was found.
    ///
    /// After a match the stop string and all behind it are gone.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (text.to_owned(), false);
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let uncertain_from = self.uncertain_from();
        let uncertain = self.held.split_off(uncertain_from);
        (std::mem::replace(&mut self.held, uncertain), false)
    }

    /// The reply ended without a match: what was held back is text after all.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the longest suffix begins that is the beginning of a stop string.
    fn uncertain_from(&self) -> usize {
        self.held
            .char_indices()
            .map(|(at, _)| at)
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::StopMatcher;

    /// Pushes `pieces` and returns the text of each push, the text of `finish`, and whether it matched.
    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], matched: bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut texts = Vec::new();
        let mut found = false;
        for piece in pieces {
            let (text, stop) = matcher.push(piece);
            texts.push(text);
            found = stop;
            if stop {
                break;
            }
        }
        if !found {
            texts.push(matcher.finish());
        }
        assert_eq!(texts, expected);
        assert_eq!(found, matched);
    }

    #[test]
    fn text_before_a_stop_string_leaves_at_once() {
        check(&[], &["a", "b"], &["a", "b", ""], false);
        check(&[""], &["a"], &["a", ""], false);
        check(&["END"], &["one ", "two"], &["one ", "two", ""], false);
    }

    #[test]
    fn a_stop_string_may_be_spread_over_pieces() {
        check(&["END"], &["one E", "N", "D two"], &["one ", "", ""], true);
        check(&["END"], &["one E", "N", "O"], &["one ", "", "ENO", ""], false);
        check(&["aab"], &["aaa", "b"], &["a", ""], true);
    }

    #[test]
    fn the_earliest_of_several_wins() {
        check(&["two", "one"], &["zero one two"], &["zero "], true);
    }

    #[test]
    fn a_held_beginning_is_text_when_the_reply_ends() {
        check(&["\n\n"], &["a\n"], &["a", "\n"], false);
        check(&["問題"], &["次の問"], &["次の", "問"], false);
    }
}
