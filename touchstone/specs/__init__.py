"""What is trained, and what it should end in: specs (TOML), expectations (JSON), verdicts."""
