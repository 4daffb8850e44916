//! What is set of an interface as a part of a bridge or a bond.

use rtnetlink::{LinkBond, LinkBridgePort, LinkMessageBuilder};

use super::{Kernel, KernelError};
use crate::config::Port;

impl Kernel {
    /// Sets what `port` says of the link `index`, a part of `controller`.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_port(
        &self,
        index: u32,
        controller: u32,
        port: &Port,
    ) -> Result<(), KernelError> {
        if port.cost.is_some() || port.priority.is_some() {
            let mut message = LinkBridgePort::new(index);
            if let Some(cost) = port.cost {
                message = message.cost(cost);
            }
            if let Some(priority) = port.priority {
                message = message.priority(priority);
            }
            self.change(message.build(), "setting path cost and priority")
                .await?;
        }
        if port.primary {
            let message = LinkMessageBuilder::<LinkBond>::new("").index(controller);
            let message = message.primary(index).build();
            self.change(message, "making it the bond's primary").await?;
        }
        Ok(())
    }
}
