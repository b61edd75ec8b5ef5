   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  15.1  hv3 is suspected to be off
  15.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  15.1  no VM of hv3 is left to be given away
  15.1  hv3 is in state flushed
  15.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  15.2  web starts on hv1
  60.0  > power on hv3
  60.0  hv3 is switched on
  60.1  hv3 has a session with the store
  60.1  hv3 is back, and its fence is over
  60.1  fault node-dead-hv3 is over
  90.0  > ready hv3
  90.1  hv3 is in state unflush
  90.1  web is in state unmigrate
  92.1  web ends on hv1
  92.4  hv3 is in state ready
  92.4  web is in state start
  92.5  web starts on hv3
