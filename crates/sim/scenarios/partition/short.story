   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > cut off hv3
  13.0  > reconnect hv3
