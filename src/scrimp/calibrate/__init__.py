"""Text → what the inputs of a network's linear layers look like."""
