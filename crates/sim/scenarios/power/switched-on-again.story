   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > cut off hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  the power of hv3 is to be cut
  18.1  proof is looked for that hv3 is off
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  20.6  hv3 has no power
  20.6  web ends on hv3
  22.3  it is proved that hv3 is off (power): IPMI hv3 reads off, after it was ordered to cut the power
  22.3  no VM of hv3 is left to be given away
  22.3  hv3 is in state flushed
  22.4  web starts on hv1
  23.4  hv3 is switched on
  50.0  > reconnect hv3
  96.1  hv3 has a session with the store
  96.1  hv3 is back, and its fence is over
  96.1  fault node-dead-hv3 is over
