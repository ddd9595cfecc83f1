"""Build, cut, compute and save the network: backbone, weights and head."""
