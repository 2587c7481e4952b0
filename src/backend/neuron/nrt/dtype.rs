//! The numbers that stand for a tensor's type, of which there are two tables.
//!
//! Headers up to January 2026 count types from 1; since SDK 2.28 they are an instruction set's codes. Which of
//! them a library speaks it does not say; that all of a program's tensors fit one of them does.

/// One of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    Sequential,
    InstructionSet,
}

/// The types that programs of ours have, by their names in HLO, and the number of each in either table. A truth
/// value is told as an unsigned byte.
const TYPES: [(&str, u32, u32); 4] = [("f32", 1, 10), ("bf16", 3, 6), ("s32", 8, 8), ("pred", 5, 3)];

impl Numbering {
    /// The table in which every type has its number; `None` if neither is. Where both fit, the newer.
    ///
    /// Each type is its name in HLO and the number that the library gives it.
    pub(crate) fn of<'a>(types: impl Iterator<Item = (&'a str, u32)> + Clone) -> Option<Self> {
        let all = |table: Self| types.clone().all(|(name, number)| table.number(name) == Some(number));
        [Self::InstructionSet, Self::Sequential].into_iter().find(|&table| all(table))
    }

    /// The number of a type, by its name in HLO.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let &(_, sequential, instruction_set) = TYPES.iter().find(|of| of.0 == name)?;
        Some(match self {
            Self::Sequential => sequential,
            Self::InstructionSet => instruction_set,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_in_which_all_types_fit() {
        let of = |types: &[(&'static str, u32)]| Numbering::of(types.iter().copied());
        assert_eq!(of(&[("f32", 10), ("s32", 8), ("bf16", 6)]), Some(Numbering::InstructionSet));
        assert_eq!(of(&[("f32", 1), ("s32", 8), ("bf16", 3)]), Some(Numbering::Sequential));
        assert_eq!(of(&[("s32", 8)]), Some(Numbering::InstructionSet));
        assert_eq!(of(&[("f32", 10), ("bf16", 3)]), None);
    }
}
