//! A stand-in for `neuronx-cc`: its command line, its rules for HLO, and a file of the form of a NEFF.
//!
//! `FAKE_NEURONX_CC_FAIL=<text>` makes it fail with this text, as the real one does when it fails inside;
//! `FAKE_NEURONX_CC_DELAY=<milliseconds>` makes it take that long.

mod arguments;

use arguments::{Command, Compile, Usage};
use fake_nrt::{
    hlo::Module,
    neff::{self, Contents},
    rules,
};
use std::{
    env, fs, io,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

const VERSION: &str = "2.23.0.0+simulated";
/// Of a compilation that failed, for whatever reason.
const FAILED: u8 = 70;
/// Where the real one leaves what it has to say, in the working directory.
const LOG: &str = "log-neuron-cc.txt";
/// A folder for temporaries. The real one's has a fixed name too, so two at once in one directory collide.
const SCRATCH: &str = "sg00";

fn main() -> ExitCode {
    match arguments::parse(env::args().skip(1)) {
        Ok(Command::Version) => {
            println!(
                "NeuronX Compiler version {VERSION}\n\nA stand-in for tests: it makes no code for a device."
            );
            ExitCode::SUCCESS
        }
        Ok(Command::ListOperators) => {
            rules::OPERATORS.iter().for_each(|operator| println!("{operator}"));
            ExitCode::SUCCESS
        }
        Ok(Command::Compile(compile)) => match run(&compile) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("[ERROR] {error}");
                eprintln!("Compiler status ERROR");
                ExitCode::from(FAILED)
            }
        },
        Err(Usage(message)) => {
            eprintln!("{}\nneuronx-cc: error: {message}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}

fn run(compile: &Compile) -> Result<(), String> {
    let began = Instant::now();
    let log = format!("neuronx-cc {VERSION}\ntarget {}\ninput {}\n", compile.target, compile.input.display());
    fs::write(LOG, log).map_err(|error| failed("writing", Path::new(LOG), &error))?;
    fs::create_dir(SCRATCH).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{SCRATCH} is there already: each compilation needs a working directory of its own")
        }
        _ => failed("making", Path::new(SCRATCH), &error),
    })?;
    let result = compile_in_scratch(compile);
    fs::remove_dir_all(SCRATCH).map_err(|error| failed("removing", Path::new(SCRATCH), &error))?;
    result?;
    println!("Compiler status PASS");
    println!("compiled in {:.3} s (simulated)", began.elapsed().as_secs_f64());
    Ok(())
}

fn compile_in_scratch(compile: &Compile) -> Result<(), String> {
    progress("Reading HLO");
    let hlo = fs::read(&compile.input).map_err(|error| failed("reading", &compile.input, &error))?;
    let copy = Path::new(SCRATCH).join("hlo_module.pb");
    fs::write(&copy, &hlo).map_err(|error| failed("writing", &copy, &error))?;
    if let Some(milliseconds) = env::var("FAKE_NEURONX_CC_DELAY").ok().and_then(|text| text.parse().ok()) {
        thread::sleep(Duration::from_millis(milliseconds));
    }
    if let Ok(text) = env::var("FAKE_NEURONX_CC_FAIL") {
        return Err(text);
    }
    progress("Verifying HLO");
    let module = Module::read(&hlo).map_err(|error| format!("[NCC_EVRF064] {error}"))?;
    rules::check(&module)?;
    progress("Packing");
    let contents = Contents {
        hlo: &hlo,
        name: &module.name,
        target: &compile.target,
        lnc: compile.lnc,
        version: VERSION,
        compressed: compile.compressed,
    };
    let file = neff::pack(&contents).map_err(|error| failed("packing", &compile.output, &error))?;
    fs::write(&compile.output, file).map_err(|error| failed("writing", &compile.output, &error))
}

fn progress(stage: &str) {
    println!("INFO:neuronx-cc: {stage} (simulated)");
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {error}", path.display())
}
