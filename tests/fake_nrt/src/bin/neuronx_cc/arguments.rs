//! The command line of `neuronx-cc`, as much of it as is documented or in use.
//!
//! A flag's value stands after it or after `=`. What is not known is an error, as it is to the real one.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
usage: neuronx-cc --version
       neuronx-cc list-operators --framework XLA
       neuronx-cc compile FILE --framework XLA --target {inf2,trn1,trn1n,trn2,trn3}
                  [--model-type {generic,transformer,unet-inference}] [--auto-cast {none}]
                  [-O{1,2,3} | --optlevel {1,2,3}] [--lnc {1,2}] [--output FILE] [--verbose LEVEL]
                  [--internal-hlo2tensorizer-options OPTIONS] [--tensorizer-options OPTIONS]
                  [--enable-saturate-infinity] [--enable-fast-loading-neuron-binaries]
                  [--enable-mixed-precision-accumulation | --disable-mixed-precision-accumulation]";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Version,
    ListOperators,
    Compile(Compile),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compile {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
    pub(crate) target: String,
    pub(crate) lnc: u32,
    /// Whether the NEFF's archive is gzipped.
    pub(crate) compressed: bool,
}

/// Why a command line is refused; the exit status is 2.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage(pub(crate) String);

const TARGETS: &[&str] = &["inf2", "trn1", "trn1n", "trn2", "trn3"];
const LEVELS: &[&str] = &["1", "2", "3"];
const VERBOSITIES: &[&str] = &["debug", "info", "warning", "error", "critical", "user"];

/// What a flag takes.
enum Takes {
    Nothing,
    Anything,
    OneOf(&'static [&'static str]),
}

/// The flags of `compile`; `-O` is apart, having its value in the same word.
const FLAGS: &[(&str, Takes)] = &[
    ("--framework", Takes::OneOf(&["XLA"])),
    ("--target", Takes::OneOf(TARGETS)),
    ("--model-type", Takes::OneOf(&["generic", "transformer", "unet-inference"])),
    // The real one takes `matmult` and `all` too; the stand-in changes no number's type.
    ("--auto-cast", Takes::OneOf(&["none"])),
    ("--optlevel", Takes::OneOf(LEVELS)),
    ("--lnc", Takes::OneOf(&["1", "2"])),
    ("--output", Takes::Anything),
    ("--verbose", Takes::OneOf(VERBOSITIES)),
    ("--internal-hlo2tensorizer-options", Takes::Anything),
    ("--tensorizer-options", Takes::Anything),
    ("--enable-saturate-infinity", Takes::Nothing),
    ("--enable-fast-loading-neuron-binaries", Takes::Nothing),
    ("--enable-mixed-precision-accumulation", Takes::Nothing),
    ("--disable-mixed-precision-accumulation", Takes::Nothing),
];

pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, Usage> {
    let mut arguments = arguments.into_iter();
    match arguments.next().as_deref() {
        Some("--version") => Ok(Command::Version),
        Some("compile") => {
            let words = Words::read(arguments)?;
            compile(&words).map(Command::Compile)
        }
        Some("list-operators") => {
            let words = Words::read(arguments)?;
            words.require("--framework")?;
            match (words.files.as_slice(), words.flags.as_slice()) {
                ([], [_]) => Ok(Command::ListOperators),
                _ => Err(Usage("list-operators takes --framework XLA and nothing else".into())),
            }
        }
        Some(other) => Err(Usage(format!(
            "argument command: invalid choice: '{other}' (choose from compile, list-operators)"
        ))),
        None => Err(Usage("the following arguments are required: command".into())),
    }
}

fn compile(words: &Words) -> Result<Compile, Usage> {
    let input = match words.files.as_slice() {
        [input] => PathBuf::from(input),
        [] => return Err(Usage("the following arguments are required: files".into())),
        [_, others @ ..] => return Err(Usage(format!("unrecognized arguments: {}", others.join(" ")))),
    };
    words.require("--framework")?;
    let target = words.require("--target")?;
    let first_generation = matches!(target, "inf2" | "trn1" | "trn1n");
    let lnc = match words.value("--lnc") {
        Some("2") if first_generation => {
            return Err(Usage(format!("[NCC_EARG001] --lnc=2 is not supported on {target}")));
        }
        Some(lnc) => u32::from(lnc == "2") + 1,
        None => u32::from(!first_generation) + 1,
    };
    Ok(Compile {
        output: words.value("--output").unwrap_or("file.neff").into(),
        target: target.to_owned(),
        lnc,
        compressed: !words.has("--enable-fast-loading-neuron-binaries"),
        input,
    })
}

#[derive(Default)]
struct Words {
    files: Vec<String>,
    /// A flag that stands twice has the last value.
    flags: Vec<(&'static str, String)>,
}

impl Words {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Usage> {
        let mut words = Words::default();
        while let Some(word) = arguments.next() {
            if !word.starts_with('-') {
                words.files.push(word);
                continue;
            }
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            if let Some(level) = name.strip_prefix("-O").filter(|level| LEVELS.contains(level)) {
                words.flags.push(("--optlevel", level.to_owned()));
                continue;
            }
            let flag = FLAGS.iter().find(|(flag, _)| *flag == name);
            let (flag, takes) = flag.ok_or_else(|| Usage(format!("unrecognized arguments: {word}")))?;
            let value = match (takes, inline) {
                (Takes::Nothing, None) => String::new(),
                (Takes::Nothing, Some(_)) => return Err(Usage(format!("argument {flag}: takes no value"))),
                (_, Some(value)) => value,
                // A value that looks like a flag has to stand after `=`.
                (_, None) => arguments
                    .next()
                    .filter(|value| !value.starts_with('-'))
                    .ok_or_else(|| Usage(format!("argument {flag}: expected one argument")))?,
            };
            if let Takes::OneOf(choices) = takes {
                let in_any_case = *flag == "--verbose";
                let chosen =
                    |choice: &str| choice == value || in_any_case && choice.eq_ignore_ascii_case(&value);
                if !choices.iter().any(|choice| chosen(choice)) {
                    let choices = choices.join(", ");
                    return Err(Usage(format!(
                        "argument {flag}: invalid choice: '{value}' (choose from {choices})"
                    )));
                }
            }
            words.flags.push((flag, value));
        }
        Ok(words)
    }

    fn value(&self, flag: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == flag).map(|(_, value)| value.as_str())
    }

    fn has(&self, flag: &str) -> bool {
        self.value(flag).is_some()
    }

    fn require(&self, flag: &str) -> Result<&str, Usage> {
        self.value(flag).ok_or_else(|| Usage(format!("the following arguments are required: {flag}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned)).map_err(|Usage(message)| message)
    }

    #[test]
    fn the_documented_line_is_taken() {
        let line = "compile dir/model.hlo.pb --framework XLA --target inf2 --model-type transformer --auto-cast none \
            -O2 --lnc=1 --output model.neff --internal-hlo2tensorizer-options=--verify-hlo=true --verbose INFO";
        let expected = Compile {
            input: "dir/model.hlo.pb".into(),
            output: "model.neff".into(),
            target: "inf2".into(),
            lnc: 1,
            compressed: true,
        };
        assert_eq!(parsed(line), Ok(Command::Compile(expected)));
        assert_eq!(parsed("--version"), Ok(Command::Version));
        assert_eq!(parsed("list-operators --framework XLA"), Ok(Command::ListOperators));
        let Ok(Command::Compile(second)) = parsed("compile --framework=XLA a/b.pb --target=trn2") else {
            panic!()
        };
        assert_eq!((second.lnc, second.output), (2, PathBuf::from("file.neff")));
    }

    #[track_caller]
    fn refused(line: &str, expected: &str) {
        let message = parsed(line).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn what_the_real_one_refuses_is_refused() {
        refused("", "required: command");
        refused("link a.pb", "invalid choice: 'link'");
        refused("compile --framework XLA --target inf2", "required: files");
        refused("compile a.pb b.pb --framework XLA --target inf2", "unrecognized arguments: b.pb");
        refused("compile a.pb --target inf2", "required: --framework");
        refused("compile a.pb --framework XLA", "required: --target");
        refused("compile a.pb --framework XLA --target inf1", "invalid choice: 'inf1'");
        refused("compile a.pb --framework XLA --target inf2 --lnc 2", "NCC_EARG001");
        refused("compile a.pb --framework XLA --target inf2 --lnc", "expected one argument");
        refused(
            "compile a.pb --framework XLA --target inf2 --tensorizer-options --x",
            "expected one argument",
        );
        refused("compile a.pb --framework XLA --target inf2 --auto-cast all", "invalid choice: 'all'");
        refused("compile a.pb --framework XLA --target inf2 -O4", "unrecognized arguments: -O4");
        refused(
            "compile a.pb --framework XLA --target inf2 --frobnicate=1",
            "unrecognized arguments: --frobnicate=1",
        );
    }
}
