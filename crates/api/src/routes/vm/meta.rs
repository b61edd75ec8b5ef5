//! What is said of VMs beside their definitions.

use super::{changed, subject, uuid};
use crate::{
    answer::{self, Answer, ApiError},
    args::Args,
    endpoint::Call,
};
use drover_model::{
    MetaChange, Selector,
    wire::{Meta, Tags},
};

/// The longest name of a profile, in characters.
const PROFILE_MAX: usize = 128;

/// A profile's name. Profiles are not looked up: it is for people.
fn profile(args: &Args) -> Result<Option<String>, ApiError> {
    let given = args.text("profile");
    let bad = |name: &&str| name.chars().count() > PROFILE_MAX || name.chars().any(char::is_control);
    match given.filter(bad) {
        Some(name) => {
            let accepted = format!("at most {PROFILE_MAX} characters, none of them a control character");
            Err(ApiError::parameter("profile", name, accepted))
        }
        None => Ok(given.map(str::to_owned)),
    }
}

/// The change of metadata that a request's parameters ask for. What is not given stays as it is.
pub(super) fn change(args: &Args) -> Result<MetaChange, ApiError> {
    let selector = match args.text("selector") {
        Some("none") => Some(None),
        _ => args.parsed::<Selector>("selector")?.map(Some),
    };
    let tags = |name: &str, protected: bool| {
        let given = args.list(name).unwrap_or_default();
        given.iter().map(move |tag| (tag.clone(), protected)).collect::<Vec<_>>()
    };
    Ok(MetaChange {
        node_limit: args.parsed_list("limit")?,
        selector,
        autostart: args.given_flag("autostart"),
        method: args.parsed("migration_method")?,
        max_downtime_ms: args.number("migration_max_downtime"),
        priority: args.number("priority"),
        profile: profile(args)?,
        // One that is given as both is protected.
        add_tags: tags("user_tags", false).into_iter().chain(tags("protected_tags", true)).collect(),
        remove_tags: [].into(),
    })
}

pub(crate) async fn one(call: Call) -> Answer {
    answer::json(&Meta::of(&*subject(&call).await?))
}

pub(crate) async fn set(call: Call) -> Answer {
    let (uuid, change) = (uuid(&call).await?, change(&call.args)?);
    let done = call.state.node.commands().set_meta(uuid, &change).await?;
    changed(format!("Changed the metadata of VM {}.", done.record.name), &done)
}

pub(crate) async fn tags(call: Call) -> Answer {
    let Meta { name, tags, .. } = Meta::of(&*subject(&call).await?);
    answer::json(&Tags { name, tags })
}

pub(crate) async fn tag(call: Call) -> Answer {
    let (uuid, tag) = (uuid(&call).await?, call.args.required("tag").to_owned());
    let mut change = MetaChange::default();
    let add = call.args.required("action") == "add";
    if add {
        change.add_tags.insert(tag.clone(), call.args.flag("protected"));
    } else {
        change.remove_tags.insert(tag.clone());
    }
    let done = call.state.node.commands().set_meta(uuid, &change).await?;
    let name = &done.record.name;
    changed(if add { format!("VM {name} has tag {tag}.") } else { format!("VM {name} has tag {tag} no more.") }, &done)
}
