//! Virtual machines and the ways to talk to them.
//!
//! * [`accel`]: which accelerator really works here
//! * [`artifacts`]: the files that the image builder writes
//! * [`cloud`]: a cloud's metadata service
//! * [`console`]: a person at the serial console
//! * [`definition`]: the service.yml files in the source tree
//! * [`disk`]: overlays, and what tests do to disks behind a machine's back
//! * [`docker`]: images made on the spot, and `docker` over SSH
//! * [`esp`]: files of the EFI system partition
//! * [`http`]: one request, one answer
//! * [`lab`]: what every test is given
//! * [`machine`]: the description of a machine, turned into QEMU's command line
//! * [`observer`]: commands run beside the system services (test image only)
//! * [`postgres`]: a database whose rows are counted
//! * [`process`]: host commands with a deadline
//! * [`proxy`]: a proxy on this machine
//! * [`qmp`]: QEMU's control socket
//! * [`registry`]: a registry on this machine; [`release`]: versions of the operating system
//! * [`replay`]: disks as power cuts would have left them
//! * [`seed`]: NoCloud seeds
//! * [`serial`]: the serial console
//! * [`snapshot`]: machines booted once and continued by many tests
//! * [`ssh`]: commands in the guest's console container
//! * [`status`]: what `keelson status --json` says
//! * [`vm`]: a running machine
//!
//! Nothing here sleeps: every wait ends with an event or at its deadline, and says what it waited for.

pub mod accel;
pub mod artifacts;
pub mod cloud;
pub mod console;
pub mod definition;
pub mod disk;
pub mod docker;
pub mod esp;
pub mod http;
pub mod lab;
pub mod machine;
pub mod observer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod qmp;
pub mod registry;
pub mod release;
pub mod replay;
pub mod seed;
pub mod serial;
pub mod snapshot;
pub mod ssh;
pub mod status;
pub mod vm;
