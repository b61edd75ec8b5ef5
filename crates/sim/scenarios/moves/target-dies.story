   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > migrate web to hv2
  10.1  web is in state migrate
  15.0  > power off hv2
  15.0  hv2 has no power
  20.1  hv2 has no session with the store any more
  20.1  hv2 is suspected to be off
  20.1  it is proved that hv2 is off (power): IPMI hv2 reads off
  20.1  no VM of hv2 is left to be given away
  20.1  hv2 is in state flushed
  20.1  fault node-dead-hv2: Node hv2 is off (IPMI hv2 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv2'; if it is gone for good, remove it ('drover node remove hv2 --confirm-off').
  21.2  web is in state start
