"""What needs gradients: recovery of a compressed network. Needs torch (``pip install 'scrimp[train]'``)."""
