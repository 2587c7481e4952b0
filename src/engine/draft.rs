//! Drafts how a sequence goes on, from its own text: what followed where its end was read before (prompt
//! lookup). A quiz copies names and phrases from its source all the time. Absent: the model, slots, other
//! sequences; whether a draft is right is for the step to say.

use crate::text::TokenId;

/// An end that was seen before for fewer tokens than this says little about what follows.
const MIN_MATCH: usize = 3;

/// What may follow `tokens`: at most `max_len` tokens, and fewer than the longest earlier passage agrees with the
/// end, since a long agreement is the better sign. Of equally long ones, the latest.
pub(super) fn draft(tokens: &[TokenId], max_len: usize) -> &[TokenId] {
    let Some((&last, before)) = tokens.split_last() else { return &[] };
    let (mut best, mut from) = (MIN_MATCH - 1, tokens.len());
    for end in (1..tokens.len()).rev().filter(|&end| tokens[end - 1] == last) {
        let pairs = tokens[..end - 1].iter().rev().zip(before.iter().rev());
        // No more need be known, and a text that repeats itself would be compared for long.
        let agreed = 1 + pairs.take(max_len).take_while(|(a, b)| a == b).count();
        if agreed > best {
            (best, from) = (agreed, end);
        }
    }
    &tokens[from..][..max_len.min(best - 1).min(tokens.len() - from)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_agreement_is_drafted_up_to_its_length() {
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 0, 2, 3, 4, 9, 1, 2, 3, 4];
        assert_eq!(draft(&tokens, 8), [5, 6, 7]);
        assert_eq!(draft(&tokens, 3), [5, 6, 7]);
        assert_eq!(draft(&tokens, 0), [] as [u32; 0]);
    }

    #[test]
    fn the_latest_of_equal_passages_counts() {
        assert_eq!(draft(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 8), [5, 1]);
    }

    #[test]
    fn two_tokens_that_agree_are_no_sign() {
        assert_eq!(draft(&[1, 2, 3, 1, 2], 8), [] as [u32; 0]);
        assert_eq!(draft(&[], 8), [] as [u32; 0]);
        assert_eq!(draft(&[5], 8), [] as [u32; 0]);
    }

    #[test]
    fn a_text_that_repeats_itself_goes_on_repeating() {
        assert_eq!(draft(&[6; 40], 4), [6]);
        let tokens: Vec<TokenId> = (0..40).map(|idx| idx % 3).collect();
        assert_eq!(draft(&tokens, 4), [1, 2, 0]);
    }
}
