   0.0  hv1 is the primary
   0.0  a runs on hv3
   0.0  b runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  a ends on hv3
  10.0  b ends on hv3
  15.1  hv3 has no session with the store any more
  15.1  hv3 is suspected to be off
  15.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  15.1  no VM of hv3 is left to be given away
  15.1  hv3 is in state flushed
  15.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  15.2  a starts on hv1
  15.2  b starts on hv2
  40.0  > power on hv3
  40.0  hv3 is switched on
  40.1  hv3 has a session with the store
  40.1  hv3 is back, and its fence is over
  40.1  fault node-dead-hv3 is over
  60.0  > ready hv3
  60.1  hv3 is in state unflush
  60.1  a is in state unmigrate
  60.1  b is in state unmigrate
  62.1  a ends on hv1
  62.1  b ends on hv2
  62.4  hv3 is in state ready
  62.4  a is in state start
  62.4  b is in state start
  62.5  a starts on hv3
  62.5  b starts on hv3
