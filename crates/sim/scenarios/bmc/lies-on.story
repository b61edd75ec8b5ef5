   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  proof is looked for that hv3 is off
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  19.6  the power of hv3 is to be cut
  52.9  there is no proof that hv3 is off: IPMI hv3 accepted the order to cut the power, and still reads on
  59.4  proof is looked for that hv3 is off
  92.8  there is no proof that hv3 is off: IPMI hv3 accepted the order to cut the power, and still reads on
 100.0  > confirm-off hv3
 100.1  it is proved that hv3 is off (administrator): an administrator confirmed that the machine is off
 100.1  no VM of hv3 is left to be given away
 100.1  hv3 is in state flushed
 100.1  web starts on hv1
