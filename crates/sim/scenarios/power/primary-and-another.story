   0.0  hv1 is the primary
   0.0  db runs on hv5
   0.0  mail runs on hv3
   0.0  web runs on hv1
  10.0  > power off hv1 hv5
  10.0  hv1 has no power
  10.0  hv5 has no power
  10.0  nobody has the cluster's address
  10.0  db ends on hv5
  10.0  web ends on hv1
  15.1  hv1 has no session with the store any more
  15.1  hv5 has no session with the store any more
  15.1  hv2 is the primary
  15.1  the cluster's address is on hv2
  17.6  hv1 is suspected to be off
  17.6  it is proved that hv1 is off (power): IPMI hv1 reads off
  17.6  no VM of hv1 is left to be given away
  17.6  hv1 is in state flushed
  17.6  hv5 is suspected to be off
  17.6  it is proved that hv5 is off (power): IPMI hv5 reads off
  17.6  the VMs of hv5 are given to other nodes
  17.6  hv5 is in state flushed
  17.6  fault node-dead-hv1: Node hv1 is off (IPMI hv1 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv1'; if it is gone for good, remove it ('drover node remove hv1 --confirm-off').
  17.6  fault node-dead-hv5: Node hv5 is off (IPMI hv5 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv5'; if it is gone for good, remove it ('drover node remove hv5 --confirm-off').
  17.7  no VM of hv5 is left to be given away
  17.7  db starts on hv4
  17.7  web starts on hv2
