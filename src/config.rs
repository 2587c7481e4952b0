//! Settings: a flag wins over the environment, the environment over the file, the file over the default.
//!
//! Each setting is written once, in a table below: its name gives the flag `--max-queued`, the variable
//! `MONDAI_MAX_QUEUED` and the file's key `max_queued`. Every value remembers where it came from.
//! Absent: what the settings mean; whoever takes one says so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment { variable: String },
    File { path: PathBuf },
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => write!(f, "flag"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::File { path } => write!(f, "file {}", path.display()),
            Self::Default => write!(f, "default"),
        }
    }
}

/// Why the settings cannot be used. Each variant names the file and key, or the variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file {path}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the settings file {path} is not TOML")]
    Malformed { path: PathBuf, source: toml::de::Error },
    #[error("{path}: unknown setting `{key}`")]
    UnknownKey { path: PathBuf, key: String },
    #[error("{path}: the setting `{key}` cannot be used: {reason}")]
    BadKey { path: PathBuf, key: String, reason: String },
    #[error("the environment variable {variable} cannot be used: {value:?}: {reason}")]
    BadVariable { variable: String, value: OsString, reason: String },
}

/// Declares one table of settings: the struct of values, its flags, and how they are found and shown.
macro_rules! settings {
    (
        $(#[$about:meta])*
        $settings:ident, $flags:ident, $heading:literal;
        $( $(#[doc = $help:literal])+ $name:ident: $type:ty = $default:expr, $placeholder:literal; )+
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $settings {
            $( $(#[doc = $help])+ pub $name: Setting<$type>, )+
        }

        #[doc = concat!("The flags of [`", stringify!($settings), "`], of which any may be left out.")]
        #[derive(Clone, Debug, Default, clap::Args)]
        #[command(next_help_heading = $heading)]
        pub struct $flags {
            $( $(#[doc = $help])+ #[arg(long, value_name = $placeholder)] pub $name: Option<$type>, )+
        }

        impl $settings {
            /// Finds each setting's value, and takes what it knows out of the file's.
            ///
            /// # Errors
            /// [`ConfigError`]: a value in the file or the environment is not of the setting's type.
            pub fn resolve(flags: $flags, sources: &mut Sources) -> Result<Self, ConfigError> {
                Ok(Self { $( $name: sources.find(stringify!($name), flags.$name, || $default)?, )+ })
            }

            /// Name, value and origin of each setting, in the table's order.
            pub fn rows(&self) -> Vec<(&'static str, String, &Origin)> {
                vec![ $( (stringify!($name), self.$name.value.to_string(), &self.$name.origin), )+ ]
            }
        }
    };
}

settings! {
    /// The model and how it is run.
    ModelSettings, ModelFlags, "Model and engine";
    /// The model: a name in the models folder, a GGUF file or a Hugging Face folder
    model: String = ModelSettings::DEFAULT.to_owned(), "MODEL";
    /// A LoRA adapter to merge into the model: a PEFT folder or a GGUF file
    adapter: String = String::new(), "PATH";
    /// The folder with one folder a model
    models_dir: String = "models".to_owned(), "DIR";
    /// What runs it: cpu; neuron; ort, which is ONNX Runtime; or candle, the plain and slow reference
    backend: String = "cpu".to_owned(), "NAME";
    /// Requests that are written at the same time
    slots: usize = 4, "N";
    /// Tokens that a prompt and its reply may take together; 0: as many as the model was made for, at most 2048
    context_len: usize = 0, "TOKENS";
    /// Tokens of one step; longer prompts are cut into several
    max_step_tokens: usize = 256, "TOKENS";
    /// Tokens that a step may guess ahead of a reply, to be kept where the reply has them: what it says stays the
    /// same; 0: none
    max_draft_tokens: usize = 7, "TOKENS";
    /// Requests that may wait for a slot; more are refused
    max_queued: usize = 128, "N";
    /// A step that takes longer than this makes the server not ready, and a NeuronCore lost
    stall_limit_seconds: u64 = 60, "SECONDS";
    /// NeuronCores to run on, each with a replica of the model or as many together as its programs are for: neighbours,
    /// such as 0,1 or 2-5
    cores: CoreList = CoreList::first(), "LIST";
    /// The Neuron runtime library; found where its package puts it if it is not named
    neuron_library: String = String::new(), "PATH";
    /// The folder of programs that `mondai compile` wrote; the model's own if it is not named
    neuron_programs: String = String::new(), "DIR";
    /// ONNX Runtime's library, for the backend ort; if none is named, ORT_DYLIB_PATH, or else the one that `mondai
    /// pull onnxruntime` fetched
    ort_library: String = String::new(), "FILE";
    /// What ONNX Runtime is to compute on: cpu, or an execution provider that its library has
    ort_provider: String = "cpu".to_owned(), "NAME";
    /// How a model is written for ONNX Runtime: fast; int4, each matrix rounded anew to 4 bits, which is faster and further
    /// from the model; or portable, plain and slow
    ort_form: OrtForm = OrtForm::Fast, "fast|int4|portable";
}

impl ModelSettings {
    /// The model of whoever names none.
    pub const DEFAULT: &str = "smollm2-135m-quiz";
}

/// Neighbouring NeuronCores, as the machine numbers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(RangeInclusive<usize>);

impl CoreList {
    fn first() -> Self {
        Self(0..=0)
    }

    pub fn count(&self) -> usize {
        self.0.end() - self.0.start() + 1
    }
}

impl FromStr for CoreList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?}: expected neighbouring cores in their order, such as 0, 0,1 or 2-5");
        let number = |text: &str| text.trim().parse::<u16>().map(usize::from).map_err(|_| wrong());
        let mut cores: Option<(usize, usize)> = None;
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            let follows = cores.is_none_or(|(_, before)| first == before + 1);
            if first > last || !follows {
                return Err(wrong());
            }
            cores = Some((cores.map_or(first, |(begin, _)| begin), last));
        }
        cores.map(|(first, last)| Self(first..=last)).ok_or_else(wrong)
    }
}

/// As the Neuron runtime reads it: `3`, or `3-5`.
impl Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

settings! {
    /// The passages that topics are asked about.
    LibrarySettings, LibraryFlags, "Library";
    /// A folder of passages that topics are asked about, made by `mondai library add`; `shipped` is the one that
    /// comes with mondai, and with `none` topics come from the model's memory
    library: String = LibrarySettings::SHIPPED.to_owned(), "DIR";
}

impl LibrarySettings {
    /// The library that comes with the program.
    pub const SHIPPED: &str = "shipped";
    /// No library at all.
    pub const NONE: &str = "none";

    /// The folder that was named, if one was.
    pub fn folder(&self) -> Option<&Path> {
        let named = self.library.value.as_str();
        (named != Self::SHIPPED && named != Self::NONE).then(|| Path::new(named))
    }
}

settings! {
    /// What items are checked with, beside the model.
    CheckSettings, CheckFlags, "Checks";
    /// A folder of sentence embeddings that questions and choices are compared by; `pulled` is what `mondai pull
    /// all-minilm-l6-v2` fetched, if it did, and with `none` words alone are compared
    embeddings: String = CheckSettings::PULLED.to_owned(), "DIR";
}

impl CheckSettings {
    /// Those in the models folder, if they are there.
    pub const PULLED: &str = "pulled";
    /// None at all.
    pub const NONE: &str = "none";
}

settings! {
    /// The compiler of programs for a NeuronCore.
    CompilerSettings, CompilerFlags, "Neuron's compiler";
    /// The program neuronx-cc, of AWS's package of that name; found in PATH if it is not named
    neuronx_cc: String = String::new(), "PATH";
}

settings! {
    /// The HTTP server.
    HttpSettings, HttpFlags, "HTTP";
    /// The address to listen on; 0.0.0.0 for all
    host: String = "127.0.0.1".to_owned(), "HOST";
    /// The port to listen on; 0 takes any that is free
    port: u16 = 8080, "PORT";
    /// The largest request body
    body_limit_bytes: usize = 2 * 1024 * 1024, "BYTES";
    /// A stream that has nothing to say sends a comment this often
    keep_alive_seconds: u64 = 10, "SECONDS";
    /// After SIGTERM, requests in flight have this long to finish
    drain_grace_seconds: u64 = 30, "SECONDS";
}

settings! {
    /// What is logged, to standard error.
    LogSettings, LogFlags, "Logs";
    /// How log lines look
    log_format: LogFormat = LogFormat::Plain, "plain|json";
    /// What is logged: error, warn, info, debug, trace, or a filter such as `warn,mondai=debug`
    log_level: String = "info".to_owned(), "LEVEL";
}

/// How a model is written for ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrtForm {
    Fast,
    Int4,
    Portable,
}

impl FromStr for OrtForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fast" => Ok(Self::Fast),
            "int4" => Ok(Self::Int4),
            "portable" => Ok(Self::Portable),
            _ => Err("expected `fast`, `int4` or `portable`".to_owned()),
        }
    }
}

impl Display for OrtForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Int4 => "int4",
            Self::Portable => "portable",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Plain,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            _ => Err("expected `plain` or `json`".to_owned()),
        }
    }
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Json => "json",
        })
    }
}

/// Where values that are not flags come from: the environment, and a file.
#[derive(Default)]
pub struct Sources {
    environment: BTreeMap<String, OsString>,
    /// The file's values that no table has taken yet.
    file: toml::Table,
    path: PathBuf,
}

impl Sources {
    /// The process's environment, and the file at `path` if there is one to read.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or is not TOML.
    pub fn open(path: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(variable, value)| Some((variable.into_string().ok()?, value)))
            .collect();
        let Some(path) = path else { return Ok(Self { environment, ..Self::default() }) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::new(environment, path, &text)
    }

    fn new(environment: BTreeMap<String, OsString>, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = text.parse().map_err(|source| ConfigError::Malformed { path: path.to_owned(), source })?;
        Ok(Self { environment, file, path: path.to_owned() })
    }

    /// Call it after every table has been resolved.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`]: the file holds a key that no table took.
    pub fn finish(self) -> Result<(), ConfigError> {
        match self.file.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(ConfigError::UnknownKey { path: self.path, key }),
        }
    }

    fn find<T>(
        &mut self,
        key: &'static str,
        flag: Option<T>,
        default: impl FnOnce() -> T,
    ) -> Result<Setting<T>, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        // Taken, and so checked, even where something wins over it: a wrong file is wrong.
        let in_file = self.take_from_file(key)?;
        let in_environment = self.read_variable(key)?;
        let default = || Setting { value: default(), origin: Origin::Default };
        Ok(flag
            .map(|value| Setting { value, origin: Origin::Flag })
            .or(in_environment)
            .or(in_file)
            .unwrap_or_else(default))
    }

    fn read_variable<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<Setting<T>>, ConfigError> {
        let variable = format!("MONDAI_{}", key.to_uppercase());
        let Some(value) = self.environment.get(&variable) else { return Ok(None) };
        let parsed = match value.to_str() {
            Some(text) => text.parse().map_err(|error: T::Err| error.to_string()),
            None => Err("not UTF-8".to_owned()),
        };
        match parsed {
            Ok(value) => Ok(Some(Setting { value, origin: Origin::Environment { variable } })),
            Err(reason) => Err(ConfigError::BadVariable { variable, value: value.clone(), reason }),
        }
    }

    fn take_from_file<T: FromStr<Err: Display>>(
        &mut self,
        key: &str,
    ) -> Result<Option<Setting<T>>, ConfigError> {
        let Some(value) = self.file.remove(key) else { return Ok(None) };
        let parsed = match value {
            toml::Value::String(text) => text.parse().map_err(|error: T::Err| error.to_string()),
            toml::Value::Integer(number) => {
                number.to_string().parse().map_err(|error: T::Err| format!("{number}: {error}"))
            }
            other => Err(format!("{} is not a value for it", other.type_str())),
        };
        match parsed {
            Ok(value) => Ok(Some(Setting { value, origin: Origin::File { path: self.path.clone() } })),
            Err(reason) => Err(ConfigError::BadKey { path: self.path.clone(), key: key.to_owned(), reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(environment: &[(&str, &str)], file: &str) -> Sources {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
        Sources::new(environment, Path::new("mondai.toml"), file).expect("the test's file is TOML")
    }

    fn check(flag: Option<u16>, environment: &[(&str, &str)], file: &str, expected: (u16, &str)) {
        let mut sources = sources(environment, file);
        let flags = HttpFlags { port: flag, ..HttpFlags::default() };
        let settings = HttpSettings::resolve(flags, &mut sources).expect("every value is good");
        sources.finish().expect("every key is known");
        assert_eq!((settings.port.value, settings.port.origin.to_string().as_str()), expected);
    }

    fn check_error(environment: &[(&str, &str)], file: &str, expected: &str) {
        let mut sources = sources(environment, file);
        let error = HttpSettings::resolve(HttpFlags::default(), &mut sources)
            .map(drop)
            .and_then(|()| sources.finish())
            .expect_err("something is wrong with it");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let variable = [("MONDAI_PORT", "2")];
        check(Some(1), &variable, "port = 3", (1, "flag"));
        check(None, &variable, "port = 3", (2, "environment MONDAI_PORT"));
        check(None, &[], "port = 3", (3, "file mondai.toml"));
        check(None, &[], "port = '3'", (3, "file mondai.toml"));
        check(None, &[], "", (8080, "default"));
    }

    #[test]
    fn cores_are_neighbours() {
        let read = |text: &str| text.parse::<CoreList>().map(|cores| (cores.to_string(), cores.count()));
        assert_eq!(read("3"), Ok(("3".to_owned(), 1)));
        assert_eq!(read("0,1"), Ok(("0-1".to_owned(), 2)));
        assert_eq!(read("2-4, 5"), Ok(("2-5".to_owned(), 4)));
        for wrong in ["", "1,0", "0,2", "3-1", "a", "-1", "0,", "99999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_value_is_named() {
        check_error(&[], "prot = 3", "mondai.toml: unknown setting `prot`");
        check_error(
            &[],
            "port = 70000",
            "mondai.toml: the setting `port` cannot be used: 70000: number too large to fit in target type",
        );
        check_error(
            &[],
            "port = [1]",
            "mondai.toml: the setting `port` cannot be used: array is not a value for it",
        );
        check_error(
            &[("MONDAI_PORT", "eighty")],
            "",
            "the environment variable MONDAI_PORT cannot be used: \"eighty\": invalid digit found in string",
        );
    }
}
