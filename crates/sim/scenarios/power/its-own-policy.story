   0.0  hv1 is the primary
   0.0  a runs on hv1
   0.0  b runs on hv2
   0.0  c runs on hv3
   5.0  > policy hv3 after-proof none
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  c ends on hv3
  15.1  hv3 has no session with the store any more
  15.1  hv3 is suspected to be off
  15.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  15.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs wait, because they are not to be recovered by themselves ('drover node set hv3 --after-proof recover' changes that). To start them on other nodes, confirm it: 'drover node fence hv3 --confirm-off'.
  40.0  > power on hv3
  40.0  hv3 is switched on
  40.1  hv3 has a session with the store
  40.1  hv3 is back, and its fence is over
  40.1  fault node-dead-hv3 is over
  40.2  c starts on hv3
 110.0  > power off hv2
 110.0  hv2 has no power
 110.0  b ends on hv2
 115.1  hv2 has no session with the store any more
 115.1  hv2 is suspected to be off
 115.1  it is proved that hv2 is off (power): IPMI hv2 reads off
 115.1  no VM of hv2 is left to be given away
 115.1  hv2 is in state flushed
 115.1  fault node-dead-hv2: Node hv2 is off (IPMI hv2 reads off), and its VMs were given to other nodes. When it is back, it takes VMs again after 'drover node ready hv2'; if it is gone for good, remove it ('drover node remove hv2 --confirm-off').
 115.2  b starts on hv1
