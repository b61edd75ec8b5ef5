//! The commands for nodes.

mod drain;
mod fence;
mod list;
mod log;
mod remove;
mod role;
mod set;
mod show;

use super::commands;

commands! {
    /// Manage nodes
    Node {
        List(list::List),
        Info(show::Info),
        Flush(drain::Flush),
        Ready(drain::Ready),
        Set(set::Set),
        Fence(fence::Fence),
        Primary(role::Primary),
        Secondary(role::Secondary),
        IsPrimary(role::IsPrimary),
        Remove(remove::Remove),
        Log(log::Log),
    }
}
