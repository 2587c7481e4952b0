//! The names and sizes in a tar archive, from any reader. Of its contents nothing is kept, and its word for a size
//! allocates nothing.
//!
//! Source: POSIX `pax` for the header and its extensions, GNU tar's manual for long names and large sizes.

use super::{NeffError, text};
use std::io::{self, Read};

/// A tar archive is made of these.
pub(super) const BLOCK: usize = 512;
const MAX_MEMBERS: usize = 100_000;
/// Of a long name, or of the extension that holds one.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;
/// More than any NEFF; some bytes of gzip may stand for many thousand.
const MAX_BYTES: u64 = 64 << 30;

/// A file in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub bytes: u64,
}

/// Whether these bytes begin with what tar writes before a file.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|block: &[u8; BLOCK]| checksum_holds(block))
}

/// The files of an archive, up to its end.
pub(super) fn list(mut archive: impl Read) -> Result<Vec<Member>, NeffError> {
    let mut members = Vec::new();
    let mut long_name = None;
    let mut read = 0u64;
    let mut block = [0; BLOCK];
    loop {
        archive.read_exact(&mut block).map_err(breaks_off)?;
        if block.iter().all(|&byte| byte == 0) {
            return Ok(members);
        }
        if !checksum_holds(&block) {
            return Err(damaged("the checksum of a file's header does not hold"));
        }
        let bytes = size(&block).ok_or_else(|| damaged("a file's size is not a number"))?;
        read = read.saturating_add(bytes).saturating_add(BLOCK as u64);
        if read > MAX_BYTES {
            return Err(damaged("it is larger than 64 GiB"));
        }
        let mut content = (&mut archive).take(bytes.next_multiple_of(BLOCK as u64));
        match block[156] {
            b'L' | b'x' if bytes > MAX_EXTENSION_BYTES => return Err(damaged("a name is too long")),
            b'L' => long_name = Some(text(&extension(&mut content, bytes)?)),
            b'x' => long_name = pax_path(&extension(&mut content, bytes)?),
            b'0' | b'\0' | b'7' => {
                if members.len() == MAX_MEMBERS {
                    return Err(damaged("it has more than 100,000 files"));
                }
                let name = long_name.take().unwrap_or_else(|| name(&block));
                members.push(Member { name, bytes });
            }
            // A folder, a link, or an extension for all that follow.
            _ => long_name = None,
        }
        let left = content.limit();
        if io::copy(&mut content, &mut io::sink()).map_err(breaks_off)? < left {
            return Err(damaged("it breaks off"));
        }
    }
}

/// The content of a small member; the rest of its last block stays.
fn extension(content: &mut impl Read, bytes: u64) -> Result<Vec<u8>, NeffError> {
    let mut extension = Vec::new();
    content.take(bytes).read_to_end(&mut extension).map_err(breaks_off)?;
    Ok(extension)
}

/// The sum of all bytes, those of the checksum itself taken for spaces.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let in_checksum = |at: usize| (148..156).contains(&at);
    let sum =
        block.iter().enumerate().map(|(at, &byte)| u64::from(if in_checksum(at) { b' ' } else { byte }));
    octal(&block[148..156]) == Some(sum.sum())
}

fn size(block: &[u8; BLOCK]) -> Option<u64> {
    let field = &block[124..136];
    if field[0] == 0x80 {
        // Binary, for what twelve digits cannot say.
        return field[4..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    }
    octal(field)
}

/// Digits, between spaces and up to a NUL or a space; none of them is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let field = field.trim_ascii_start();
    let digits = field.split(|&byte| byte == 0 || byte == b' ').next().unwrap_or_default();
    digits.iter().try_fold(0u64, |number, &digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn name(block: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    // GNU's own format has other things in the place of a prefix.
    let has_prefix = &block[257..263] == b"ustar\0" && !prefix.is_empty();
    if has_prefix { format!("{prefix}/{name}") } else { name }
}

/// Of records such as `19 path=sg00/def.json`, each a line that begins with its own length.
fn pax_path(mut records: &[u8]) -> Option<String> {
    let mut path = None;
    while let Some(space) = records.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(text(value));
        }
        records = &records[length..];
    }
    path
}

fn breaks_off(error: io::Error) -> NeffError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it breaks off"),
        _ => NeffError::Archive(error.to_string()),
    }
}

fn damaged(reason: &str) -> NeffError {
    NeffError::Archive(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(format: &str, names: &[String]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let output = std::process::Command::new("tar")
            .args(["--create", "--format", format, "-C"])
            .arg(folder.path())
            .args(names)
            .output()
            .unwrap();
        list(&*output.stdout).unwrap().into_iter().map(|member| member.name).collect()
    }

    /// Past 100 bytes each format has its own way.
    #[test]
    fn long_names_are_read_in_every_format() {
        let long = [format!("sg00/{}/def.json", "d".repeat(95)), "short".to_owned()];
        let longest = [format!("sg00/{}", "ü".repeat(120)), "short".to_owned()];
        assert_eq!(names("ustar", &long), long);
        for format in ["gnu", "pax"] {
            assert_eq!(names(format, &long), long, "{format}");
            assert_eq!(names(format, &longest), longest, "{format}");
        }
    }

    #[test]
    fn a_size_that_is_not_there_allocates_nothing() {
        let mut block = [0; BLOCK];
        block[..1].copy_from_slice(b"a");
        block[124] = 0x80;
        block[128..136].copy_from_slice(&(1u64 << 35).to_be_bytes());
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum::<u64>() + 8 * u64::from(b' ');
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(matches!(list(&block[..]), Err(NeffError::Archive(reason)) if reason == "it breaks off"));
        block[128] = 0x40;
        let sum: u64 =
            block[..148].iter().chain(&block[156..]).map(|&byte| u64::from(byte)).sum::<u64>() + 256;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(matches!(list(&block[..]), Err(NeffError::Archive(reason)) if reason.contains("64 GiB")));
    }
}
