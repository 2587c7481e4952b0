//! The loops in which a step spends its time, written once over sixteen lanes ([`Simd`]) and compiled
//! for each instruction set. What a row of a matrix yields depends on that row alone, and is summed in
//! the same order however many rows there are. Products of `bf16` pairs are written for their one
//! instruction.
//!
//! `unsafe` is in `avx512.rs`, `avx512_bf16.rs`, `avx512_blocks.rs`, `avx2.rs` and `neon.rs` alone.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_blocks;
mod block;
mod kept_floats;
mod kept_whole;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod portable;
mod product;
mod simd;
mod turn;
mod whole_heads;

pub(super) use attention::{
    Attend, BLOCKS_PER_CHUNK, CHUNK, Cached, HeadShape, Keep, Kept, MAX_HEAD_DIM, POSITIONS_PER_BLOCK, Query,
    Scratch,
};
#[cfg(target_arch = "x86_64")]
pub(super) use avx512_bf16::{BF16_INPUTS, Bf16Dots, Bf16Pair, Bf16Product};
pub(super) use block::{BLOCK_LEN, Block, HALF_LEN, Quantise};
pub(super) use norm::{Gate, GateBlocks, RmsNorm};
pub(super) use product::{Finish, FloatProduct, IntegerProduct, LINE_BYTES, MAX_SCALE, output_of};
pub(super) use simd::{Bf16Bits, Element, HalfBits, Kernel, LANES, Simd};
pub(super) use turn::Turn;

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(avx2::Avx2<true>),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2<false>),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Portable(portable::Portable),
}

impl Isa {
    /// The best one first.
    pub(super) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let specific = [
            avx512::Avx512::detect().map(Self::Avx512),
            avx2::Avx2::detect().map(Self::AvxVnni),
            avx2::Avx2::detect().map(Self::Avx2),
        ];
        #[cfg(target_arch = "aarch64")]
        let specific = [neon::Neon::detect().map(Self::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let specific: [Option<Self>; 0] = [];
        specific.into_iter().flatten().chain([Self::Portable(portable::Portable)])
    }

    pub(super) fn best() -> Self {
        Self::available().next().expect("the portable one is always there")
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.vectorize(kernel),
            Self::Portable(simd) => simd.vectorize(kernel),
        }
    }
}

#[cfg(test)]
mod tests;
