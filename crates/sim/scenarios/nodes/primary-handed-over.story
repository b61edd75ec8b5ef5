   0.0  hv1 is the primary
   0.0  web runs on hv2
  10.0  > primary hv2
  10.1  the cluster's address is on hv1 and hv2
  10.2  > power off hv2
  10.2  hv2 has no power
  10.2  hv2 is the primary
  10.2  nobody has the cluster's address
  10.2  web ends on hv2
  15.1  hv1 is the primary
  15.1  the cluster's address is on hv1
  15.3  hv2 has no session with the store any more
  17.8  hv2 is suspected to be off
  17.8  it is proved that hv2 is off (power): IPMI hv2 reads off
  17.8  no VM of hv2 is left to be given away
  17.8  hv2 is in state flushed
  17.8  fault node-dead-hv2: Node hv2 is off (IPMI hv2 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv2'; if it is gone for good, remove it ('drover node remove hv2 --confirm-off').
  17.9  web starts on hv1
