   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > power off hv3
  10.0  hv3 has no power
  10.0  web ends on hv3
  12.0  > power on hv3
  12.0  hv3 is switched on
  15.1  hv3 has no session with the store any more
  15.2  hv3 has a session with the store
  15.3  web starts on hv3
