//! Command lists (`runcmd`) as shell scripts, in cloud-init's way.

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell, as it is.
    Line(String),
    /// A program and its arguments, none of which the shell may interpret.
    Arguments(Vec<String>),
}

/// The script that runs `commands` one after the other, whether or not one fails.
pub fn script(commands: &[Command]) -> String {
    let mut script = String::from("#!/bin/sh\n");
    for command in commands {
        match command {
            Command::Line(line) => script.push_str(line),
            Command::Arguments(arguments) => {
                let quoted: Vec<String> =
                    arguments.iter().map(|argument| quote(argument)).collect();
                script.push_str(&quoted.join(" "));
            }
        }
        script.push('\n');
    }
    script
}

/// The argument in single quotes, as one word for a shell.
pub fn quote(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_as_they_are_and_arguments_are_quoted() {
        let commands = [
            Command::Line("echo $HOME".into()),
            Command::Arguments(vec!["printf".into(), "it's".into(), "$HOME".into()]),
        ];
        assert_eq!(
            script(&commands),
            "#!/bin/sh\necho $HOME\n'printf' 'it'\\''s' '$HOME'\n"
        );
    }
}
