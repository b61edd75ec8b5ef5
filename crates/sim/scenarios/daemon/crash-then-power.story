   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > crash daemon hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  there is no proof that hv3 is off: IPMI hv3 reads on, and the power is not cut while the machine answers; its machine answers at hv3:7370 (it refuses connections), so it runs, and only its daemon is down or has lost the store: look at droverd there
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off: IPMI hv3 reads on, and the power is not cut while the machine answers; its machine answers at hv3:7370 (it refuses connections), so it runs, and only its daemon is down or has lost the store: look at droverd there. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  40.0  > power off hv3
  40.0  hv3 has no power
  40.0  web ends on hv3
  52.7  it is proved that hv3 is off (power): IPMI hv3 reads off
  52.7  no VM of hv3 is left to be given away
  52.7  hv3 is in state flushed
  52.8  web starts on hv1
