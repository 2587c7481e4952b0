//! What was asked of each user who gives a name: in memory, bounded, gone with the process. Who names no user
//! leaves no trace here.

use super::item::QuizItem;
use super::meaning::Meaning;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// A question that was delivered.
pub(super) struct Asked {
    pub(super) item: QuizItem,
    /// `None` where meanings were not compared.
    pub(super) meaning: Option<Meaning>,
}

/// The questions of all users.
#[derive(Default)]
pub(super) struct History(Mutex<Users>);

#[derive(Default)]
struct Users {
    by_name: HashMap<String, User>,
    questions: usize,
    /// Counts what is done, so that it is known who was there last.
    now: u64,
}

#[derive(Default)]
struct User {
    last_here: u64,
    asked: VecDeque<Arc<Asked>>,
}

/// Questions kept of one user, and of all: some 3 kB each. The oldest go, and of the users who was away longest.
const MAX_OF_USER: usize = 1_000;
const MAX_QUESTIONS: usize = 20_000;

impl History {
    /// What the user was asked, oldest first.
    pub(super) fn of(&self, user: &str) -> Vec<Arc<Asked>> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.now += 1;
        let now = users.now;
        let Some(user) = users.by_name.get_mut(user) else { return Vec::new() };
        user.last_here = now;
        user.asked.iter().cloned().collect()
    }

    pub(super) fn add(&self, user: &str, asked: Arc<Asked>) {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.add(user, asked);
    }
}

impl Users {
    fn add(&mut self, name: &str, asked: Arc<Asked>) {
        self.now += 1;
        let user = self.by_name.entry(name.to_owned()).or_default();
        user.last_here = self.now;
        user.asked.push_back(asked);
        if user.asked.len() > MAX_OF_USER {
            user.asked.pop_front();
        } else {
            self.questions += 1;
        }
        while self.questions > MAX_QUESTIONS {
            let away = self.by_name.iter().min_by_key(|(_, user)| user.last_here);
            let away = away.map(|(name, _)| name.clone()).expect("who has questions is there");
            self.questions -= self.by_name.remove(&away).map_or(0, |user| user.asked.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiz::{Answer, ItemKind, ItemStatus};

    fn asked(question: &str) -> Arc<Asked> {
        let item = QuizItem {
            id: String::new(),
            index: 0,
            kind: ItemKind::ShortAnswer,
            question: question.to_owned(),
            choices: None,
            answer: Answer { text: "x".to_owned(), choice_index: None },
            evidence: None,
            citation: None,
            explanation: None,
            status: ItemStatus::Unverified,
            checks: Vec::new(),
            flaws: Vec::new(),
        };
        Arc::new(Asked { item, meaning: None })
    }

    fn questions(history: &History, user: &str) -> Vec<String> {
        history.of(user).iter().map(|asked| asked.item.question.clone()).collect()
    }

    #[test]
    fn each_user_has_their_own() {
        let history = History::default();
        history.add("ann", asked("1?"));
        history.add("bob", asked("2?"));
        history.add("ann", asked("3?"));
        assert_eq!(questions(&history, "ann"), ["1?", "3?"]);
        assert_eq!(questions(&history, "bob"), ["2?"]);
        assert!(questions(&history, "carl").is_empty());
    }

    #[test]
    fn the_oldest_go() {
        let history = History::default();
        for n in 0..MAX_OF_USER + 2 {
            history.add("ann", asked(&format!("{n}?")));
        }
        assert_eq!((history.of("ann").len(), &*questions(&history, "ann")[0]), (MAX_OF_USER, "2?"));
        let of_others = MAX_QUESTIONS - MAX_OF_USER;
        for n in 0..of_others {
            history.add(&format!("user {}", n / 100), asked("?"));
        }
        assert_eq!((history.of("ann").len(), history.of("user 0").len()), (MAX_OF_USER, 100));
        // One more than fits: who was away longest is forgotten, and no more than they.
        history.add("new", asked("?"));
        assert_eq!((history.of("user 1").len(), history.of("user 2").len()), (0, 100));
        assert_eq!(history.0.lock().unwrap().questions, MAX_QUESTIONS - 99);
    }
}
