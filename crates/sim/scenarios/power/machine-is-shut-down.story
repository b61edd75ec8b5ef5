   0.0  hv1 is the primary
   0.0  a runs on hv3
   0.0  b runs on hv3
  10.0  > shut down node hv3
  10.0  a ends on hv3
  10.0  b ends on hv3
  15.0  > stop daemon hv3
  15.0  hv3 has no session with the store any more
  16.0  > power off hv3
  16.0  hv3 has no power
  60.0  > power on hv3
  60.0  hv3 is switched on
  60.1  hv3 has a session with the store
  60.2  a starts on hv3
  60.2  b starts on hv3
