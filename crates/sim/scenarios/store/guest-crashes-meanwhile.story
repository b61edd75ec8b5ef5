   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > store down
  13.8  nobody has the cluster's address
  16.0  hv1 has no session with the store any more
  16.0  hv2 has no session with the store any more
  16.0  hv3 has no session with the store any more
  20.0  > guest web crashes
  20.0  web ends on hv3
  60.0  > store up
  60.1  hv1 has a session with the store
  60.1  hv2 has a session with the store
  60.1  hv3 has a session with the store
  60.1  the cluster's address is on hv1
  61.1  web starts on hv3
