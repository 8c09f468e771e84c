"""Records of runs on disk: one reader and writer, checksums, leases, failures."""
