   0.0  hv1 is the primary
   0.0  db runs on hv3
   0.0  web runs on hv3
  10.0  > guest web crashes
  10.0  web ends on hv3
  11.1  web starts on hv3
  30.0  > guest db powers off
  30.0  db ends on hv3
  30.1  db is in state stop
