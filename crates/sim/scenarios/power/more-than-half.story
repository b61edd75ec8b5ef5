   0.0  hv1 is the primary
   0.0  db runs on hv5
   0.0  mail runs on hv2
   0.0  web runs on hv4
  10.0  > power off hv3 hv4 hv5
  10.0  hv3 has no power
  10.0  hv4 has no power
  10.0  hv5 has no power
  10.0  db ends on hv5
  10.0  web ends on hv4
  12.5  fault fence-held: 3 of 5 nodes are silent (hv3, hv4, hv5), which is more probably a problem of the network or of this cluster's store than the end of all of them: no further node is fenced by itself until it is over.
  15.1  hv3 has no session with the store any more
  15.1  hv4 has no session with the store any more
  15.1  hv5 has no session with the store any more
  60.0  > confirm-off hv4
  60.1  hv3 is suspected to be off
  60.1  proof is looked for that hv3 is off
  60.1  hv4 is suspected to be off
  60.1  it is proved that hv4 is off (administrator): an administrator confirmed that the machine is off
  60.1  no VM of hv4 is left to be given away
  60.1  hv4 is in state flushed
  60.1  hv5 is suspected to be off
  60.1  proof is looked for that hv5 is off
  60.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  60.1  fault node-dead-hv4: Node hv4 is off (an administrator confirmed that the machine is off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv4'; if it is gone for good, remove it ('drover node remove hv4 --confirm-off').
  60.1  fault node-dead-hv5: Node hv5 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv5 --confirm-off'.
  60.1  fault fence-held is over
  60.2  web starts on hv1
  61.6  it is proved that hv3 is off (power): IPMI hv3 reads off
  61.6  no VM of hv3 is left to be given away
  61.6  hv3 is in state flushed
  61.6  it is proved that hv5 is off (power): IPMI hv5 reads off
  61.6  no VM of hv5 is left to be given away
  61.6  hv5 is in state flushed
  61.7  db starts on hv1
