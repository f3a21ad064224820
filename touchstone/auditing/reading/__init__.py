"""What several probes read: source rows, steps, losses, orders, and predictions with known scores."""
