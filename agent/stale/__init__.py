"""The engine of replaced code: facts in, judgement out. Pure."""
