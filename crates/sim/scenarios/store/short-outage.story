   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > store down
  13.0  > store up
