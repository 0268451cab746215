"""Reading: from data.path, or rows in memory, to checked canonical columns."""
