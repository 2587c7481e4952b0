//! Quizzes whose items are compared by what they mean.

use super::*;
use crate::embedding::{Embedding, EmbeddingError};

/// Plays sentence embeddings: a text points where the marks in it say, `[1 0 0]`, and others elsewhere.
struct Marks;

impl Embed for Marks {
    fn embed(&self, text: &str) -> Result<Embedding, EmbeddingError> {
        let marks = text.split(['[', ']']).nth(1).unwrap_or("0 0 1");
        let direction: Vec<f32> = marks.split(' ').map(|mark| mark.parse().unwrap()).collect();
        Ok(Embedding::towards(&direction))
    }
}

/// Which of the sentences, an answer and a question.
type ReplyAbout = (usize, &'static str, &'static str);

/// Short answers about the tower: the n-th call writes the n-th of `replies`.
fn service_by_meaning(replies: &'static [ReplyAbout]) -> QuizService {
    let scripted = Scripted::new(move |_, call| {
        let (sentence, answer, question) = replies[call.min(replies.len() - 1)];
        Ok(json!({"evidence": SENTENCES[sentence], "answer": answer, "question": question}).to_string())
    });
    let service = QuizService::with_writer(Arc::new(scripted), Arc::new(Metrics::new("scripted")));
    QuizService { embedder: Some(Arc::new(Marks)), ..service }
}

const IN_OTHER_WORDS: &[ReplyAbout] = &[
    (0, "Paris", "Where does the tower stand [1 0 0]?"),
    (1, "Paris", "Which capital holds that famous iron thing [4 3 0]?"),
    (1, "1889", "When did workers finish all of it [4 3 0]?"),
];

#[tokio::test(start_paused = true)]
async fn a_question_in_other_words_is_asked_once() {
    let check = async |request: serde_json::Value, answers: [&str; 2], rejected: usize| {
        let (items, summary) = written(&service_by_meaning(IN_OTHER_WORDS), request.clone()).await;
        let found: Vec<&str> = items.iter().map(|item| item.answer.text.as_str()).collect();
        assert_eq!(found, answers, "{request}");
        let near = summary.rejected.get(&RejectReason::NearDuplicate).copied().unwrap_or(0);
        assert_eq!(near, rejected, "{request}");
        items.into_iter().map(|item| item.checks.contains(&Check::Distinct)).collect::<Vec<_>>()
    };
    // With the same answer 0.8 is near, with another it is not.
    assert_eq!(check(json!({"count": 2}), ["Paris", "1889"], 1).await, [true, true]);
    assert_eq!(check(json!({"count": 2, "distinct": "prefer"}), ["Paris", "Paris"], 0).await, [true, false]);
    assert_eq!(check(json!({"count": 2, "distinct": "off"}), ["Paris", "Paris"], 0).await, [false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_fact_is_asked_once() {
    const REPLIES: &[ReplyAbout] = &[
        (0, "Paris", "Where does the tower stand?"),
        (0, "Paris", "Which capital is it that Gustave chose?"),
    ];
    let service = service_by_meaning(REPLIES);
    // There is no other sentence to go on to.
    let request = json!({"user": "ann", "distinct": "off", "source": TOWER});
    let (_, first) = written(&service, request.clone()).await;
    let (items, second) = written(&service, request).await;
    assert_eq!((first.delivered, items.len()), (1, 0));
    assert_eq!(second.rejected, BTreeMap::from([(RejectReason::AskedEarlier, ATTEMPTS)]));
}

#[tokio::test(start_paused = true)]
async fn what_is_excluded_is_so_in_other_words() {
    let exclude = json!({"exclude": ["In which town is it [9 1 0]?"]});
    let (items, summary) = written(&service_by_meaning(IN_OTHER_WORDS), exclude).await;
    assert_eq!(items[0].question, IN_OTHER_WORDS[1].2);
    assert_eq!(summary.rejected, BTreeMap::from([(RejectReason::NearDuplicate, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_user_is_not_asked_twice() {
    const REPLIES: &[ReplyAbout] = &[
        IN_OTHER_WORDS[0],
        // Who names themselves is known, another is not, and who does not is forgotten. The same question may rest
        // on what was not asked about yet.
        (1, IN_OTHER_WORDS[0].1, IN_OTHER_WORDS[0].2),
        IN_OTHER_WORDS[1],
        IN_OTHER_WORDS[2],
        IN_OTHER_WORDS[0],
        IN_OTHER_WORDS[0],
        IN_OTHER_WORDS[0],
    ];
    let service = service_by_meaning(REPLIES);
    let (first, _) = written(&service, json!({"user": "ann"})).await;
    let (second, summary) = written(&service, json!({"user": "ann"})).await;
    assert_eq!((first[0].answer.text.as_str(), second[0].answer.text.as_str()), ("Paris", "1889"));
    let reasons = [(RejectReason::AskedEarlier, 1), (RejectReason::NearDuplicate, 1)];
    assert_eq!(summary.rejected, BTreeMap::from(reasons));
    assert_ne!(first[0].id, second[0].id, "another quiz has other names");
    for request in [json!({"user": "bob"}), json!({}), json!({})] {
        let (items, summary) = written(&service, request).await;
        assert_eq!((items[0].answer.text.as_str(), summary.rejected.len()), ("Paris", 0));
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_choices_are_plausible() {
    const DISTRACTORS: [[&str; 3]; 2] = [
        ["London [1 1 0]", "Rome [1 1 0]", "Nightfall [0 1 0]"],
        ["London [1 1 0]", "Rome [1 1 0]", "Oslo [1 2 0]"],
    ];
    let check = async |request: serde_json::Value, last: &str, checked: bool, rejected: usize| {
        let source = "The tower in Paris [1 0 0] was finished by Gustave Eiffel.";
        let scripted = Scripted::new(move |_, call| {
            let reply = json!({"evidence": source, "answer": "Paris [1 0 0]", "question": "Where does the tower stand?"});
            let mut reply = reply.as_object().unwrap().clone();
            reply.insert("distractors".to_owned(), json!(DISTRACTORS[call.min(1)]));
            Ok(json!(reply).to_string())
        });
        let service = QuizService::with_writer(Arc::new(scripted), Arc::new(Metrics::new("scripted")));
        let service = QuizService { embedder: Some(Arc::new(Marks)), ..service };
        let mut more = json!({"source": source, "kind": "multiple_choice"});
        more.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        let (items, summary) = written(&service, more).await;
        assert!(items[0].choices.iter().flatten().any(|choice| choice.starts_with(last)), "{request}");
        assert_eq!(items[0].checks.contains(&Check::PlausibleOptions), checked, "{request}");
        let implausible = summary.rejected.get(&RejectReason::ImplausibleOptions).copied();
        assert_eq!(implausible.unwrap_or(0), rejected, "{request}");
    };
    check(json!({}), "Oslo", true, 0).await;
    check(json!({"plausible": "require"}), "Oslo", true, 1).await;
    check(json!({"plausible": "off"}), "Nightfall", false, 0).await;
    check(json!({"plausible": "off", "candidates": 2}), "Nightfall", false, 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_compared_cannot_be_required() {
    let check = async |embedder: Option<Arc<dyn Embed>>, request: serde_json::Value, expected: &str| {
        let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
        let service = QuizService::with_writer(Arc::new(scripted), Arc::new(Metrics::new("scripted")));
        match (QuizService { embedder, ..service }).create(spec(request)).await.err() {
            Some(GenerateError::Invalid { param, message }) => {
                assert!(message.contains(expected), "{message}");
                param
            }
            other => panic!("{other:?}"),
        }
    };
    let request = json!({"topic": "trees", "distinct": "require"});
    assert_eq!(check(None, request, "mondai pull all-minilm-l6-v2").await, "distinct");
    let request = json!({"topic": "木", "language": "ja", "plausible": "require"});
    assert_eq!(check(Some(Arc::new(Marks)), request, "English alone").await, "plausible");
}
