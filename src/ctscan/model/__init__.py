"""The network: backbone, weights, head, where it is cut, and how it is computed and saved."""
