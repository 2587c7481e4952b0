//! Finds a short way from where a parse stands to the end of the document, byte by byte.
//!
//! llguidance can try a byte and take it back cheaply ([`ParserRecognizer`]), but shows of its state
//! only the lexer's part. So a search goes lexeme by lexeme. Within a lexeme the lexer state says all,
//! and a breadth-first search finds the nearest ways out of it; states seen before are skipped. From
//! lexeme to lexeme the search is greedy, closing where it can. Asked for the shortest way, it then
//! tries every other choice along the way found, one at a time. What it returns has been parsed to
//! the end; it may not be the very shortest.

use super::vocabulary::Vocabulary;
use llguidance::derivre::{HashMap, HashSet, NextByte, StateID};
use llguidance::earley::{BiasComputer, Parser, ParserRecognizer};
use std::sync::Mutex;
use toktrie::{Recognizer, SimpleVob, TokTrie, TokenizerEnv};

/// What may follow a document: the first byte of [`Vocabulary::document_end`].
const END: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// Of the 62 ASCII letters and digits, so many lead on from a place in free text.
const FREE_TEXT_BYTES: usize = 32;
/// Steps into a lexeme that one look for its ways out may take.
const MAX_LEXEME_STEPS: usize = 20_000;
/// How much longer than the shortest a way out of a lexeme may be to be worth a try.
const LONGER_WAYS: usize = 24;
/// Bytes that the first try for a way to the end may take; later tries may take more.
const FIRST_BOUND: usize = 256;
/// Leaves room under llguidance's own limit (`step_max_items`), past which a parser is lost.
const MAX_ITEMS: usize = 40_000;

/// How hard to search.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Longest way looked at, in bytes.
    pub(super) max_bytes: usize,
    /// Lexemes looked at in trying for a shorter way than the first; 0 to be content with the first.
    pub(super) shorter: usize,
}

/// A way to the end.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) bytes: Vec<u8>,
    /// Something else could still follow, so the reply needs a token that ends it.
    pub(super) open: bool,
}

/// Runs `f` with a parser that takes bytes back; the parser itself stays where it is.
///
/// llguidance opens its parser to whoever computes masks for it, within its limits on work, so that
/// is what this pretends to do.
pub(super) fn speculate<T: Send>(
    parser: &mut Parser,
    vocabulary: &Vocabulary,
    f: impl FnOnce(&mut Walker<'_, '_>) -> T + Send,
) -> T {
    struct Task<'v, F, T> {
        vocabulary: &'v Vocabulary,
        f: Mutex<Option<F>>,
        result: Mutex<Option<T>>,
    }
    impl<T: Send, F: FnOnce(&mut Walker<'_, '_>) -> T + Send> BiasComputer for Task<'_, F, T> {
        fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, _start: &[u8]) -> SimpleVob {
            let f = self.f.lock().expect("no other holder").take().expect("called once");
            recognizer.trie_started("speculate");
            let result = f(&mut Walker::new(recognizer));
            recognizer.trie_finished();
            *self.result.lock().expect("no other holder") = Some(result);
            SimpleVob::new()
        }
        fn trie(&self) -> &TokTrie {
            self.vocabulary.tok_trie()
        }
    }

    let task = Task { vocabulary, f: Mutex::new(Some(f)), result: Mutex::new(None) };
    // A start that is not empty keeps the result out of the parser's cache of masks.
    parser.compute_bias(&task, &[END]);
    task.result.into_inner().expect("no other holder").expect("compute_bias calls its computer")
}

/// Where a parse stands, as far as one lexeme goes: equal positions with no lexeme ended in between
/// are the same place.
pub(super) type Position = StateID;

/// A parser and the bytes tried on it.
pub(super) struct Walker<'w, 'p> {
    recognizer: &'w mut ParserRecognizer<'p>,
    pushed: Vec<u8>,
    first_item: usize,
}

impl<'w, 'p> Walker<'w, 'p> {
    fn new(recognizer: &'w mut ParserRecognizer<'p>) -> Self {
        let first_item = recognizer.stats_mut().all_items;
        Self { recognizer, pushed: Vec::new(), first_item }
    }

    pub(super) fn position(&self) -> Position {
        self.recognizer.lexer_state()
    }

    /// Tries a byte. None if it does not fit, else whether it ended a lexeme.
    pub(super) fn push(&mut self, byte: u8) -> Option<bool> {
        let rows_before = self.n_rows();
        if !self.recognizer.try_push_byte(byte) {
            return None;
        }
        self.pushed.push(byte);
        Some(self.n_rows() != rows_before)
    }

    /// Tries bytes, all or none.
    pub(super) fn push_all(&mut self, bytes: &[u8]) -> bool {
        let n_before = self.pushed.len();
        let fits = bytes.iter().all(|&byte| self.push(byte).is_some());
        if !fits {
            self.pop_to(n_before);
        }
        fits
    }

    pub(super) fn fits(&mut self, byte: u8) -> bool {
        let fits = self.push(byte).is_some();
        if fits {
            self.pop_to(self.pushed.len() - 1);
        }
        fits
    }

    /// The document may end here.
    pub(super) fn may_end(&mut self) -> bool {
        self.fits(END)
    }

    /// Bytes tried and not taken back.
    pub(super) fn n_pushed(&self) -> usize {
        self.pushed.len()
    }

    pub(super) fn pop_to(&mut self, n_pushed: usize) {
        self.recognizer.pop_bytes(self.pushed.len() - n_pushed);
        self.pushed.truncate(n_pushed);
    }

    /// A way from here to the end of the document.
    pub(super) fn way_out(&mut self, effort: Effort) -> Option<Way> {
        let base = self.pushed.len();
        let way = Search { walker: self, base, effort, n_stages: 0 }.run();
        self.pop_to(base);
        way
    }

    /// Grows with every lexeme that ends, here and in what is taken back.
    fn n_rows(&mut self) -> usize {
        let stats = self.recognizer.stats_mut();
        stats.rows + stats.cached_rows
    }

    fn exhausted(&mut self) -> bool {
        self.recognizer.stats_mut().all_items - self.first_item > MAX_ITEMS
    }

    /// Bytes worth trying here, the likeliest to end something first.
    fn next_bytes(&mut self) -> &'static [u8] {
        let state = self.position();
        match self.recognizer.lexer_mut().next_byte(state) {
            NextByte::ForcedByte(END) => &[],
            NextByte::ForcedByte(byte) => {
                let index = BYTES.iter().position(|&b| b == byte).expect("every byte is listed");
                &BYTES[index..=index]
            }
            _ => &BYTES,
        }
    }

    /// Most letters and digits lead to the same place, inside the same lexeme.
    fn in_free_text(&mut self) -> bool {
        let base = self.pushed.len();
        let mut leads_to = None;
        let mut n_same = 0;
        for byte in (b'0'..=b'9').chain(b'A'..=b'Z').chain(b'a'..=b'z') {
            if self.push(byte) == Some(false) && *leads_to.get_or_insert(self.position()) == self.position() {
                n_same += 1;
            }
            self.pop_to(base);
        }
        n_same >= FREE_TEXT_BYTES
    }
}

/// All bytes but [`END`], closing ones first, opening ones late, then those no text begins with.
static BYTES: [u8; 255] = {
    const FIRST: &[u8] = b"\"}]) etaoinsrhldcumfpgwybvkxjqz0123456789ETAOINSRHLDCUMFPGWYBVKXJQZ'.:;_-!?/<>=+*&%$#@^|~`,\\\t\n\r[({";
    let mut bytes = [0; 255];
    let mut listed = [false; 256];
    let mut n = 0;
    while n < FIRST.len() {
        bytes[n] = FIRST[n];
        listed[FIRST[n] as usize] = true;
        n += 1;
    }
    let mut byte = 0;
    while byte < END as usize {
        if !listed[byte] {
            bytes[n] = byte as u8;
            n += 1;
        }
        byte += 1;
    }
    bytes
};

/// How much a last byte speaks against a way out of a lexeme, in bytes: what it opens must be closed.
fn opens(byte: u8) -> usize {
    match byte {
        b'{' | b'[' | b'(' => 16,
        b',' => 6,
        _ => 0,
    }
}

/// A way out of a lexeme into the next, or to the end of the document.
struct Exit {
    bytes: Vec<u8>,
    cost: usize,
    to: Position,
    ends: bool,
}

/// One lexeme on a way to the end: bytes pushed before it, and where it was left for.
struct Stage {
    start: usize,
    to: Position,
}

struct Search<'s, 'w, 'p> {
    walker: &'s mut Walker<'w, 'p>,
    /// Bytes pushed before the search.
    base: usize,
    effort: Effort,
    n_stages: usize,
}

impl Search<'_, '_, '_> {
    fn run(&mut self) -> Option<Way> {
        let mut stages = self.first_way()?;
        let mut best = self.way();
        self.n_stages = 0;
        // Every other choice along the best way known, earliest first: it changes the most.
        let mut at = 0;
        while at < stages.len() && self.n_stages < self.effort.shorter && !self.walker.exhausted() {
            let Stage { start, to: taken } = stages[at];
            self.walker.pop_to(start);
            let mut exits = self.exits(self.base + best.bytes.len() - start, Look::Wide);
            exits.sort_by_key(|exit| exit.cost);
            for exit in exits.iter().filter(|exit| exit.to != taken) {
                let Some(room) = (self.base + best.bytes.len()).checked_sub(start + exit.bytes.len() + 1)
                else {
                    continue;
                };
                self.walker.pop_to(start);
                if let Some(tail) = self.leave_by(exit, room) {
                    best = self.way();
                    stages.truncate(at);
                    stages.push(Stage { start, to: exit.to });
                    stages.extend(tail);
                }
            }
            self.walker.pop_to(start);
            if !self.walker.push_all(&best.bytes[start - self.base..]) {
                break; // only a parser out of its limits refuses what it took before
            }
            at += 1;
        }
        Some(best)
    }

    /// The first way found, its bytes left pushed.
    fn first_way(&mut self) -> Option<Vec<Stage>> {
        let mut bound = FIRST_BOUND.min(self.effort.max_bytes);
        loop {
            // Ever more averse to leaving a place as it was left before, for grammars that recurse.
            for (look, aversion) in [(Look::Near, 0), (Look::Wide, 1), (Look::Everywhere, 8)] {
                self.walker.pop_to(self.base);
                if let Some(stages) = self.greedy_way(bound, look, aversion) {
                    return Some(stages);
                }
                if self.walker.exhausted() {
                    return None;
                }
            }
            if bound == self.effort.max_bytes {
                return None;
            }
            bound = (bound * 16).min(self.effort.max_bytes);
        }
    }

    /// Takes `exit` and goes on, `room` bytes at most from there.
    fn leave_by(&mut self, exit: &Exit, room: usize) -> Option<Vec<Stage>> {
        if !self.walker.push_all(&exit.bytes) {
            None
        } else if exit.ends {
            Some(Vec::new())
        } else {
            self.greedy_way(room, Look::Near, 0)
        }
    }

    /// Goes from lexeme to lexeme by the cheapest exit to the end, `room` bytes at most.
    fn greedy_way(&mut self, room: usize, look: Look, aversion: usize) -> Option<Vec<Stage>> {
        let bound = self.walker.n_pushed() + room;
        let mut stages = Vec::new();
        let mut taken: HashMap<(Position, Position), usize> = HashMap::default();
        loop {
            let start = self.walker.n_pushed();
            let from = self.walker.position();
            self.n_stages += 1;
            let exits = self.exits(bound - start, look);
            let repeated = |exit: &Exit| taken.get(&(from, exit.to)).copied().unwrap_or(0);
            let exit = exits.iter().min_by_key(|exit| exit.cost + aversion * repeated(exit))?;
            if !self.walker.push_all(&exit.bytes) {
                return None;
            }
            stages.push(Stage { start, to: exit.to });
            if exit.ends {
                return Some(stages);
            }
            *taken.entry((from, exit.to)).or_insert(0) += 1;
        }
    }

    /// What is pushed now, as a way to the end.
    fn way(&mut self) -> Way {
        let bytes = self.walker.pushed[self.base..].to_vec();
        let open = self.walker.next_bytes().iter().any(|&byte| self.walker.fits(byte));
        Way { bytes, open }
    }

    /// Ways out of the lexeme the parse stands in, at most `room` bytes long, by breadth-first search.
    fn exits(&mut self, room: usize, look: Look) -> Vec<Exit> {
        let base = self.walker.n_pushed();
        let mut tree = Tree::new();
        let mut seen = HashSet::default();
        let mut left_for = HashSet::default();
        let mut exits: Vec<Exit> = Vec::new();
        let mut cheapest = usize::MAX;
        let mut left_free_text = false;
        seen.insert(self.walker.position());
        while let Some((shared, branch)) = tree.next() {
            let depth = shared + branch.len();
            if depth > room || depth >= cheapest.saturating_add(look.further()) {
                break;
            }
            self.walker.pop_to(base + shared);
            if !self.walker.push_all(&branch) {
                break; // only a parser out of its limits refuses what it took before
            }
            if self.walker.may_end() {
                cheapest = cheapest.min(depth);
                let bytes = self.walker.pushed[base..].to_vec();
                exits.push(Exit { bytes, cost: depth, to: StateID::DEAD, ends: true });
            }
            if depth == room {
                continue;
            }
            let bytes = self.walker.next_bytes();
            let free_text = look != Look::Everywhere && bytes.len() > 1 && self.walker.in_free_text();
            if free_text && left_free_text {
                continue; // longer text only leads where shorter text does
            }
            for &byte in bytes {
                if look == Look::Near && cheapest <= depth + 1 {
                    break;
                }
                if free_text && (!byte.is_ascii() || byte == b'\\') {
                    continue;
                }
                let Some(left) = self.walker.push(byte) else { continue };
                let to = self.walker.position();
                left_free_text |= free_text && left;
                if left && left_for.insert(to) {
                    let cost = depth + 1 + opens(byte);
                    cheapest = cheapest.min(cost);
                    exits.push(Exit { bytes: self.walker.pushed[base..].to_vec(), cost, to, ends: false });
                } else if !left && seen.insert(to) {
                    tree.add(byte);
                }
                self.walker.pop_to(base + depth);
            }
        }
        self.walker.pop_to(base);
        exits
    }
}

/// Bytes into a lexeme, by the order in which a breadth-first search comes to them.
struct Tree {
    nodes: Vec<Node>,
    /// The node last come to; nodes are added below it.
    at: usize,
    next: usize,
}

struct Node {
    parent: usize,
    depth: usize,
    byte: u8,
}

impl Tree {
    fn new() -> Self {
        Self { nodes: vec![Node { parent: 0, depth: 0, byte: 0 }], at: 0, next: 0 }
    }

    fn add(&mut self, byte: u8) {
        self.nodes.push(Node { parent: self.at, depth: self.nodes[self.at].depth + 1, byte });
    }

    /// Comes to the next node: how many bytes its place shares with the last one's, and the rest.
    fn next(&mut self) -> Option<(usize, Vec<u8>)> {
        if self.next == self.nodes.len() || self.nodes.len() >= MAX_LEXEME_STEPS {
            return None;
        }
        let mut branch = Vec::new();
        let (mut ours, mut theirs) = (self.at, self.next);
        while ours != theirs {
            if self.nodes[theirs].depth >= self.nodes[ours].depth {
                branch.push(self.nodes[theirs].byte);
                theirs = self.nodes[theirs].parent;
            } else {
                ours = self.nodes[ours].parent;
            }
        }
        branch.reverse();
        self.at = self.next;
        self.next += 1;
        Some((self.nodes[theirs].depth, branch))
    }
}

/// Which ways out of a lexeme to look for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The cheapest, and in free text none through escapes or beyond ASCII.
    Near,
    /// Those that are not much longer, too.
    Wide,
    /// Those through any bytes, too.
    Everywhere,
}

impl Look {
    /// How many bytes past the cheapest exit to look.
    fn further(self) -> usize {
        match self {
            Look::Near => 0,
            Look::Wide | Look::Everywhere => LONGER_WAYS,
        }
    }
}
