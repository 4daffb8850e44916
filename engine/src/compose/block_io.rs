//! `blkio_config`: how fast a service may read from and write to disks.

use super::values::{ByteSize, scalar};
use serde::{Deserialize, Deserializer};
use std::str::FromStr;

/// A limit on one disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The device node of the disk, or of one of its partitions, on the host.
    pub path: String,
    /// Bytes or operations a second.
    #[serde(deserialize_with = "rate")]
    pub rate: u64,
}

/// Limits on disks. Weights are left out: without BFQ or io.cost on a disk they would mean nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockIo {
    /// Bytes a second that are read.
    pub device_read_bps: Vec<Rate>,
    /// Bytes a second that are written.
    pub device_write_bps: Vec<Rate>,
    /// Read operations a second.
    pub device_read_iops: Vec<Rate>,
    /// Write operations a second.
    pub device_write_iops: Vec<Rate>,
}

impl BlockIo {
    /// All limits, each with its key in `linux.resources.blockIO` of the OCI runtime specification.
    pub fn limits(&self) -> [(&'static str, &[Rate]); 4] {
        [
            ("throttleReadBpsDevice", &self.device_read_bps),
            ("throttleWriteBpsDevice", &self.device_write_bps),
            ("throttleReadIOPSDevice", &self.device_read_iops),
            ("throttleWriteIOPSDevice", &self.device_write_iops),
        ]
    }
}

/// Reads a number that is not 0, or a size.
struct PerSecond(u64);

impl FromStr for PerSecond {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse()? {
            ByteSize(0) => Err("a rate is 1 or more".to_owned()),
            ByteSize(rate) => Ok(Self(rate)),
        }
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    scalar(deserializer).map(|PerSecond(rate)| rate)
}
