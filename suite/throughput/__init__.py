"""How fast each stage is, beside what it is judged against: `pytest suite/throughput`."""
