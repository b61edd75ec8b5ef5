   0.0  hv1 is the primary
   0.0  a runs on hv3
   0.0  b runs on hv3
   0.0  c runs on hv3
   0.0  d runs on hv3
  10.0  > flush hv3
  10.1  hv3 is in state flush
  10.1  a is in state migrate
  16.1  a ends on hv3
  16.4  a is in state start
  16.4  b is in state migrate
  16.5  a starts on hv1
  18.0  > power off hv3
  18.0  hv3 has no power
  18.0  b ends on hv3
  18.0  c ends on hv3
  18.0  d ends on hv3
  23.1  hv3 has no session with the store any more
  23.1  hv3 is suspected to be off
  23.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  23.1  no VM of hv3 is left to be given away
  23.1  hv3 is in state flushed
  23.1  b is in state start
  23.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv3'; if it is gone for good, remove it ('drover node remove hv3 --confirm-off').
  23.2  c starts on hv1
  23.2  d starts on hv2
  24.2  b starts on hv2
