   0.0  hv1 is the primary
   0.0  web runs on hv1
  10.0  > freeze hv1
  13.8  nobody has the cluster's address
  14.7  hv2 is the primary
  14.8  the cluster's address is on hv2
  15.1  hv1 has no session with the store any more
  18.1  hv1 is suspected to be off
  18.1  there is no proof that hv1 is off: IPMI hv1 reads on, and the power is not cut while the machine answers; its machine answers at hv1:7370 (it refuses connections), so it runs, and only its daemon is down or has lost the store: look at droverd there
  18.1  fault node-dead-hv1: Node hv1 is silent, and it is not proved that its machine is off: IPMI hv1 reads on, and the power is not cut while the machine answers; its machine answers at hv1:7370 (it refuses connections), so it runs, and only its daemon is down or has lost the store: look at droverd there. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv1 --confirm-off'.
  40.0  > thaw hv1
  40.1  hv1 has a session with the store
  40.1  hv1 is not suspected any more
  40.1  fault node-dead-hv1 is over
