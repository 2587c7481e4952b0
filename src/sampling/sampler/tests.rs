use super::*;

/// What the sampler must do, written plainly: in `f64`, with a full sort, a token at a time.
fn reference(params: &SamplingParams, logits: &[f32], n: u64) -> TokenId {
    let temperature = f64::from(params.temperature);
    let mut order: Vec<usize> = (0..logits.len()).filter(|&i| logits[i] > f32::NEG_INFINITY).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let max = f64::from(logits[order[0]]);
    let weight = |i: usize| ((f64::from(logits[i]) - max) / temperature).exp();
    let mass = |tokens: &[usize]| tokens.iter().map(|&i| weight(i)).sum::<f64>();

    order.retain(|&i| weight(i) >= f64::from(params.min_p));
    if params.top_k > 0 {
        order.truncate(params.top_k);
    }
    let enough = f64::from(params.top_p) * mass(&order);
    let mut so_far = 0.0;
    let reached = order.iter().position(|&i| {
        so_far += weight(i);
        so_far >= enough
    });
    order.truncate(reached.map_or(order.len(), |idx| idx + 1));
    order.sort_unstable();
    let mut left = uniform(params.seed, n) * mass(&order);
    for &i in &order {
        left -= weight(i);
        if left < 0.0 {
            return i as TokenId;
        }
    }
    *order.last().unwrap() as TokenId
}

/// Logits shaped like a model's: a few good tokens, a long tail; different for each `salt`.
fn model_like(vocab_size: usize, salt: u64) -> Vec<f32> {
    (0..vocab_size as u64).map(|i| (uniform(salt, i).powi(4) * 24.0 - 12.0) as f32).collect()
}

fn sampler(params: &SamplingParams) -> Sampler {
    Sampler::new(params.clone(), &[])
}

fn variants() -> Vec<SamplingParams> {
    let plain = SamplingParams { seed: 42, ..Default::default() };
    vec![
        plain.clone(),
        SamplingParams { temperature: 0.2, ..plain.clone() },
        SamplingParams { temperature: 3.0, ..plain.clone() },
        SamplingParams { top_k: 1, ..plain.clone() },
        SamplingParams { top_k: 40, ..plain.clone() },
        SamplingParams { top_k: 100_000, ..plain.clone() },
        SamplingParams { top_p: 0.9, ..plain.clone() },
        SamplingParams { top_p: 0.999, temperature: 2.0, ..plain.clone() },
        SamplingParams { top_p: 0.0, ..plain.clone() },
        SamplingParams { min_p: 0.05, ..plain.clone() },
        SamplingParams { min_p: 1.0, ..plain.clone() },
        SamplingParams { min_p: 0.02, top_p: 0.8, top_k: 50, temperature: 1.3, ..plain.clone() },
        SamplingParams { min_p: 0.3, top_p: 0.7, ..plain },
    ]
}

#[test]
fn every_draw_is_the_references_draw() {
    for params in variants() {
        let mut sampler = sampler(&params);
        for n in 0..60 {
            let logits = model_like(3001, 1000 + n);
            let expected = reference(&params, &logits, n);
            assert_eq!(
                sampler.sample(&mut logits.clone(), None).unwrap().token,
                expected,
                "{params:?}, draw {n}"
            );
        }
    }
}

#[test]
fn frequencies_follow_the_distribution() {
    const DRAWS: u64 = 40_000;
    let logits = [1.0_f32, 0.5, 0.0, -0.5, 2.0, f32::NEG_INFINITY, 1.5, -3.0];
    let mut sampler = sampler(&SamplingParams { temperature: 0.8, seed: 9, ..Default::default() });
    let mut counts = [0_u32; 8];
    for _ in 0..DRAWS {
        counts[sampler.sample(&mut logits.clone(), None).unwrap().token as usize] += 1;
    }
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / f64::from(0.8_f32)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut chi_square = 0.0;
    for (i, weight) in weights.iter().enumerate().filter(|(i, _)| *i != 5) {
        let expected = weight / total * DRAWS as f64;
        chi_square += (f64::from(counts[i]) - expected).powi(2) / expected;
    }
    assert_eq!(counts[5], 0);
    assert!(chi_square < 22.46, "6 degrees of freedom at p = 0.001: {chi_square}");
}

#[test]
fn greedy_takes_the_best_and_of_equals_the_first() {
    let params = SamplingParams { temperature: 0.0, top_k: 3, ..Default::default() };
    let check = |logits: &[f32], expected| {
        assert_eq!(sampler(&params).sample(&mut logits.to_vec(), None).unwrap().token, expected)
    };
    check(&[0.0, 3.0, 1.0], 1);
    check(&[2.0, 5.0, 5.0, 5.0], 1);
    check(&[f32::NEG_INFINITY, -7.0], 1);
}

#[test]
fn the_nth_draw_depends_on_nothing_before_it() {
    let params = SamplingParams { seed: 3, ..Default::default() };
    let (mut one, mut other) = (sampler(&params), sampler(&params));
    one.sample(&mut model_like(100, 1), None).unwrap();
    other.sample(&mut model_like(100, 2), None).unwrap();
    for salt in 3..40 {
        let row = model_like(100, salt);
        assert_eq!(one.sample(&mut row.clone(), None), other.sample(&mut row.clone(), None));
    }
}

#[test]
fn penalties_by_hand() {
    let penalized = |params: SamplingParams, reply: &[TokenId]| {
        let mut sampler = Sampler::new(params, &[0, 1]);
        reply.iter().for_each(|&token| sampler.observe(token));
        let mut logits = [2.0_f32, -2.0, 1.0, 4.0];
        sampler.bias(&mut logits);
        sampler.penalize(&mut logits);
        logits
    };
    let plain = SamplingParams::default();
    assert_eq!(penalized(plain.clone(), &[2, 2]), [2.0, -2.0, 1.0, 4.0]);
    // Of prompt and reply: divided where positive, multiplied where negative.
    let repetition = SamplingParams { repetition_penalty: 2.0, ..plain.clone() };
    assert_eq!(penalized(repetition, &[2]), [1.0, -4.0, 0.5, 4.0]);
    // Of the reply alone: 0.5 each time, 0.25 once.
    let counts = SamplingParams { frequency_penalty: 0.5, presence_penalty: 0.25, ..plain.clone() };
    assert_eq!(penalized(counts, &[2, 2, 3]), [2.0, -2.0, -0.25, 3.25]);
    // Bias first: -2 + 6 = 4 is positive when the repetition penalty halves it.
    let biased = SamplingParams { logit_bias: vec![(1, 6.0), (99, 1.0)], repetition_penalty: 2.0, ..plain };
    assert_eq!(penalized(biased, &[]), [1.0, 2.0, 1.0, 4.0]);
}

#[test]
fn only_allowed_tokens_are_drawn() {
    let mut words = [0_u32; 4];
    let allowed = [3_usize, 64, 65, 99];
    allowed.iter().for_each(|&token| words[token / 32] |= 1 << (token % 32));
    for params in variants() {
        let mut sampler = sampler(&params);
        for salt in 0..50 {
            let sampled = sampler.sample_among(&mut model_like(100, salt), Some(&words)).unwrap();
            assert!(allowed.contains(&(sampled.token as usize)), "{params:?}: {}", sampled.token);
        }
    }
    // A mask shorter than the row forbids what it does not reach.
    let greedy = SamplingParams { temperature: 0.0, ..Default::default() };
    let mut row = vec![0.0; 100];
    row[70] = 5.0;
    assert_eq!(sampler(&greedy).sample_among(&mut row, Some(&words[..1])).unwrap().token, 3);
}

#[test]
fn rows_that_cannot_be_sampled_are_errors() {
    for params in variants().into_iter().chain([SamplingParams { temperature: 0.0, ..Default::default() }]) {
        let check = |logits: &[f32], allowed: Option<&[u32]>, expected| {
            assert_eq!(sampler(&params).sample_among(&mut logits.to_vec(), allowed), Err(expected));
        };
        check(&[1.0, f32::NAN, 2.0], None, SampleError::NotANumber);
        check(&[f32::NAN; 40], None, SampleError::NotANumber);
        check(&[1.0, f32::INFINITY], None, SampleError::NotANumber);
        check(&[f32::NEG_INFINITY; 3], None, SampleError::NothingAllowed);
        check(&[1.0, 2.0], Some(&[0]), SampleError::NothingAllowed);
        check(&[], None, SampleError::NothingAllowed);
    }
}

#[test]
fn log_probabilities_are_the_raw_models() {
    let logits = [1.0_f32, 2.0, 0.0, 2.0];
    let params = SamplingParams {
        temperature: 0.0,
        logprobs: Some(3),
        logit_bias: vec![(2, 100.0)],
        ..Default::default()
    };
    let sampled = sampler(&params).sample(&mut logits.to_vec(), None).unwrap();
    let log_sum = (1_f64.exp() + 2.0 * 2_f64.exp() + 1.0).ln();
    let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
    assert_eq!(sampled.token, 2);
    let logprobs = sampled.logprobs.unwrap();
    close(logprobs.logprob, -log_sum);
    assert_eq!(logprobs.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 0]);
    close(logprobs.top[0].1, 2.0 - log_sum);
    close(logprobs.top[2].1, 1.0 - log_sum);

    let none = SamplingParams { logprobs: Some(0), ..params };
    assert_eq!(sampler(&none).sample(&mut logits.to_vec(), None).unwrap().logprobs.unwrap().top, []);
}

#[test]
fn a_draw_made_elsewhere_takes_the_place_of_one_made_here() {
    for params in variants() {
        let (mut here, mut elsewhere) = (sampler(&params), sampler(&params));
        for n in 0..5 {
            let mut logits = model_like(500, n);
            let (of_draw, uniform) = elsewhere.draw().expect("nothing but the logits is needed");
            let expected = here.sample(&mut logits.clone(), None).unwrap();
            // Whoever draws has the parameters and the number, and no more.
            let plain = SamplingParams { seed: params.seed, ..of_draw.clone() };
            assert_eq!(super::uniform(params.seed, n), uniform);
            let mut another = sampler(&plain);
            another.n_draws = n;
            let token = another.sample(&mut logits, None).unwrap().token;
            assert_eq!(elsewhere.drawn(token, -1.5, None).unwrap(), expected);
        }
    }
}

#[test]
fn a_choice_that_needs_more_than_its_logits_is_made_here() {
    let is_made_here = |params: SamplingParams| sampler(&params).draw().is_none();
    let plain = SamplingParams::default;
    for params in variants() {
        assert!(!is_made_here(params));
    }
    assert!(!is_made_here(SamplingParams { logprobs: Some(0), ..plain() }));
    assert!(is_made_here(SamplingParams { logprobs: Some(1), ..plain() }));
    assert!(is_made_here(SamplingParams { logit_bias: vec![(1, 1.0)], ..plain() }));
    assert!(is_made_here(SamplingParams { repetition_penalty: 1.1, ..plain() }));
    assert!(is_made_here(SamplingParams { frequency_penalty: 0.1, ..plain() }));
    assert!(is_made_here(SamplingParams { presence_penalty: 0.1, ..plain() }));
}

#[test]
fn a_draw_made_elsewhere_is_reported_and_held_to_its_mask() {
    let mut sampler = sampler(&SamplingParams { logprobs: Some(0), ..Default::default() });
    let sampled = sampler.drawn(7, -1.5, None).unwrap();
    assert_eq!(sampled.logprobs, Some(TokenLogprobs { logprob: -1.5, top: Vec::new() }));
    let mut mask = TokenMask::new(1);
    mask.set(8, true);
    assert_eq!(sampler.drawn(7, -1.5, Some(&mask)), Err(SampleError::NothingAllowed));
    assert_eq!(sampler.drawn(8, -1.5, Some(&mask)).unwrap().token, 8);
}
