   0.0  hv1 is the primary
   0.0  db runs on hv4
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
  40.0  > flush hv3
  60.0  > power on hv3
  60.0  hv3 is switched on
  60.1  hv3 has a session with the store
  60.1  hv3 is back, and its fence is over
  60.1  fault node-dead-hv3 is over
 100.0  > power off hv4
 100.0  hv4 has no power
 100.0  db ends on hv4
 105.1  hv4 has no session with the store any more
 105.1  hv4 is suspected to be off
 105.1  it is proved that hv4 is off (power): IPMI hv4 reads off
 105.1  no VM of hv4 is left to be given away
 105.1  hv4 is in state flushed
 105.1  fault node-dead-hv4: Node hv4 is off (IPMI hv4 reads off), and its VMs were given to other nodes. When it is back, it becomes ready by itself once nothing of these is left on it, and they come home; if it is gone for good, remove it ('drover node remove hv4 --confirm-off').
 105.2  db starts on hv2
 140.0  > policy hv4 on-return flushed
 150.0  > power on hv4
 150.0  hv4 is switched on
 150.1  hv4 has a session with the store
 150.1  hv4 is back, and its fence is over
 150.1  fault node-dead-hv4 is over
 180.0  > policy hv4 on-return ready
