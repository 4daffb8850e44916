//! Services get other images. They are fetched by the `docker` command, which shows how far it is.

use std::process::{Command, Stdio};

use keelson_engine::api::SOCKET;

use super::{SERVICES, all_services, find, unknown};
use crate::arguments::OtherImage;
use crate::client::{self, escape};
use crate::failure::Failure;
use crate::output::{Output, table};

/// The prefix of the OS image's own images.
const BUILT_IN: &str = "keelson/";
/// Images with this label are consoles, or engines, for lists (the first is RancherOS').
const LABELS: [(&str, &str); 2] = [
    ("console", "io.rancher.os.console"),
    ("docker", "io.keelson.engine"),
];

/// Fetches the images of services.
pub(super) fn pull(names: &[String]) -> Result<(), Failure> {
    let services = all_services()?;
    let mut images = Vec::new();
    for name in names {
        let image = &find(name, &services)?.image;
        if image.starts_with(BUILT_IN) {
            return Err(Failure::Failed(format!(
                "{image}, the image of {name}, belongs to the OS image: it comes with that"
            )));
        }
        images.push(image);
    }
    images.into_iter().try_for_each(|image| fetch(image))
}

/// Starts a service from another image, or from what its image's name means by now.
pub(super) fn upgrade(
    name: &str,
    image: Option<String>,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let services = all_services()?;
    let service = find(name, &services)?;
    let image = match image {
        Some(image) => {
            provide(&image)?;
            image
        }
        None => {
            pull(&[name.to_owned()])?;
            service.image.clone()
        }
    };
    give(name, "upgrade", &image)?;
    if output.json {
        output.value(&serde_json::json!({ "upgraded": name, "image": image }))
    } else {
        output.text(&format!("{name}: runs from {image}\n"))
    }
}

/// `keelson console` and `keelson engine`.
pub(crate) fn run(
    service: &str,
    switch: OtherImage,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let built_in = format!("{BUILT_IN}{service}");
    let named = |image: String| match image.as_str() {
        "default" => built_in.clone(),
        _ => image,
    };
    match switch {
        OtherImage::List => list(service, &built_in, output),
        OtherImage::Switch { image } => upgrade(service, Some(named(image)), output),
        OtherImage::Enable { image } => {
            let image = named(image);
            provide(&image)?;
            give(service, "choose", &image)?;
            if output.json {
                return output.value(&serde_json::json!({ "enabled": image }));
            }
            output.text(&format!(
                "{service}: runs from {image} from the next start of the machine on\n"
            ))
        }
    }
}

fn list(service: &str, built_in: &str, output: &mut Output<'_>) -> Result<(), Failure> {
    let services = all_services()?;
    let service = find(service, &services)?;
    let mut names = vec![built_in.to_owned()];
    let label = LABELS.iter().find(|(name, _)| *name == service.name);
    for image in client::get::<Vec<serde_json::Value>>("/images/json")? {
        let is_labelled = label.is_some_and(|(_, label)| image["Labels"].get(*label).is_some());
        let tags = image["RepoTags"].as_array().into_iter().flatten();
        names.extend(
            tags.filter(|_| is_labelled)
                .filter_map(|tag| tag.as_str())
                .map(str::to_owned),
        );
    }
    for image in [Some(&service.image), service.next_image.as_ref()]
        .into_iter()
        .flatten()
    {
        if !names.contains(image) {
            names.push(image.clone());
        }
    }
    let state = |image: &String| match () {
        () if *image == service.image => "current",
        () if Some(image) == service.next_image.as_ref() => "at the next start",
        () => "",
    };
    if output.json {
        let all: Vec<_> = names
            .iter()
            .map(|image| serde_json::json!({ "image": image, "state": state(image) }))
            .collect();
        return output.value(&all);
    }
    let rows: Vec<[String; 2]> = names
        .iter()
        .map(|image| [image.clone(), state(image).to_owned()])
        .collect();
    output.text(&table(["IMAGE", "STATE"], &rows))
}

fn give(service: &str, verb: &str, image: &str) -> Result<(), Failure> {
    let path = format!(
        "{SERVICES}/{}/{verb}?image={}",
        escape(service),
        escape(image)
    );
    match client::command("POST", &path, &[])? {
        Some(_) => Ok(()),
        None => Err(unknown(service, &all_services()?)),
    }
}

/// Fetches an image that is not there.
fn provide(image: &str) -> Result<(), Failure> {
    let mut look = docker();
    look.args(["image", "inspect", image])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match look.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => fetch(image),
        Err(error) => Err(Failure::Failed(format!("run docker: {error}"))),
    }
}

fn fetch(image: &str) -> Result<(), Failure> {
    let status = docker()
        .args(["pull", image])
        .stdout(std::io::stderr())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::Failed(format!("{image} cannot be fetched"))),
        Err(error) => Err(Failure::Failed(format!("run docker: {error}"))),
    }
}

fn docker() -> Command {
    let mut command = Command::new("docker");
    command.arg("--host").arg(format!("unix://{SOCKET}"));
    command
}
