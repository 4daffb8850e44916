//! The description of a machine, turned into QEMU's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::harness::accel::Accel;
use crate::harness::artifacts::Artifacts;

/// Where the guest finds the page of [`Network::User`].
pub const PAGE_URL: &str = "http://10.0.2.100/";

/// Firmware code and the template of its variables (Debian's ovmf).
const FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The same with Secure Boot; its variables are written in system management mode only.
const SECURE_FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// Each machine gets a copy of its own.
pub(crate) const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// What starts the guest.
#[derive(Clone, Debug)]
pub enum Boot {
    /// UEFI firmware, from the first disk.
    Uefi,
    /// BIOS (QEMU's own SeaBIOS), from the first disk.
    Bios,
    /// The same with Secure Boot, its variables kept in a file.
    SecureUefi {
        /// The file: a copy of the template at first, in which no keys are enrolled.
        variables: PathBuf,
    },
    /// QEMU loads the kernel itself.
    Kernel {
        /// Kernel image.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: PathBuf,
        /// Kernel command line.
        cmdline: String,
    },
}

/// A virtio disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Image file.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: &'static str,
    /// Write-protected.
    pub read_only: bool,
    /// Where everything that is written is logged, in order, for [`crate::harness::replay`].
    pub log: Option<PathBuf>,
}

/// The machine's network.
#[derive(Clone, Debug)]
pub enum Network {
    /// No network card at all.
    None,
    /// One card on QEMU's own network with a DHCP server, from which nothing leaves to the host or beyond.
    User {
        /// Guest ports reachable from the host; the host's port is chosen by its kernel.
        forwards: Vec<u16>,
        /// A file with a whole HTTP answer, served to the guest at [`PAGE_URL`].
        page: Option<PathBuf>,
    },
    /// The same, in a cloud: the network is a part of 169.254.0.0/16, and a program is started for each connection to the address of
    /// a [`Cloud`](crate::harness::cloud::Cloud).
    Cloud {
        /// The program.
        bridge: PathBuf,
    },
}

impl Network {
    /// Guest ports reachable from the host.
    pub fn forwards(&self) -> &[u16] {
        match self {
            Network::None => &[],
            Network::User { forwards, .. } => forwards,
            Network::Cloud { .. } => &[22],
        }
    }
}

/// A machine to be started.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of CPUs.
    pub cpus: u32,
    /// What starts it.
    pub boot: Boot,
    /// Disks, in order.
    pub disks: Vec<Disk>,
    /// Network.
    pub network: Network,
    /// False: a reboot ends QEMU.
    pub reboots: bool,
    /// An i6300esb watchdog that resets the machine.
    pub watchdog: bool,
    /// A virtio-serial port for [`crate::harness::observer`].
    pub observer: bool,
    /// Saved memory to go on from instead of booting.
    pub incoming: Option<PathBuf>,
    /// Further options.
    pub extra: Vec<OsString>,
}

impl Machine {
    /// The usual machine: 2 GiB, two CPUs, SSH forwarded, no disk yet.
    pub fn new(boot: Boot) -> Self {
        Machine {
            memory_mib: 2048,
            cpus: 2,
            boot,
            disks: Vec::new(),
            network: Network::User {
                forwards: vec![22],
                page: None,
            },
            reboots: true,
            watchdog: false,
            observer: false,
            incoming: None,
            extra: Vec::new(),
        }
    }

    /// The usual machine, QEMU loading the image's own kernel with its own command line.
    ///
    /// # Errors
    /// When the command line cannot be read.
    pub fn direct(artifacts: &Artifacts) -> anyhow::Result<Self> {
        Ok(Machine::new(Boot::Kernel {
            kernel: artifacts.kernel(),
            initrd: artifacts.initrd(),
            cmdline: artifacts.cmdline()?,
        }))
    }

    /// Adds a writable qcow2 disk.
    pub fn with_disk(mut self, path: &Path) -> Self {
        self.disks.push(Disk {
            path: path.to_owned(),
            format: "qcow2",
            read_only: false,
            log: None,
        });
        self
    }

    /// Adds a writable raw disk whose writes are logged.
    pub fn with_logged(mut self, path: &Path, log: &Path) -> Self {
        self.disks.push(Disk {
            path: path.to_owned(),
            format: "raw",
            read_only: false,
            log: Some(log.to_owned()),
        });
        self
    }

    /// Adds a write-protected raw disk, such as a seed.
    pub fn with_raw(mut self, path: &Path) -> Self {
        self.disks.push(Disk {
            path: path.to_owned(),
            format: "raw",
            read_only: true,
            log: None,
        });
        self
    }

    /// QEMU's arguments. `dir` holds the machine's sockets and firmware variables.
    pub(crate) fn arguments(&self, accel: Accel, dir: &Path) -> Vec<OsString> {
        let mut args = Arguments::default();
        args.add(&[
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            self.platform(),
        ]);
        args.add(&accel.options());
        args.add(&[
            "-m",
            &self.memory_mib.to_string(),
            "-smp",
            &self.cpus.to_string(),
        ]);
        args.add(&["-serial", "stdio", "-device", "virtio-rng-pci"]);
        args.add(&[
            "-chardev",
            &format!("socket,id=qmp,path={}", dir.join("qmp").display()),
        ]);
        args.add(&["-mon", "chardev=qmp,mode=control"]);
        self.add_boot(&mut args, dir);
        for (index, disk) in self.disks.iter().enumerate() {
            let boots = index == 0 && !matches!(self.boot, Boot::Kernel { .. });
            add_disk(&mut args, index, disk, boots);
        }
        self.add_network(&mut args);
        if self.watchdog {
            args.add(&["-device", "i6300esb", "-action", "watchdog=reset"]);
        }
        if !self.reboots {
            args.add(&["-action", "reboot=shutdown"]);
        }
        if self.observer {
            args.add(&[
                "-chardev",
                &format!("socket,id=observer,path={}", dir.join("observer").display()),
            ]);
            args.add(&[
                "-device",
                "virtio-serial-pci",
                "-device",
                "virtserialport,chardev=observer,nr=1",
            ]);
        }
        if self.incoming.is_some() {
            args.add(&["-incoming", "defer"]);
        }
        args.0.extend(self.extra.iter().cloned());
        args.0
    }

    fn platform(&self) -> &'static str {
        match self.boot {
            Boot::SecureUefi { .. } => "q35,smm=on",
            Boot::Uefi | Boot::Bios | Boot::Kernel { .. } => "q35",
        }
    }

    fn add_boot(&self, args: &mut Arguments, dir: &Path) {
        match &self.boot {
            Boot::Bios => {}
            Boot::Uefi => {
                add_firmware(args, FIRMWARE_CODE, &dir.join("firmware-variables"));
            }
            Boot::SecureUefi { variables } => {
                add_firmware(args, SECURE_FIRMWARE_CODE, variables);
                args.add(&["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            }
            Boot::Kernel {
                kernel,
                initrd,
                cmdline,
            } => {
                args.0.extend([
                    "-kernel".into(),
                    kernel.into(),
                    "-initrd".into(),
                    initrd.into(),
                ]);
                args.add(&["-append", cmdline]);
            }
        }
    }

    fn add_network(&self, args: &mut Arguments) {
        if matches!(self.network, Network::None) {
            return args.add(&["-nic", "none"]);
        }
        let mut netdev = String::from("user,id=net0,restrict=on");
        if let Network::Cloud { bridge } = &self.network {
            netdev.push_str(&format!(
                ",net=169.254.169.0/24,guestfwd=tcp:{}:80-cmd:{}",
                crate::harness::cloud::ADDRESS,
                escape(bridge)
            ));
        }
        for port in self.network.forwards() {
            netdev.push_str(&format!(",hostfwd=tcp:127.0.0.1:0-:{port}"));
        }
        if let Network::User {
            page: Some(page), ..
        } = &self.network
        {
            netdev.push_str(&format!(
                ",guestfwd=tcp:10.0.2.100:80-cmd:cat {}",
                escape(page)
            ));
        }
        args.add(&["-netdev", &netdev, "-device", "virtio-net-pci,netdev=net0"]);
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }
}

fn add_firmware(args: &mut Arguments, code: &str, variables: &Path) {
    args.add(&[
        "-drive",
        &format!("if=pflash,format=raw,readonly=on,file={code}"),
    ]);
    args.add(&[
        "-drive",
        &format!("if=pflash,format=raw,file={}", escape(variables)),
    ]);
}

fn add_disk(args: &mut Arguments, index: usize, disk: &Disk, boots: bool) {
    let access = if disk.read_only {
        "readonly=on"
    } else {
        "cache=writeback,discard=unmap"
    };
    let (file, format) = (escape(&disk.path), disk.format);
    let (drive, device) = match &disk.log {
        None => (format!("format={format},file={file},{access}"), ""),
        // What is logged is what the guest has written, request by request.
        Some(log) => (
            format!(
                "driver=blklogwrites,file.driver={format},file.file.driver=file,file.file.filename={file},log.driver=raw,log.file.driver=file,log.file.filename={},cache.direct=off",
                escape(log)
            ),
            ",request-merging=off,discard=off,write-zeroes=off",
        ),
    };
    args.add(&["-drive", &format!("if=none,id=disk{index},{drive}")]);
    let order = if boots { ",bootindex=1" } else { "" };
    args.add(&[
        "-device",
        &format!("virtio-blk-pci,drive=disk{index}{order}{device}"),
    ]);
}

/// QEMU's option lists double their commas.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: &Machine) -> String {
        let words = machine.arguments(Accel::Tcg, Path::new("/run/vm"));
        words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn nothing_leaves_the_user_network_and_ports_are_chosen_by_the_kernel() {
        let mut machine = Machine::new(Boot::Uefi);
        machine.network = Network::User {
            forwards: vec![22, 80],
            page: Some("/tmp/a,b".into()),
        };
        let line = line(&machine);
        assert!(line.contains(
            "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:80"
        ));
        assert!(line.contains("guestfwd=tcp:10.0.2.100:80-cmd:cat /tmp/a,,b"));
    }

    #[test]
    fn a_machine_without_network_has_no_card() {
        let mut machine = Machine::new(Boot::Uefi);
        machine.network = Network::None;
        let line = line(&machine);
        assert!(line.contains("-nic none") && !line.contains("virtio-net"));
    }

    #[test]
    fn secure_boot_keeps_its_variables_in_system_management_mode() {
        let variables = "/v".into();
        let line = line(&Machine::new(Boot::SecureUefi { variables }).with_disk(Path::new("/a")));
        for part in [
            "q35,smm=on",
            "secboot.fd",
            "file=/v",
            "value=on",
            "bootindex=1",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn disks_keep_their_order_and_write_protection() {
        let machine = Machine::new(Boot::Uefi)
            .with_disk(Path::new("/a.qcow2"))
            .with_raw(Path::new("/seed"));
        let line = line(&machine);
        assert!(line.contains("id=disk0,format=qcow2,file=/a.qcow2,cache=writeback"));
        assert!(line.contains("id=disk1,format=raw,file=/seed,readonly=on"));
    }
}
