   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  there is no proof that hv3 is off: IPMI hv3 refuses the user or the password: correct [fence] in the configuration of hv3
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off: IPMI hv3 refuses the user or the password: correct [fence] in the configuration of hv3. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  60.0  > bmc hv3 ok
  92.1  it is proved that hv3 is off (power): IPMI hv3 reads off
  92.1  no VM of hv3 is left to be given away
  92.1  hv3 is in state flushed
  92.2  web starts on hv1
