//! What happens when all has been applied: `final_message`, `phone_home`, `power_state`.

use crate::diagnostic::Diagnostics;
use crate::shell::{Command, quote};
use crate::yaml::{self, Fields, Node, Scalar, Shape, Table, Value};

pub(super) static PHONE_HOME: Table = Table::new(
    "phone_home",
    &[
        (
            "url",
            Shape::Text,
            "Where to; $INSTANCE_ID stands for the instance's id",
        ),
        ("post", POST, "What is told; all of it without"),
        (
            "tries",
            Shape::INTEGER,
            "How often it is tried: 10 times unless said otherwise",
        ),
    ],
)
.required(&["url"]);
const POST: Shape = Shape::AnyOf(&[Shape::Words(&["all"]), Shape::List(&Shape::Words(&TOLD))]);
pub(super) static POWER_STATE: Table = Table::new(
    "power_state",
    &[
        ("mode", Shape::Words(&MODES), "What happens"),
        ("delay", Shape::Text, "now, or minutes as +5"),
        ("message", Shape::Text, "Said on the console"),
        (
            "condition",
            Shape::TEXTS,
            "True or false, a line for a shell, or a program and its arguments",
        ),
        ("timeout", Shape::Hint(&Shape::NUMBER), "Says nothing here"),
    ],
)
.required(&["mode"]);
const MODES: [&str; 3] = ["poweroff", "reboot", "halt"];

/// What happens at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// Said on the console; `$version`, `$timestamp`, `$datasource`, `$uptime` stand for what they say.
    pub message: Option<String>,
    /// Tells somebody that the machine is there.
    pub phone_home: Option<PhoneHome>,
    /// Switches the machine off or starts it again, once an instance.
    pub power: Option<Power>,
}

/// Tells somebody that the machine is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneHome {
    /// Where to: `$INSTANCE_ID` stands for the instance's id.
    pub url: String,
    /// What is told.
    pub post: Vec<String>,
    /// How often it is tried.
    pub tries: u32,
}

/// What may be told.
pub(super) const TOLD: [&str; 7] = [
    "pub_key_dsa",
    "pub_key_rsa",
    "pub_key_ecdsa",
    "pub_key_ed25519",
    "instance_id",
    "hostname",
    "fqdn",
];

/// Switches the machine off or starts it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Power {
    /// `poweroff`, `reboot` or `halt`.
    pub mode: &'static str,
    /// Minutes until then.
    pub delay: u32,
    /// Said on the console.
    pub message: Option<String>,
    /// Only when this succeeds; `None` always.
    pub condition: Option<Command>,
}

/// Reads all three.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Finish {
    Finish {
        message: top
            .get("final_message")
            .and_then(|node| yaml::string("final_message", node, diagnostics)),
        phone_home: top
            .get("phone_home")
            .and_then(|node| phone_home(node, diagnostics)),
        power: top
            .get("power_state")
            .and_then(|node| power(node, diagnostics)),
    }
}

fn phone_home(node: &Node, diagnostics: &mut Diagnostics) -> Option<PhoneHome> {
    let fields = yaml::mapping("phone_home", node, diagnostics)?;
    fields.check(" of phone_home", &PHONE_HOME, diagnostics);
    let Some(url) = fields
        .get("url")
        .and_then(|node| yaml::string("phone_home.url", node, diagnostics))
    else {
        diagnostics.error(
            node.position,
            "phone_home: `url` is missing; nobody is told",
        );
        return None;
    };
    let mut post: Vec<String> = TOLD.map(str::to_owned).to_vec();
    if let Some(node) = fields.get("post")
        && !matches!(&node.value, Value::Scalar(Scalar { text, .. }) if text == "all")
    {
        post = yaml::strings("phone_home.post", node, diagnostics);
        if matches!(node.value, Value::Scalar(_)) && !node.is_null() {
            let message =
                "phone_home.post: expected a list, or `all`; it is taken as a list of one";
            diagnostics.warning(node.position, message);
        }
        post.retain(|name| {
            let known = TOLD.contains(&name.as_str());
            if !known {
                let message = format!("phone_home.post: `{name}` is unknown; it is not told");
                diagnostics.error(node.position, message);
            }
            known
        });
    }
    let tries = fields
        .get("tries")
        .and_then(|node| yaml::integer("phone_home.tries", node, diagnostics));
    Some(PhoneHome {
        url,
        post,
        tries: tries
            .and_then(|tries| u32::try_from(tries).ok())
            .unwrap_or(10),
    })
}

fn power(node: &Node, diagnostics: &mut Diagnostics) -> Option<Power> {
    let fields = yaml::mapping("power_state", node, diagnostics)?;
    fields.check(" of power_state", &POWER_STATE, diagnostics);
    let mode = fields.get("mode");
    let given = mode.and_then(|node| yaml::string("power_state.mode", node, diagnostics));
    let Some(mode) = MODES
        .into_iter()
        .find(|mode| given.as_deref() == Some(*mode))
    else {
        let at = mode.map_or(node.position, |node| node.position);
        diagnostics.error(
            at,
            "power_state: `mode` must be poweroff, reboot or halt; it is not applied",
        );
        return None;
    };
    let mut delay = 0;
    if let Some(node) = fields.get("delay") {
        let text = yaml::string("power_state.delay", node, diagnostics).unwrap_or_default();
        match text.strip_prefix('+').unwrap_or(&text) {
            "now" | "" => {}
            // `parse` would take another sign.
            minutes => match minutes.parse() {
                Ok(minutes) if !text.starts_with("++") => delay = minutes,
                _ => {
                    let message = format!(
                        "power_state.delay: `{text}` is not `now` and no minutes (+5); it is not applied"
                    );
                    diagnostics.error(node.position, message);
                    return None;
                }
            },
        }
    }
    let condition = match fields.get("condition") {
        None => None,
        Some(node) => condition(node, diagnostics)?,
    };
    Some(Power {
        mode,
        delay,
        message: fields
            .get("message")
            .and_then(|node| yaml::string("power_state.message", node, diagnostics)),
        condition,
    })
}

/// A truth, a line for a shell, or a program and its arguments. `Some(None)` is always; `None` never.
fn condition(node: &Node, diagnostics: &mut Diagnostics) -> Option<Option<Command>> {
    match &node.value {
        Value::Scalar(scalar) => match scalar.as_bool() {
            Some(true) => Some(None),
            Some(false) => None,
            None if scalar.is_null() => Some(None),
            None => Some(Some(Command::Line(scalar.text.clone()))),
        },
        _ => {
            let words = yaml::strings("power_state.condition", node, diagnostics);
            Some(Some(Command::Arguments(words)))
        }
    }
}

impl Finish {
    /// The script that does all of it, the power last; `None` when there is nothing to do. It runs in the console, in a
    /// POSIX shell, with `INSTANCE_ID`, `HOSTNAME_FULL` and `DATASOURCE` in its environment.
    pub fn script(&self) -> Option<String> {
        let mut script =
            String::from("#!/bin/sh\n# What cloud-config asks for when all is done.\n");
        let empty = script.len();
        if let Some(phone_home) = &self.phone_home {
            script.push_str(&phone_home.script());
        }
        if let Some(message) = &self.message {
            let text = message.trim_start_matches("## template: jinja\n");
            script.push_str(&format!(
                "text={}\nuptime=$(cut -d' ' -f1 /proc/uptime)\nversion=$(. /etc/os-release && echo \"$VERSION_ID\")\n\
                 now=$(LC_ALL=C date -R)\nprintf '%s\\n' \"$text\" | sed -e \"s|\\$uptime|$uptime|gI; s|{{{{ *uptime *}}}}|$uptime|gI; \
                 s|\\$version|$version|gI; s|{{{{ *version *}}}}|$version|gI; s|\\$timestamp|$now|gI; s|{{{{ *timestamp *}}}}|$now|gI; \
                 s|\\$datasource|$DATASOURCE|gI; s|{{{{ *datasource *}}}}|$DATASOURCE|gI\" | tee /dev/console\n",
                quote(text)
            ));
        }
        if let Some(power) = &self.power {
            script.push_str(&power.script());
        }
        (script.len() > empty).then_some(script)
    }
}

impl PhoneHome {
    fn script(&self) -> String {
        let mut script = String::from(
            "encode() { od -An -v -tx1 | tr -d ' \\n' | sed 's/../%&/g'; }\ndata=\n\
             add() { data=\"${data:+$data&}$1=$(printf %s \"$2\" | encode)\"; }\n",
        );
        for name in &self.post {
            let value = match name.strip_prefix("pub_key_") {
                Some(kind) => format!(
                    "\"$(cat /state/config/ssh/ssh_host_{kind}_key.pub 2>/dev/null || echo N/A)\""
                ),
                None if name == "instance_id" => "\"$INSTANCE_ID\"".to_owned(),
                None if name == "fqdn" => "\"$HOSTNAME_FULL\"".to_owned(),
                None => "\"$(hostname)\"".to_owned(),
            };
            script.push_str(&format!("add {name} {value}\n"));
        }
        // The id is whatever the data source says: it goes in between, unread.
        let url = self.url.replace("${INSTANCE_ID}", "$INSTANCE_ID");
        let url: Vec<String> = url.split("$INSTANCE_ID").map(quote).collect();
        script.push_str(&format!(
            "url={}\n\
             wget -q -O /dev/null --tries={} --retry-connrefused --waitretry=5 --timeout=10 --post-data=\"$data\" \"$url\" \\\n  || echo \"phone_home: $url was not reached\" >&2\n",
            url.join("\"$INSTANCE_ID\""),
            self.tries.max(1)
        ));
        script
    }
}

impl Power {
    fn script(&self) -> String {
        let condition = match &self.condition {
            None => "true".to_owned(),
            Some(Command::Line(line)) => format!("sh -c {}", quote(line)),
            Some(Command::Arguments(words)) => words
                .iter()
                .map(|word| quote(word))
                .collect::<Vec<_>>()
                .join(" "),
        };
        let message = self.message.as_ref().map_or_else(String::new, |message| {
            format!("  echo {} | tee /dev/console\n", quote(message))
        });
        // In the background: this script has to end for the instance's scripts to be done.
        format!(
            "if {condition}; then\n{message}  (sleep {}; {}) </dev/null >/dev/null 2>&1 &\nfi\n",
            u64::from(self.delay) * 60 + 1,
            self.mode
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Finish, Vec<String>) {
        let mut diagnostics = Diagnostics::new("user-data");
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let finish = parse(&top, &mut diagnostics);
        let messages = diagnostics.into_sorted();
        (finish, messages.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_end_is_a_script_that_a_shell_understands() {
        let (finish, messages) = read(
            "final_message: \"it's up after $UPTIME s\"\nphone_home: {url: 'http://x/$INSTANCE_ID', post: [pub_key_rsa, hostname], tries: 3}\n\
             power_state: {mode: reboot, delay: '+5', message: 'bye', condition: [test, -f, /a b]}\n",
        );
        assert_eq!(messages, [] as [&str; 0]);
        let script = finish.script().unwrap();
        let checked = std::process::Command::new("sh")
            .args(["-n", "-c", &script])
            .status();
        assert!(checked.unwrap().success(), "{script}");
        assert!(
            script.contains("s|{{ *version *}}|")
                && script.contains("url='http://x/'\"$INSTANCE_ID\"''"),
            "{script}"
        );
        assert!(
            script.contains("if 'test' '-f' '/a b'; then") && script.contains("sleep 301; reboot")
        );
        assert_eq!(read("hostname: a").0.script(), None);
    }

    #[test]
    fn wrong_ends_are_named() {
        let (finish, messages) = read("power_state: {mode: sleep}\nphone_home: {tries: 1}\n");
        assert_eq!((finish, messages.len()), (Finish::default(), 2));
        let (finish, _) = read("power_state: {mode: reboot, condition: false}\n");
        assert_eq!(finish.power, None);
    }
}
