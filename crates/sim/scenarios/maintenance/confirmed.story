   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > maintenance on
  20.0  > power off hv3
  20.0  hv3 has no power
  20.0  web ends on hv3
  25.1  hv3 has no session with the store any more
  40.0  > confirm-off hv3
  40.1  hv3 is suspected to be off
  40.1  it is proved that hv3 is off (administrator): an administrator confirmed that the machine is off
  40.1  no VM of hv3 is left to be given away
  40.1  hv3 is in state flushed
  40.1  web starts on hv1
