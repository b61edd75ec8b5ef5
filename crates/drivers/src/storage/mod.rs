//! Where disks are.

pub mod files;
