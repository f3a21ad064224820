"""The faults of the zoo, one module per group; each has a tuple `FAULTS`."""
