"""Grammar: what a recipe may say, with positions, hints and the schema; no torch."""
