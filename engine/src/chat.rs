//! Chat templates: a model's own layout of a chat, as text with marks.

mod python;

use std::io;

use infernet_protocol::inference::{Message, Role};
use minijinja::value::Value;
use minijinja::{Environment, context};

use crate::error::{Error, first_line};
use crate::port::MAX_PROMPT_BYTES;

/// The largest template taken, in bytes: the longest in use have about 20 KB.
pub(crate) const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Template instructions that one chat may cost, so that a hostile template
/// comes to an end; a long chat in a rich template costs some ten thousand.
const FUEL: u64 = 2_000_000;
/// The longest text that a template may make of a chat, in bytes: a prompt of
/// the greatest length, and as much around it. What a template keeps in its
/// variables meanwhile is not bounded: a model's author is trusted not to eat
/// the operator's memory.
const MAX_TEXT_BYTES: usize = 2 * MAX_PROMPT_BYTES;
/// The name under which the one template is kept.
const NAME: &str = "chat";

/// A model's chat template, ready to use.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    begin: String,
    end: String,
}

impl ChatTemplate {
    /// Compiles a Jinja template as Hugging Face's transformers would. `begin`
    /// and `end` are the texts of the model's begin and end tokens.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub(crate) fn new(source: String, begin: String, end: String) -> Result<Self, String> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(format!(
                "the chat template has {} bytes, and {MAX_TEMPLATE_BYTES} are allowed",
                source.len()
            ));
        }
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| error.to_string())?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        python::set_up(&mut environment);
        environment
            .add_template_owned(NAME, python::without_marks(&source))
            .map_err(|error| format!("the chat template is no Jinja template: {error}"))?;
        Ok(Self {
            environment,
            begin,
            end,
        })
    }

    /// The chat as text, up to where the model's answer begins.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] when the template does not accept the messages,
    /// or makes too much of them.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<String, Error> {
        let template = self.environment.get_template(NAME).map_err(refusal)?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => role(message.role), content => message.content.as_str() })
            .collect();
        let mut text = Bounded::default();
        let rendered = template.render_captured_to(
            context! {
                messages,
                tools => (),
                documents => (),
                add_generation_prompt => true,
                bos_token => self.begin.as_str(),
                eos_token => self.end.as_str(),
            },
            &mut text,
        );
        if text.is_full {
            let reason = format!("it makes more than {MAX_TEXT_BYTES} bytes of them");
            return Err(Error::ChatTemplate(reason));
        }
        rendered.map_err(refusal)?;
        String::from_utf8(text.bytes).map_err(|_| Error::ChatTemplate("it makes no text".into()))
    }
}

/// What a template has written, as long as it is not too much.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        self.is_full |= self.bytes.len() + more.len() > MAX_TEXT_BYTES;
        if self.is_full {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A role's name in templates.
fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

fn refusal(error: minijinja::Error) -> Error {
    let reason = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    Error::ChatTemplate(first_line(&reason))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source.into(), "<s>".into(), "</s>".into()).unwrap()
    }

    fn hello() -> Vec<Message> {
        vec![Message {
            role: Role::User,
            content: " Hello ".into(),
        }]
    }

    /// Templates with what the families' templates are made of, and what
    /// transformers makes of chats with them.
    #[derive(Deserialize)]
    struct Reference {
        templates: HashMap<String, String>,
        chats: Vec<Vec<Message>>,
        rendered: Vec<Rendered>,
    }

    #[derive(Deserialize)]
    struct Rendered {
        template: String,
        chat: usize,
        text: Option<String>,
        refusal: Option<String>,
    }

    #[test]
    fn the_families_templates_render_as_in_transformers() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/formats");
        let text = std::fs::read(folder.join("templates.json")).unwrap();
        let reference: Reference = serde_json::from_slice(&text).unwrap();
        assert_eq!(reference.rendered.len(), 36);
        for rendered in reference.rendered {
            let template = template(&reference.templates[&rendered.template]);
            let own = template.render(&reference.chats[rendered.chat]);
            let expected = match (rendered.text, rendered.refusal) {
                (Some(text), _) => Ok(text),
                (None, refusal) => Err(Error::ChatTemplate(refusal.unwrap())),
            };
            assert_eq!(own, expected, "{} {}", rendered.template, rendered.chat);
        }
    }

    #[test]
    fn renders_as_transformers_does() {
        let template = template(
            "{{ bos_token }}{% for message in messages %}\n  {%- if message['role'] == 'user' %}\n    [{{ message.content.strip() }}]\n  {% endif %}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        );
        assert_eq!(template.render(&hello()).unwrap(), "<s>    [Hello]\n>");
    }

    #[test]
    fn a_template_may_refuse() {
        let template = template("{{ raise_exception('roles must alternate') }}");
        assert_eq!(
            template.render(&hello()),
            Err(Error::ChatTemplate("roles must alternate".into()))
        );
    }

    #[test]
    fn a_template_that_makes_too_much_is_stopped() {
        let template = template("{% for a in range(9999) %}{{ messages[0].content }}{% endfor %}");
        let long = Message {
            role: Role::User,
            content: "x".repeat(MAX_PROMPT_BYTES),
        };
        let refusal = template.render(&[long]).unwrap_err().to_string();
        assert!(refusal.contains("bytes"), "{refusal}");
    }

    #[test]
    fn an_endless_template_ends() {
        let template = template(
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        );
        assert!(template.render(&hello()).is_err());
    }
}
