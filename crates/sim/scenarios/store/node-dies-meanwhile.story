   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > store down
  13.8  nobody has the cluster's address
  16.0  hv1 has no session with the store any more
  16.0  hv2 has no session with the store any more
  16.0  hv3 has no session with the store any more
  20.0  > power off hv3
  20.0  hv3 has no power
  20.0  web ends on hv3
  60.0  > store up
  60.1  hv1 has a session with the store
  60.1  hv2 has a session with the store
  60.1  the cluster's address is on hv1
  60.1  hv3 is suspected to be off
  60.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  60.1  no VM of hv3 is left to be given away
  60.1  hv3 is in state flushed
  60.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  60.2  web starts on hv1
