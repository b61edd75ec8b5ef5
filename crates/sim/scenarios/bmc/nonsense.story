   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  there is no proof that hv3 is off: IPMI hv3 gave an answer that cannot be used: Chassis Power is perhaps
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off: IPMI hv3 gave an answer that cannot be used: Chassis Power is perhaps. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
