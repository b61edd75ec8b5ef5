   0.0  hv1 is the primary
   0.0  db runs on hv2
   0.0  mail runs on hv3
   0.0  web runs on hv1
  10.0  > restart daemon hv1
  10.0  hv1 has no session with the store any more
  10.0  hv2 is the primary
  10.0  the cluster's address is on hv2
  10.3  hv1 has a session with the store
  30.0  > restart daemon hv2
  30.0  hv2 has no session with the store any more
  30.0  hv1 is the primary
  30.0  the cluster's address is on hv1
  30.3  hv2 has a session with the store
  50.0  > restart daemon hv3
  50.0  hv3 has no session with the store any more
  50.1  hv3 has a session with the store
