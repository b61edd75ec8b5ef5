   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > cut hv3 from network
  60.0  > reconnect hv3
