//! A NEFF, the file that Neuron's compiler makes of a program: its header, and what its archive holds.
//!
//! It has no magic number, so it is known by its structure: a header of 1024 bytes, little-endian, that says how
//! many bytes follow, then a tar archive, as a rule gzipped. What a program's inputs are called or which of them
//! are updated in place is not in it; the [`Sidecar`](super::sidecar::Sidecar) says that.
//!
//! Source: `neuron-runtime/explore/work-with-neff-files.rst` of aws-neuron-sdk.

mod archive;

pub use archive::Member;

use flate2::read::GzDecoder;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const HEADER_BYTES: usize = 1024;
/// Of the format; later ones may have another header.
const LAST_VERSION: u64 = 2;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file that looks like a NEFF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neff {
    pub header: Header,
    pub packing: Packing,
    pub file_bytes: u64,
}

/// What the header says. Nothing of it is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1: `hash` is a SHA-256, 2: an MD5.
    pub package_version: u64,
    /// Of the archive as it is stored.
    pub archive_bytes: u64,
    /// Major and minor.
    pub version: [u64; 2],
    /// Which build of the compiler wrote it; may be empty.
    pub build: String,
    /// Physical cores it needs.
    pub cores: u32,
    /// Of the archive as it is stored, in hexadecimal digits.
    pub hash: String,
    /// By which tools name a loaded program.
    pub uuid: String,
    pub name: String,
    pub feature_bits: u64,
    /// Physical cores that make one logical core; 0 in files that are older than the notion.
    pub lnc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    /// Larger, and faster to load.
    Tar,
}

/// Why a file is not a NEFF.
#[derive(Debug, thiserror::Error)]
pub enum NeffError {
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    #[error("its {field} is {found}; a NEFF's is {expected}")]
    Header { field: &'static str, found: u64, expected: String },
    #[error("after its header is neither a gzip nor a tar archive")]
    NotArchive,
    #[error("its archive is damaged: {0}")]
    Archive(String),
}

impl Neff {
    /// Reads the header and looks at what follows it.
    ///
    /// # Errors
    /// [`NeffError`]: the file cannot be read, or does not have a NEFF's structure.
    pub fn open(path: &Path) -> Result<Self, NeffError> {
        let mut file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        let mut start = [0; HEADER_BYTES];
        if file_bytes < HEADER_BYTES as u64 {
            let expected = format!("more than {HEADER_BYTES} bytes");
            return Err(NeffError::Header { field: "size", found: file_bytes, expected });
        }
        file.read_exact(&mut start)?;
        let header = Header::parse(&start, file_bytes)?;
        let mut first = Vec::with_capacity(archive::BLOCK);
        file.take(header.archive_bytes.min(archive::BLOCK as u64)).read_to_end(&mut first)?;
        let packing = if first.starts_with(&GZIP) {
            Packing::Gzip
        } else if archive::is_header(&first) {
            Packing::Tar
        } else {
            return Err(NeffError::NotArchive);
        };
        Ok(Self { header, packing, file_bytes })
    }

    /// The files in the archive, in its order; reads and unpacks all of it. `path` is the one that was opened.
    ///
    /// # Errors
    /// [`NeffError::Archive`]: it breaks off, or is not what tar writes.
    pub fn members(&self, path: &Path) -> Result<Vec<Member>, NeffError> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        let stored = BufReader::new(file).take(self.header.archive_bytes);
        match self.packing {
            Packing::Gzip => archive::list(GzDecoder::new(stored)),
            Packing::Tar => archive::list(stored),
        }
    }
}

impl Header {
    fn parse(bytes: &[u8; HEADER_BYTES], file_bytes: u64) -> Result<Self, NeffError> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let check = |holds: bool, field, found, expected: String| {
            if holds { Ok(()) } else { Err(NeffError::Header { field, found, expected }) }
        };
        let [package_version, header_bytes, archive_bytes] = [0, 8, 16].map(u64_at);
        let version = [24, 32].map(u64_at);
        let rest = file_bytes - HEADER_BYTES as u64;
        check(header_bytes == HEADER_BYTES as u64, "header size", header_bytes, HEADER_BYTES.to_string())?;
        check((1..=2).contains(&package_version), "package version", package_version, "1 or 2".to_owned())?;
        check(version[0] <= LAST_VERSION, "version", version[0], format!("{LAST_VERSION} at most"))?;
        let expected = format!("{rest} at most, which is what follows the header");
        check(archive_bytes <= rest, "archive size", archive_bytes, expected)?;
        // A digest's own bytes; what follows an MD5 is filling.
        let hash = &bytes[172..if package_version == 1 { 204 } else { 188 }];
        Ok(Self {
            package_version,
            archive_bytes,
            version,
            build: text(&bytes[40..168]),
            cores: u32_at(168),
            hash: super::sidecar::hexadecimal(hash),
            uuid: super::sidecar::hexadecimal(&bytes[204..220]),
            name: text(&bytes[220..476]),
            feature_bits: u64_at(544),
            lnc: u32_at(552),
        })
    }
}

impl Packing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Tar => "tar",
        }
    }
}

/// Up to the first NUL; what would move a terminal's cursor is left out.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    /// A NEFF with an archive of these files, made by `tar`.
    fn neff(files: &[(&str, usize)], gzip: bool) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![7; *bytes]).unwrap();
        }
        let output = std::process::Command::new("tar")
            .args(["--create", "--format", "gnu", if gzip { "--gzip" } else { "--no-auto-compress" }, "-C"])
            .arg(folder.path())
            .args(files.iter().map(|(name, _)| name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut neff = header(output.stdout.len() as u64);
        neff.extend(output.stdout);
        neff
    }

    fn header(archive_bytes: u64) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[0] = 2;
        header[8..16].copy_from_slice(&1024u64.to_le_bytes());
        header[16..24].copy_from_slice(&archive_bytes.to_le_bytes());
        header[24] = 2;
        header[40..48].copy_from_slice(b"2.0.1234");
        header[168] = 1;
        header[172..188].fill(0xab);
        header[204..220].fill(0x01);
        header[220..225].copy_from_slice(b"a\x1bb\0c");
        header[544] = 0x80;
        header[552] = 1;
        header
    }

    fn open(bytes: &[u8]) -> Result<(Neff, Result<Vec<Member>, NeffError>), NeffError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let neff = Neff::open(file.path())?;
        let members = neff.members(file.path());
        Ok((neff, members))
    }

    #[test]
    fn the_header_and_the_members_are_read() {
        let long = format!("sg00/{}.bin", "long".repeat(40));
        let files = [("neff.json", 3), ("sg00/def.json", 2000), (long.as_str(), 512), ("empty", 0)];
        for gzip in [true, false] {
            let bytes = neff(&files, gzip);
            let (neff, members) = open(&bytes).unwrap();
            let members = members.unwrap();
            let members: Vec<_> =
                members.iter().map(|member| (member.name.as_str(), member.bytes as usize)).collect();
            assert_eq!(members, files);
            assert_eq!(neff.packing, if gzip { Packing::Gzip } else { Packing::Tar });
            assert_eq!(neff.file_bytes, bytes.len() as u64);
            let Header { version, build, cores, hash, uuid, name, feature_bits, lnc, .. } = neff.header;
            assert_eq!((version, build.as_str(), cores, lnc), ([2, 0], "2.0.1234", 1, 1));
            assert_eq!((hash, uuid), ("ab".repeat(16), "01".repeat(16)));
            assert_eq!((name.as_str(), feature_bits), ("ab", 0x80));
        }
    }

    #[track_caller]
    fn check_refused(bytes: &[u8], expected: &str) {
        let error = open(bytes).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_neff_is_refused() {
        let good = neff(&[("neff.json", 3)], true);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        check_refused(&good[..1000], "its size is 1000; a NEFF's is more than 1024 bytes");
        check_refused(&good[..good.len() - 1], "its archive size is");
        check_refused(&changed(0, 3), "its package version is 3");
        check_refused(&changed(9, 0), "its header size is 0");
        check_refused(&changed(24, 3), "its version is 3");
        check_refused(&changed(23, 0xff), "its archive size is 18374686479671");
        check_refused(&changed(1024, 0), "neither a gzip nor a tar archive");
        check_refused(&header(0), "neither a gzip nor a tar archive");
    }

    /// Each byte of the archive in turn: an error or another listing, and never a panic.
    #[test]
    fn a_damaged_archive_is_an_error_at_most() {
        for gzip in [true, false] {
            let good = neff(&[("neff.json", 3), ("sg00/def.json", 700)], gzip);
            for at in HEADER_BYTES..good.len().min(HEADER_BYTES + 1600) {
                for flip in [0x01, 0x80, 0xff] {
                    let mut bytes = good.clone();
                    bytes[at] ^= flip;
                    let _ = open(&bytes);
                }
            }
            // A gzip that ends too soon, and a tar within a file.
            let rest = if gzip { (good.len() - HEADER_BYTES) / 2 } else { 700 };
            let mut cut = good[..HEADER_BYTES + rest].to_vec();
            cut[16..24].copy_from_slice(&(rest as u64).to_le_bytes());
            assert!(matches!(open(&cut).unwrap().1, Err(NeffError::Archive(_))));
        }
    }
}
