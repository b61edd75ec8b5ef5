   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  proof is looked for that hv3 is off
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  23.6  there is no proof that hv3 is off: IPMI hv3 has not answered within 12 s; a BMC that lost its power with its machine proves nothing
 120.0  > confirm-off hv3
 120.1  it is proved that hv3 is off (administrator): an administrator confirmed that the machine is off
 120.1  no VM of hv3 is left to be given away
 120.1  hv3 is in state flushed
 120.1  web starts on hv1
