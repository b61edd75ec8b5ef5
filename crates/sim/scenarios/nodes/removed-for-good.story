   0.0  hv1 is the primary
   0.0  archive is off
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  there is no proof that hv3 is off: no BMC is configured for hv3 ([fence] in its configuration file)
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off: no BMC is configured for hv3 ([fence] in its configuration file). Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  40.0  > confirm-off hv3 for good
  40.1  it is proved that hv3 is off (administrator): an administrator confirmed that the machine is off
  40.1  the VMs of hv3 are given to other nodes
  40.1  hv3 is in state flushed
  40.2  web starts on hv1
  40.5  no VM of hv3 is left to be given away
  60.0  > start archive
  60.1  archive is in state start
  60.1  archive starts on hv1
