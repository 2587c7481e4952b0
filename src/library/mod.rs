//! Passages to ask about: a library is a folder of them, indexed, that finds the best for a topic.
//!
//! [`Library`] answers, [`LibraryWriter`] adds, [`DocumentReader`] reads files into what is added. One
//! library ships with the program ([`Library::shipped`]), so that a topic has facts behind it on a machine
//! that has nothing else. May use nothing but `tantivy`. Absent: quizzes, models, what a sentence is good
//! for (`quiz` judges that), downloads.

mod document;
mod error;
mod folder;
mod html;
mod index;
mod language;
mod markdown;
mod read;
mod shipped;
mod terms;
mod topic;
mod writer;

pub use document::{Document, Passage};
pub use error::LibraryError;
pub use index::{Found, Library, Shelved};
pub use read::{DocumentReader, Files, ReadOptions};
pub(crate) use terms::{terms, topic_terms};
pub use topic::Topic;
pub use writer::LibraryWriter;
