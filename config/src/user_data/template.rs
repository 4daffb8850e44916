//! `## template: jinja`: documents with variables of the instance in them.
//!
//! A variable that is not there stands as `CI_MISSING_JINJA_VAR/name` in the result, as cloud-init writes it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value as Json};

use super::format::Kind;
use super::reader::{Document, Reader};
use crate::MAX_DOCUMENT_BYTES;
use crate::diagnostic::Position;

/// How much a template may compute.
const FUEL: u64 = 1_000_000;

/// Why a template cannot be rendered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Line within the template, from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// A rendered template and the variables that were missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    pub(super) missing: Vec<String>,
}

/// Renders `template`, without its first line, with `instance` data.
///
/// # Errors
/// It is no template, or computes too much.
pub(super) fn render(template: &str, instance: &Json) -> Result<Rendered, Failure> {
    let missing = Arc::new(Mutex::new(BTreeSet::new()));
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    let syntax = SyntaxConfig::builder().trim_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| Failure {
        line: 1,
        message: error.to_string(),
    })?);
    environment.set_fuel(Some(FUEL));
    let is_missing =
        |value: &Value| value.is_undefined() || value.downcast_object_ref::<Missing>().is_some();
    environment.add_test("defined", move |value: &Value| !is_missing(value));
    environment.add_test("undefined", move |value: &Value| is_missing(value));
    let default = move |value: Value, other: Option<Value>, also_false: Option<bool>| {
        let replace = is_missing(&value) || (also_false == Some(true) && !value.is_true());
        match replace {
            true => other.unwrap_or_else(|| Value::from("")),
            false => value,
        }
    };
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    let globals = environment.globals().map(|(name, _)| name.to_owned());
    let root = Data {
        entries: instance.as_object().cloned().unwrap_or_default(),
        except: globals.collect(),
        missing: missing.clone(),
    };
    let mut output = Output(Vec::new());
    let rendered = environment
        .template_from_str(template)
        .and_then(|parsed| {
            parsed
                .render_captured_to(Value::from_object(root), &mut output)
                .map(drop)
        })
        .map(|()| String::from_utf8_lossy(&output.0).into_owned());
    match rendered {
        Ok(text) => Ok(Rendered {
            // As in cloud-init: the template's last line break is the result's, whatever stands before it.
            text: match template.ends_with('\n') {
                true => text + "\n",
                false => text,
            },
            missing: missing
                .lock()
                .map(|names| names.iter().cloned().collect())
                .unwrap_or_default(),
        }),
        Err(error) => Err(Failure {
            line: error.line().unwrap_or(1),
            message: error
                .detail()
                .map_or_else(|| error.kind().to_string(), str::to_owned),
        }),
    }
}

/// What a template makes: as much as a document may hold.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(io::Error::other("too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Names = Arc<Mutex<BTreeSet<String>>>;

/// A mapping of the instance's data.
#[derive(Debug)]
struct Data {
    entries: Map<String, Json>,
    /// Names that are looked for elsewhere when they are not here.
    except: Vec<String>,
    missing: Names,
}

impl Object for Data {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        // Variables have no hyphens: `instance-id` is `instance_id` there.
        let found = self.entries.get(name).or_else(|| {
            let mut entries = self.entries.iter();
            let found = entries.find(|(key, _)| key.replace('-', "_") == name);
            found.map(|(_, value)| value)
        });
        match found {
            Some(json) => Some(value(json, &self.missing)),
            None if self.except.iter().any(|other| other == name) => None,
            None => Some(Missing::value(name, &self.missing)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.keys().map(Value::from).collect())
    }
}

fn value(json: &Json, missing: &Names) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::from(number),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(|item| value(item, missing)).collect(),
        Json::Object(entries) => Value::from_object(Data {
            entries: entries.clone(),
            except: Vec::new(),
            missing: missing.clone(),
        }),
    }
}

/// A variable that is not there.
#[derive(Debug)]
struct Missing {
    name: String,
    missing: Names,
}

impl Missing {
    fn value(name: &str, missing: &Names) -> Value {
        Value::from_object(Missing {
            name: name.to_owned(),
            missing: missing.clone(),
        })
    }
}

impl Object for Missing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(Missing::value(key.as_str()?, &self.missing))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(mut names) = self.missing.lock() {
            names.insert(self.name.clone());
        }
        write!(formatter, "CI_MISSING_JINJA_VAR/{}", self.name)
    }
}

impl Reader<'_, '_> {
    /// Reads what a template becomes.
    pub(super) fn template(&mut self, text: &str, document: &Document, depth: usize) {
        let (_, body) = text.trim_start().split_once('\n').unwrap_or((text, ""));
        let skipped = text.matches('\n').count() - body.matches('\n').count();
        match render(body, self.context.instance) {
            Ok(rendered) => {
                for name in rendered.missing {
                    self.diagnostics.warning(
                        Position::start_of(self.source),
                        format!("the template's variable `{name}` is not known"),
                    );
                }
                let content = rendered.text.into_bytes();
                let kind = Kind::of(&content).filter(|kind| {
                    let allowed = [Kind::CloudConfig, Kind::Script, Kind::Boothook];
                    allowed.contains(kind)
                });
                let Some(kind) = kind else {
                    return self.broken(
                        Position::start_of(self.source),
                        "a template must become a #cloud-config, a script or a boothook; nothing of it is applied",
                    );
                };
                let document = Document {
                    kind: Some(kind),
                    content_type: None,
                    name: document.name.clone(),
                    merge: document.merge.clone(),
                    launch_index: None,
                    content,
                };
                self.read(document, depth);
            }
            Err(failure) => {
                let at = Position {
                    source: self.source,
                    line: failure.line + skipped,
                    column: 1,
                };
                let message = format!(
                    "not a template: {}; nothing of it is applied",
                    failure.message
                );
                self.broken(at, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(template: &str) -> String {
        let instance = json!({"v1": {"cloud-name": "kvm", "list": [1, 2]}, "instance_id": "i-1"});
        render(template, &instance).unwrap().text
    }

    #[test]
    fn variables_conditions_and_loops() {
        assert_eq!(text("a: {{ v1.cloud_name }}\n"), "a: kvm\n");
        assert_eq!(
            text("{% if v1.list %}\nyes {{ v1.list[1] }}\n{% endif %}\n"),
            "yes 2\n\n"
        );
        assert_eq!(text("{% for i in range(2) %}{{ i }}{% endfor %}"), "01");
        assert_eq!(text("{{ instance_id | upper }}"), "I-1");
    }

    #[test]
    fn missing_variables_are_named_and_may_have_defaults() {
        let rendered = render(
            "{{ a }} {{ v1.b.c }} {{ d | default('x') }} {% if e is defined %}no{% endif %}",
            &json!({"v1": {}}),
        )
        .unwrap();
        assert_eq!(
            rendered.text,
            "CI_MISSING_JINJA_VAR/a CI_MISSING_JINJA_VAR/c x "
        );
        assert_eq!(rendered.missing, ["a", "c"]);
    }

    #[test]
    fn errors_have_lines_and_endless_templates_end() {
        assert_eq!(render("a\n{% if %}\n", &json!({})).unwrap_err().line, 2);
        let endless =
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        assert!(render(endless, &json!({})).is_err());
        let large = "{% for a in range(9999) %}{{ s }}{% endfor %}";
        assert!(render(large, &json!({"s": "x".repeat(1000)})).is_err());
    }
}
