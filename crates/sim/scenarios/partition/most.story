   0.0  hv1 is the primary
   0.0  db runs on hv5
   0.0  web runs on hv4
  10.0  > cut off hv3 hv4 hv5
  12.5  fault fence-held: 3 of 5 nodes are silent (hv3, hv4, hv5), which is more probably a problem of the network or of this cluster's store than the end of all of them: no further node is fenced by itself until it is over.
  15.1  hv3 has no session with the store any more
  15.1  hv4 has no session with the store any more
  15.1  hv5 has no session with the store any more
  70.0  > reconnect hv3 hv4 hv5
  70.1  hv3 has a session with the store
  70.1  hv4 has a session with the store
  70.1  hv5 has a session with the store
  70.1  fault fence-held is over
