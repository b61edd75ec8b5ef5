   0.0  hv1 is the primary
   0.0  a runs on hv4
   0.0  b runs on hv4
   0.0  c runs on hv4
   0.0  d runs on hv4
   0.0  e runs on hv3
  10.0  > flush hv4
  10.1  hv4 is in state flush
  10.1  a is in state migrate
  10.1  b is in state migrate
  14.0  > power off hv3
  14.0  hv3 has no power
  14.0  e ends on hv3
  14.1  a ends on hv4
  14.1  b ends on hv4
  14.4  a is in state start
  14.4  b is in state start
  14.4  c is in state migrate
  14.4  d is in state migrate
  14.5  a starts on hv1
  14.5  b starts on hv2
  18.5  c ends on hv4
  18.5  d ends on hv4
  18.8  c is in state start
  18.8  c starts on hv1
  18.8  d is in state start
  18.8  d starts on hv2
  18.9  hv4 is in state flushed
  19.1  hv3 has no session with the store any more
  19.1  hv3 is suspected to be off
  19.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  19.1  no VM of hv3 is left to be given away
  19.1  hv3 is in state flushed
  19.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  19.2  e starts on hv1
