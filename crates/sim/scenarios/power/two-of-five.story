   0.0  hv1 is the primary
   0.0  db runs on hv5
   0.0  mail runs on hv2
   0.0  web runs on hv4
  10.0  > power off hv4 hv5
  10.0  hv4 has no power
  10.0  hv5 has no power
  10.0  db ends on hv5
  10.0  web ends on hv4
  15.1  hv4 has no session with the store any more
  15.1  hv5 has no session with the store any more
  15.5  hv4 is suspected to be off
  15.5  it is proved that hv4 is off (power): IPMI hv4 reads off
  15.5  no VM of hv4 is left to be given away
  15.5  hv4 is in state flushed
  15.5  hv5 is suspected to be off
  15.5  it is proved that hv5 is off (power): IPMI hv5 reads off
  15.5  the VMs of hv5 are given to other nodes
  15.5  hv5 is in state flushed
  15.5  fault node-dead-hv4: Node hv4 is off (IPMI hv4 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv4'; if it is gone for good, remove it ('drover node remove hv4 --confirm-off').
  15.5  fault node-dead-hv5: Node hv5 is off (IPMI hv5 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv5'; if it is gone for good, remove it ('drover node remove hv5 --confirm-off').
  15.6  no VM of hv5 is left to be given away
  15.6  db starts on hv3
  15.6  web starts on hv1
