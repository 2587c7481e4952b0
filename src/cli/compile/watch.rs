//! What a compilation shows: a line on standard output for what becomes of each program, and on standard error, if
//! that is a terminal, how many are there and a bar for each that is being compiled.

use crate::backend::neuron::{compile::Event, hlo::Bucket, programs::file_stem};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// The compiler says nothing of how far it is, so that a bar shows how long it has been at it.
const TICK: Duration = Duration::from_millis(200);

pub(super) struct Watch {
    bars: MultiProgress,
    /// Programs that are there, of those asked for.
    there: ProgressBar,
    running: Mutex<HashMap<Bucket, ProgressBar>>,
}

impl Watch {
    pub(super) fn new(compiler: &Path, programs: usize) -> Self {
        eprintln!("compiling with {}", compiler.display());
        let bars = MultiProgress::new();
        let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} programs, {elapsed}")
            .expect("the template is valid");
        let there = bars.add(ProgressBar::new(programs as u64).with_style(style));
        there.enable_steady_tick(TICK);
        Self { bars, there, running: Mutex::new(HashMap::new()) }
    }

    pub(super) fn see(&self, bucket: Bucket, event: Event) {
        let name = file_stem(bucket);
        let line = match event {
            Event::Started => return self.start(bucket, name),
            Event::Unchanged => format!("{name}  unchanged"),
            Event::Compiled { bytes, took } => {
                format!("{name}  compiled in {:.1} s, {bytes} bytes", took.as_secs_f64())
            }
            Event::Failed => format!("{name}  failed"),
            Event::Kept => format!("{name}  kept: it was not asked for, and fits those that were"),
            Event::Removed => format!("{name}  removed: it does not fit those that were asked for"),
        };
        if let Some(bar) = self.running.lock().expect("drawing does not panic").remove(&bucket) {
            bar.finish_and_clear();
        }
        if matches!(event, Event::Unchanged | Event::Compiled { .. }) {
            self.there.inc(1);
        }
        // Whoever reads the output may have gone; the programs are wanted nevertheless.
        self.bars.suspend(|| _ = writeln!(io::stdout(), "{line}"));
    }

    /// Takes the bars off the screen.
    pub(super) fn end(&self) {
        self.running.lock().expect("drawing does not panic").clear();
        self.there.finish_and_clear();
        let _ = self.bars.clear();
    }

    fn start(&self, bucket: Bucket, name: String) {
        let style =
            ProgressStyle::with_template("{spinner} {msg}  {elapsed}").expect("the template is valid");
        let bar = self
            .bars
            .insert_before(&self.there, ProgressBar::new_spinner().with_style(style).with_message(name));
        bar.enable_steady_tick(TICK);
        self.running.lock().expect("drawing does not panic").insert(bucket, bar);
    }
}
