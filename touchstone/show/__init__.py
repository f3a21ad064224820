"""What the course shows when it looks at its data, for any data: samples, tokens, labels, batches, statistics."""
