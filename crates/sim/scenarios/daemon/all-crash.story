   0.0  hv1 is the primary
   0.0  db runs on hv2
   0.0  web runs on hv1
  10.0  > crash daemon hv1 hv2 hv3
  14.4  nobody has the cluster's address
  16.0  hv1 has no session with the store any more
  16.0  hv2 has no session with the store any more
  16.0  hv3 has no session with the store any more
  40.0  > start daemon hv1 hv2 hv3
  40.1  hv1 has a session with the store
  40.1  hv2 has a session with the store
  40.1  hv3 has a session with the store
  40.2  the cluster's address is on hv1
