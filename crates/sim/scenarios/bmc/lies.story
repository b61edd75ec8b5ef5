   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > cut off hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  proof is looked for that hv3 is off
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  19.6  the power of hv3 is to be cut
  22.7  it is proved that hv3 is off (power): IPMI hv3 reads off, after it was ordered to cut the power
  22.7  no VM of hv3 is left to be given away
  22.7  hv3 is in state flushed
  22.7  web starts on hv1
  22.7  ! VM web runs on hv1 and hv3 at once
