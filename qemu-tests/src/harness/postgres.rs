//! A real PostgreSQL in Docker, whose rows are counted. The image is made of the tool root's own files.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::docker::{self, DOCKER_DEADLINE};
use crate::harness::process;
use crate::harness::ssh::Ssh;

const IMAGE: &str = "tests/postgres";
const PROGRAMS: &str = "/usr/lib/postgresql/17/bin";
const LIBRARIES: &str = "/usr/lib/postgresql/17/lib";
const SHARED: &str = "/usr/share/postgresql/17";
/// A number that no other user of the machine has.
const UID: u64 = 70;
/// Making a data directory takes long on an emulated machine.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// A container of the user engine with a database on a volume; Docker starts it again after each boot.
pub struct Postgres<'s> {
    ssh: &'s Ssh,
}

impl<'s> Postgres<'s> {
    /// Imports the image, starts the database and makes its table.
    ///
    /// # Errors
    /// When Docker refuses, or the database does not come up.
    pub fn start(ssh: &'s Ssh) -> Result<Self> {
        let output = ssh.run_with(
            &format!("docker import - {IMAGE}"),
            &archive()?,
            DOCKER_DEADLINE,
        )?;
        ensure!(output.status.success(), "docker import: {}", output.text());
        let script = format!(
            "test -s /data/PG_VERSION || {PROGRAMS}/initdb -D /data -U postgres -A trust --no-locale -E UTF8 || exit; exec {PROGRAMS}/postgres -D /data -k /tmp -c listen_addresses= -c shared_buffers=8MB -c dynamic_shared_memory_type=mmap"
        );
        docker::run_detached(
            ssh,
            &format!(
                "--name db --restart always --user {UID} -v rows:/data {IMAGE} /bin/sh -c '{script}'"
            ),
        )?;
        let database = Postgres::find(ssh)?;
        database.query("create table planks (number int primary key, wood text not null)")?;
        Ok(database)
    }

    /// The one that an earlier boot has started, as soon as it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn find(ssh: &'s Ssh) -> Result<Self> {
        ssh.check_within(
            &format!("until docker exec db {PROGRAMS}/pg_isready -q -h /tmp -U postgres; do sleep 0.5; done 2>/dev/null"),
            START_DEADLINE,
        )
        .context("waiting for the database")?;
        Ok(Postgres { ssh })
    }

    /// Adds `count` rows, each in a transaction of its own; those before the answer are on the disk.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn add(&self, count: u32) -> Result<()> {
        self.query(&format!(
            "do $$ begin for step in 1..{count} loop insert into planks select coalesce(max(number), 0) + 1, md5((coalesce(max(number), 0) + 1)::text) from planks; commit; end loop; end $$"
        ))
        .map(drop)
    }

    /// The number of rows, once each is seen to be what was written: numbers without a gap, each with its own wood.
    ///
    /// # Errors
    /// When one is not, or the database refuses.
    pub fn rows(&self) -> Result<u32> {
        let answer = self.query(
            "select count(*), coalesce(max(number), 0), count(*) filter (where wood = md5(number::text)) from planks",
        )?;
        let numbers: Vec<u32> = answer
            .trim()
            .split('|')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the database answers {answer:?}"))?;
        let count = *numbers.first().context("no answer")?;
        ensure!(
            numbers.iter().all(|number| *number == count),
            "rows, highest number, right ones: {answer}"
        );
        Ok(count)
    }

    fn query(&self, sql: &str) -> Result<String> {
        let line = format!(
            "docker exec -i db {PROGRAMS}/psql -h /tmp -U postgres -v ON_ERROR_STOP=1 -Atq"
        );
        let output = self
            .ssh
            .run_with(&line, format!("{sql};\n").as_bytes(), DOCKER_DEADLINE)?;
        ensure!(output.status.success(), "{sql}: {}", output.text());
        Ok(output.stdout)
    }
}

/// The server, what it is started with, and the libraries of both.
fn archive() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(true);
    let programs =
        ["postgres", "initdb", "psql", "pg_isready"].map(|name| format!("{PROGRAMS}/{name}"));
    let modules = ["plpgsql.so", "dict_snowball.so"].map(|name| format!("{LIBRARIES}/{name}"));
    let shell = [String::from("/bin/dash")];
    let mut files: BTreeSet<String> = BTreeSet::new();
    for file in programs.iter().chain(&modules).chain(&shell) {
        let listed = process::check(Command::new("ldd").arg(file), Duration::from_secs(30))?;
        let paths = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        files.extend(paths.map(|path| path.trim_end_matches(':').to_owned()));
        files.insert(file.clone());
    }
    files.insert("/usr/share/zoneinfo/Etc/UTC".into());
    for file in &files {
        let place = file.trim_start_matches('/');
        archive
            .append_path_with_name(file, place)
            .with_context(|| format!("adding {file} to the database's image"))?;
    }
    archive
        .append_path_with_name("/bin/dash", "bin/sh")
        .and_then(|()| archive.append_dir_all(SHARED.trim_start_matches('/'), SHARED))
        .context("adding what the database needs")?;
    file(
        &mut archive,
        "etc/passwd",
        &format!("postgres:x:{UID}:{UID}::/data:/bin/sh\n"),
    )?;
    directory(&mut archive, "data", UID, 0o700)?;
    directory(&mut archive, "tmp", 0, 0o1777)?;
    archive.into_inner().context("ending the database's image")
}

fn file(archive: &mut tar::Builder<Vec<u8>>, path: &str, text: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    archive
        .append_data(&mut header, Path::new(path), text.as_bytes())
        .with_context(|| format!("adding {path}"))
}

fn directory(archive: &mut tar::Builder<Vec<u8>>, path: &str, uid: u64, mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(uid);
    header.set_size(0);
    archive
        .append_data(&mut header, Path::new(path), &[][..])
        .with_context(|| format!("adding {path}"))
}
