//! DHCP servers and routers: Debian's dnsmasq, and others.

use std::process::Stdio;

use super::{Lab, SOON, follow};

impl Lab {
    /// Starts dnsmasq in the server's namespace, to lend addresses in 10.77.0.`first` to 10.77.0.`last` for two minutes,
    /// the shortest that it can do. It listens when this returns.
    pub(crate) fn start_server(&mut self, first: u8, last: u8, options: &[&str]) {
        assert!(self.dnsmasq.is_none());
        let mut command = self.server.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--log-facility=-",
            "--log-dhcp",
            "--pid-file=",
        ]);
        command.args([
            "--user=root",
            "--port=0",
            "--no-ping",
            "--dhcp-authoritative",
            "--interface=s*",
        ]);
        command.args(["--bind-dynamic", "--dhcp-broadcast=tag:never"]);
        command.arg(format!(
            "--dhcp-range=10.77.0.{first},10.77.0.{last},255.255.255.0,120"
        ));
        command.arg(format!(
            "--dhcp-leasefile={}",
            self.path("dnsmasq.leases").display()
        ));
        command.args(options);
        let mut server = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("dnsmasq cannot be run: is dnsmasq-base there?");
        let before = self.server_log.count("started");
        follow(
            server.stderr.take().unwrap(),
            self.server_log.clone(),
            self.wake.clone(),
        );
        self.dnsmasq = Some(server);
        self.wait("the server is started", SOON, |lab| {
            lab.server_log.count("started") > before
        });
    }

    /// Ends the server without a word to anybody.
    pub(crate) fn stop_server(&mut self) {
        let mut server = self.dnsmasq.take().expect("the server runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Makes the server forget what it lent to whom.
    pub(crate) fn forget_server_leases(&self) {
        let _ = std::fs::remove_file(self.path("dnsmasq.leases"));
    }

    /// Starts a program in the server's namespace, and waits until it says `ready`. What it prints goes where the server's words go.
    pub(crate) fn start_peer(&mut self, program: &str, arguments: &[&str], ready: &str) {
        let mut command = self.server.command(program);
        command.args(arguments);
        // Where Kea has its files.
        for variable in [
            "KEA_PIDFILE_DIR",
            "KEA_LOCKFILE_DIR",
            "KEA_DHCP_DATA_DIR",
            "KEA_LOGGER_DESTINATION",
        ] {
            let value = match variable {
                "KEA_LOGGER_DESTINATION" => "stdout".into(),
                _ => self.directory.path().to_owned(),
            };
            command.env(variable, value);
        }
        let mut peer = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
        let before = self.server_log.count(ready);
        let (log, wake) = (self.server_log.clone(), self.wake.clone());
        follow(peer.stdout.take().unwrap(), log.clone(), wake.clone());
        follow(peer.stderr.take().unwrap(), log, wake);
        self.peers.push(peer);
        self.wait(program, SOON, |lab| lab.server_log.count(ready) > before);
    }

    /// Ends the programs that were started so, without a word to anybody.
    pub(crate) fn stop_peers(&mut self) {
        for mut peer in self.peers.drain(..) {
            let _ = peer.kill(); // it may have ended by itself
            let _ = peer.wait();
        }
    }
}
