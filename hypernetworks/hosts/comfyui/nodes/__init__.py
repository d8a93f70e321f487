"""One file per node, or per pair of nodes."""
