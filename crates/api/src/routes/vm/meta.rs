//! Endpoints of VM metadata.

use super::{changed, subject, uuid};
use crate::{
    answer::{self, Answer},
    endpoint::{Call, Endpoint, get, post},
};
use drover_model::{
    MetaChange,
    wire::{ChangeMeta, ChangeTag, Changed, Meta, Nothing, TagAction, Tags},
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        get("/vm/{vm}/meta", "Its metadata.", one).answers::<Meta>(),
        post("/vm/{vm}/meta", "Change its metadata; fields that are not given stay as they are.", set)
            .answers::<Changed>(),
        get("/vm/{vm}/tags", "Its tags.", tags).answers::<Tags>(),
        post("/vm/{vm}/tags", "Add a tag, or remove one.", tag).answers::<Changed>(),
    ]
}

async fn one(call: Call, _: Nothing) -> Answer {
    answer::json(&Meta::of(&*subject(&call).await?))
}

pub(super) async fn set(call: Call, request: ChangeMeta) -> Answer {
    let done = call.state.node.commands().set_meta(uuid(&call).await?, &request.into()).await?;
    changed(format!("Changed the metadata of VM {}.", done.record.name), &done)
}

async fn tags(call: Call, _: Nothing) -> Answer {
    let Meta { name, tags, .. } = Meta::of(&*subject(&call).await?);
    answer::json(&Tags { name, tags })
}

async fn tag(call: Call, request: ChangeTag) -> Answer {
    let ChangeTag { action, tag, protected } = request;
    let uuid = uuid(&call).await?;
    let mut change = MetaChange::default();
    match action {
        TagAction::Add => {
            change.add_tags.insert(tag.clone(), protected);
        }
        TagAction::Remove => {
            change.remove_tags.insert(tag.clone());
        }
    }
    let done = call.state.node.commands().set_meta(uuid, &change).await?;
    let name = &done.record.name;
    let message = match action {
        TagAction::Add => format!("VM {name} has tag {tag}."),
        TagAction::Remove => format!("VM {name} no longer has tag {tag}."),
    };
    changed(message, &done)
}
