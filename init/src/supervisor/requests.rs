//! What the engine asks of PID 1 over the control socket.

use super::{Phase, Supervisor, TOKEN_ENGINE};
use crate::cmdline::is_hostname;
use crate::root::cgroups;
use crate::{HURRY, files, kmsg};
use keelson_sys::control::{Packet, ToInit};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// So many packets are taken before other events have their turn.
const PACKETS_AT_ONCE: usize = 64;

impl Supervisor {
    pub(super) fn on_engine(&mut self, flags: EpollFlags) {
        if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            for _ in 0..PACKETS_AT_ONCE {
                let (Phase::Running(engine) | Phase::Stopping(Some(engine), ..)) = &self.phase
                else {
                    return;
                };
                match engine.receive() {
                    Ok(Some(packet)) => self.on_packet(packet),
                    Ok(None) => break,
                    Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                        kmsg::error(format_args!(
                            "the engine sent a packet that is ignored: {error}"
                        ));
                    }
                    Err(error) => return self.disown_engine(&error),
                }
            }
        }
        self.flush_engine();
    }

    fn on_packet(&mut self, packet: Packet) {
        let message = match ToInit::decode(&packet.bytes) {
            Ok(message) => message,
            Err(error) => {
                kmsg::error(format_args!(
                    "the engine sent a packet that is ignored: {error}"
                ));
                return;
            }
        };
        match (message, packet.fd) {
            (ToInit::Store { name }, Some(fd)) => {
                let stored = self.descriptors.store(name.clone(), fd);
                kmsg::tolerate(
                    format_args!("store descriptor {name:?} of the engine"),
                    stored,
                );
            }
            (ToInit::Store { name }, None) => {
                kmsg::error(format_args!(
                    "the engine wants {name:?} stored, but sent no descriptor"
                ));
            }
            (ToInit::Drop { name }, _) => self.descriptors.remove(&name),
            (ToInit::Ack { seq }, _) => self.exits.acknowledge(seq),
            (ToInit::Power { action }, _) => self.begin_shutdown(action),
            (ToInit::Hostname { name }, _) if is_hostname(&name) => {
                kmsg::tolerate("set the host name", nix::unistd::sethostname(&name));
            }
            (ToInit::Hostname { name }, _) => {
                kmsg::error(format_args!("{name:?} is no host name; it is ignored"))
            }
            (ToInit::Ready, _) => self.backoff.ready(),
            (ToInit::UserSettled, _) => {
                cgroups::weigh(&cgroups::WEIGHTS);
                kmsg::tolerate("let the kernel take its time again", files::set(HURRY, "0"));
            }
            (ToInit::Healthy, _) => self.trial.passed(),
            (ToInit::Stopped, _) => {
                if let Phase::Stopping(_, action, _) = &self.phase {
                    let action = *action;
                    self.finish(action);
                } else {
                    kmsg::error("the engine says it has stopped, but nobody asked it to; ignored");
                }
            }
        }
    }

    /// Sends what waits for the engine, and watches for room when it does not all fit.
    pub(super) fn flush_engine(&mut self) {
        let (Phase::Running(engine) | Phase::Stopping(Some(engine), ..)) = &mut self.phase else {
            return;
        };
        match engine.flush(&self.descriptors) {
            Ok(done) => {
                let mut flags = EpollFlags::EPOLLIN;
                flags.set(EpollFlags::EPOLLOUT, !done);
                let watched = self
                    .epoll
                    .modify(engine.socket(), &mut EpollEvent::new(flags, TOKEN_ENGINE));
                kmsg::tolerate("watch the control socket", watched);
            }
            Err(error) => self.disown_engine(&error),
        }
    }

    /// The control socket is broken: without it the engine is of no use, and its end brings a new one. When it has
    /// just died its exit follows by itself.
    fn disown_engine(&mut self, error: &std::io::Error) {
        let (Phase::Running(engine) | Phase::Stopping(Some(engine), ..)) = &self.phase else {
            return;
        };
        kmsg::info(format_args!(
            "the engine's control socket is closed: {error}"
        ));
        kmsg::tolerate(
            "stop watching the control socket",
            self.epoll.delete(engine.socket()),
        );
        // Gone already is as good.
        let _ = kill(Pid::from_raw(engine.pid()), Signal::SIGKILL);
    }
}
