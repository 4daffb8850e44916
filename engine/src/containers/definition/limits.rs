//! Limits of a container, and what happens at its end.

use super::text;
use crate::compose::Service;
use crate::compose::block_io::{BlockIo, Rate};
use crate::compose::lists::Ordered;
use crate::compose::service::Ulimit;
use crate::compose::values::{ByteSize, Cpus, Restart, SwapLimit};
use crate::spec::rlimit_name;
use bollard_stubs::models::{HostConfig, RestartPolicyNameEnum, ThrottleDevice};

/// The period that quotas of processor time are told in unless a client tells another, in microseconds.
const CPU_PERIOD_US: i64 = 100_000;

/// Limits, and what happens at the end.
pub fn limit(service: &mut Service, host: &HostConfig) -> Result<(), String> {
    let bytes = |value: Option<i64>| {
        let bytes = value.and_then(|value| u64::try_from(value).ok());
        bytes.filter(|bytes| *bytes > 0).map(ByteSize)
    };
    service.mem_limit = bytes(host.memory);
    service.mem_reservation = bytes(host.memory_reservation);
    // As much swap as memory, as in Docker.
    let twice = host
        .memory
        .filter(|limit| *limit > 0)
        .map(|limit| limit.saturating_mul(2));
    let swap = host.memory_swap.filter(|limit| *limit != 0);
    service.memswap_limit = swap.or(twice).map(SwapLimit);
    service.shm_size = bytes(host.shm_size);
    service.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    service.cpu_shares = host
        .cpu_shares
        .and_then(|shares| u64::try_from(shares).ok())
        .filter(|shares| *shares > 0);
    service.cpuset = text(&host.cpuset_cpus);
    service.cpus = processors(host).map(Cpus);
    service.restart = restart(host)?;
    let rates = |list: &Option<Vec<ThrottleDevice>>| {
        let list = list.iter().flatten();
        let rate = |limit: &ThrottleDevice| {
            let rate = u64::try_from(limit.rate?).ok().filter(|rate| *rate > 0)?;
            let path = limit.path.clone()?;
            Some(Rate { path, rate })
        };
        list.filter_map(rate).collect()
    };
    service.blkio_config = BlockIo {
        device_read_bps: rates(&host.blkio_device_read_bps),
        device_write_bps: rates(&host.blkio_device_write_bps),
        device_read_iops: rates(&host.blkio_device_read_iops),
        device_write_iops: rates(&host.blkio_device_write_iops),
    };
    service.oom_score_adj = match host.oom_score_adj.unwrap_or(0) {
        0 => None,
        adjustment => match i32::try_from(adjustment) {
            Ok(adjustment) if (-1000..=1000).contains(&adjustment) => Some(adjustment),
            _ => {
                return Err(format!(
                    "Invalid value {adjustment}, range for oom score adj is [-1000, 1000]"
                ));
            }
        },
    };
    let mut ulimits = Vec::new();
    for limit in host.ulimits.iter().flatten() {
        let name = limit.name.clone().unwrap_or_default();
        if rlimit_name(&name).is_none() {
            return Err(format!("invalid ulimit type: {name}"));
        }
        let (soft, hard) = (limit.soft.unwrap_or(0), limit.hard.unwrap_or(0));
        ulimits.push((name, Ulimit { soft, hard }));
    }
    service.ulimits = Ordered(ulimits);
    Ok(())
}

/// Processor time in thousandths of a processor.
fn processors(host: &HostConfig) -> Option<u64> {
    let nano = host.nano_cpus.unwrap_or(0);
    let quota = host.cpu_quota.unwrap_or(0);
    let period = host.cpu_period.filter(|period| *period > 0);
    let milli = match (nano, quota) {
        (1.., _) => nano / 1_000_000,
        (_, 1..) => quota.checked_mul(1000)? / period.unwrap_or(CPU_PERIOD_US),
        _ => return None,
    };
    u64::try_from(milli).ok().filter(|milli| *milli > 0)
}

fn restart(host: &HostConfig) -> Result<Restart, String> {
    let Some(policy) = &host.restart_policy else {
        return Ok(Restart::No);
    };
    let count = policy.maximum_retry_count.unwrap_or(0);
    let restart = match policy.name {
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => Restart::No,
        Some(RestartPolicyNameEnum::ALWAYS) => Restart::Always,
        Some(RestartPolicyNameEnum::UNLESS_STOPPED) => Restart::UnlessStopped,
        Some(RestartPolicyNameEnum::ON_FAILURE) => {
            let limit = u32::try_from(count)
                .map_err(|_| "maximum retry count cannot be negative".to_owned())?;
            return Ok(Restart::OnFailure(Some(limit).filter(|limit| *limit > 0)));
        }
    };
    if count != 0 {
        return Err(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                .to_owned(),
        );
    }
    if restart != Restart::No && host.auto_remove == Some(true) {
        return Err("can't create 'AutoRemove' container with restart policy".to_owned());
    }
    Ok(restart)
}
