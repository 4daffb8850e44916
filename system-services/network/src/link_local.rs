//! An IPv4 address that an interface chooses itself (RFC 3927): probed, announced, defended, given up for another one.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use keelson_config::network::Cidr;
use keelson_sys::packet::{ETHERTYPE_ARP, PacketSocket};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::dhcp4::arp;
use crate::dhcp4::random::Random;
use crate::log;
use crate::watched::Watched;

/// RFC 3927 section 9.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u32 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_NUM: u32 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const MAX_CONFLICTS: u32 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

const PREFIX: u8 = 16;
/// Wait before an interface that sends nothing is tried again.
const RETRY: Duration = Duration::from_secs(10);
const EVERYBODY: [u8; 6] = [0xff; 6];

/// Where choices go, with the interface's index and the chooser's number. `None` gives the address up.
pub type Outcomes = UnboundedSender<(u32, u64, Option<Ipv4Addr>)>;

/// What a chooser needs to know.
#[derive(Debug)]
pub struct Setup {
    /// The interface's index.
    pub index: u32,
    /// The chooser's number.
    pub generation: u64,
    /// The interface's name, for messages.
    pub name: String,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
    /// An address of this kind that it has already.
    pub present: Option<Ipv4Addr>,
}

/// Chooses an address for an interface; dropping it ends that.
#[derive(Debug)]
pub struct LinkLocal {
    carrier: watch::Sender<bool>,
    task: JoinHandle<()>,
    generation: u64,
    address: Option<Ipv4Addr>,
}

impl LinkLocal {
    /// Starts. Nothing happens before there is a carrier; an address that the interface has already is kept until then, and as
    /// long as nobody else has it.
    pub fn start(setup: Setup, outcomes: Outcomes) -> Self {
        let (carrier, carrier_events) = watch::channel(false);
        let (generation, address) = (setup.generation, setup.present);
        let chooser = Chooser {
            setup,
            carrier: carrier_events,
            outcomes,
        };
        Self {
            carrier,
            task: tokio::spawn(chooser.run()),
            generation,
            address,
        }
    }

    /// Which of the choosers it is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells it whether there is a carrier.
    pub fn set_carrier(&self, carrier: bool) {
        self.carrier.send_replace(carrier);
    }

    /// Remembers what was chosen; gives what was before.
    pub fn set_address(&mut self, address: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        std::mem::replace(&mut self.address, address)
    }

    /// What was chosen, with the length of the network's prefix.
    pub fn address(&self) -> Option<Cidr> {
        Some(Cidr {
            address: self.address?.into(),
            prefix: PREFIX,
        })
    }
}

impl Drop for LinkLocal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Addresses to try, the same ones after each start (RFC 3927 2.1): 169.254.1.0 to 169.254.254.255.
struct Candidates(Random);

impl Candidates {
    fn new(hardware_address: [u8; 6]) -> Self {
        let mut seed = [0; 8];
        seed[2..].copy_from_slice(&hardware_address);
        Self(Random::from_seed(u64::from_be_bytes(seed)))
    }

    fn next(&mut self) -> Ipv4Addr {
        let number = self.0.next_u64();
        let third = u8::try_from((number >> 8) % 254).unwrap_or(0) + 1;
        let fourth = u8::try_from(number & 0xff).unwrap_or(0);
        Ipv4Addr::new(169, 254, third, fourth)
    }
}

/// Why an address is not used any more.
enum End {
    /// Somebody else has it.
    Conflict,
    /// The cable was pulled and is back: whether it is still free has to be found out.
    Carrier,
    /// The service ends.
    Over,
}

/// Whose hardware address a packet names that speaks against having an address; the last one is our own.
type Against = fn(&[u8], Ipv4Addr, [u8; 6]) -> Option<[u8; 6]>;

struct Chooser {
    setup: Setup,
    carrier: watch::Receiver<bool>,
    outcomes: Outcomes,
}

impl Chooser {
    async fn run(mut self) {
        let mut candidates = Candidates::new(self.setup.hardware_address);
        let present = self.setup.present;
        let mut address = present.unwrap_or_else(|| candidates.next());
        let mut conflicts = 0;
        let mut last_words = String::new();
        loop {
            if self.carrier.wait_for(|carrier| *carrier).await.is_err() {
                return;
            }
            let mut was_had = false;
            match self.have(address, &mut was_had).await {
                Ok(End::Conflict) => {
                    self.tell(None);
                    conflicts = if was_had { 0 } else { conflicts + 1 };
                    address = candidates.next();
                    if conflicts >= MAX_CONFLICTS {
                        sleep(RATE_LIMIT_INTERVAL).await;
                    }
                }
                Ok(End::Carrier) => {}
                Ok(End::Over) => return,
                Err(error) => {
                    let words = error.to_string();
                    if words != last_words && *self.carrier.borrow() {
                        log!(
                            Warning,
                            "{}: choosing an address: {words}; will try again",
                            self.setup.name
                        );
                        last_words = words;
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn tell(&self, address: Option<Ipv4Addr>) {
        let Setup {
            index, generation, ..
        } = self.setup;
        let _ = self.outcomes.send((index, generation, address)); // the service is ending
    }

    /// Probes an address, has it, and defends it as long as it can. `was_had` tells whether it came to that.
    async fn have(&mut self, address: Ipv4Addr, was_had: &mut bool) -> io::Result<End> {
        let own = self.setup.hardware_address;
        let socket = PacketSocket::open(self.setup.index, ETHERTYPE_ARP, &arp::filter(address))?;
        let socket = Watched::new(socket)?;
        let mut random = Random::from_kernel()?;
        let mut wait = random.below(PROBE_WAIT);
        for number in 0..=PROBE_NUM {
            if let Some(end) = self.hear(&socket, address, wait, arp::conflict).await? {
                return Ok(end);
            }
            if number == PROBE_NUM {
                break;
            }
            socket.get().send(EVERYBODY, &arp::probe(own, address))?;
            wait = match number + 1 {
                PROBE_NUM => ANNOUNCE_WAIT,
                _ => PROBE_MIN + random.below(PROBE_MAX - PROBE_MIN),
            };
        }
        *was_had = true;
        self.tell(Some(address));
        let announcement = arp::announcement(own, address);
        let mut announced = 0;
        let mut defended: Option<Instant> = None;
        loop {
            if announced < ANNOUNCE_NUM {
                socket.get().send(EVERYBODY, &announcement)?;
                announced += 1;
            }
            let wait = match announced < ANNOUNCE_NUM {
                true => ANNOUNCE_INTERVAL,
                false => Duration::MAX,
            };
            match self.hear(&socket, address, wait, arp::user).await? {
                None => {}
                // Once it is defended; who insists has it (RFC 3927 2.5 b).
                Some(End::Conflict) => {
                    if defended.is_some_and(|at| at.elapsed() < DEFEND_INTERVAL) {
                        return Ok(End::Conflict);
                    }
                    defended = Some(Instant::now());
                    log!(
                        Info,
                        "{}: {address} is defended against another machine",
                        self.setup.name
                    );
                    socket.get().send(EVERYBODY, &announcement)?;
                }
                Some(end) => return Ok(end),
            }
        }
    }

    /// Listens for `wait`. `None` when nothing speaks against the address.
    async fn hear(
        &mut self,
        socket: &Watched<PacketSocket>,
        address: Ipv4Addr,
        wait: Duration,
        against: Against,
    ) -> io::Result<Option<End>> {
        let own = self.setup.hardware_address;
        let heard = async {
            let mut packet = [0; 64];
            loop {
                let received = socket.read(|socket| socket.receive(&mut packet)).await?;
                let said = &packet[..received.length];
                if received.vlan == 0 && against(said, address, own).is_some() {
                    return Ok(End::Conflict);
                }
            }
        };
        let carrier = &mut self.carrier;
        let pulled = async {
            if carrier.wait_for(|carrier| !*carrier).await.is_err() {
                return Ok(End::Over);
            }
            match carrier.wait_for(|carrier| *carrier).await {
                Ok(_) => Ok(End::Carrier),
                Err(_) => Ok(End::Over),
            }
        };
        let end = timeout(wait, async {
            tokio::select! {
                end = heard => end,
                end = pulled => end,
            }
        });
        match end.await {
            Ok(end) => end.map(Some),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_in_the_range_and_the_same_each_time() {
        let some = |mac: [u8; 6]| {
            let mut candidates = Candidates::new(mac);
            (0..1000).map(|_| candidates.next()).collect::<Vec<_>>()
        };
        let all = some([2, 0, 0, 0, 0, 1]);
        assert!(all.iter().all(|address| {
            let [first, second, third, _] = address.octets();
            (first, second) == (169, 254) && (1..=254).contains(&third)
        }));
        assert_eq!(all, some([2, 0, 0, 0, 0, 1]));
        assert_ne!(all, some([2, 0, 0, 0, 0, 2]));
    }
}
