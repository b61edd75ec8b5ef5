   0.0  hv1 is the primary
   0.0  db runs on hv2
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  15.1  hv3 is suspected to be off
  15.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  15.1  no VM of hv3 is left to be given away
  15.1  hv3 is in state flushed
  15.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it becomes ready by itself once nothing of these is left on it, and they come home; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  15.2  web starts on hv1
  60.0  > power on hv3
  60.0  hv3 is switched on
  60.1  hv3 has a session with the store
  60.1  hv3 is back, and its fence is over
  60.1  fault node-dead-hv3 is over
  60.7  hv3 is in state unflush
  60.7  web is in state unmigrate
  62.7  web ends on hv1
  63.1  hv3 is in state ready
  63.1  web is in state start
  63.1  web starts on hv3
 100.0  > flush hv3
 100.1  hv3 is in state flush
 100.1  web is in state migrate
 102.1  web ends on hv3
 102.4  web is in state start
 102.5  hv3 is in state flushed
 102.5  web starts on hv1
 130.0  > power off hv3
 130.0  hv3 has no power
 135.1  hv3 has no session with the store any more
 135.1  hv3 is suspected to be off
 135.1  it is proved that hv3 is off (power): IPMI hv3 reads off
 135.1  no VM of hv3 is left to be given away
 135.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
 180.0  > power on hv3
 180.0  hv3 is switched on
 180.1  hv3 has a session with the store
 180.1  hv3 is back, and its fence is over
 180.1  fault node-dead-hv3 is over
 185.0  > policy hv2 on-return flushed
 190.0  > power off hv2
 190.0  hv2 has no power
 190.0  db ends on hv2
 195.1  hv2 has no session with the store any more
 195.1  hv2 is suspected to be off
 195.1  it is proved that hv2 is off (power): IPMI hv2 reads off
 195.1  no VM of hv2 is left to be given away
 195.1  hv2 is in state flushed
 195.1  fault node-dead-hv2: Node hv2 is off (IPMI hv2 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv2'; if it is gone for good, remove it ('drover node remove hv2 --confirm-off').
 195.2  db starts on hv4
 250.0  > power on hv2
 250.0  hv2 is switched on
 250.1  hv2 has a session with the store
 250.1  hv2 is back, and its fence is over
 250.1  fault node-dead-hv2 is over
