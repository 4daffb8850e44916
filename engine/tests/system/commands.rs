//! Random commands, deaths of programs and crashes of the engine: containers are what a simple model says.

use crate::failpoints::nothing_is_left;
use crate::kills::Client;
use crate::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// So many orders of commands, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 16;
const NAMES: [&str; 2] = ["one", "two"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Created,
    Running,
    Paused,
    Exited,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Create,
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Unpause,
    Remove,
    ForceRemove,
    /// The program dies by itself.
    Die,
    /// The engine does.
    Crash,
}

fn any_command() -> impl Strategy<Value = (usize, Command)> {
    let command = prop::sample::select(vec![
        Command::Create,
        Command::Create,
        Command::Start,
        Command::Start,
        Command::Stop,
        Command::Kill,
        Command::Restart,
        Command::Pause,
        Command::Unpause,
        Command::Remove,
        Command::ForceRemove,
        Command::Die,
        Command::Crash,
    ]);
    (0..NAMES.len(), command)
}

impl State {
    /// The status that Docker answers with, and what the container is then.
    fn after(self, command: Command) -> (u16, Self) {
        use State::{Absent, Created, Exited, Paused, Running};
        match (command, self) {
            (Command::Create, Absent) => (201, Created),
            (Command::Create, _) => (409, self),
            (_, Absent) => (404, Absent),
            (Command::Start, Created | Exited) => (204, Running),
            (Command::Start, Running) => (304, Running),
            (Command::Start, Paused) => (409, Paused),
            (Command::Stop, Running | Paused) => (204, Exited),
            (Command::Stop, _) => (304, self),
            (Command::Kill, Running | Paused) => (204, Exited),
            (Command::Restart, _) => (204, Running),
            (Command::Pause, Running) => (204, Paused),
            (Command::Unpause, Paused) => (204, Running),
            (Command::Unpause, Running) => (500, Running),
            (Command::Remove, Created | Exited) | (Command::ForceRemove, _) => (204, Absent),
            (Command::Kill | Command::Pause | Command::Unpause | Command::Remove, _) => (409, self),
            (Command::Die, Running) => (0, Exited),
            (Command::Die | Command::Crash, _) => (0, self),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Absent => "",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }
}

struct Model {
    world: World,
    client: Client,
    states: [State; NAMES.len()],
}

impl Model {
    fn state(&self, name: &str) -> Value {
        let path = format!("/containers/{name}/json");
        self.client.ask("GET", &path, "").1["State"].clone()
    }

    fn act(&mut self, at: usize, command: Command) {
        let name = NAMES[at];
        let (status, after) = self.states[at].after(command);
        let (method, path) = match command {
            Command::Create => ("POST", format!("/containers/create?name={name}")),
            Command::Start => ("POST", format!("/containers/{name}/start")),
            Command::Stop => ("POST", format!("/containers/{name}/stop")),
            Command::Kill => ("POST", format!("/containers/{name}/kill")),
            Command::Restart => ("POST", format!("/containers/{name}/restart")),
            Command::Pause => ("POST", format!("/containers/{name}/pause")),
            Command::Unpause => ("POST", format!("/containers/{name}/unpause")),
            Command::Remove => ("DELETE", format!("/containers/{name}")),
            Command::ForceRemove => ("DELETE", format!("/containers/{name}?force=1")),
            Command::Die => return self.die(at, after),
            Command::Crash => {
                self.world.kill_engine();
                return self.world.start_engine();
            }
        };
        let body = match command {
            Command::Create => json!({
                "Image": "keelson/box", "Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL",
                "HostConfig": {"NetworkMode": "none"},
            })
            .to_string(),
            _ => String::new(),
        };
        let (answered, said) = self.client.ask(method, &path, &body);
        assert_eq!(
            answered, status,
            "{command:?} of {name}, {:?}: {said}",
            self.states[at]
        );
        self.states[at] = after;
    }

    fn die(&mut self, at: usize, after: State) {
        if self.states[at] != State::Running {
            return;
        }
        let pid = self.state(NAMES[at])["Pid"].as_i64().unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        let path = format!("/containers/{}/wait", NAMES[at]);
        let (_, answer) = self.client.ask("POST", &path, "");
        assert_eq!(answer["StatusCode"], 137);
        self.states[at] = after;
    }

    /// The API shows what the model has.
    fn check(&self) {
        for (name, state) in NAMES.iter().zip(self.states) {
            let seen = self.state(name);
            let word = seen["Status"].as_str().unwrap_or_default();
            assert_eq!(word, state.word(), "{name}: {seen}");
            let code = if state == State::Exited { 137 } else { 0 };
            assert_eq!(
                seen["ExitCode"].as_i64().unwrap_or(0),
                code,
                "{name}: {seen}"
            );
            let runs = matches!(state, State::Running | State::Paused);
            assert_eq!(
                seen["Pid"].as_i64().unwrap_or(0) > 0,
                runs,
                "{name}: {seen}"
            );
        }
    }
}

#[test]
fn whatever_is_done_in_whatever_order_containers_are_what_a_model_says() {
    let Some(world) = World::new(&[], true) else {
        return;
    };
    drop(world);
    let mut runner = TestRunner::new(Config {
        cases: std::env::var("PROPTEST_CASES").map_or(CASES, |text| text.parse().unwrap()),
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    });
    let commands = prop::collection::vec(any_command(), 30..60);
    let run = |commands: Vec<(usize, Command)>| {
        let mut world = World::new(&[], true).unwrap();
        world.start_engine();
        let mut model = Model {
            client: Client {
                socket: world.run().join("system.sock"),
            },
            world,
            states: [State::Absent; NAMES.len()],
        };
        for (at, command) in commands {
            model.act(at, command);
            model.check();
        }
        for at in 0..NAMES.len() {
            if model.states[at] != State::Absent {
                model.act(at, Command::ForceRemove);
            }
        }
        nothing_is_left(&model.world, "when all is removed");
        Ok(())
    };
    runner.run(&commands, run).unwrap();
}
