   0.0  hv1 is the primary
   0.0  db runs on hv2
   0.0  mail runs on hv3
   0.0  web runs on hv1
  10.0  > power off hv1 hv2 hv3
  10.0  hv1 has no power
  10.0  hv2 has no power
  10.0  hv3 has no power
  10.0  nobody has the cluster's address
  10.0  db ends on hv2
  10.0  mail ends on hv3
  10.0  web ends on hv1
  16.0  hv1 has no session with the store any more
  16.0  hv2 has no session with the store any more
  16.0  hv3 has no session with the store any more
  70.0  > power on hv1 hv2 hv3
  70.0  hv1 is switched on
  70.0  hv2 is switched on
  70.0  hv3 is switched on
  70.1  hv1 has a session with the store
  70.1  hv2 has a session with the store
  70.1  hv3 has a session with the store
  70.2  the cluster's address is on hv1
  70.2  db starts on hv2
  70.2  mail starts on hv3
  70.2  web starts on hv1
