//! Makes, starts and removes the containers of one service, one step after the other.

use super::bundle::{self, Fault, Plan};
use super::{Input, Shared};
use crate::containers::Stored;
use crate::failpoint;
use crate::lifecycle::Event;
use crate::rootfs;
use crate::runtime::Status;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a worker is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Make the container.
    Create { attempt: u64, plan: Box<Plan> },
    /// Let its first process run the program; `again` when an earlier engine may have done so.
    Launch { attempt: u64, again: bool },
    /// Remove it.
    Delete,
    /// Remove it with its root: the system goes down.
    Remove,
    /// Write down what is known of it.
    Store(Arc<Stored>),
    /// Remove it with all that it has written: it is not there any more.
    Dispose,
}

/// Works on jobs until nobody can send any more.
pub(super) async fn work(shared: Rc<Shared>, name: String, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let tell = |attempt, event, fault| {
        let _ = shared.inputs.send(Input::Event {
            service: name.clone(),
            attempt,
            event,
            fault,
        });
    };
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Create { attempt, plan } => match bundle::create(&shared, *plan).await {
                Ok((process, terminal)) => {
                    if let Some(master) = terminal {
                        let service = name.clone();
                        let _ = shared.inputs.send(Input::Terminal { service, master });
                    }
                    tell(attempt, Event::Created(process), None);
                }
                Err(Fault {
                    error,
                    permanent,
                    key,
                }) => {
                    tell(
                        attempt,
                        Event::LaunchFailed {
                            why: format!("{error:#}"),
                            permanent,
                        },
                        key,
                    );
                }
            },
            Job::Launch { attempt, again } => match launch(&shared, &name, again).await {
                Ok(()) => tell(attempt, Event::Launched, None),
                Err(error) => {
                    tell(
                        attempt,
                        Event::LaunchFailed {
                            why: format!("{error:#}"),
                            permanent: false,
                        },
                        None,
                    );
                }
            },
            Job::Delete => delete(&shared, &name).await,
            Job::Remove => {
                delete(&shared, &name).await;
                rootfs::remove(&shared.options.container(&name));
            }
            Job::Store(stored) => {
                let store = shared.options.containers();
                let result = blocking(move || Ok(store.write(&stored)?)).await;
                let service = name.clone();
                let _ = shared.inputs.send(Input::Stored { service, result });
            }
            Job::Dispose => {
                let result = dispose(&shared, &name).await;
                let service = name.clone();
                let _ = shared.inputs.send(Input::Disposed { service, result });
            }
        }
    }
}

/// Runs what blocks on the disk beside this thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(error.into()),
    }
}

/// Removes all that is left of a container. It is gone when this returns, its files a little later.
///
/// # Errors
/// When it is still there.
pub(super) async fn dispose(shared: &Shared, name: &str) -> anyhow::Result<()> {
    shared.runtime.delete(name).await?;
    failpoint::reach("remove-deleted");
    rootfs::remove(&shared.options.container(name));
    let (store, key) = (shared.options.containers(), name.to_owned());
    let images = crate::images::store(&shared.options);
    blocking(move || {
        store.remove(&key)?;
        failpoint::reach("remove-out");
        images.release(&key)?;
        failpoint::reach("remove-released");
        Ok(())
    })
    .await?;
    let (store, kept) = (shared.options.containers(), shared.options.kept_root(name));
    tokio::task::spawn_blocking(move || {
        store.empty_trash();
        // Only services have one, and few of them.
        let _ = std::fs::remove_dir_all(kept);
    });
    Ok(())
}

async fn delete(shared: &Shared, name: &str) {
    if let Err(error) = shared.runtime.delete(name).await {
        shared.console.error(&format!(
            "service {name}: what is left of its container stays: {error:#}"
        ));
    }
}

async fn launch(shared: &Shared, name: &str, again: bool) -> anyhow::Result<()> {
    let Err(error) = shared.runtime.start(name).await else {
        failpoint::reach("start-launched");
        return Ok(());
    };
    // An earlier engine may have been killed just after it had started it. One that has ended has run: how it ended is
    // what PID 1 tells.
    match shared.runtime.status(name).await {
        Status::Running => Ok(()),
        Status::Stopped if again => Ok(()),
        _ => Err(error.context("cannot start its program")),
    }
}
