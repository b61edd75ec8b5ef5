   0.0  hv1 is the primary
   0.0  mail runs on hv2
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  the power of hv3 is to be cut
  18.1  proof is looked for that hv3 is off
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  20.6  hv2 has no power
  20.6  mail ends on hv2
  23.8  it is proved that hv3 is off (power): IPMI hv3 reads off, after it was ordered to cut the power
  23.8  no VM of hv3 is left to be given away
  23.8  hv3 is in state flushed
  23.9  web starts on hv1
  25.6  hv2 has no session with the store any more
  25.6  hv2 is suspected to be off
  25.6  it is proved that hv2 is off (power): IPMI hv2 reads off
  25.6  the VMs of hv2 are given to other nodes
  25.6  hv2 is in state flushed
  25.6  fault node-dead-hv2: Node hv2 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv2 --confirm-off'.
  25.7  no VM of hv2 is left to be given away
  25.7  mail starts on hv4
