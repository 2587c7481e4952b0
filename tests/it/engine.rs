//! The engine through its handle, over the scripted backend: what a request gets whatever runs beside it.

mod crowd;

use mondai::backend::Limits;
use mondai::backend::scripted::{Call, CalledRow, Fault, ScriptedBackend, ScriptedControl};
use mondai::engine::{
    Engine, EngineError, EngineHealth, EngineOptions, FinishReason, SequenceRequest, SequenceSummary,
    TokenEvent, TokenStream,
};
use mondai::metrics::Metrics;
use mondai::sampling::SamplingParams;
use std::sync::Arc;
use std::time::Duration;

/// In the prompts below: makes the step that writes it fail, panic, or give no numbers.
const ERRS: u32 = 61;
const PANICS: u32 = 62;
const NOT_A_NUMBER: u32 = 63;

fn limits() -> Limits {
    ScriptedBackend::small_limits()
}

fn start_with(limits: Limits, options: EngineOptions) -> (Engine, ScriptedControl) {
    let backend = ScriptedBackend::new(limits);
    let control = backend.control();
    control.fault_on_token(ERRS, Fault::Step);
    control.fault_on_token(PANICS, Fault::Panic);
    control.fault_on_token(NOT_A_NUMBER, Fault::NotANumber);
    (Engine::start(Box::new(backend), options, Arc::new(Metrics::new("scripted"))), control)
}

fn start() -> (Engine, ScriptedControl) {
    start_with(limits(), EngineOptions::default())
}

fn request(prompt: &[u32], max_new_tokens: usize) -> SequenceRequest {
    SequenceRequest {
        prompt: prompt.to_vec(),
        max_new_tokens,
        sampling: SamplingParams {
            temperature: 0.0,
            // Nobody chooses the poisonous tokens by themselves.
            logit_bias: [ERRS, PANICS, NOT_A_NUMBER].map(|token| (token, -1000.0)).to_vec(),
            ..Default::default()
        },
        grammar: None,
        given: Vec::new(),
        stop_tokens: vec![0],
    }
}

/// A stream read to its end, and what came after that: nothing.
async fn read(mut stream: TokenStream) -> (Vec<u32>, Result<SequenceSummary, EngineError>) {
    let mut reply = Vec::new();
    loop {
        match stream.next().await.expect("a stream ends with an end") {
            TokenEvent::Tokens(tokens) => {
                assert!(!tokens.is_empty());
                reply.extend(tokens.iter().map(|new| new.token));
            }
            TokenEvent::Finished(summary) => {
                assert!(stream.next().await.is_none());
                assert_eq!(summary.completion_tokens, reply.len());
                return (reply, Ok(summary));
            }
            TokenEvent::Failed(error) => {
                assert!(stream.next().await.is_none());
                return (reply, Err(error));
            }
        }
    }
}

async fn reply(engine: &Engine, request: SequenceRequest) -> Vec<u32> {
    let (reply, end) = read(engine.submit(request).expect("there is room")).await;
    end.expect("it finishes");
    reply
}

fn last_rows(control: &ScriptedControl) -> Vec<CalledRow> {
    match control.calls().pop() {
        Some(Call::Extend(rows)) => rows,
        other => panic!("the last call was {other:?}"),
    }
}

/// All slots can be used at the same time: none was leaked.
async fn assert_slots_are_free(engine: &Engine, control: &ScriptedControl) {
    // When this one has ended, what was dropped before it came has left the engine.
    reply(engine, request(&[9], 1)).await;
    let hold = control.hold();
    let n_slots = engine.limits().slots;
    let streams: Vec<_> = (0..n_slots as u32)
        .map(|n| engine.submit(request(&[n + 10, n + 20], 5)).expect("there is room"))
        .collect();
    hold.wait(); // in a step that may have begun before the last of them came
    hold.let_one_through();
    assert_eq!(last_rows(control).len(), n_slots);
    drop(hold);
    for stream in streams {
        read(stream).await.1.expect("it finishes");
    }
}

/// A reply that is written and then given comes back as it was, with the same log-probabilities, however
/// its positions fall into steps and whatever prefix is reused.
#[tokio::test]
async fn a_given_reply_is_read_as_it_was_written() {
    let (engine, control) = start();
    let new_tokens = async |request: SequenceRequest| {
        let (mut stream, mut reply) = (engine.submit(request).expect("there is room"), Vec::new());
        loop {
            match stream.next().await.expect("a stream ends with an end") {
                TokenEvent::Tokens(tokens) => reply.extend(tokens),
                TokenEvent::Finished(summary) => return (reply, summary),
                TokenEvent::Failed(error) => panic!("{error}"),
            }
        }
    };
    let prompt: Vec<u32> = (0..40).map(|idx| idx % 7 + 20).collect();
    let mut written = request(&prompt, 100);
    written.sampling.logprobs = Some(0);
    written.stop_tokens.clear();
    let (written, _) = new_tokens(written).await;
    assert_eq!(written.len(), 100);
    let reply: Vec<u32> = written.iter().map(|new| new.token).collect();
    for n_before in [0, 1, 60, 99] {
        let given = SequenceRequest {
            given: reply[n_before..].to_vec(),
            ..request(&[&prompt[..], &reply[..n_before]].concat(), 1)
        };
        let (read, summary) = new_tokens(given).await;
        assert_eq!(read.len(), 100 - n_before);
        for (read, written) in read.iter().zip(&written[n_before..]) {
            assert_eq!((read.token, read.forced), (written.token, true));
            assert_eq!(read.logprobs.as_ref().unwrap().logprob, written.logprobs.as_ref().unwrap().logprob);
        }
        // The last token of the prompt is computed again: its logits are wanted.
        assert_eq!(summary.cached_tokens, prompt.len() + n_before - 1);
        assert_eq!(summary.completion_tokens, 100 - n_before);
    }
    let too_long = SequenceRequest { given: vec![1; 300], ..request(&[1], 1) };
    assert!(matches!(engine.submit(too_long).err(), Some(EngineError::PromptTooLong { .. })));
    let unknown = SequenceRequest { given: vec![9999], ..request(&[1], 1) };
    assert!(matches!(engine.submit(unknown).err(), Some(EngineError::Sequence { .. })));
    drop(engine);
    assert_eq!(control.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn drafts_change_how_long_a_reply_takes_and_nothing_else() {
    let answer = [11, 12, 13, 14, 15, 16, 17, 21, 12, 13, 14, 15, 16, 22, 0];
    let mut calls = Vec::new();
    for max_draft_tokens in [0, 7] {
        let (engine, control) =
            start_with(limits(), EngineOptions { max_draft_tokens, ..EngineOptions::default() });
        control.reply(&[5, 6], &answer);
        let (reply, end) = read(engine.submit(request(&[5, 6], 30)).expect("there is room")).await;
        assert_eq!(reply, answer);
        let summary = end.expect("it finishes");
        calls.push((control.calls().len(), summary.drafted_tokens, summary.accepted_tokens));
        assert_eq!(control.violations(), [] as [String; 0]);
    }
    assert_eq!(calls, [(15, 0, 0), (12, 3, 3)]);
}

/// What is drafted is nobody's choice: a step that fails for it is repeated without.
#[tokio::test]
async fn a_draft_that_fails_ends_nobody() {
    for poison in [ERRS, PANICS] {
        let (engine, control) = start();
        control.reply(&[9, 10], &[7, 8, poison]);
        let mut ill = request(&[9, 10], 12);
        ill.sampling.logit_bias.clear();
        read(engine.submit(ill).unwrap()).await.1.expect_err("its own choice is poisonous");
        control.reply(&[5, 6], &[7, 8, 11, 0]);
        let n_calls = control.calls().len();
        assert_eq!(reply(&engine, request(&[5, 6], 12)).await, [7, 8, 11, 0]);
        let drafted = |call: &Call| matches!(call, Call::Extend(rows) if rows[0].tokens == [8, poison]);
        assert!(control.calls()[n_calls..].iter().any(drafted), "what followed 7, 8 before is drafted");
        assert_eq!(control.violations(), [""; 0]);
    }
}

#[tokio::test]
async fn a_step_with_drafts_fails_when_it_fails_without_them() {
    let (engine, control) = start();
    control.reply(&[5, 6], &[7, 8, 9, 10, 11, 0]);
    let expected = reply(&engine, request(&[5, 6], 12)).await;
    for n_faults in [1, 2] {
        let hold = control.hold();
        let stream = engine.submit(request(&[5, 6], 12)).unwrap();
        hold.wait();
        hold.let_one_through(); // now a step waits that has a draft
        (0..n_faults).for_each(|_| control.fault_on_next_step(Fault::FoundNotANumber));
        drop(hold);
        let (tokens, end) = read(stream).await;
        if n_faults == 1 {
            assert!(end.expect("it finishes").drafted_tokens > 0);
            assert_eq!(tokens, expected);
        } else {
            assert!(matches!(end, Err(EngineError::Sequence { .. })), "{end:?}");
        }
    }
}

#[tokio::test]
async fn a_reply_ends_at_a_stop_token() {
    let (engine, control) = start();
    control.reply(&[1, 2, 3], &[7, 8, 0, 9]);
    let (tokens, end) = read(engine.submit(request(&[1, 2, 3], 100)).unwrap()).await;
    let summary = end.unwrap();
    assert_eq!(tokens, [7, 8, 0]);
    assert_eq!(
        (summary.reason, summary.prompt_tokens, summary.completion_tokens),
        (FinishReason::Stop, 3, 3)
    );
    assert!(summary.queue_time <= summary.time_to_first_token);
    assert!(summary.time_to_first_token <= summary.total_time);
}

#[tokio::test]
async fn a_reply_ends_with_its_budget_or_the_context() {
    let (engine, control) = start();
    let context_len = engine.limits().context_len;
    let filler = |n: usize| (0..n).map(|i| 1 + (i % 50) as u32).collect::<Vec<_>>();
    control.reply(&[55], &[56; 300]);
    for (prompt_len, max_new_tokens, expected) in
        [(10, 6, 6), (context_len - 20, 1000, 20), (context_len - 1, 1000, 1)]
    {
        let prompt = [filler(prompt_len - 1), vec![55]].concat();
        let (tokens, end) = read(engine.submit(request(&prompt, max_new_tokens)).unwrap()).await;
        assert_eq!((tokens.len(), end.unwrap().reason), (expected, FinishReason::Length));
    }
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn prompts_that_cannot_be_run_are_refused() {
    let (engine, _control) = start();
    let context_len = engine.limits().context_len;
    let refusal = |prompt: &[u32]| engine.submit(request(prompt, 5)).err().expect("it is refused");
    assert!(matches!(
        refusal(&vec![1; context_len]),
        EngineError::PromptTooLong { prompt_tokens, context_len: 256 } if prompt_tokens == context_len
    ));
    assert!(matches!(refusal(&[]), EngineError::Sequence { .. }));
    assert_eq!(
        refusal(&[1, 64]).to_string(),
        "the sequence failed: token 64 is outside the vocabulary of 64"
    );
}

#[tokio::test]
async fn a_full_queue_answers_at_once_and_a_free_place_is_free_before_its_owner_hears_of_it() {
    let (engine, control) = start_with(limits(), EngineOptions { max_queued: 2, ..Default::default() });
    let hold = control.hold();
    let mut streams: Vec<_> = (0..6).map(|n| engine.submit(request(&[n + 1], 3)).unwrap()).collect();
    for _ in 0..2 {
        match engine.submit(request(&[9], 3)).err() {
            Some(EngineError::QueueFull { queued: 2, retry_after }) => {
                assert!(retry_after >= Duration::from_millis(1) && retry_after <= Duration::from_secs(120));
            }
            other => panic!("{other:?}"),
        }
    }
    drop(hold);
    read(streams.remove(0)).await.1.unwrap();
    streams.push(engine.submit(request(&[9], 3)).expect("a place is free"));
    for stream in streams {
        read(stream).await.1.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_stream_frees_its_slot_before_the_next_step() {
    let one_slot = Limits { slots: 1, max_step_rows: 1, ..limits() };
    let (engine, control) = start_with(one_slot, EngineOptions::default());
    let hold = control.hold();
    let running = engine.submit(request(&[1, 2], 200)).unwrap();
    let waiting = engine.submit(request(&[3, 4], 2)).unwrap();
    hold.wait();
    drop(running);
    hold.let_one_through();
    assert_eq!(last_rows(&control)[0].tokens, [3, 4]);
    drop(hold);
    read(waiting).await.1.unwrap();
    assert_slots_are_free(&engine, &control).await;
}

#[tokio::test]
async fn a_stopped_sequence_finishes() {
    let (engine, control) = start();
    control.reply(&[1], &[2; 200]);
    let hold = control.hold();
    let stream = engine.submit(request(&[1], 200)).unwrap();
    hold.wait();
    stream.stop();
    drop(hold);
    let (tokens, end) = read(stream).await;
    assert_eq!((tokens.len(), end.unwrap().reason), (1, FinishReason::Stop));
}

#[tokio::test]
async fn what_fails_ends_alone() {
    let (engine, control) = start();
    let healthy: [&[u32]; 3] = [&[1, 2, 3], &[4, 5], &[6; 30]];
    let mut expected = Vec::new();
    for prompt in healthy {
        expected.push(reply(&engine, request(prompt, 12)).await);
    }
    for (poison, word) in [(ERRS, "told to fail"), (PANICS, "told to panic"), (NOT_A_NUMBER, "not a number")]
    {
        let hold = control.hold();
        let others: Vec<_> =
            healthy.iter().map(|prompt| engine.submit(request(prompt, 12)).unwrap()).collect();
        // At once in its prompt, or in the middle of its reply.
        control.reply(&[17, 18], &[19, 20, poison, 21]);
        let mut late = request(&[17, 18], 12);
        late.sampling.logit_bias.clear();
        let ill = [engine.submit(request(&[9, poison, 9], 12)).unwrap(), engine.submit(late).unwrap()];
        drop(hold);
        for stream in ill {
            match read(stream).await.1 {
                Err(EngineError::Sequence { reason }) => assert!(reason.contains(word), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        for (stream, expected) in others.into_iter().zip(&expected) {
            let (tokens, end) = read(stream).await;
            end.expect("it finishes");
            assert_eq!(tokens, *expected);
        }
        assert_eq!(engine.health(), EngineHealth::Ready);
    }
    assert_slots_are_free(&engine, &control).await;
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_step_that_fails_once_is_not_noticed() {
    let (engine, control) = start();
    let prompts: [&[u32]; 3] = [&[1, 2, 3], &[4, 5], &[6; 30]];
    let mut expected = Vec::new();
    for prompt in prompts {
        expected.push(reply(&engine, request(prompt, 12)).await);
    }
    for fault in [Fault::Step, Fault::Panic] {
        let hold = control.hold();
        let streams: Vec<_> =
            prompts.iter().map(|prompt| engine.submit(request(prompt, 12)).unwrap()).collect();
        hold.wait();
        hold.let_one_through(); // now all three are in a step
        control.fault_on_next_step(fault);
        drop(hold);
        for (stream, expected) in streams.into_iter().zip(&expected) {
            let (tokens, end) = read(stream).await;
            end.expect("it finishes");
            assert_eq!(tokens, *expected);
        }
    }
    assert_eq!(control.violations(), [""; 0]);
}

/// What a sequence takes over may be no number: it is computed again, once, and its usage says that nothing was taken
/// over. What is found after its first token is its own.
#[tokio::test]
async fn a_prefix_that_is_no_number_is_computed_again() {
    // A step with drafts would be repeated.
    let (engine, control) = start_with(limits(), EngineOptions { max_draft_tokens: 0, ..Default::default() });
    let prompt: Vec<u32> = (1..31).collect();
    let fault = Fault::FoundNotANumber;
    let expected = reply(&engine, request(&prompt, 12)).await;
    for (faults, cached_tokens) in [(0, 29), (1, 0)] {
        (0..faults).for_each(|_| control.fault_on_next_step(fault));
        let (tokens, end) = read(engine.submit(request(&prompt, 12)).expect("there is room")).await;
        assert_eq!((tokens, end.expect("it finishes").cached_tokens), (expected.clone(), cached_tokens));
    }
    (0..2).for_each(|_| control.fault_on_next_step(fault));
    let (tokens, end) = read(engine.submit(request(&prompt, 12)).expect("there is room")).await;
    assert!(tokens.is_empty());
    assert!(
        matches!(end, Err(EngineError::Sequence { reason }) if reason.contains("told to find no number"))
    );

    let hold = control.hold();
    let stream = engine.submit(request(&prompt, 12)).expect("there is room");
    hold.wait();
    hold.let_one_through(); // its first token is chosen
    control.fault_on_next_step(fault);
    drop(hold);
    let (tokens, end) = read(stream).await;
    assert_eq!(tokens, expected[..1]);
    assert!(matches!(end, Err(EngineError::Sequence { .. })), "{end:?}");
    assert_slots_are_free(&engine, &control).await;
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_lost_device_ends_everything_and_health_says_so() {
    let (engine, control) = start();
    let hold = control.hold();
    let streams: Vec<_> = (1..9).map(|n| engine.submit(request(&[n, n], 20)).unwrap()).collect();
    hold.wait();
    control.fault_on_next_step(Fault::DeviceLost);
    drop(hold);
    for stream in streams {
        assert!(matches!(read(stream).await.1, Err(EngineError::BackendLost { .. })));
    }
    match engine.health() {
        EngineHealth::Lost { reason } => assert_eq!(reason, "the scripted device is lost: told to be lost"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(engine.submit(request(&[1], 1)).err(), Some(EngineError::BackendLost { .. })));
}

#[tokio::test]
async fn draining_refuses_new_work_and_finishes_the_rest() {
    let (engine, control) = start();
    let hold = control.hold();
    let streams: Vec<_> = (1..9).map(|n| engine.submit(request(&[n, n], 20)).unwrap()).collect();
    engine.drain();
    assert!(matches!(engine.submit(request(&[1], 1)).err(), Some(EngineError::ShuttingDown)));
    assert_eq!(engine.health(), EngineHealth::Draining);
    drop(hold);
    for stream in streams {
        read(stream).await.1.unwrap();
    }
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_what_was_accepted() {
    let (engine, control) = start();
    let streams: Vec<_> = (1..9).map(|n| engine.submit(request(&[n, n], 20)).unwrap()).collect();
    let clone = engine.clone();
    drop(engine);
    drop(clone); // waits for the thread
    let n_calls = control.calls().len();
    for stream in streams {
        read(stream).await.1.unwrap();
    }
    assert_eq!(control.calls().len(), n_calls);
}

#[tokio::test]
async fn a_step_that_does_not_come_back_is_a_stall() {
    let (engine, control) =
        start_with(limits(), EngineOptions { stall_limit: Duration::ZERO, ..Default::default() });
    let hold = control.hold();
    let stream = engine.submit(request(&[1], 1)).unwrap();
    hold.wait();
    assert!(matches!(engine.health(), EngineHealth::Stalled { .. }));
    drop(hold);
    read(stream).await.1.unwrap();
}

#[tokio::test]
async fn a_shared_prefix_is_computed_once() {
    const AUTHORS: usize = 30;
    let wide = Limits { slots: 8, max_step_rows: 8, max_step_tokens: 60, ..limits() };
    let (engine, control) = start_with(wide, EngineOptions { max_draft_tokens: 0, ..Default::default() });
    let passage: Vec<u32> = (0..100).map(|i| 1 + i * 7 % 50).collect();
    let hold = control.hold();
    let streams: Vec<_> = (0..AUTHORS)
        .map(|n| engine.submit(request(&[&passage[..], &[n as u32 + 5, 3, 4]].concat(), 4)).unwrap())
        .collect();
    drop(hold);
    let (mut cached, mut completion) = (0, 0);
    for stream in streams {
        let summary = read(stream).await.1.unwrap();
        cached += summary.cached_tokens;
        completion += summary.completion_tokens;
    }
    assert_eq!(cached, (AUTHORS - 1) * passage.len());
    let computed = |call: Call| match call {
        Call::Extend(rows) => rows.iter().map(|row| row.tokens.len()).sum(),
        Call::CopyPrefix { .. } => 0,
    };
    let n_computed: usize = control.calls().into_iter().map(computed).sum();
    // Each reply's last token is never computed.
    assert_eq!(n_computed, passage.len() + AUTHORS * 3 + completion - AUTHORS);
    assert_eq!(control.violations(), [""; 0]);
}

#[tokio::test]
async fn a_copy_that_fails_costs_nothing_but_time() {
    let passage = [11; 60];
    let expected = reply(&start().0, request(&[&passage[..], &[2]].concat(), 8)).await;
    for fault in [Fault::Step, Fault::Panic] {
        let (engine, control) = start();
        let hold = control.hold();
        let first = engine.submit(request(&[&passage[..], &[1]].concat(), 40)).unwrap();
        hold.wait();
        control.fault_on_next_copy(fault);
        let second = engine.submit(request(&[&passage[..], &[2]].concat(), 8)).unwrap();
        drop(hold);
        let (tokens, end) = read(second).await;
        assert_eq!((tokens, end.unwrap().cached_tokens), (expected.clone(), 0));
        read(first).await.1.unwrap();
    }
}
