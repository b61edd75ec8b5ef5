//! A real cluster on one machine: namespaces as nodes, real ZooKeeper, libvirt and QEMU.
