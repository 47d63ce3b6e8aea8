"""A compressed network in the form another runtime reads."""
