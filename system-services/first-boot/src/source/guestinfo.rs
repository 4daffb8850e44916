//! VMware's guestinfo, by the hypervisor's own call (the "backdoor"): an instruction that only works where it is VMware's
//! hypervisor that says so, and needs no privilege there.

use keelson_config::Diagnostics;
use keelson_config::sources::machine::Machine;
use keelson_config::sources::{Source, vmware};
use vmw_backdoor::VmwError;

use crate::report::Report;

/// What the variables say of this machine; `None` when it is none of VMware's, or nothing is said.
pub(crate) fn find(
    machine: &Machine,
    diagnostics: &mut Diagnostics,
    report: &mut Report,
) -> Option<Source> {
    // The firmware's word alone is not enough: anywhere else the instruction would end this program.
    if !machine.dmi("sys_vendor").starts_with("VMware") || !vmw_backdoor::is_vmware_cpu() {
        return None;
    }
    let uuid = machine.dmi("product_uuid");
    match ask(uuid, diagnostics) {
        Ok(source) => source,
        Err(error) => {
            report.error(format!("read VMware's guestinfo: {error}"));
            None
        }
    }
}

fn ask(uuid: &str, diagnostics: &mut Diagnostics) -> Result<Option<Source>, VmwError> {
    let mut guard = vmw_backdoor::access_backdoor()?;
    guard.probe_vmware_backdoor()?;
    let mut channel = guard.open_enhanced_chan()?;
    let mut get = |name: &str| channel.get_guestinfo(name.as_bytes());
    vmware::read(&mut get, uuid, diagnostics)
}
