   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > maintenance on for 60s
  20.0  > power off hv3
  20.0  hv3 has no power
  20.0  web ends on hv3
  25.1  hv3 has no session with the store any more
  71.1  hv3 is suspected to be off
  71.1  proof is looked for that hv3 is off
  71.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  72.6  it is proved that hv3 is off (power): IPMI hv3 reads off
  72.6  no VM of hv3 is left to be given away
  72.6  hv3 is in state flushed
  72.7  web starts on hv1
