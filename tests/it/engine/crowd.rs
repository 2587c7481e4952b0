//! Many requests at once, some of which fail, leave or are stopped: what each gets, and what they leave behind.

use super::*;
use proptest::prelude::*;

/// The promise in one sentence: the same request with the same seed gives the same tokens, alone or among
/// thirty others, whatever is shared, cut, cancelled or failing around it.
#[test]
fn a_seed_gives_the_same_reply_alone_and_among_thirty_others() {
    let passage: Vec<u32> = (0..90).map(|i| 1 + i * 11 % 55).collect();
    let seeded = |seed: u64| {
        let mut request = request(&[&passage[..], &[seed as u32 % 9 + 1, 2]].concat(), 60);
        request.sampling = SamplingParams {
            temperature: 0.9,
            top_p: if seed.is_multiple_of(2) { 0.95 } else { 1.0 },
            min_p: if seed.is_multiple_of(3) { 0.01 } else { 0.0 },
            repetition_penalty: 1.1,
            frequency_penalty: 0.1,
            presence_penalty: 0.2,
            seed,
            logprobs: Some(2),
            ..request.sampling
        };
        request.stop_tokens.clear();
        request
    };
    let run = |engine: &Engine, request| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(reply(engine, request))
    };
    for seed in 0..6 {
        let expected = run(&start().0, seeded(seed));
        assert_eq!(expected.len(), 60);
        let wide = Limits { slots: 8, max_step_rows: 6, max_step_tokens: 40, ..limits() };
        let (engine, control) = start_with(wide, EngineOptions { max_step_tokens: 40, ..Default::default() });
        let others = |n: u64| {
            let mut other = seeded(n + 100);
            match n % 5 {
                0 => other.prompt.truncate(3 + n as usize),
                1 => other.prompt.push(ERRS),
                2 => other.prompt.insert(20, PANICS),
                3 => other.max_new_tokens = 3,
                _ => {}
            }
            engine.submit(other).unwrap()
        };
        let hold = control.hold();
        let mut before: Vec<_> = (0..15).map(others).collect();
        let stream = engine.submit(seeded(seed)).unwrap();
        let mut after: Vec<_> = (15..30).map(others).collect();
        hold.wait();
        control.fault_on_next_copy(Fault::Step);
        hold.let_one_through();
        after.truncate(8); // the others were cancelled while they waited
        hold.let_one_through();
        drop(before.remove(4)); // and this one while it ran
        control.fault_on_next_step(Fault::Step);
        drop(hold);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (tokens, end) = runtime.block_on(read(stream));
        end.expect("it finishes");
        assert_eq!(tokens, expected, "seed {seed}");
        assert_eq!(control.violations(), [""; 0]);
    }
}

/// What one client does with its request.
#[derive(Clone, Debug)]
enum Client {
    ReadsAll,
    /// Goes away after so many events.
    Leaves(usize),
    /// Asks for the end after so many events.
    Stops(usize),
}

fn client() -> impl Strategy<Value = (Vec<u32>, usize, Client)> {
    let prompt = (0..3_u32, 0..70_usize, prop::collection::vec(1..61_u32, 1..20))
        .prop_map(|(family, n, own)| [vec![family + 1; n], own].concat());
    let poison = prop::option::weighted(0.2, prop::sample::select(vec![ERRS, PANICS, NOT_A_NUMBER]));
    let prompt = (prompt, poison).prop_map(|(mut prompt, poison)| {
        prompt.extend(poison);
        prompt
    });
    let act = prop_oneof![
        2 => Just(Client::ReadsAll),
        1 => (0..6_usize).prop_map(Client::Leaves),
        1 => (0..6_usize).prop_map(Client::Stops),
    ];
    (prompt, 1..20_usize, act)
}

async fn be_client(engine: &Engine, prompt: Vec<u32>, max_new_tokens: usize, act: Client) {
    let is_ill = prompt.iter().any(|&token| token >= ERRS);
    let mut stream = engine.submit(request(&prompt, max_new_tokens)).expect("there is room");
    let n_events = match act {
        Client::ReadsAll => 0,
        Client::Leaves(n) | Client::Stops(n) => n,
    };
    for _ in 0..n_events {
        match stream.next().await {
            Some(TokenEvent::Tokens(_)) => {}
            Some(TokenEvent::Finished(_) | TokenEvent::Failed(_)) => {
                assert!(stream.next().await.is_none());
                return;
            }
            None => panic!("no end"),
        }
    }
    if let Client::Leaves(_) = act {
        return;
    }
    if let Client::Stops(_) = act {
        stream.stop();
    }
    let mut n_ends = 0;
    while let Some(event) = stream.next().await {
        match event {
            TokenEvent::Tokens(_) => assert_eq!(n_ends, 0),
            TokenEvent::Finished(summary) => {
                assert!(!is_ill || summary.completion_tokens == 0);
                n_ends += 1;
            }
            TokenEvent::Failed(error) => {
                assert!(is_ill, "{error}");
                n_ends += 1;
            }
        }
    }
    assert_eq!(n_ends, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_crowd_of_clients_is_served_and_leaves_nothing_behind(
        (slots, max_step_tokens) in (1..6_usize, 12..64_usize),
        clients in prop::collection::vec(client(), 1..30),
        copy_faults in 0..3_usize,
    ) {
        let limits = Limits { slots, max_step_rows: slots, max_step_tokens, ..limits() };
        let (engine, control) = start_with(limits, EngineOptions::default());
        (0..copy_faults).for_each(|_| control.fault_on_next_copy(Fault::Step));
        // Three threads submit, read, stop and leave as the system happens to schedule them.
        std::thread::scope(|scope| {
            for share in clients.chunks(clients.len().div_ceil(3)) {
                let engine = engine.clone();
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let all = share.iter().cloned().map(|(prompt, n, act)| be_client(&engine, prompt, n, act));
                    runtime.block_on(futures_util::future::join_all(all));
                });
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(assert_slots_are_free(&engine, &control));
        prop_assert_eq!(control.violations(), [""; 0]);
        prop_assert_eq!(engine.health(), EngineHealth::Ready);
    }
}
