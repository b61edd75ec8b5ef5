   0.0  hv1 is the primary
   0.0  web runs on hv3
  10.0  > confirm-off hv3
  10.1  'confirm-off hv3' is refused: node hv3 is not off: its daemon is in state run. To empty a node that runs, use 'drover node flush hv3'
