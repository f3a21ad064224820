"""What goes to disk: records and what they say of the machine."""
