   0.0  hv1 is the primary
   0.0  a runs on hv5
   0.0  b runs on hv5
   0.0  c runs on hv5
   0.0  d runs on hv4
   0.0  e runs on hv4
   0.0  f runs on hv4
  10.0  > power off hv5
  10.0  hv5 has no power
  10.0  a ends on hv5
  10.0  b ends on hv5
  10.0  c ends on hv5
  15.0  > power off hv4
  15.0  hv4 has no power
  15.0  d ends on hv4
  15.0  e ends on hv4
  15.0  f ends on hv4
  15.1  hv5 has no session with the store any more
  15.1  hv5 is suspected to be off
  15.1  it is proved that hv5 is off (power): IPMI hv5 reads off
  15.1  no VM of hv5 is left to be given away
  15.1  hv5 is in state flushed
  15.1  fault node-dead-hv5: Node hv5 is off (IPMI hv5 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv5'; if it is gone for good, remove it ('drover node remove hv5 --confirm-off').
  15.2  a starts on hv1
  15.2  b starts on hv2
  15.2  c starts on hv3
  20.1  hv4 has no session with the store any more
  20.1  hv4 is suspected to be off
  20.1  it is proved that hv4 is off (power): IPMI hv4 reads off
  20.1  no VM of hv4 is left to be given away
  20.1  hv4 is in state flushed
  20.1  fault node-dead-hv4: Node hv4 is off (IPMI hv4 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv4'; if it is gone for good, remove it ('drover node remove hv4 --confirm-off').
  20.2  d starts on hv1
  20.2  e starts on hv2
  20.2  f starts on hv3
