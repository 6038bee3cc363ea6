"""What is read from the machine, as frozen facts. Nothing here judges, and nothing here writes."""
