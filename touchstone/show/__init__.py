"""Show the data of each task as the model receives it (`touchstone show`)."""
