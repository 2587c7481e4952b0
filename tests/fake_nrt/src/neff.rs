//! The container of a compiled program: a header of 1024 bytes and a tar, gzipped or not.
//!
//! There is no magic number, so a reader knows one by what its numbers say. What the stand-in compiler packs
//! is the HLO it was given: the fake library runs that, and a real library refuses it for want of engine code.

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// The member that holds the serialised `HloModuleProto`.
pub const HLO_MEMBER: &str = "model.hlo_module.pb";
const HEADER_BYTES: usize = 1024;
/// What a fake NEFF may unpack to: programs are small, since weights are no part of them.
const MAX_UNPACKED: u64 = 1 << 30;

/// Where the header's fields are, in bytes; all little-endian.
mod offset {
    pub(super) const PKG_VERSION: usize = 0;
    pub(super) const HEADER_SIZE: usize = 8;
    pub(super) const DATA_SIZE: usize = 16;
    pub(super) const MAJOR: usize = 24;
    pub(super) const BUILD_VERSION: usize = 40;
    pub(super) const NUM_TPB: usize = 168;
    pub(super) const HASH: usize = 172;
    pub(super) const UUID: usize = 204;
    pub(super) const NAME: usize = 220;
    pub(super) const REQUESTED_TPB_COUNT: usize = 476;
    pub(super) const TPB_PER_NODE: usize = 480;
    pub(super) const FEATURE_BITS: usize = 544;
    pub(super) const LNC_SIZE: usize = 552;
}

/// The bits that a library of 2.31 accepts.
const KNOWN_FEATURES: u64 = (1 << 27) - 1;

/// What the compiler packs.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    pub hlo: &'a [u8],
    /// Of the module.
    pub name: &'a str,
    /// The chip, as `--target` names it.
    pub target: &'a str,
    pub lnc: u32,
    /// Of the compiler.
    pub version: &'a str,
    /// Whether the tar is gzipped.
    pub compressed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Neff {
    pub hlo: Vec<u8>,
    pub name: String,
    pub target: String,
    pub lnc: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum BadNeff {
    #[error("{len} bytes are fewer than the header's {HEADER_BYTES}")]
    Short { len: usize },
    #[error("the header says that {field} is {value}, which is not {expected}")]
    Field { field: &'static str, value: u64, expected: &'static str },
    #[error("the archive's bytes have another hash than the header says")]
    Hash,
    #[error("the archive cannot be unpacked")]
    Archive(#[source] io::Error),
    #[error("there is no {0} in the archive: it was not packed by the stand-in compiler")]
    Member(&'static str),
    #[error("{0} is not what it should be")]
    Manifest(&'static str),
    #[error("the feature bits {0:#x} are not all known")]
    Features(u64),
}

/// The same contents are always the same bytes.
///
/// # Errors
/// None that memory does not give.
pub fn pack(contents: &Contents) -> io::Result<Vec<u8>> {
    let data = archive(contents)?;
    let mut file = vec![0; HEADER_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(offset::PKG_VERSION, &2u64.to_le_bytes());
    put(offset::HEADER_SIZE, &(HEADER_BYTES as u64).to_le_bytes());
    put(offset::DATA_SIZE, &(data.len() as u64).to_le_bytes());
    put(offset::MAJOR, &2u64.to_le_bytes());
    put(offset::BUILD_VERSION, cut(contents.version, 127));
    put(offset::NUM_TPB, &contents.lnc.to_le_bytes());
    put(offset::HASH, &Md5::digest(&data));
    put(offset::UUID, &Sha256::digest(&data)[..16]);
    put(offset::NAME, cut(contents.name, 255));
    put(offset::REQUESTED_TPB_COUNT, &contents.lnc.to_le_bytes());
    put(offset::TPB_PER_NODE, &[contents.lnc as u8]);
    put(offset::LNC_SIZE, &contents.lnc.to_le_bytes());
    file.extend(data);
    Ok(file)
}

fn cut(text: &str, len: usize) -> &[u8] {
    &text.as_bytes()[..text.len().min(len)]
}

fn archive(contents: &Contents) -> io::Result<Vec<u8>> {
    let graph = json!({ "version": 1, "name": contents.name, "simulated": true, "hlo": HLO_MEMBER });
    let subgraphs = json!({ "target": contents.target, "lnc": contents.lnc, "subgraphs": [] });
    let info = json!({ "compiler": contents.version, "simulated": true });
    let mut tar = tar::Builder::new(Vec::new());
    let members = [("neff.json", &graph), ("kelf-0.json", &subgraphs), ("info.json", &info)];
    for (name, value) in members {
        append(&mut tar, name, value.to_string().as_bytes())?;
    }
    append(&mut tar, HLO_MEMBER, contents.hlo)?;
    let tar = tar.into_inner()?;
    if !contents.compressed {
        return Ok(tar);
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    io::Write::write_all(&mut gzip, &tar)?;
    gzip.finish()
}

/// With no time, owner or machine in the header.
fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}

impl Neff {
    /// # Errors
    /// [`BadNeff`] at the first thing that is not as the format says.
    pub fn unpack(file: &[u8]) -> Result<Self, BadNeff> {
        let data = checked_data(file)?;
        let mut members = Members::default();
        if data.starts_with(&[0x1f, 0x8b]) {
            members.read(GzDecoder::new(data).take(MAX_UNPACKED))
        } else {
            members.read(data)
        }
        .map_err(BadNeff::Archive)?;
        let manifest = |bytes: Option<Vec<u8>>, name| {
            let value = serde_json::from_slice::<Value>(&bytes.ok_or(BadNeff::Member(name))?);
            value.map_err(|_| BadNeff::Manifest(name))
        };
        let graph = manifest(members.graph, "neff.json")?;
        let subgraphs = manifest(members.subgraphs, "kelf-0.json")?;
        let lnc = number(file, offset::LNC_SIZE, 4) as u32;
        let text = |value: &Value, name| value.as_str().map(str::to_owned).ok_or(BadNeff::Manifest(name));
        Ok(Neff {
            name: text(&graph["name"], "neff.json")?,
            target: text(&subgraphs["target"], "kelf-0.json")?,
            lnc,
            hlo: members.hlo.ok_or(BadNeff::Member(HLO_MEMBER))?,
        })
    }
}

/// The archive, once everything the header says of it has been checked.
fn checked_data(file: &[u8]) -> Result<&[u8], BadNeff> {
    if file.len() < HEADER_BYTES {
        return Err(BadNeff::Short { len: file.len() });
    }
    let expect = |field, value: u64, holds: bool, expected| {
        if holds { Ok(value) } else { Err(BadNeff::Field { field, value, expected }) }
    };
    let pkg_version = number(file, offset::PKG_VERSION, 8);
    expect("pkg_version", pkg_version, matches!(pkg_version, 1 | 2), "1 or 2")?;
    let header_size = number(file, offset::HEADER_SIZE, 8);
    expect("header_size", header_size, header_size == HEADER_BYTES as u64, "1024")?;
    let data_size = number(file, offset::DATA_SIZE, 8);
    let stored = (file.len() - HEADER_BYTES) as u64;
    expect("data_size", data_size, data_size == stored, "as many bytes as follow it")?;
    let major = number(file, offset::MAJOR, 8);
    expect("neff_version_major", major, major <= 2, "0, 1 or 2")?;
    let lnc = number(file, offset::LNC_SIZE, 4);
    expect("lnc_size", lnc, matches!(lnc, 1 | 2), "1 or 2")?;
    let features = number(file, offset::FEATURE_BITS, 8);
    if features & !KNOWN_FEATURES != 0 {
        return Err(BadNeff::Features(features));
    }
    let data = &file[HEADER_BYTES..];
    let hash = &file[offset::HASH..offset::HASH + 32];
    let holds = match pkg_version {
        1 => hash == Sha256::digest(data).as_slice(),
        _ => hash[..16] == *Md5::digest(data).as_slice(),
    };
    if holds { Ok(data) } else { Err(BadNeff::Hash) }
}

fn number(file: &[u8], offset: usize, len: usize) -> u64 {
    file[offset..offset + len].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[derive(Default)]
struct Members {
    graph: Option<Vec<u8>>,
    subgraphs: Option<Vec<u8>>,
    hlo: Option<Vec<u8>>,
}

impl Members {
    fn read(&mut self, tar: impl Read) -> io::Result<()> {
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let member = match entry.path()?.to_str() {
                Some("neff.json") => &mut self.graph,
                Some("kelf-0.json") => &mut self.subgraphs,
                Some(HLO_MEMBER) => &mut self.hlo,
                _ => continue,
            };
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            *member = Some(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: Contents = Contents {
        hlo: b"a module",
        name: "decode",
        target: "inf2",
        lnc: 1,
        version: "2.23.0.0+simulated",
        compressed: true,
    };

    #[test]
    fn what_is_packed_is_unpacked() {
        for compressed in [true, false] {
            let file = pack(&Contents { compressed, ..CONTENTS }).unwrap();
            let neff = Neff::unpack(&file).unwrap();
            let expected =
                Neff { hlo: b"a module".into(), name: "decode".into(), target: "inf2".into(), lnc: 1 };
            assert_eq!(neff, expected);
            assert_eq!(file, pack(&Contents { compressed, ..CONTENTS }).unwrap());
        }
    }

    /// As older compilers packed them.
    #[test]
    fn a_sha256_is_a_hash_too() {
        let mut file = pack(&CONTENTS).unwrap();
        file[offset::PKG_VERSION] = 1;
        assert!(matches!(Neff::unpack(&file), Err(BadNeff::Hash)));
        let hash = Sha256::digest(&file[HEADER_BYTES..]);
        file[offset::HASH..offset::HASH + 32].copy_from_slice(&hash);
        assert!(Neff::unpack(&file).is_ok());
    }

    #[track_caller]
    fn check(offset: usize, bytes: &[u8], expected: &str) {
        let mut file = pack(&CONTENTS).unwrap();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        assert_eq!(Neff::unpack(&file).unwrap_err().to_string(), expected);
    }

    #[test]
    fn each_field_is_held_to_the_format() {
        check(offset::PKG_VERSION, &[3], "the header says that pkg_version is 3, which is not 1 or 2");
        check(offset::HEADER_SIZE, &[1], "the header says that header_size is 1025, which is not 1024");
        check(offset::MAJOR, &[9], "the header says that neff_version_major is 9, which is not 0, 1 or 2");
        check(offset::LNC_SIZE, &[3], "the header says that lnc_size is 3, which is not 1 or 2");
        check(offset::FEATURE_BITS + 7, &[1], "the feature bits 0x100000000000000 are not all known");
        check(offset::HASH, &[0, 0, 0, 0], "the archive's bytes have another hash than the header says");
        check(HEADER_BYTES, &[0], "the archive's bytes have another hash than the header says");
        let file = pack(&CONTENTS).unwrap();
        assert!(Neff::unpack(&file[..file.len() - 1]).unwrap_err().to_string().contains("data_size"));
        assert!(matches!(Neff::unpack(&file[..1023]), Err(BadNeff::Short { len: 1023 })));
    }
}
