   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > store down
  13.8  nobody has the cluster's address
  15.0  > store up
  15.1  the cluster's address is on hv1
