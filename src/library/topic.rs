use super::terms::terms;
use std::collections::HashSet;

/// What is looked for: the terms of a topic, each weighed by how much it tells in its library.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    weighed: Vec<(String, f32)>,
}

impl Topic {
    /// `weight` is the term's, above 0.
    pub(super) fn new(terms: Vec<String>, weight: impl Fn(&str) -> f32) -> Self {
        let weighed = terms.into_iter().map(|term| {
            let weight = weight(&term);
            (term, weight)
        });
        Self { weighed: weighed.collect() }
    }

    /// How much of the topic stands in the text, from 0 to 1: the share of its terms' weight.
    pub fn coverage(&self, text: &str) -> f32 {
        let held: HashSet<String> = terms(text).into_iter().collect();
        let total: f32 = self.weighed.iter().map(|(_, weight)| weight).sum();
        let covered: f32 =
            self.weighed.iter().filter(|(term, _)| held.contains(term)).map(|(_, weight)| weight).sum();
        if total > 0.0 { covered / total } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_weighed() {
        let weight = |term: &str| if term == "french" { 1.0 } else { 3.0 };
        let topic = Topic::new(vec!["french".into(), "revolution".into()], weight);
        let check = |text: &str, expected: f32| assert_eq!(topic.coverage(text), expected, "{text}");
        check("The French Revolution began in 1789.", 1.0);
        check("Revolutions happen.", 0.75);
        check("A French horn.", 0.25);
        check("", 0.0);
        assert_eq!(Topic::new(Vec::new(), weight).coverage("anything"), 0.0);
    }
}
