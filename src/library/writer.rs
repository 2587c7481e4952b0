use super::document::Document;
use super::error::LibraryError;
use super::index::Fields;
use std::fs;
use std::path::{Path, PathBuf};
use tantivy::directory::MmapDirectory;
use tantivy::{Index, IndexWriter, TantivyDocument, TantivyError, Term};

/// Adds documents to the library in a folder: all that were added, at [`LibraryWriter::commit`], or none.
pub struct LibraryWriter {
    folder: PathBuf,
    fields: Fields,
    writer: IndexWriter,
}

/// What indexing keeps in memory before it writes.
const MEMORY_BUDGET_BYTES: usize = 64 << 20;

impl LibraryWriter {
    /// Opens the library in a folder, or makes it.
    ///
    /// # Errors
    /// [`LibraryError::NotALibrary`], [`LibraryError::Busy`], [`LibraryError::Unwritable`]
    pub fn open(folder: &Path) -> Result<Self, LibraryError> {
        let unwritable =
            |source: TantivyError| LibraryError::Unwritable { folder: folder.to_owned(), source };
        let not_a_library =
            |reason: &str| LibraryError::NotALibrary { folder: folder.to_owned(), reason: reason.to_owned() };
        if folder.exists() && !folder.is_dir() {
            return Err(not_a_library("it is a file"));
        }
        fs::create_dir_all(folder).map_err(|error| unwritable(error.into()))?;
        let directory = MmapDirectory::open(folder).map_err(|error| unwritable(error.into()))?;
        let index = if Index::exists(&directory).map_err(|error| unwritable(error.into()))? {
            let mut index = Index::open(directory).map_err(|error| LibraryError::Damaged {
                folder: folder.to_owned(),
                reason: error.to_string(),
            })?;
            Fields::check(&index.schema(), folder)?;
            index.set_tokenizers(Fields::tokenizers());
            index
        } else {
            // Among files of other kinds an index would be lost.
            let entries = fs::read_dir(folder).map_err(|error| unwritable(error.into()))?;
            let mut names = entries.flatten().map(|entry| entry.file_name());
            if names.any(|name| !name.to_string_lossy().starts_with('.')) {
                return Err(not_a_library("it has files in it and none of them is a library's"));
            }
            let builder = Index::builder().schema(Fields::schema()).tokenizers(Fields::tokenizers());
            builder.open_or_create(directory).map_err(unwritable)?
        };
        let fields = Fields::of(&index.schema()).map_err(unwritable)?;
        // One thread: the same files added in the same order make the same library.
        let writer = index.writer_with_num_threads(1, MEMORY_BUDGET_BYTES).map_err(|error| match error {
            TantivyError::LockFailure(..) => LibraryError::Busy { folder: folder.to_owned() },
            error => unwritable(error),
        })?;
        Ok(Self { folder: folder.to_owned(), fields, writer })
    }

    /// Adds a document in place of the one of its id, if there is one; returns how many passages it makes.
    ///
    /// # Errors
    /// [`LibraryError::Unwritable`]: the disk is full, say.
    pub fn add(&mut self, document: &Document) -> Result<usize, LibraryError> {
        self.writer.delete_term(Term::from_field_text(self.fields.document, &document.id));
        let passages = passages(document, &self.fields);
        let count = passages.len();
        for passage in passages {
            self.writer.add_document(passage).map_err(|source| self.unwritable(source))?;
        }
        Ok(count)
    }

    /// Makes everything that was added part of the library. A crash before it returns leaves the library as
    /// it was, or with everything in it.
    ///
    /// # Errors
    /// [`LibraryError::Unwritable`]: the library is as it was.
    pub fn commit(mut self) -> Result<(), LibraryError> {
        self.writer.commit().map_err(|source| self.unwritable(source))?;
        let Self { folder, writer, .. } = self;
        writer.wait_merging_threads().map_err(|source| LibraryError::Unwritable { folder, source })
    }

    fn unwritable(&self, source: TantivyError) -> LibraryError {
        LibraryError::Unwritable { folder: self.folder.clone(), source }
    }
}

/// What is indexed of a document.
pub(super) fn passages(document: &Document, fields: &Fields) -> Vec<TantivyDocument> {
    let passage = |text: String| {
        let mut passage = TantivyDocument::new();
        passage.add_text(fields.document, &document.id);
        passage.add_text(fields.language, &document.language);
        passage.add_text(fields.title, &document.title);
        if let Some(licence) = &document.licence {
            passage.add_text(fields.licence, licence);
        }
        if let Some(source) = &document.source {
            passage.add_text(fields.source, source);
        }
        passage.add_text(fields.text, text);
        passage
    };
    document.parts().into_iter().map(passage).collect()
}
