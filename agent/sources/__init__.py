"""The watches that make wake-ups. They carry no facts, and nothing here reads what was touched."""
