//! What a service's container is made from: a directory of the OS image, or an image of the store, fetched when it is
//! missing.

use super::Shared;
use super::bundle::{Fault, Plan, permanent};
use super::upgrade::trial_lease;
use crate::choices::Pin;
use crate::compose::{Definition, lists::CommandLine, values::StopSignal, values::Text};
use crate::images::{self, Image, tool};
use crate::rootfs;
use anyhow::{Context, anyhow};
use bollard_stubs::models::ImageConfig;
use keelson_image::store::Error;
use std::fs;
use std::path::Path;
use std::rc::Rc;

/// In a container's directory: the digest of the image that its root was made from.
const IMAGE_ID: &str = "image-id";

/// Finds a service's image, or fetches it; from then on nobody can remove it.
pub(super) async fn find(shared: &Shared, plan: &Plan) -> Result<Image, Fault> {
    let (definition, options) = (&plan.definition, &shared.options);
    let name = &definition.service.image;
    if images::is_of_the_os(name) && plan.pin.is_none() {
        let place = options.image(name);
        return images::of_the_os(options, name).ok_or_else(|| {
            permanent("image")(anyhow!(
                "there is no image `{name}`: {} is not a directory",
                place.display()
            ))
        });
    }
    let wanted = plan.pin.as_ref().map_or(name, |pin| &pin.id);
    let found = match images::find(options, wanted) {
        Err(Error::Missing(_)) => {
            fetch(shared, definition, name).await?;
            images::find(options, wanted)
        }
        found => found,
    };
    let image = found.map_err(|why| anyhow!("cannot use its image: {why}"))?;
    if !image.built_in {
        let (store, lease, id) = (images::store(options), plan.lease.clone(), image.id.parse());
        let id = id.map_err(|why: String| anyhow!("its image's digest: {why}"))?;
        let next = trial_lease(&definition.name);
        let hold = move || {
            store.lease(&lease, &id)?;
            // It was chosen before the machine started.
            let held = store.leases()?.remove(&id).unwrap_or_default();
            if lease != next && held.contains(&next) {
                store.release(&next)?;
            }
            Ok(())
        };
        super::worker::blocking(hold)
            .await
            .context("cannot keep its image")?;
    }
    Ok(image)
}

async fn fetch(shared: &Shared, definition: &Definition, name: &str) -> anyhow::Result<()> {
    let service = &definition.name;
    shared
        .console
        .info(&format!("service {service}: fetching {name}"));
    let mut command = tool::command(&shared.options);
    command.arg("pull").arg(name);
    let fetched = match tool::Running::begin(command, None).await {
        Ok(running) => running.whole().await,
        Err(failed) => Err(failed),
    };
    fetched
        .map(drop)
        .map_err(|failed| anyhow!("cannot fetch its image {name}: {}", failed.message))
}

/// What it has from its image unless it is told otherwise, as Docker fills it in.
pub(super) fn complete(definition: &Rc<Definition>, image: &ImageConfig) -> Rc<Definition> {
    let mut complete = Definition::clone(definition);
    let service = &mut complete.service;
    let words = |words: &Option<Vec<String>>| CommandLine(words.clone().unwrap_or_default());
    if service.entrypoint.0.is_empty() {
        if service.command.0.is_empty() {
            service.command = words(&image.cmd);
        }
        service.entrypoint = words(&image.entrypoint);
    }
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    service.user = service.user.take().or(filled(&image.user).map(Text));
    service.working_dir = service.working_dir.take().or(filled(&image.working_dir));
    if service.stop_signal.is_none() {
        service.stop_signal =
            filled(&image.stop_signal).and_then(|signal| signal.parse::<StopSignal>().ok());
    }
    for variable in image.env.iter().flatten() {
        let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
        let environment = &mut service.environment.0;
        environment
            .entry(key.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    Rc::new(complete)
}

/// Clears the root away that was made from another image; one of the same image is used again.
pub(super) fn renew_root(container: &Path, image: &Image) -> anyhow::Result<()> {
    let note = container.join(IMAGE_ID);
    if made_from(container).is_some_and(|id| id != image.id) {
        rootfs::remove(container);
    }
    rootfs::make_directory(container)?;
    fs::write(&note, &image.id).with_context(|| format!("cannot write {}", note.display()))
}

/// The digest of the image that a container's root was made from.
pub(super) fn made_from(container: &Path) -> Option<String> {
    fs::read_to_string(container.join(IMAGE_ID)).ok()
}

/// The image by which a service goes on when its name comes to mean another one.
pub(super) fn pin_of_the_running(shared: &Shared, definition: &Definition) -> Option<Pin> {
    let id = made_from(&shared.options.container(&definition.name))?;
    let reference = definition.service.image.clone();
    (!images::is_of_the_os(&reference)).then_some(Pin { reference, id })
}
