   0.0  hv1 is the primary
   0.0  web runs on hv1
  10.0  > cut off hv1
  13.8  nobody has the cluster's address
  14.7  hv2 is the primary
  14.8  the cluster's address is on hv2
  15.1  hv1 has no session with the store any more
  18.1  hv1 is suspected to be off
  18.1  the power of hv1 is to be cut
  18.1  proof is looked for that hv1 is off
  18.1  fault node-dead-hv1: Node hv1 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv1 --confirm-off'.
  20.6  hv1 has no power
  20.6  web ends on hv1
  22.3  it is proved that hv1 is off (power): IPMI hv1 reads off, after it was ordered to cut the power
  22.3  no VM of hv1 is left to be given away
  22.3  hv1 is in state flushed
  22.4  web starts on hv2
