//! A model's own chat template, run as transformers runs it.
//!
//! Source: `_compile_jinja_template`, transformers/utils/chat_template_utils.py.

use super::special_tokens::SpecialTokens;
use super::{TextError, folder, python};
use crate::model::{GgufMetadata, Model, TextSource};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::error::Error as _;
use std::io::Write;
use std::path::Path;

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

/// The model's own chat template, a Jinja program.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: SpecialTokens,
}

const TEMPLATE_KEY: &str = "tokenizer.chat_template";
const TEMPLATE_NAME: &str = "chat_template";

/// Instructions one rendering may take; a chat of a thousand messages takes some hundred thousand.
const FUEL: u64 = 2_000_000;

/// Far above any context length.
const MAX_PROMPT_BYTES: usize = 64 << 20;

impl ChatTemplate {
    /// Reads the model's template; a manifest's `chat_template` wins over the file's.
    ///
    /// # Errors
    /// [`TextError::Unusable`]: the model has no template, or it does not parse.
    pub fn open(model: &Model) -> Result<Self, TextError> {
        Self::read(model.text_source(), model.chat_template_override()).map_err(|reason| {
            TextError::Unusable { part: "chat template", model: model.name.clone(), reason }
        })
    }

    fn read(source: TextSource<'_>, template_override: Option<&str>) -> Result<Self, String> {
        let (own, special_tokens) = match source {
            TextSource::Gguf(metadata) => (template_of_gguf(metadata)?, SpecialTokens::of_gguf(metadata)?),
            TextSource::Folder(path) => (template_of_folder(path)?, SpecialTokens::of_folder(path)?),
        };
        let template = template_override.map(str::to_owned).or(own);
        Self::parse(&template.ok_or("it has none; give one in its manifest")?, special_tokens)
    }

    /// # Errors
    /// Where and why `source` does not parse.
    pub(super) fn parse(source: &str, special_tokens: SpecialTokens) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_formatter(python::print);
        environment.add_filter("tojson", python::tojson);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned(TEMPLATE_NAME, without_generation_tags(source))
            .map_err(|error| error.to_string())?;
        Ok(Self { environment, special_tokens })
    }

    /// The prompt for a reply to `messages`.
    ///
    /// # Errors
    /// [`TextError::Template`]: the template raised an error, or took more work than any chat needs.
    pub fn render(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        self.try_render(messages).map_err(|error| {
            let reason = match (error.source(), error.detail()) {
                (Some(source), _) => source.to_string(),
                (None, Some(detail)) => detail.to_owned(),
                (None, None) => error.to_string(),
            };
            TextError::Template { reason }
        })
    }

    fn try_render(&self, messages: &[ChatMessage]) -> Result<String, Error> {
        // Templates tell a missing list of tools by `is none`, as transformers passes it.
        let none = Value::from(());
        let context = context! {
            messages, add_generation_prompt => true, tools => none, documents => none,
            ..Value::from_serialize(&self.special_tokens)
        };
        let mut prompt = Bounded(Vec::new());
        self.environment.get_template(TEMPLATE_NAME)?.render_captured_to(context, &mut prompt)?;
        Ok(String::from_utf8(prompt.0).expect("a template writes strings"))
    }
}

fn template_of_gguf(metadata: &GgufMetadata) -> Result<Option<String>, String> {
    let Some(source) = metadata.get(TEMPLATE_KEY) else { return Ok(None) };
    let source = source.as_str().ok_or_else(|| format!("{TEMPLATE_KEY}: not a string"))?;
    Ok(Some(source.to_owned()))
}

fn template_of_folder(path: &Path) -> Result<Option<String>, String> {
    if let Some(source) = folder::read(path, folder::CHAT_TEMPLATE)? {
        let source = String::from_utf8(source);
        return source.map(Some).map_err(|error| format!("{}: {error}", folder::CHAT_TEMPLATE));
    }
    let config = folder::read_json(path, folder::TOKENIZER_CONFIG)?.unwrap_or_default();
    let template = config.get("chat_template").filter(|template| !template.is_null());
    let Some(template) = template else { return Ok(None) };
    // One template, or several of which one is for plain chat.
    let default = template.as_array().and_then(|templates| {
        let default = templates.iter().find(|template| template["name"] == "default")?;
        default["template"].as_str()
    });
    let source = template.as_str().or(default);
    let source = source.ok_or_else(|| {
        format!("{}: chat_template: neither a string nor a list with a `default`", folder::TOKENIZER_CONFIG)
    })?;
    Ok(Some(source.to_owned()))
}

/// `{% generation %}` marks the model's part for training and prints what is inside it.
fn without_generation_tags(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        plain.push_str(before);
        rest = tag;
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        for (tag_name, replacement) in [("generation", "if true"), ("endgeneration", "endif")] {
            let Some(after) = name.strip_prefix(tag_name) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                plain.push_str(&tag[..tag.len() - name.len()]);
                plain.push_str(replacement);
                rest = after;
            }
        }
    }
    plain + rest
}

/// A prompt that may not grow without end.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PROMPT_BYTES {
            return Err(std::io::Error::other(format!("the prompt exceeds {MAX_PROMPT_BYTES} bytes")));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, contents: &[&str]) -> Result<String, String> {
        let template = ChatTemplate::parse(source, SpecialTokens::default())?;
        let message = |content: &&str| ChatMessage { role: Role::User, content: (*content).to_owned() };
        template.render(&contents.iter().map(message).collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    fn check(source: &str, expected: &str) {
        assert_eq!(render(source, &["hi"]).as_deref(), Ok(expected), "{source}");
    }

    fn check_refused(source: &str, reason: &str) {
        let error = render(source, &["hi"]).unwrap_err();
        assert!(error.contains(reason), "{source}: {error}");
    }

    #[test]
    fn what_transformers_gives_templates() {
        check(
            "{{ messages[0].role }} {{ messages[0]['content'] }} {{ add_generation_prompt }}",
            "user hi True",
        );
        check("{{ tools }}{{ tools is defined and tools is none }}", "NoneTrue");
        check("{{ bos_token }}|{{ bos_token is defined }}", "|False");
        check(
            "{%- for m in messages %}\n  {%- if loop.last %}\n{{ m.content }}\n{%- endif %}\n{%- endfor %}",
            "hi",
        );
        check("{% for i in range(9) %}{% if i > 1 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01");
        check("{{ ' x '.strip() }}{{ 'a,b'.split(',')[-1] }}{{ messages[::-1][0].content }}", "xbhi");
        check("a\n{% generation -%}\n b\n{%- endgeneration %}\nc", "a\nbc");
        check("{{ '{% generation x %}' }}", "{% generation x %}");
    }

    fn render_from(folder: &Path, template_override: Option<&str>) -> Result<String, String> {
        let template = ChatTemplate::read(TextSource::Folder(folder), template_override)?;
        template.render(&[]).map_err(|error| error.to_string())
    }

    #[test]
    fn templates_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let check = |template_override: Option<&str>, expected: Result<&str, &str>| {
            let rendered = render_from(folder.path(), template_override);
            assert_eq!(rendered.as_deref().map_err(String::as_str), expected);
        };
        check(None, Err("it has none; give one in its manifest"));
        write(folder::TOKENIZER_CONFIG, r#"{"chat_template": null, "bos_token": null}"#);
        check(None, Err("it has none; give one in its manifest"));
        write(folder::TOKENIZER_CONFIG, r#"{"chat_template": "one {{ bos_token }}", "bos_token": "<s>"}"#);
        check(None, Ok("one <s>"));
        let named = r#"{"chat_template": [{"name": "rag", "template": "rag"}, {"name": "default",
            "template": "of two {{ eos_token }}"}], "eos_token": {"content": "</s>", "special": true}}"#;
        write(folder::TOKENIZER_CONFIG, named);
        check(None, Ok("of two </s>"));
        write(folder::CHAT_TEMPLATE, "own file {{ eos_token }}");
        check(None, Ok("own file </s>"));
        check(Some("manifest's {{ eos_token }}"), Ok("manifest's </s>"));
        write(folder::TOKENIZER_CONFIG, r#"{"chat_template": 7}"#);
        check(None, Ok("own file "));
        std::fs::remove_file(folder.path().join(folder::CHAT_TEMPLATE)).unwrap();
        check(
            None,
            Err("tokenizer_config.json: chat_template: neither a string nor a list with a `default`"),
        );
        write(folder::TOKENIZER_CONFIG, "{");
        assert!(render_from(folder.path(), None).unwrap_err().starts_with("tokenizer_config.json: EOF"));
    }

    #[test]
    fn refusals_say_why() {
        check_refused(
            "{{ raise_exception('roles must alternate') }}",
            "refused the messages: roles must alternate",
        );
        check_refused("{{ messages[0].missing.content }}", "undefined value");
        check_refused("{% for m in messages %}", "unexpected end");
    }

    #[test]
    fn a_hostile_template_ends() {
        let forever = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
        check_refused(forever, "fuel");
        check_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion");
        check_refused("{% set s = 'x' * 90000 %}{% for a in range(90000) %}{{ s }}{% endfor %}", "exceeds");
        check_refused("{{ 'x' * 99999999999999 }}", "too large");
    }
}
