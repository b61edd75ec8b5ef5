   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  15.1  hv3 is suspected to be off
  15.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  15.1  fault node-dead-hv3: Node hv3 is off (IPMI hv3 reads off), and its VMs wait, because they are not to be recovered by themselves ('drover config set --after-proof recover' changes that). To start them on other nodes, confirm it: 'drover node fence hv3 --confirm-off'.
  60.0  > confirm-off hv3
  60.1  it is proved that hv3 is off (administrator): an administrator confirmed that the machine is off
  60.1  no VM of hv3 is left to be given away
  60.1  hv3 is in state flushed
  60.1  web starts on hv1
