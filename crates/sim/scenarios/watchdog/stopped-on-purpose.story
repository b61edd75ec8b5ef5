   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > stop daemon hv3
  10.0  hv3 has no session with the store any more
