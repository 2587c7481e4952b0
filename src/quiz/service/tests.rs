use super::*;
use crate::engine::{EngineError, FinishReason};
use crate::generation::{Likelihood, Prompt, TextRequest, TextSummary, WeighRequest};
use crate::quiz::{Flaw, ItemStatus, QuizRequest};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

mod by_meaning;

/// At an item, when there is one candidate.
const ATTEMPTS: usize = 6;

/// Plays a model: what it writes follows from the request, when it is done from `delay`.
struct Scripted {
    reply: Box<ReplyFn>,
    weight: Box<dyn Fn(&WeighRequest) -> f32 + Send + Sync>,
    delay: Box<dyn Fn(usize) -> Duration + Send + Sync>,
    /// Answers to the calls of `write`, from the first on; accepted when used up.
    refusals: Mutex<VecDeque<Option<GenerateError>>>,
    calls: AtomicUsize,
    running: Arc<AtomicUsize>,
    most_running: AtomicUsize,
    slots: usize,
}

impl Scripted {
    fn new(
        reply: impl Fn(&TextRequest, usize) -> Result<String, GenerateError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            reply: Box::new(reply),
            weight: Box::new(|_| -1.0),
            delay: Box::new(|_| Duration::from_millis(10)),
            refusals: Mutex::default(),
            calls: AtomicUsize::new(0),
            running: Arc::default(),
            most_running: AtomicUsize::new(0),
            slots: 4,
        }
    }
}

/// The reply to a request, by the number of the call.
type ReplyFn = dyn Fn(&TextRequest, usize) -> Result<String, GenerateError> + Send + Sync;

/// Counts a reply as running while it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Writer for Scripted {
    fn model_name(&self) -> &str {
        "scripted"
    }

    fn context_len(&self) -> usize {
        4096
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }

    fn write(&self, request: TextRequest) -> BoxFuture<'static, Result<Reply, GenerateError>> {
        let refusal = self.refusals.lock().unwrap().pop_front().flatten();
        if let Some(error) = refusal {
            return Box::pin(async { Err(error) });
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let reply = (self.reply)(&request, call);
        let delay = (self.delay)(call);
        let running = Running(Arc::clone(&self.running));
        let now_running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(now_running, Ordering::SeqCst);
        Box::pin(async move {
            let reply: Reply = Box::pin(async move {
                tokio::time::sleep(delay).await;
                drop(running);
                reply.map(|text| (text, summary()))
            });
            Ok(reply)
        })
    }

    fn weigh(&self, request: WeighRequest) -> BoxFuture<'static, Result<Likelihood, GenerateError>> {
        let logprobs = vec![(self.weight)(&request)];
        Box::pin(async { Ok(Likelihood { logprobs, sequence: summary().sequence }) })
    }
}

fn summary() -> TextSummary {
    let sequence = SequenceSummary {
        reason: FinishReason::Stop,
        prompt_tokens: 10,
        cached_tokens: 4,
        completion_tokens: 7,
        forced_tokens: 3,
        drafted_tokens: 0,
        accepted_tokens: 0,
        queue_time: Duration::ZERO,
        time_to_first_token: Duration::ZERO,
        total_time: Duration::ZERO,
    };
    TextSummary { reason: FinishReason::Stop, mean_logprob: None, sequence }
}

/// A short-answer reply whose words come from the attempt's own seed.
fn good_reply(request: &TextRequest) -> String {
    const WORDS: [&str; 16] = [
        "amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jewel", "kayak",
        "lotus", "maple", "north", "ocean", "pearl",
    ];
    // Five places with words of their own: none is said twice.
    let word = |shift: u32| WORDS[(request.sampling.seed >> shift) as usize % WORDS.len()];
    let question = format!("Which {}a {}b {}c {}d {}e?", word(0), word(7), word(14), word(21), word(28));
    json!({"answer": format!("{}x", word(35)), "question": question, "explanation": "It is so."}).to_string()
}

fn spec(request: serde_json::Value) -> QuizSpec {
    QuizSpec::try_from(serde_json::from_value::<QuizRequest>(request).unwrap()).unwrap()
}

fn topic(count: usize) -> QuizSpec {
    spec(json!({"topic": "trees", "kind": "short_answer", "count": count, "seed": 11}))
}

async fn events(scripted: Scripted, spec: QuizSpec) -> Vec<QuizEvent> {
    let service = QuizService::with_writer(Arc::new(scripted), Arc::new(Metrics::new("scripted")));
    let mut stream = service.create(spec).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    events
}

fn items(events: &[QuizEvent]) -> Vec<&QuizItem> {
    let items = events
        .iter()
        .filter_map(|event| if let QuizEvent::Item(item) = event { Some(&**item) } else { None });
    items.collect()
}

fn completed(events: &[QuizEvent]) -> &QuizSummary {
    match events.last() {
        Some(QuizEvent::Completed(summary)) => summary,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn items_come_in_order_between_created_and_completed() {
    let mut scripted = Scripted::new(|request, _| Ok(good_reply(request)));
    // Later calls are done earlier.
    scripted.delay = Box::new(|call| Duration::from_millis(1000 / (call as u64 + 1)));
    let events = events(scripted, topic(10)).await;
    let QuizEvent::Created(created) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!((created.seed, created.requested, created.model.as_str()), (11, 10, "scripted"));
    let indices: Vec<usize> = items(&events).iter().map(|item| item.index).collect();
    assert_eq!(indices, (0..10).collect::<Vec<_>>());
    let summary = completed(&events);
    assert_eq!((summary.requested, summary.delivered), (10, 10));
    assert_eq!(summary.usage.prompt_tokens, 100 + 10 * summary.rejected.values().sum::<usize>());
    assert!(summary.timings.time_to_first_item_ms.is_some_and(|first| first <= summary.timings.total_ms));
    assert!(items(&events).iter().all(|item| item.status == ItemStatus::Unverified));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_quiz_whatever_the_timing() {
    // Half of the replies are no good, and some repeat others.
    let reply = |request: &TextRequest, _| {
        Ok(if request.sampling.seed.is_multiple_of(2) { "{}".to_owned() } else { good_reply(request) })
    };
    let mut quizzes = Vec::new();
    for candidates in [1, 3] {
        quizzes.clear();
        for timing in 0..6_u64 {
            let mut scripted = Scripted::new(reply);
            scripted.slots = [1, 2, 4, 8, 8, 8][timing as usize];
            scripted.delay =
                Box::new(move |call| Duration::from_millis((call as u64 * 37 * (timing + 1)) % 101));
            let events = events(scripted, QuizSpec { candidates, ..topic(20) }).await;
            let items: Vec<QuizItem> = items(&events).into_iter().cloned().collect();
            quizzes.push((items, completed(&events).rejected.clone()));
        }
        assert!(quizzes[0].0.len() > 10 && quizzes[0].1[&RejectReason::Malformed] > 10);
        assert!(quizzes.iter().all(|quiz| *quiz == quizzes[0]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_never_passes_is_left_out() {
    let scripted = Scripted::new(|_, _| Ok("no JSON".to_owned()));
    let events = events(scripted, topic(3)).await;
    let summary = completed(&events);
    assert_eq!((summary.delivered, summary.timings.time_to_first_item_ms), (0, None));
    assert_eq!(summary.rejected, BTreeMap::from([(RejectReason::Malformed, 3 * ATTEMPTS)]));
}

#[tokio::test(start_paused = true)]
async fn repeats_and_excluded_items_are_written_again() {
    let reply = json!({"answer": "oaks", "question": "Which trees bear acorns?", "explanation": "They do."})
        .to_string();
    let scripted = Scripted::new(move |_, _| Ok(reply.clone()));
    let events = events(scripted, topic(2)).await;
    assert_eq!(items(&events).len(), 1);
    assert_eq!(completed(&events).rejected, BTreeMap::from([(RejectReason::Repeated, ATTEMPTS)]));

    let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
    let all = self::events(scripted, topic(1)).await;
    let mut excluding = topic(1);
    excluding.exclude = vec![items(&all)[0].question.clone()];
    let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
    let events = self::events(scripted, excluding).await;
    assert_eq!(completed(&events).rejected, BTreeMap::from([(RejectReason::Excluded, 1)]));
    assert_ne!(items(&events)[0].question, items(&all)[0].question);
}

const TOWER: &str = "Gustave Eiffel built the Eiffel Tower in Paris in 1889 for the World Fair.";

/// A quiz of one short answer about the tower; the n-th call writes the n-th of `replies`, each an answer
/// and a question, and a question is likely after answers that begin as it is marked: `Where [P] ...`.
async fn about_the_tower(replies: &'static [(&str, &str)], request: serde_json::Value) -> Vec<QuizEvent> {
    let mut scripted = Scripted::new(move |_, call| {
        let (answer, question) = replies[call.min(replies.len() - 1)];
        Ok(json!({"evidence": TOWER, "answer": answer, "question": question}).to_string())
    });
    scripted.weight = Box::new(|request| {
        let marked = request.text.split(['[', ']']).nth(1).expect("each question is marked");
        let asks_for = request.before.contains(&format!("\"answer\":\"{marked}"));
        if asks_for { -1.0 } else { -1.5 }
    });
    let mut spec = json!({"source": TOWER, "kind": "short_answer", "count": 1, "seed": 1});
    spec.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
    events(scripted, self::spec(spec)).await
}

const SENTENCES: [&str; 2] = [TOWER, "Visitors first came to Paris in 1889 for it."];

async fn written(service: &QuizService, more: serde_json::Value) -> (Vec<QuizItem>, QuizSummary) {
    let source = SENTENCES.join(" ");
    let mut request = json!({"source": source, "kind": "short_answer", "count": 1, "seed": 1});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut stream = service.create(spec(request)).await.unwrap();
    let mut items = Vec::new();
    loop {
        match stream.next().await.unwrap() {
            QuizEvent::Item(item) => items.push(*item),
            QuizEvent::Completed(summary) => return (items, summary),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_best_of_the_candidates_is_kept() {
    const REPLIES: &[(&str, &str)] = &[
        ("1889", "What is the tower [G] of the capital called?"),
        ("Paris", "Where did he build it and his house [P]?"),
        ("Paris", "Where does the tower stand [P]?"),
    ];
    let check = async |request: serde_json::Value,
                       expected: Option<&str>,
                       outdone: usize,
                       rejected: &[(RejectReason, usize)]| {
        let events = about_the_tower(REPLIES, request.clone()).await;
        let found = items(&events).first().map(|item| item.question.clone());
        assert_eq!(found.as_deref(), expected, "{request}");
        assert_eq!(completed(&events).rejected, rejected.iter().copied().collect(), "{request}");
        assert_eq!(completed(&events).outdone, outdone, "{request}");
    };
    use RejectReason::*;
    let (wrong, flawed, good) = (Some(REPLIES[0].1), Some(REPLIES[1].1), Some(REPLIES[2].1));
    check(json!({"clean": "off"}), wrong, 0, &[]).await;
    check(json!({"clean": "off", "candidates": 3}), wrong, 2, &[]).await;
    check(json!({"round_trip": "prefer"}), wrong, 0, &[]).await;
    // What is best and flawed has a second chance.
    check(json!({"round_trip": "require"}), good, 1, &[(RoundTrip, 1)]).await;
    check(
        json!({"round_trip": "require", "clean": "require"}),
        good,
        0,
        &[(RoundTrip, 1), (Flawed(Flaw::DanglingReference), 1)],
    )
    .await;
    check(json!({"round_trip": "prefer", "candidates": 2, "clean": "off"}), flawed, 1, &[]).await;
    check(json!({"round_trip": "prefer", "candidates": 2}), good, 2, &[]).await;
    check(json!({"round_trip": "prefer", "candidates": 3}), good, 2, &[]).await;
}

/// As [`the_best_of_the_candidates_is_kept`], of a model that reads: how likely the answer is to it that begins as a
/// question is marked, the mark says, too: `Where [P l] ...`; others are unlikely.
#[tokio::test(start_paused = true)]
async fn who_reads_writes_until_a_draft_is_sure() {
    const REPLIES: &[(&str, &str)] = &[
        ("1889", "What is the tower [G s] of the capital called?"),
        ("Paris", "Where was the Eiffel Tower built [P u]?"),
        ("Paris", "In which city did the king see the tower built [P l]?"),
        ("Paris", "Where was what Eiffel built for the World Fair [P l]?"),
        ("Gustave Eiffel", "Who built the tower [G s]?"),
    ];
    let check = async |request: serde_json::Value, expected: &str, calls: usize, outdone: usize| {
        let mut scripted = Scripted::new(move |_, call| {
            let (answer, question) = REPLIES[call.min(REPLIES.len() - 1)];
            Ok(json!({"evidence": TOWER, "answer": answer, "question": question}).to_string())
        });
        scripted.weight = Box::new(|request| {
            let Prompt::Chat(messages) = &request.prompt else { panic!("a chat") };
            let mark = messages[1].content.split(['[', ']']).nth(1).expect("each question is marked");
            let (marked, how) = mark.split_once(' ').expect("a beginning, and how likely it is");
            f32::ln(match how {
                _ if !request.text.starts_with(marked) => 0.05,
                "s" => 0.9, // surely
                "l" => 0.7, // likely
                _ => 0.3,   // unlikely
            })
        });
        let scripted = Arc::new(scripted);
        let service = QuizService::with_writer(scripted.clone(), Arc::new(Metrics::new("scripted")));
        let (user, read) = ("{{ passage or topic }} {{ task }}", "{{ passage }} {{ question }}");
        let templates = PromptTemplates::new(vec!["en".to_owned()], String::new(), user, Some(read)).unwrap();
        let mut more = json!({"source": TOWER, "kind": "short_answer"});
        more.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        let (items, summary) = written(&service.with_templates(templates), more).await;
        assert_eq!(items[0].question, expected, "{request}");
        assert_eq!(scripted.calls.load(Ordering::SeqCst), calls, "{request}");
        assert_eq!(summary.outdone, outdone, "{request}: {:?}", summary.rejected);
        let is_read = request.get("round_trip").is_some() && expected != REPLIES[0].1;
        assert_eq!(items[0].checks.contains(&Check::RoundTrip), is_read, "{request}");
    };
    check(json!({"candidates": 8, "round_trip": "prefer"}), REPLIES[3].1, 4, 3).await;
    check(json!({"candidates": 4, "round_trip": "prefer"}), REPLIES[3].1, 4, 3).await;
    // The third is likelier to get its key, but there is no king in the passage.
    check(json!({"candidates": 3, "round_trip": "prefer"}), REPLIES[1].1, 3, 2).await;
    check(json!({"candidates": 2, "round_trip": "prefer"}), REPLIES[1].1, 2, 1).await;
    check(json!({"round_trip": "prefer"}), REPLIES[0].1, 1, 0).await;
    check(json!({"round_trip": "require"}), REPLIES[1].1, 2, 0).await;
    check(json!({}), REPLIES[0].1, 1, 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_item_says_what_it_passed() {
    let check = async |request: serde_json::Value, status: ItemStatus, passed: &[Check]| {
        let replies = &[("Paris", "Where did he build it and his house [P]?")];
        let events = about_the_tower(replies, request).await;
        let item = items(&events)[0];
        assert_eq!((item.status, item.flaws.len()), (status, 1));
        for check in [Check::RoundTrip, Check::KeySound, Check::Clean] {
            assert_eq!(item.checks.contains(&check), passed.contains(&check), "{check:?}");
        }
    };
    check(json!({}), ItemStatus::Grounded, &[]).await;
    check(json!({"round_trip": "prefer"}), ItemStatus::Checked, &[Check::RoundTrip]).await;
}

#[tokio::test(start_paused = true)]
async fn a_draft_that_repeats_gives_way_to_the_next_best() {
    const REPLIES: &[(&str, &str)] = &[
        ("Paris", "Where does the tower stand [P]?"),
        ("Paris", "Where does the tower stand [P]?"),
        ("1889", "When was it opened to visitors of Paris [1]?"),
    ];
    let request = json!({"candidates": 3, "exclude": ["Where does the tower stand [P]?"]});
    let events = about_the_tower(REPLIES, request).await;
    assert_eq!(items(&events)[0].answer.text, "1889");
    assert_eq!(completed(&events).rejected, BTreeMap::from([(RejectReason::Excluded, 2)]));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_cancels_everything() {
    let scripted = Arc::new(Scripted::new(|request, _| Ok(good_reply(request))));
    let service = QuizService::with_writer(scripted.clone(), Arc::new(Metrics::new("scripted")));
    let mut stream = service.create(topic(10)).await.unwrap();
    while !matches!(stream.next().await, Some(QuizEvent::Item(_))) {}
    assert!(scripted.running.load(Ordering::SeqCst) > 0);
    drop(stream);
    assert_eq!(scripted.running.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_items_are_written_at_once_than_there_are_slots() {
    for (slots, candidates, at_most) in [(1, 1, 1), (3, 1, 3), (100, 1, MAX_IN_FLIGHT), (4, 2, 4), (8, 3, 6)]
    {
        let mut scripted = Scripted::new(|request, _| Ok(good_reply(request)));
        scripted.slots = slots;
        let scripted = Arc::new(scripted);
        let service = QuizService::with_writer(scripted.clone(), Arc::new(Metrics::new("scripted")));
        let mut stream = service.create(QuizSpec { candidates, ..topic(20) }).await.unwrap();
        while stream.next().await.is_some() {}
        assert_eq!(scripted.most_running.load(Ordering::SeqCst), at_most);
    }
}

fn queue_full() -> GenerateError {
    EngineError::QueueFull { queued: 9, retry_after: Duration::from_secs(1) }.into()
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_a_new_quiz_and_delays_a_running_one() {
    let service =
        |scripted: Scripted| QuizService::with_writer(Arc::new(scripted), Arc::new(Metrics::new("scripted")));
    let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
    scripted.refusals.lock().unwrap().push_back(Some(queue_full()));
    let refused = service(scripted).create(topic(2)).await.err().unwrap();
    assert!(matches!(refused, GenerateError::Engine(EngineError::QueueFull { .. })));

    let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
    scripted.refusals.lock().unwrap().extend([None, Some(queue_full()), Some(queue_full())]);
    let begun = Instant::now();
    let events = events(scripted, topic(2)).await;
    assert_eq!(items(&events).len(), 2);
    assert!(begun.elapsed() >= Duration::from_secs(2));

    let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
    scripted.refusals.lock().unwrap().extend([None].into_iter().chain((0..1000).map(|_| Some(queue_full()))));
    let events = self::events(scripted, topic(2)).await;
    assert!(matches!(
        events.last(),
        Some(QuizEvent::Failed(GenerateError::Engine(EngineError::QueueFull { .. })))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_failed_sequence_is_tried_again_and_a_lost_backend_ends_the_quiz() {
    let scripted = Scripted::new(|request, call| match call {
        0 => Err(EngineError::Sequence { reason: "a panic".into() }.into()),
        _ => Ok(good_reply(request)),
    });
    let events = events(scripted, topic(3)).await;
    assert_eq!(items(&events).len(), 3);
    assert_eq!(completed(&events).rejected[&RejectReason::GenerationFailed], 1);

    let scripted = Scripted::new(|request, call| match call {
        2 => Err(EngineError::BackendLost { reason: "unplugged".into() }.into()),
        _ => Ok(good_reply(request)),
    });
    let events = self::events(scripted, topic(10)).await;
    assert!(matches!(
        events.last(),
        Some(QuizEvent::Failed(GenerateError::Engine(EngineError::BackendLost { .. })))
    ));
}

#[tokio::test(start_paused = true)]
async fn errors_speak_of_the_quiz_request() {
    for (param, expected) in [("messages", "topic"), ("max_tokens", "max_tokens")] {
        let scripted = Scripted::new(|request, _| Ok(good_reply(request)));
        let refusal = GenerateError::Invalid { param, message: "too long".into() };
        scripted.refusals.lock().unwrap().push_back(Some(refusal));
        let service = QuizService::with_writer(Arc::new(scripted), Arc::new(Metrics::new("scripted")));
        match service.create(topic(1)).await {
            Err(GenerateError::Invalid { param, .. }) => assert_eq!(param, expected),
            other => panic!("{:?}", other.err()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn items_of_one_passage_share_the_beginning_of_their_prompts() {
    let source = "The Nile flows through Egypt to the sea. The Amazon flows through Brazil to the sea. \
                  The Danube flows through Vienna to the sea. The Rhine flows through Basel to the sea.";
    let prompts: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&prompts);
    let scripted = Scripted::new(move |request, _| {
        let Prompt::Chat(messages) = &request.prompt else { panic!("a quiz chats") };
        seen.lock().unwrap().push(messages.iter().map(|message| message.content.as_str()).collect());
        Ok(String::new())
    });
    let request =
        json!({"source": source, "count": 4, "kind": ["multiple_choice", "true_false", "short_answer"]});
    events(scripted, spec(request)).await;
    let prompts = prompts.lock().unwrap();
    let shared = prompts[0].find("Basel to the sea.").unwrap();
    assert!(prompts.iter().all(|prompt| prompt[..shared] == prompts[0][..shared]));
}
