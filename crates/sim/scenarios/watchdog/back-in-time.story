   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > cut off hv3
  15.1  hv3 has no session with the store any more
  18.1  hv3 is suspected to be off
  18.1  there is no proof that hv3 is off: no BMC is configured for hv3 ([fence] in its configuration file); it has an armed watchdog, which proves it when it has not renewed its promise for 56 s
  18.1  fault node-dead-hv3: Node hv3 is silent, and it is not proved that its machine is off: no BMC is configured for hv3 ([fence] in its configuration file); it has an armed watchdog, which proves it when it has not renewed its promise for 56 s. Its VMs are started on no other node before that. If the machine is off, confirm it: 'drover node fence hv3 --confirm-off'.
  30.1  web ends on hv3
  38.1  hv3 has no power
  45.0  > reconnect hv3
  46.0  > power on hv3
  46.0  hv3 is switched on
  46.1  hv3 has a session with the store
  46.1  hv3 is not suspected any more
  46.1  fault node-dead-hv3 is over
  46.2  web starts on hv3
