"""Configuration: one declarative table, layers of TOML, and the last good result."""
