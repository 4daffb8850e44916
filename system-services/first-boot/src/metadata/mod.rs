//! Asks the data source on the network, fetches what user-data includes, keeps both, and has the configuration applied anew: a
//! service of its own (`keelson-first-boot fetch`), without any of the privileges that applying needs.
//!
//! It is there when the machine has such a source, includes something or wants people's keys ([`service`]), goes on until it has
//! all of it, and ends. What was fetched at an earlier boot holds until then, so nothing ever waits for it.
//!
//! - [`http`]: carries questions and answers
//! - [`documents`]: what user-data and the kernel command line include
//! - [`keys`]: people's keys
//! - [`changes`]: hears of new addresses and routes

mod changes;
mod documents;
mod http;
mod keys;
pub(crate) mod service;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use keelson_config::Diagnostics;
use keelson_config::cloud_config::KeyImport;
use keelson_config::instance::CONFIG_DIRECTORY;
use keelson_config::sources::Source;
use keelson_config::sources::choice::Choice;
use keelson_config::sources::http::{Client, Request};
use keelson_config::sources::machine::{Machine, Platform};
use keelson_config::sources::{azure, nocloud};
use keelson_first_boot::stored;
use keelson_sys::durable::Tree;
use keelson_sys::notify::notify;

use crate::machine;
use crate::report::Report;
use changes::Changes;
use http::Http;

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is to be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct What {
    /// Documents that a data source in the machine includes: another one on the network is not asked.
    pub(crate) documents_only: bool,
    /// People whose keys are asked for.
    pub(crate) imports: Vec<KeyImport>,
    /// The data sources that may be asked; `None` for all.
    pub(crate) datasources: Option<Vec<String>>,
    /// Where a NoCloud seed is, an address.
    pub(crate) seed_from: Option<String>,
}

/// Goes on until all is there. All paths are below `root`, which is `/` but in tests.
pub(crate) fn run(root: &Path, what: What, report: &mut Report) -> Result<()> {
    let path = root.join(CONFIG_DIRECTORY.trim_start_matches('/'));
    let config = Tree::open(&path).with_context(|| format!("open {}", path.display()))?;
    let choice = Choice::new(what.datasources.clone(), what.seed_from.clone());
    let mut task = Task {
        config,
        http: Http::new(root),
        machine: machine::read(root, choice.clone()),
        what,
        source: None,
        answered: BTreeSet::new(),
        is_reported: false,
        last_words: String::new(),
    };
    // Listens before it tries, so that no change is missed in between.
    let mut changes = Changes::listen().context("listen for changes of the network")?;
    let mut pause = FIRST_PAUSE;
    loop {
        match task.go_on(report) {
            Ok(()) => return Ok(()),
            Err(error) => task.say(&format!("{error:#}"), report),
        }
        match changes
            .wait(pause)
            .context("wait for changes of the network")?
        {
            true => pause = FIRST_PAUSE,
            false => pause = (pause * 2).min(LONGEST_PAUSE),
        }
        // Its router may be another one by now.
        task.machine = machine::read(root, choice.clone());
    }
}

/// What was reached so far.
struct Task {
    config: Tree,
    http: Http,
    machine: Machine,
    what: What,
    /// What the data source says, once it said it.
    source: Option<Source>,
    /// Addresses of documents that were answered, and people whose keys were.
    answered: BTreeSet<String>,
    /// Whether the platform knows that the machine is up.
    is_reported: bool,
    last_words: String,
}

impl Task {
    /// Does what is still to be done.
    fn go_on(&mut self, report: &mut Report) -> Result<()> {
        let platform = match self.what.documents_only {
            false => self.machine.platform(),
            true => None,
        };
        let asked = match &self.source {
            Some(source) => Ok(source.clone()),
            None => self.ask(platform.as_ref(), report),
        };
        self.source = asked.as_ref().ok().cloned();
        self.apply_news()?;
        // People may be let in, whether or not the data source ever answers; but it does not wait for them.
        let keys = keys::fetch(
            &self.config,
            &self.what.imports,
            &mut self.http,
            &mut self.answered,
            report,
        );
        self.apply_news()?;
        let mut missing = match asked {
            Ok(source) => self.complete(platform.as_ref(), source, report),
            Err(error) => vec![format!("{error:#}")],
        };
        self.apply_news()?;
        missing.extend(keys.failure.into_iter().chain(keys.missing));
        match missing.is_empty() {
            true => Ok(()),
            false => Err(anyhow::Error::msg(missing.join("; "))),
        }
    }

    /// What is to be done when the data source has answered; what is still missing, in sentences.
    fn complete(
        &mut self,
        platform: Option<&Platform>,
        source: Source,
        report: &mut Report,
    ) -> Vec<String> {
        let mut unreported = None;
        if platform == Some(&Platform::Azure) && !self.is_reported {
            let http = &mut self.http;
            let mut exchange = |request: &Request| http.exchange(request);
            unreported = azure::report_ready(&mut Client::new(&mut exchange)).err();
            self.is_reported = unreported.is_none();
        }
        let fetched = documents::fetch(
            &self.config,
            source,
            &self.machine,
            &mut self.http,
            &mut self.answered,
            report,
        );
        let fetched = fetched.failure.into_iter().chain(fetched.missing);
        fetched.chain(unreported).collect()
    }

    /// What the data source says: asked, or as it is kept.
    fn ask(&mut self, platform: Option<&Platform>, report: &mut Report) -> Result<Source> {
        if self.machine.wants_none() {
            return Ok(Source::default());
        }
        let kept = stored::kept(&self.config).unwrap_or_else(|error| {
            report.warning(&format!(
                "read /state/config/source: {error}; it is not used"
            ));
            None
        });
        let is_allowed = |kept: &Source| self.machine.allows(&kept.platform);
        let kept = kept.filter(is_allowed);
        let Some(platform) = platform else {
            return Ok(kept.unwrap_or_default());
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut diagnostics = Diagnostics::new("");
        let http = &mut self.http;
        let mut exchange = |request: &Request| http.exchange(request);
        let mut client = Client::new(&mut exchange);
        let source = platform
            .fetch(&self.machine, now.as_secs(), &mut client, &mut diagnostics)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{}: nothing is known yet", platform.name()))?;
        report.diagnostics(diagnostics);
        // What a disk said to this very machine counts.
        let uuid = self.machine.dmi("product_uuid");
        let is_ours =
            |kept: &Source| kept.from_disk.is_some() && azure::is_same(&kept.instance_id, uuid);
        let source = match kept.clone().filter(is_ours) {
            Some(kept) => kept.with_service(source),
            None => source,
        };
        let known = Source {
            random_seed: None,
            ..source.clone()
        };
        if kept != Some(known) {
            if let Some(seed) = &source.random_seed {
                let written = std::fs::write("/dev/urandom", seed);
                written.unwrap_or_else(|error| {
                    report.warning(&format!("write to /dev/urandom: {error}"))
                });
            }
            stored::keep_news(&self.config)
                .and_then(|()| stored::keep(&self.config, &source))
                .context("write /state/config/source")?;
            let (id, place) = (&source.instance_id, &source.place);
            report.info(&format!("instance `{id}`, from {place}"));
        }
        Ok(source)
    }

    /// Has the configuration applied anew when there is something new, whoever wrote it: this process, or one before it.
    fn apply_news(&self) -> Result<()> {
        if stored::has_news(&self.config).context("read /state/config/source")? {
            notify("X_KEELSON_CONFIGURE=1")
                .context("tell the engine that there is something to apply")?;
            stored::forget_news(&self.config).context("write /state/config/source")?;
        }
        Ok(())
    }

    /// Tells what is in the way, once.
    fn say(&mut self, words: &str, report: &mut Report) {
        if self.last_words != words {
            report.warning(&format!("{words}; it goes on trying"));
            words.clone_into(&mut self.last_words);
        }
    }
}

/// What a machine is told on its command line or in its serial number counts before what a disk says.
pub(crate) fn overrule(machine: &Machine, found: Option<Source>) -> Option<Source> {
    let asked = machine.nocloud();
    match (found, asked) {
        (Some(mut source), Some(asked)) if source.platform == "nocloud" => {
            asked.overrule(&mut source);
            Some(source)
        }
        (None, Some(asked)) if asked.instance_id.is_some() || asked.hostname.is_some() => {
            let nothing = nocloud::Files {
                meta_data: Some(Vec::new()),
                ..nocloud::Files::default()
            };
            let place = "the kernel command line or the machine's serial number";
            let mut source = nocloud::read(nothing, place, &mut Diagnostics::new(""))?;
            asked.overrule(&mut source);
            Some(source)
        }
        (found, _) => found,
    }
}
