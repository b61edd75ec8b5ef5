   0.0  hv1 is the primary
   0.0  a runs on hv1
   0.0  b runs on hv2
   0.0  c runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  c ends on hv3
  15.1  hv3 has no session with the store any more
  15.1  hv3 is suspected to be off
  15.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  15.1  the VMs of hv3 are given to other nodes
  15.1  hv3 is in state flushed
  15.1  fault fence-waiting-hv3: No other node can take these VMs of node hv3, which is off: c (hv1: 2144 MiB are needed (with 96 MiB for QEMU itself), 1440 MiB are free; hv2: 2144 MiB are needed (with 96 MiB for QEMU itself), 1440 MiB are free). They are tried again until one can, or hv3 is back.
  15.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  60.0  > power on hv3
  60.0  hv3 is switched on
  60.1  hv3 has a session with the store
  60.1  hv3 is back, and its fence is over
  60.1  fault fence-waiting-hv3 is over
  60.1  fault node-dead-hv3 is over
  60.2  c starts on hv3
  70.0  > ready hv3
  70.1  hv3 is in state ready
