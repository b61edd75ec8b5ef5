   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  17.6  hv3 is suspected to be off
  17.6  it is proved that hv3 is off (power): IPMI hv3 reads off
  17.6  no VM of hv3 is left to be given away
  17.6  hv3 is in state flushed
  17.6  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  17.7  web starts on hv1
