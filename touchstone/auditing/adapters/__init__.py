"""Make a subject of a Trainer, of an observed loop, or of plain parts."""
