use super::bleu::{BleuCounts, bleu_of};
use super::bootstrap::{Estimate, interval_of, mean_of};
use super::candidate::ITEM_KINDS;
use super::kendall::tau;
use super::known::Nearest;
use super::metric::{COPIED, Metric};
use super::page::{document, escaped};
use super::reader::Reading;
use super::record::{Author, PassageRecord, Scored};
use super::run::EvalOptions;
use crate::embedding::Embedder;
use crate::quiz::{ItemKind, RejectReason};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What was measured with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub model: String,
    pub backend: String,
    pub reader: String,
    pub set: String,
    /// Questions that items are held against, lest they are copies.
    pub known_questions: usize,
    /// Whether there were sentence embeddings.
    pub embeddings: bool,
    pub options: EvalOptions,
}

/// The scorecard.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub setting: Setting,
    pub rows: Vec<MetricRow>,
    pub asked: usize,
    pub delivered: usize,
    pub rejected: BTreeMap<RejectReason, usize>,
    /// BLEU-4 of questions for people's answers against people's questions, from 0 to 1.
    pub answer_aware_bleu4: Option<Estimate>,
    /// Kendall's tau-b of the level asked for and the difficulty for a reader without the passage, from -1 to 1.
    pub difficulty_tau: Option<Estimate>,
    /// How well the reader tells people's statements from falsified ones; `None` of none.
    pub statements: Option<Statements>,
    pub novelty: Novelty,
    pub usable_items_per_second: f64,
    pub completion_tokens_per_second: f64,
    pub write_seconds: f64,
    #[serde(skip)]
    records: Vec<PassageRecord>,
}

/// A metric of the model's items, and of people's by the same reader.
#[derive(Clone, Debug, Serialize)]
pub struct MetricRow {
    pub metric: Metric,
    /// Of items of this kind alone: the model's and people's are not of each kind as often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ItemKind>,
    /// Over all items asked for that the metric applies to, those that did not come counting nothing.
    pub model: Option<Estimate>,
    pub human: Option<Estimate>,
}

impl MetricRow {
    fn name(&self) -> &'static str {
        match self.kind {
            None => self.metric.name(),
            Some(ItemKind::MultipleChoice) => "  multiple choice",
            Some(ItemKind::ShortAnswer) => "  short answer",
            Some(ItemKind::TrueFalse) => "  true/false",
        }
    }
}

/// What the reader makes of people's statements, half of them falsified.
#[derive(Clone, Debug, Serialize)]
pub struct Statements {
    pub asked: usize,
    /// Told rightly by what the passage adds, as the scores have it.
    pub right: f64,
    /// Told rightly by what the reader says after the passage.
    pub right_uncalibrated: f64,
    /// Called false so.
    pub called_false_uncalibrated: f64,
}

impl Statements {
    fn of(records: &[PassageRecord]) -> Option<Self> {
        let items = records.iter().flat_map(|record| &record.items);
        let read: Vec<(&Reading, bool)> = items
            .filter(|item| item.author == Author::Human && item.kind == ItemKind::TrueFalse)
            .filter_map(|item| Some((item.reading.as_ref()?, item.item.as_ref()?.answer == "true")))
            .collect();
        let says =
            |reading: &Reading| matches!(reading, Reading::Statement { log_odds, .. } if *log_odds > 0.0);
        let share = |holds: &dyn Fn(&Reading, bool) -> bool| {
            read.iter().filter(|(reading, truth)| holds(reading, *truth)).count() as f64 / read.len() as f64
        };
        (!read.is_empty()).then(|| Self {
            asked: read.len(),
            right: share(&|reading, truth| reading.holds() == Some(truth)),
            right_uncalibrated: share(&|reading, truth| says(reading) == truth),
            called_false_uncalibrated: share(&|reading, _| !says(reading)),
        })
    }
}

/// Whether the items are the model's own.
#[derive(Clone, Debug, Serialize)]
pub struct Novelty {
    /// Questions that the items were held against.
    pub known_questions: usize,
    /// Items whose question has a Jaccard index of 0.8 or more with one of them.
    pub copies: usize,
    /// The items that come nearest, nearest first: the question, and the known one.
    pub nearest: Vec<(String, Nearest)>,
}

impl Novelty {
    fn of<'a>(items: impl Iterator<Item = &'a Scored>, known_questions: usize) -> Self {
        const SHOWN: usize = 5;
        let pair = |scored: &Scored| Some((scored.item.as_ref()?.question.clone(), scored.nearest.clone()?));
        let mut nearest: Vec<(String, Nearest)> = items.filter_map(pair).collect();
        nearest.sort_by(|a, b| b.1.likeness.total_cmp(&a.1.likeness));
        let copies = nearest.iter().filter(|(_, nearest)| nearest.likeness >= COPIED).count();
        nearest.truncate(SHOWN.max(copies));
        Self { known_questions, copies, nearest }
    }
}

impl Report {
    pub(super) fn new(setting: Setting, records: Vec<PassageRecord>) -> Self {
        let row = |metric: Metric, kind: Option<ItemKind>| {
            let of = |author: Author| {
                let items = records.iter().flat_map(|record| &record.items);
                let values: Vec<f64> = items
                    .filter(|item| item.author == author && kind.is_none_or(|kind| item.kind == kind))
                    .filter_map(|item| item.scores.get(metric))
                    .collect();
                mean_of(&values, setting.options.seed)
            };
            MetricRow { metric, kind, model: of(Author::Model), human: of(Author::Human) }
        };
        let rows = Metric::ALL.into_iter().flat_map(|metric| {
            let kinds = if metric == Metric::Usable { &ITEM_KINDS[..] } else { &[] };
            std::iter::once(row(metric, None)).chain(kinds.iter().map(move |kind| row(metric, Some(*kind))))
        });
        let rows: Vec<MetricRow> = rows.collect();
        let model_items =
            || records.iter().flat_map(|record| &record.items).filter(|item| item.author == Author::Model);
        let mut rejected = BTreeMap::new();
        for (reason, count) in records.iter().flat_map(|record| &record.rejected) {
            *rejected.entry(*reason).or_insert(0) += count;
        }
        let write_seconds: f64 = records.iter().map(|record| record.write_seconds).sum();
        let usable: f64 = model_items().filter_map(|item| item.scores.get(Metric::Usable)).sum();
        let tokens: usize = records.iter().map(|record| record.completion_tokens).sum();
        let a_second = |count: f64| if write_seconds > 0.0 { count / write_seconds } else { 0.0 };
        let pairs = records.iter().flat_map(|record| &record.answer_aware);
        let counts: Vec<BleuCounts> =
            pairs.map(|pair| BleuCounts::of(&pair.question, &pair.reference)).collect();
        let levels: Vec<(usize, f64)> = records.iter().flat_map(difficulties).collect();
        Self {
            answer_aware_bleu4: bleu_of(&counts, setting.options.seed),
            difficulty_tau: interval_of(&levels, setting.options.seed, |drawn| tau(drawn)),
            statements: Statements::of(&records),
            novelty: Novelty::of(model_items(), setting.known_questions),
            asked: model_items().count(),
            delivered: model_items().filter(|item| item.item.is_some()).count(),
            rejected,
            usable_items_per_second: a_second(usable),
            completion_tokens_per_second: a_second(tokens as f64),
            write_seconds,
            setting,
            rows,
            records,
        }
    }

    /// What the terminal shows.
    pub fn table(&self) -> String {
        let Setting { model, backend, reader, set, .. } = &self.setting;
        let mut text = format!(
            "{model} on {backend}, read by {reader}, on the {set} set: {} of {} items came\n\n\
             {:<18}{:>7}   {:<16}{:>5}   {:>8}   {:<16}\n",
            self.delivered, self.asked, "", "model", "95 % interval", "n", "people", "95 % interval"
        );
        for row in &self.rows {
            let [model, human] = [row.model, row.human].map(|estimate| match estimate {
                Some(Estimate { mean, low, high, n }) => {
                    (format!("{mean:.3}"), format!("{low:.3} to {high:.3}"), n.to_string())
                }
                None => ("-".to_owned(), String::new(), String::new()),
            });
            let line = format!(
                "{:<18}{:>7}   {:<16}{:>5}   {:>8}   {:<16}",
                row.name(),
                model.0,
                model.1,
                model.2,
                human.0,
                human.1
            );
            text += line.trim_end();
            text.push('\n');
        }
        text.push('\n');
        let figures = [
            ("BLEU-4 of questions for people's answers", self.answer_aware_bleu4),
            ("Difficulty asked for and found, Kendall's tau", self.difficulty_tau),
        ];
        for (name, estimate) in figures {
            if let Some(Estimate { mean, low, high, n }) = estimate {
                let _ = writeln!(text, "{name}: {mean:.3} ({low:.3} to {high:.3}), n {n}");
            }
        }
        if let Some(Statements { asked, right, right_uncalibrated, called_false_uncalibrated }) =
            self.statements
        {
            let _ = writeln!(
                text,
                "The reader on people's statements, half of them falsified: {right:.3} right of {asked}; by its word \
                 alone {right_uncalibrated:.3}, calling {called_false_uncalibrated:.3} false"
            );
        }
        let Novelty { known_questions, copies, nearest } = &self.novelty;
        let _ = writeln!(text, "Copies of {known_questions} known questions: {copies}");
        if let Some((question, nearest)) = nearest.first() {
            let Nearest { question: known, likeness } = nearest;
            let _ = writeln!(text, "The nearest, Jaccard {likeness:.2}: {question:?}, known is {known:?}");
        }
        if !self.setting.embeddings {
            let _ = writeln!(text, "No sentence embeddings: run `mondai pull {}`", Embedder::NAME);
        }
        let _ = writeln!(
            text,
            "\n{:.2} usable items a second, {:.0} tokens a second, in {:.0} s of writing",
            self.usable_items_per_second, self.completion_tokens_per_second, self.write_seconds
        );
        if reader == model {
            text +=
                "The reader is the model itself: it understands its own questions too well. Give --reader.\n";
        }
        if !self.rejected.is_empty() {
            let reasons: Vec<String> =
                self.rejected.iter().map(|(reason, count)| format!("{} {count}", reason.name())).collect();
            let _ = writeln!(text, "Drafts thrown away: {}", reasons.join(", "));
        }
        text
    }

    /// A page that needs nothing else: the table, a plot of it, and every item with its verdict.
    pub fn html(&self) -> String {
        let title = format!("{}: quiz scorecard", self.setting.model);
        let items: String = self.records.iter().map(passage_html).collect();
        let (plot, table, novelty) = (self.plot(), escaped(&self.table()), self.novelty.html());
        let body = format!("{plot}\n<pre>{table}</pre>\n{novelty}<h2>Items</h2>\n{items}");
        document(&title, STYLE, &body)
    }

    /// Means and intervals on one scale, the model's above the people's.
    fn plot(&self) -> String {
        const LEFT: f64 = 130.0;
        const WIDTH: f64 = 560.0;
        const ROW: f64 = 34.0;
        let x = |value: f64| LEFT + value.clamp(0.0, 1.0) * WIDTH;
        let height = self.rows.len() as f64 * ROW + 40.0;
        let mut marks = String::new();
        for tick in 0..=5 {
            let at = x(f64::from(tick) / 5.0);
            let _ = write!(
                marks,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"8\" y2=\"{:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text>",
                height - 28.0,
                height - 12.0,
                f64::from(tick) / 5.0
            );
        }
        for (idx, row) in self.rows.iter().enumerate() {
            let y = 22.0 + idx as f64 * ROW;
            let _ =
                write!(marks, "<text x=\"8\" y=\"{:.1}\">{}</text>", y + 8.0, row.name().replace("  ", "… "));
            for (class, offset, estimate) in [("model", 0.0, row.model), ("people", 10.0, row.human)] {
                let Some(Estimate { mean, low, high, .. }) = estimate else { continue };
                let y = y + offset;
                let _ = write!(
                    marks,
                    "<line class=\"{class}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{class}: {mean:.3}</title></circle>",
                    x(low),
                    x(high),
                    x(mean)
                );
            }
        }
        format!(
            "<p><span class=\"key model\"></span> {} <span class=\"key people\"></span> people, same passages and reader</p>\n\
             <svg viewBox=\"0 0 720 {height:.0}\" role=\"img\" aria-label=\"Each metric's mean and 95 % interval\">{marks}</svg>",
            escaped(&self.setting.model)
        )
    }
}

const STYLE: &str = "line.model{stroke:#2f4f93;stroke-width:2}circle.model,.key.model{fill:#2f4f93;background:#2f4f93}\
line.people{stroke:#b5651d;stroke-width:2}circle.people,.key.people{fill:#b5651d;background:#b5651d}\
.key{display:inline-block;width:.8em;height:.8em;border-radius:50%}\
li.usable{color:#1c6b3c}li.missing{color:#a33}small{color:#666}";

impl Novelty {
    fn html(&self) -> String {
        let row = |(question, nearest): &(String, Nearest)| {
            let (question, known) = (escaped(question), escaped(&nearest.question));
            format!("<li>{:.2} <b>{question}</b> <small>{known}</small></li>", nearest.likeness)
        };
        let nearest: String = self.nearest.iter().map(row).collect();
        format!(
            "<h2>Novelty</h2><p>{} of the questions are copies of {} known ones, with a Jaccard index of {COPIED} or \
             more. The nearest:</p><ul>{nearest}</ul>\n",
            self.copies, self.known_questions
        )
    }
}

/// The level asked for, and how difficult each of the model's items is to a reader without the passage.
fn difficulties(record: &PassageRecord) -> impl Iterator<Item = (usize, f64)> {
    let of_model = record.items.iter().filter(|item| item.author == Author::Model);
    of_model.filter_map(|item| Some((record.difficulty as usize, item.scores.get(Metric::Difficulty)?)))
}

fn passage_html(record: &PassageRecord) -> String {
    let items: String =
        record.items.iter().filter(|item| item.author == Author::Model).map(item_html).collect();
    format!("<h3>{}</h3><ul>{items}</ul>\n", escaped(&record.passage))
}

fn item_html(scored: &Scored) -> String {
    let Some(item) = &scored.item else {
        return format!("<li class=\"missing\">no {} item passed the checks</li>", scored.kind.name());
    };
    let usable = scored.scores.get(Metric::Usable) == Some(1.0);
    let failed: Vec<&str> = Metric::ALL
        .into_iter()
        .filter(|metric| {
            use Metric::*;
            let is_verdict = matches!(metric, RoundTrip | Sound | Grounded | NoLeak | Distinct | Novel);
            is_verdict && scored.scores.get(*metric).is_some_and(|value| value < 0.8)
        })
        .map(Metric::name)
        .collect();
    let mut notes = if failed.is_empty() { String::new() } else { format!("not {}", failed.join(", not ")) };
    if !scored.flaws.is_empty() {
        let _ = write!(notes, " {:?}", scored.flaws);
    }
    let others = if item.distractors.is_empty() {
        String::new()
    } else {
        format!(" (not {})", item.distractors.join(" / "))
    };
    format!(
        "<li class=\"{}\">{} <b>{}</b>{} <small>{}</small></li>",
        if usable { "usable" } else { "" },
        escaped(&item.question),
        escaped(&item.answer),
        escaped(&others),
        escaped(notes.trim())
    )
}
